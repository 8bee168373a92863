#include <stdlib.h>
#include <string.h>

#include "formats/safetensors.h"

enum { LENGTH_BYTES = 8, HEADER_ALIGN = 8 };

// The reference writer's order of types: large elements first, so that every tensor is aligned.
static const unsigned char dtype_order[NYB_DTYPE_COUNT] = {
    [NYB_U64] = 0,      [NYB_I64] = 1, [NYB_F64] = 2,      [NYB_F32] = 3,
    [NYB_U32] = 4,      [NYB_I32] = 5, [NYB_BF16] = 6,     [NYB_F16] = 7,
    [NYB_U16] = 8,      [NYB_I16] = 9, [NYB_F8_E8M0] = 10, [NYB_F8_E4M3] = 11,
    [NYB_F8_E5M2] = 12, [NYB_I8] = 13, [NYB_U8] = 14,      [NYB_BOOL] = 15,
};

// qsort's comparison sees no context, so an entry carries what is compared.
typedef struct entry {
    unsigned order;
    const char *name;
    size_t index;
} entry;

static int by_order(const void *a, const void *b)
{
    const entry *const x = a, *const y = b;
    if (x->order != y->order)
        return x->order < y->order ? -1 : 1;
    return strcmp(x->name, y->name);
}

nyb_status nyb_safetensors_sort(size_t *order, const nyb_tensor *tensors, size_t count,
                                nyb_err *err)
{
    entry *const entries = nyb_alloc(count, sizeof(*entries));
    if (!entries)
        return nyb_no_memory(err, "tensor names", count, sizeof(*entries));

    for (size_t i = 0; i < count; i++) {
        const nyb_tensor *const tensor = &tensors[order[i]];
        entries[i] = (entry){dtype_order[tensor->dtype], tensor->name, order[i]};
    }
    if (count > 1)
        qsort(entries, count, sizeof(*entries), by_order);
    for (size_t i = 0; i < count; i++)
        order[i] = entries[i].index;
    nyb_free(entries);
    return NYB_OK;
}

static json_t *describe(const nyb_tensor *tensor, size_t begin, size_t end)
{
    json_t *const shape = json_array();
    for (unsigned i = 0; i < tensor->rank; i++)
        (void) json_array_append_new(shape, json_integer((json_int_t) tensor->shape[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", nyb_dtype_name(tensor->dtype), "shape", shape,
                     "data_offsets", (json_int_t) begin, (json_int_t) end);
}

static nyb_status add_tensors(json_t *header, const nyb_tensor *tensors, const size_t *order,
                              size_t count, nyb_err *err)
{
    size_t begin = 0, end = 0;
    for (size_t i = 0; i < count; i++, begin = end) {
        const nyb_tensor *const tensor = &tensors[order[i]];
        if (tensor->name[0] == '\0' || json_object_get(header, tensor->name))
            return nyb_fail(err, NYB_E_ARG, "the tensor name '%s' is %s", tensor->name,
                            tensor->name[0] ? "used twice or reserved" : "empty");
        if (!nyb_add_size(begin, tensor->bytes, &end) || end > INT64_MAX)
            return nyb_fail(err, NYB_E_ARG, "the tensors' sizes overflow at '%s'", tensor->name);

        json_t *const info = describe(tensor, begin, end);
        if (!info)
            return nyb_no_memory(err, "a file header", count, sizeof(*tensor));
        if (json_object_set_new(header, tensor->name, info) != 0)
            return nyb_fail(err, NYB_E_ARG, "the tensor name '%s' is not UTF-8", tensor->name);
    }
    return NYB_OK;
}

static nyb_status put_text(const char **bytes, size_t *length, nyb_arena *arena, const char *text,
                           nyb_err *err)
{
    const size_t used = strlen(text);
    const size_t padded = (used + HEADER_ALIGN - 1) / HEADER_ALIGN * HEADER_ALIGN;
    if (padded > NYB_SAFETENSORS_HEADER_LIMIT)
        return nyb_fail(err, NYB_E_SHAPE,
                        "a header of %zu bytes is above the format's limit of %d: write more files",
                        padded, NYB_SAFETENSORS_HEADER_LIMIT);

    char *const at = nyb_arena_alloc(arena, LENGTH_BYTES + padded, 1);
    if (!at)
        return nyb_no_memory(err, "a file header", padded, 1);
    for (unsigned i = 0; i < LENGTH_BYTES; i++)
        at[i] = (char) (padded >> (8 * i) & 0xff);
    memcpy(at + LENGTH_BYTES, text, used);
    memset(at + LENGTH_BYTES + used, ' ', padded - used);
    *bytes = at;
    *length = LENGTH_BYTES + padded;
    return NYB_OK;
}

nyb_status nyb_safetensors_header(const char **bytes, size_t *length, nyb_arena *arena,
                                  const nyb_tensor *tensors, const size_t *order, size_t count,
                                  nyb_err *err)
{
    json_t *const header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    if (!header)
        return nyb_no_memory(err, "a file header", count, sizeof(*tensors));

    nyb_status status = add_tensors(header, tensors, order, count, err);
    char *const text = status == NYB_OK ? json_dumps(header, JSON_COMPACT) : NULL;
    if (status == NYB_OK && !text)
        status = nyb_no_memory(err, "a file header", count, sizeof(*tensors));
    if (status == NYB_OK)
        status = put_text(bytes, length, arena, text, err);
    free(text);
    json_decref(header);
    return status;
}
