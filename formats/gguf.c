#include "formats/gguf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "formats/gguf_types.h"
#include "formats/safetensors.h"

// The least bytes that a key with its value, and a tensor's description, can take.
enum { LEAST_VALUE = 8 + 1 + 4 + 1, LEAST_TENSOR = 8 + 1 + 4 + 4 + 8, KEY_MOST = 65535 };

// Bytes of an element of each type; 0 where it varies.
static const unsigned char widths[NYB_GGUF_TYPES] = {
    [NYB_GGUF_U8] = 1,  [NYB_GGUF_I8] = 1,  [NYB_GGUF_U16] = 2, [NYB_GGUF_I16] = 2,
    [NYB_GGUF_U32] = 4, [NYB_GGUF_I32] = 4, [NYB_GGUF_F32] = 4, [NYB_GGUF_BOOL] = 1,
    [NYB_GGUF_U64] = 8, [NYB_GGUF_I64] = 8, [NYB_GGUF_F64] = 8,
};

// What is still to be read of the file's head.
typedef struct cursor {
    const unsigned char *start, *at;
    size_t left;
    nyb_gguf *file;
    nyb_err *err;
} cursor;

static nyb_status cut_off(const cursor *c, const char *what)
{
    return nyb_fail(c->err, NYB_E_FORMAT, "%s: the file ends within %s at byte %zu", c->file->path,
                    what, (size_t) (c->at - c->start));
}

static bool take(cursor *c, void *out, size_t bytes)
{
    if (c->left < bytes)
        return false;
    memcpy(out, c->at, bytes);
    c->at += bytes;
    c->left -= bytes;
    return true;
}

static bool take_text(cursor *c, nyb_gguf_text *out)
{
    uint64_t length;
    if (!take(c, &length, sizeof(length)) || length > c->left)
        return false;
    *out = (nyb_gguf_text){.at = (const char *) c->at, .length = (size_t) length};
    c->at += length;
    c->left -= (size_t) length;
    return true;
}

// A name for humans and machines: not empty, at most `most` bytes, printable ASCII or more.
static nyb_status take_name(cursor *c, const char **out, size_t most, const char *what)
{
    nyb_gguf_text text;
    if (!take_text(c, &text))
        return cut_off(c, what);
    if (text.length == 0 || text.length > most)
        return nyb_fail(c->err, NYB_E_FORMAT, "%s: %s of %zu bytes, want 1 to %zu", c->file->path,
                        what, text.length, most);
    for (size_t i = 0; i < text.length; i++) {
        if ((unsigned char) text.at[i] < 0x20)
            return nyb_fail(c->err, NYB_E_FORMAT, "%s: %s holds the control character %d",
                            c->file->path, what, text.at[i]);
    }
    json_t *const checked = json_stringn(text.at, text.length); // NULL: not UTF-8
    json_decref(checked);
    if (!checked)
        return nyb_fail(c->err, NYB_E_FORMAT, "%s: %s at byte %zu is not UTF-8", c->file->path,
                        what, (size_t) (c->at - c->start) - text.length);
    *out = nyb_arena_text(&c->file->arena, text.at, text.length);
    return *out ? NYB_OK : nyb_no_memory(c->err, what, text.length, 1);
}

// ---- Metadata -------------------------------------------------------------------------------

static nyb_status take_texts(cursor *c, nyb_gguf_value *value)
{
    if (value->count > c->left / sizeof(uint64_t))
        return cut_off(c, "an array of strings");
    nyb_gguf_text *const texts =
        nyb_arena_alloc(&c->file->arena, value->count, sizeof(*value->texts));
    if (!texts)
        return nyb_no_memory(c->err, value->key, value->count, sizeof(*value->texts));
    for (size_t i = 0; i < value->count; i++) {
        if (!take_text(c, &texts[i]))
            return cut_off(c, value->key);
    }
    value->texts = texts;
    return NYB_OK;
}

static nyb_status take_numbers(cursor *c, nyb_gguf_value *value)
{
    const size_t width = widths[value->type];
    if (value->count > c->left / width)
        return cut_off(c, value->key);
    value->at = c->at;
    c->at += value->count * width;
    c->left -= value->count * width;
    for (size_t i = 0; value->type == NYB_GGUF_BOOL && i < value->count; i++) {
        if (value->at[i] > 1)
            return nyb_fail(c->err, NYB_E_FORMAT, "%s: '%s' holds %u where a bool is 0 or 1",
                            c->file->path, value->key, value->at[i]);
    }
    return NYB_OK;
}

