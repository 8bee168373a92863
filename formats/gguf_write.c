#include <stdlib.h>
#include <string.h>

#include "formats/gguf.h"
#include "formats/gguf_types.h"
#include "formats/safetensors.h"

enum { FIXED = 4 + 4 + 8 + 8 }; // magic, version, both counts

static void put(nyb_gguf_head *head, const void *bytes, size_t length)
{
    if (head->full || length == 0)
        return;
    if (length > head->room - head->length) {
        const size_t room = 2 * (head->room + length);
        unsigned char *const at = nyb_arena_alloc(&head->arena, room, 1);
        if (!at) {
            head->full = true;
            return;
        }
        if (head->length > 0)
            memcpy(at, head->at, head->length);
        head->at = at;
        head->room = room;
    }
    memcpy(head->at + head->length, bytes, length);
    head->length += length;
}

static void put_u32(nyb_gguf_head *head, uint32_t value)
{
    put(head, &value, sizeof(value));
}

static void put_u64(nyb_gguf_head *head, uint64_t value)
{
    put(head, &value, sizeof(value));
}

static void put_text(nyb_gguf_head *head, const char *text, size_t length)
{
    put_u64(head, length);
    put(head, text, length);
}

static void put_key(nyb_gguf_head *head, const char *key, nyb_gguf_type type)
{
    static const unsigned char space[FIXED];
    if (head->length == 0) // filled when the counts are known
        put(head, space, sizeof(space));
    put_text(head, key, strlen(key));
    put_u32(head, (uint32_t) type);
    head->keys++;
}

static void put_array(nyb_gguf_head *head, const char *key, nyb_gguf_type type, size_t count)
{
    put_key(head, key, NYB_GGUF_ARRAY);
    put_u32(head, (uint32_t) type);
    put_u64(head, count);
}

void nyb_gguf_add_u32(nyb_gguf_head *head, const char *key, uint32_t value)
{
    put_key(head, key, NYB_GGUF_U32);
    put_u32(head, value);
}

void nyb_gguf_add_f32(nyb_gguf_head *head, const char *key, float value)
{
    put_key(head, key, NYB_GGUF_F32);
    put(head, &value, sizeof(value));
}

void nyb_gguf_add_bool(nyb_gguf_head *head, const char *key, bool value)
{
    const unsigned char byte = value;
    put_key(head, key, NYB_GGUF_BOOL);
    put(head, &byte, 1);
}

void nyb_gguf_add_text(nyb_gguf_head *head, const char *key, const char *text)
{
    put_key(head, key, NYB_GGUF_TEXT);
    put_text(head, text, strlen(text));
}

void nyb_gguf_add_texts(nyb_gguf_head *head, const char *key, const nyb_gguf_text *texts,
                        size_t count)
{
    put_array(head, key, NYB_GGUF_TEXT, count);
    for (size_t i = 0; i < count; i++)
        put_text(head, texts[i].at, texts[i].length);
}

void nyb_gguf_add_i32s(nyb_gguf_head *head, const char *key, const int32_t *values, size_t count)
{
    put_array(head, key, NYB_GGUF_I32, count);
    put(head, values, count * sizeof(*values));
}

void nyb_gguf_add_f32s(nyb_gguf_head *head, const char *key, const float *values, size_t count)
{
    put_array(head, key, NYB_GGUF_F32, count);
    put(head, values, count * sizeof(*values));
}

void nyb_gguf_add_value(nyb_gguf_head *head, const nyb_gguf_value *value)
{
    if (value->is_array)
        put_array(head, value->key, value->type, value->count);
    else
        put_key(head, value->key, value->type);
    if (value->type != NYB_GGUF_TEXT)
        put(head, value->at, value->count * nyb_gguf_width(value->type));
    for (size_t i = 0; value->type == NYB_GGUF_TEXT && i < value->count; i++)
        put_text(head, value->texts[i].at, value->texts[i].length);
}

void nyb_gguf_head_clear(nyb_gguf_head *head)
{
    nyb_arena_clear(&head->arena);
    *head = (nyb_gguf_head){0};
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *) a, *(const char *const *) b);
}