static nyb_status take_type(cursor *c, nyb_gguf_type *out, const char *key)
{
    uint32_t type;
    if (!take(c, &type, sizeof(type)))
        return cut_off(c, key);
    if (type >= NYB_GGUF_TYPES)
        return nyb_fail(c->err, NYB_E_FORMAT, "%s: '%s' is of type %u, which does not exist",
                        c->file->path, key, type);
    *out = (nyb_gguf_type) type;
    return NYB_OK;
}

static nyb_status take_value(cursor *c, nyb_gguf_value *value)
{
    nyb_status status = take_name(c, &value->key, KEY_MOST, "a key");
    if (status == NYB_OK)
        status = take_type(c, &value->type, value->key);
    if (status != NYB_OK)
        return status;
    value->count = 1;
    value->is_array = value->type == NYB_GGUF_ARRAY;
    if (value->is_array) {
        uint64_t count;
        status = take_type(c, &value->type, value->key);
        if (status != NYB_OK)
            return status;
        if (value->type == NYB_GGUF_ARRAY)
            return nyb_fail(c->err, NYB_E_UNSUPPORTED,
                            "%s: '%s' is an array of arrays, which is not supported", c->file->path,
                            value->key);
        if (!take(c, &count, sizeof(count)))
            return cut_off(c, value->key);
        value->count = (size_t) count;
    }
    return value->type == NYB_GGUF_TEXT ? take_texts(c, value) : take_numbers(c, value);
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const nyb_gguf_value *) a)->key, ((const nyb_gguf_value *) b)->key);
}

static nyb_status take_values(cursor *c, uint64_t count)
{
    nyb_gguf *const file = c->file;
    if (count > c->left / LEAST_VALUE)
        return nyb_fail(c->err, NYB_E_FORMAT, "%s: %llu keys do not fit into the file", file->path,
                        (unsigned long long) count);
    file->values = nyb_arena_alloc(&file->arena, (size_t) count, sizeof(*file->values));
    if (!file->values)
        return nyb_no_memory(c->err, "metadata", (size_t) count, sizeof(*file->values));
    for (; file->value_count < count; file->value_count++) {
        const nyb_status status = take_value(c, &file->values[file->value_count]);
        if (status != NYB_OK)
            return status;
    }
    if (count > 1)
        qsort(file->values, (size_t) count, sizeof(*file->values), by_key);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(file->values[i - 1].key, file->values[i].key) == 0)
            return nyb_fail(c->err, NYB_E_FORMAT, "%s: the key '%s' is there twice", file->path,
                            file->values[i].key);
    }
    return NYB_OK;
}

// ---- Tensors --------------------------------------------------------------------------------

static nyb_status take_shape(cursor *c, nyb_tensor *tensor)
{
    uint32_t rank;
    if (!take(c, &rank, sizeof(rank)))
        return cut_off(c, tensor->name);
    if (rank > NYB_GGUF_RANK)
        return nyb_fail(c->err, NYB_E_FORMAT, "%s: tensor '%s' has %u axes, at most %d are allowed",
                        c->file->path, tensor->name, rank, NYB_GGUF_RANK);
    tensor->rank = rank;
    for (uint32_t i = 0; i < rank; i++) {
        uint64_t size;
        if (!take(c, &size, sizeof(size)))
            return cut_off(c, tensor->name);
        if (size > INT64_MAX)
            return nyb_fail(c->err, NYB_E_FORMAT, "%s: tensor '%s' has an axis of %lld",
                            c->file->path, tensor->name, (long long) size);
        tensor->shape[rank - 1 - i] = (size_t) size;
    }
    return NYB_OK;
}