static nyb_status check_names(nyb_gguf_head *head, const char *const *names, size_t count,
                              nyb_err *err)
{
    const char **const sorted = nyb_arena_alloc(&head->arena, count, sizeof(*sorted));
    if (!sorted)
        return nyb_no_memory(err, "tensor names", count, sizeof(*sorted));
    for (size_t i = 0; i < count; i++) {
        const size_t length = strlen(names[i]);
        if (length == 0 || length > NYB_GGUF_NAME_MOST)
            return nyb_fail(err, NYB_E_ARG, "the tensor name '%.100s' has %zu bytes, want 1 to %d",
                            names[i], length, NYB_GGUF_NAME_MOST);
        sorted[i] = names[i];
    }
    if (count > 1)
        qsort(sorted, count, sizeof(*sorted), by_name);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(sorted[i - 1], sorted[i]) == 0)
            return nyb_fail(err, NYB_E_ARG, "the tensor name '%s' is used twice", sorted[i]);
    }
    return NYB_OK;
}

static nyb_status put_tensor(nyb_gguf_head *head, const nyb_tensor *tensor, const char *name,
                             size_t *reached, nyb_err *err)
{
    const int type = nyb_gguf_type_of(tensor->dtype);
    size_t bytes = 0;
    if (type < 0 || tensor->rank > NYB_GGUF_RANK)
        return nyb_fail(err, NYB_E_UNSUPPORTED, "GGUF cannot hold tensor '%s': %s with %u axes",
                        name, nyb_dtype_name(tensor->dtype), tensor->rank);
    if (!nyb_tensor_size(tensor->dtype, tensor->rank, tensor->shape, &bytes))
        return nyb_fail(err, NYB_E_ARG, "rows of tensor '%s' are no whole blocks of %s", name,
                        nyb_dtype_name(tensor->dtype));
    put_text(head, name, strlen(name));
    put_u32(head, tensor->rank);
    for (unsigned i = 0; i < tensor->rank; i++)
        put_u64(head, tensor->shape[tensor->rank - 1 - i]);
    put_u32(head, (uint32_t) type);
    put_u64(head, *reached);
    *reached += (bytes + NYB_GGUF_ALIGNMENT - 1) / NYB_GGUF_ALIGNMENT * NYB_GGUF_ALIGNMENT;
    return NYB_OK;
}

static void put_counts(unsigned char *at, uint64_t tensors, uint64_t keys)
{
    const uint32_t version = 3;
    const uint64_t counts[2] = {tensors, keys};
    memcpy(at, "GGUF", 4);
    memcpy(at + 4, &version, sizeof(version));
    memcpy(at + 8, counts, sizeof(counts));
}

nyb_status nyb_gguf_head_bytes(nyb_gguf_head *head, const void **bytes, size_t *length,
                               nyb_err *err)
{
    if (head->full || head->length < FIXED)
        return nyb_no_memory(err, "the head of a GGUF file", head->room, 2);
    put_counts(head->at, 0, head->keys);
    *bytes = head->at;
    *length = head->length;
    return NYB_OK;
}

nyb_status nyb_gguf_finish(nyb_gguf_head *head, const nyb_tensor *tensors, const char *const *names,
                           size_t count, size_t *offsets, size_t *end, nyb_err *err)
{
    static const unsigned char zeros[NYB_GGUF_ALIGNMENT];
    size_t reached = 0;
    nyb_status status = check_names(head, names, count, err);
    for (size_t i = 0; i < count && status == NYB_OK; i++) {
        offsets[i] = reached;
        status = put_tensor(head, &tensors[i], names[i], &reached, err);
    }
    if (status != NYB_OK)
        return status;
    put(head, zeros, (NYB_GGUF_ALIGNMENT - head->length % NYB_GGUF_ALIGNMENT) % NYB_GGUF_ALIGNMENT);
    if (head->full || head->length < FIXED)
        return nyb_no_memory(err, "the head of a GGUF file", head->room, 2);

    put_counts(head->at, count, head->keys);
    for (size_t i = 0; i < count; i++)
        offsets[i] += head->length;
    *end = head->length + reached;
    return NYB_OK;
}