static nyb_status take_dtype(cursor *c, nyb_tensor *tensor)
{
    uint32_t type;
    if (!take(c, &type, sizeof(type)))
        return cut_off(c, tensor->name);
    const char *name = NULL;
    const int dtype = nyb_gguf_dtype_of(type, &name);
    if (dtype < 0 && !name)
        return nyb_fail(c->err, NYB_E_FORMAT, "%s: tensor '%s' is of type %u, which does not exist",
                        c->file->path, tensor->name, type);
    if (dtype < 0)
        return nyb_fail(c->err, NYB_E_UNSUPPORTED,
                        "%s: tensor '%s' is %s, which is not supported; supported are F32, F16, "
                        "BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K, IQ4_NL and MXFP4",
                        c->file->path, tensor->name, name);
    tensor->dtype = (nyb_dtype) dtype;
    const size_t values = nyb_dtype_block(tensor->dtype).values;
    const size_t row = tensor->rank ? tensor->shape[tensor->rank - 1] : 1;
    if (row % values != 0)
        return nyb_fail(c->err, NYB_E_FORMAT,
                        "%s: tensor '%s' has rows of %zu, no multiple of %s's blocks of %zu",
                        c->file->path, tensor->name, row, nyb_dtype_name(tensor->dtype), values);
    if (!nyb_tensor_size(tensor->dtype, tensor->rank, tensor->shape, &tensor->bytes))
        return nyb_fail(c->err, NYB_E_FORMAT, "%s: the size of tensor '%s' overflows",
                        c->file->path, tensor->name);
    return NYB_OK;
}

// Tensors lie in the order of their descriptions, each at the next aligned byte.
static nyb_status take_tensor(cursor *c, nyb_tensor *tensor, size_t alignment, size_t *reached)
{
    nyb_status status = take_name(c, &tensor->name, NYB_GGUF_NAME_MOST, "a tensor's name");
    if (status == NYB_OK)
        status = take_shape(c, tensor);
    if (status == NYB_OK)
        status = take_dtype(c, tensor);
    if (status != NYB_OK)
        return status;
    uint64_t offset;
    if (!take(c, &offset, sizeof(offset)))
        return cut_off(c, tensor->name);
    if (offset != *reached)
        return nyb_fail(c->err, NYB_E_FORMAT,
                        "%s: tensor '%s' starts at byte %llu of the data, the tensors before it "
                        "end at %zu",
                        c->file->path, tensor->name, (unsigned long long) offset, *reached);
    size_t padded;
    if (!nyb_add_size(tensor->bytes, alignment - 1, &padded) ||
        !nyb_add_size(*reached, padded / alignment * alignment, reached))
        return nyb_fail(c->err, NYB_E_FORMAT, "%s: the tensors' sizes overflow at '%s'",
                        c->file->path, tensor->name);
    return NYB_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *) a, *(const char *const *) b);
}

static nyb_status check_names(cursor *c)
{
    const nyb_gguf *const file = c->file;
    const nyb_arena_mark mark = nyb_arena_here(&file->arena);
    const char **const names = nyb_arena_alloc(&c->file->arena, file->count, sizeof(*names));
    nyb_status status = NYB_OK;
    if (!names)
        return nyb_no_memory(c->err, "tensor names", file->count, sizeof(*names));
    for (size_t i = 0; i < file->count; i++)
        names[i] = file->tensors[i].name;
    if (file->count > 1)
        qsort(names, file->count, sizeof(*names), by_name);
    for (size_t i = 1; i < file->count && status == NYB_OK; i++) {
        if (strcmp(names[i - 1], names[i]) == 0)
            status = nyb_fail(c->err, NYB_E_FORMAT, "%s: tensor '%s' is there twice", file->path,
                              names[i]);
    }
    nyb_arena_rewind(&c->file->arena, mark);
    return status;
}

static nyb_status take_tensors(cursor *c, uint64_t count, size_t alignment)
{
    nyb_gguf *const file = c->file;
    size_t reached = 0;
    if (count > c->left / LEAST_TENSOR)
        return nyb_fail(c->err, NYB_E_FORMAT, "%s: %llu tensors do not fit into the file",
                        file->path, (unsigned long long) count);
    file->tensors = nyb_arena_alloc(&file->arena, (size_t) count, sizeof(*file->tensors));
    if (!file->tensors)
        return nyb_no_memory(c->err, "tensors", (size_t) count, sizeof(*file->tensors));
    for (; file->count < count; file->count++) {
        const nyb_status status = take_tensor(c, &file->tensors[file->count], alignment, &reached);
        if (status != NYB_OK)
            return status;
    }
    const nyb_status status = check_names(c);
    if (status != NYB_OK || count == 0)
        return status;

    const size_t head = (size_t) (c->at - c->start), whole = head + c->left;
    const size_t pad = (alignment - head % alignment) % alignment;
    size_t at = head + pad; // whole and alignment are far from overflow
    for (size_t i = 0; i < file->count; i++) {
        nyb_tensor *const tensor = &file->tensors[i];
        if (at > whole || tensor->bytes > whole - at)
            return nyb_fail(c->err, NYB_E_FORMAT,
                            "%s: tensor '%s' ends behind the file's %zu bytes: the file is cut off",
                            file->path, tensor->name, whole);
        tensor->at = c->start + at;
        at += (tensor->bytes + alignment - 1) / alignment * alignment;
    }
    return NYB_OK;
}

// ---- The whole file -------------------------------------------------------------------------

static nyb_status take_version(cursor *c)
{
    uint32_t version;
    char magic[4];
    if (!take(c, magic, sizeof(magic)) || memcmp(magic, "GGUF", sizeof(magic)) != 0)
        return nyb_fail(c->err, NYB_E_FORMAT, "%s: not a GGUF file", c->file->path);
    if (!take(c, &version, sizeof(version)))
        return cut_off(c, "the version");
    if (version > 0 && (version & 0xffff) == 0)
        return nyb_fail(c->err, NYB_E_UNSUPPORTED,
                        "%s: a big-endian GGUF file; convert it with gguf-py's "
                        "gguf_convert_endian.py",
                        c->file->path);
    if (version != 2 && version != 3)
        return nyb_fail(c->err, version == 1 ? NYB_E_UNSUPPORTED : NYB_E_FORMAT,
                        "%s: GGUF version %u, supported are 2 and 3", c->file->path, version);
    c->file->version = version;
    return NYB_OK;
}

static nyb_status take_alignment(cursor *c, size_t *out)
{
    const nyb_gguf_value *const value = nyb_gguf_find(c->file, "general.alignment");
    *out = NYB_GGUF_ALIGNMENT;
    if (!value)
        return NYB_OK;
    const int64_t n = nyb_gguf_integer(value, 0);
    if (value->type != NYB_GGUF_U32 || value->is_array || n == 0 || (n & (n - 1)) != 0)
        return nyb_fail(c->err, NYB_E_FORMAT,
                        "%s: 'general.alignment' is %lld, want a power of two as u32",
                        c->file->path, (long long) n);
    *out = (size_t) n;
    return NYB_OK;
}

static nyb_status parse(nyb_gguf *file, const unsigned char *at, size_t length, const char *name,
                        nyb_err *err)
{
    cursor c = {.start = at, .at = at, .left = length, .file = file, .err = err};
    uint64_t counts[2]; // tensors, keys
    size_t alignment = 0;
    file->path = nyb_arena_text(&file->arena, name, strlen(name));
    if (!file->path)
        return nyb_no_memory(err, name, strlen(name), 1);
    nyb_status status = take_version(&c);
    if (status != NYB_OK)
        return status;
    if (!take(&c, counts, sizeof(counts)))
        return cut_off(&c, "the counts");
    status = take_values(&c, counts[1]);
    if (status == NYB_OK)
        status = take_alignment(&c, &alignment);
    return status == NYB_OK ? take_tensors(&c, counts[0], alignment) : status;
}

nyb_status nyb_gguf_parse(nyb_gguf *out, const void *bytes, size_t length, const char *name,
                          nyb_err *err)
{
    *out = (nyb_gguf){0};
    const nyb_status status = parse(out, bytes, length, name, err);
    if (status != NYB_OK)
        nyb_gguf_close(out);
    return status;
}

nyb_status nyb_gguf_open(nyb_gguf *out, const char *path, nyb_err *err)
{
    *out = (nyb_gguf){0};
    nyb_status status = nyb_map_open(&out->map, path, err);
    if (status == NYB_OK)
        status = parse(out, out->map.at, out->map.bytes, path, err);
    if (status != NYB_OK)
        nyb_gguf_close(out);
    return status;
}

void nyb_gguf_close(nyb_gguf *file)
{
    nyb_map_close(&file->map);
    nyb_arena_clear(&file->arena);
    *file = (nyb_gguf){0};
}

bool nyb_gguf_named(const char *path)
{
    nyb_map map;
    if (nyb_path_is_folder(path) || nyb_map_open(&map, path, NULL) != NYB_OK)
        return false;
    const bool found = map.bytes >= 4 && memcmp(map.at, "GGUF", 4) == 0;
    nyb_map_close(&map);
    return found;
}

// ---- Values ---------------------------------------------------------------------------------

const nyb_gguf_value *nyb_gguf_find(const nyb_gguf *file, const char *key)
{
    const nyb_gguf_value wanted = {.key = key};
    if (file->value_count == 0)
        return NULL;
    return bsearch(&wanted, file->values, file->value_count, sizeof(wanted), by_key);
}

bool nyb_gguf_is_integer(const nyb_gguf_value *value)
{
    return value->type != NYB_GGUF_F32 && value->type != NYB_GGUF_F64 &&
           value->type != NYB_GGUF_BOOL && value->type != NYB_GGUF_TEXT;
}

int64_t nyb_gguf_integer(const nyb_gguf_value *value, size_t index)
{
    const size_t width = widths[value->type];
    const bool is_signed = value->type == NYB_GGUF_I8 || value->type == NYB_GGUF_I16 ||
                           value->type == NYB_GGUF_I32 || value->type == NYB_GGUF_I64;
    uint64_t bits = 0;
    if (value->type == NYB_GGUF_TEXT)
        return 0;
    if (value->type == NYB_GGUF_F32 || value->type == NYB_GGUF_F64) {
        const double x = nyb_gguf_number(value, index);
        return fabs(x) < 0x1p62 ? (int64_t) x : 0;
    }
    memcpy(&bits, value->at + index * width, width);
    const unsigned unused = 64 - 8 * (unsigned) width;
    return is_signed ? (int64_t) (bits << unused) >> unused : (int64_t) bits;
}

double nyb_gguf_number(const nyb_gguf_value *value, size_t index)
{
    if (value->type == NYB_GGUF_F32) {
        float x;
        memcpy(&x, value->at + index * sizeof(x), sizeof(x));
        return (double) x;
    }
    if (value->type == NYB_GGUF_F64) {
        double x;
        memcpy(&x, value->at + index * sizeof(x), sizeof(x));
        return x;
    }
    return (double) nyb_gguf_integer(value, index);
}

static nyb_status wrong_kind(const nyb_gguf *file, const char *key, const char *want, nyb_err *err)
{
    return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' is not %s", file->path, key, want);
}

nyb_status nyb_gguf_size(const nyb_gguf *file, const char *key, size_t *out, nyb_err *err)
{
    const nyb_gguf_value *const v = nyb_gguf_find(file, key);
    if (!v)
        return NYB_OK;
    if (v->is_array || !nyb_gguf_is_integer(v) || nyb_gguf_integer(v, 0) < 0)
        return wrong_kind(file, key, "an integer of 0 or more", err);
    *out = (size_t) nyb_gguf_integer(v, 0);
    return NYB_OK;
}

nyb_status nyb_gguf_real(const nyb_gguf *file, const char *key, double *out, nyb_err *err)
{
    const nyb_gguf_value *const v = nyb_gguf_find(file, key);
    if (!v)
        return NYB_OK;
    if (v->is_array || v->type == NYB_GGUF_TEXT || v->type == NYB_GGUF_BOOL)
        return wrong_kind(file, key, "a number", err);
    *out = nyb_gguf_number(v, 0);
    return NYB_OK;
}

nyb_status nyb_gguf_bool(const nyb_gguf *file, const char *key, bool *out, nyb_err *err)
{
    const nyb_gguf_value *const v = nyb_gguf_find(file, key);
    if (!v)
        return NYB_OK;
    if (v->is_array || v->type != NYB_GGUF_BOOL)
        return wrong_kind(file, key, "a bool", err);
    *out = v->at[0] != 0;
    return NYB_OK;
}

nyb_status nyb_gguf_string(const nyb_gguf *file, const char *key, nyb_gguf_text *out, nyb_err *err)
{
    const nyb_gguf_value *const v = nyb_gguf_find(file, key);
    if (!v)
        return NYB_OK;
    if (v->is_array || v->type != NYB_GGUF_TEXT)
        return wrong_kind(file, key, "a string", err);
    *out = v->texts[0];
    return NYB_OK;
}

size_t nyb_gguf_width(nyb_gguf_type type)
{
    return widths[type];
}
