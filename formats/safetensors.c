#include "formats/safetensors.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH_BYTES = 8 };

// What every worker below needs: the file being filled and where its data lies.
typedef struct reading {
    nyb_safetensors *file;
    const unsigned char *data;
    size_t data_bytes;
    nyb_err *err;
} reading;

bool nyb_tensor_size(nyb_dtype dtype, unsigned rank, const size_t *shape, size_t *bytes)
{
    const nyb_block_size block = nyb_dtype_block(dtype);
    const size_t last = rank > 0 ? shape[rank - 1] : 1;
    size_t size = block.bytes;
    bool fits = size > 0 && last % block.values == 0;
    for (unsigned i = 0; i < rank && fits; i++)
        fits = nyb_mul_size(size, i + 1 < rank ? shape[i] : last / block.values, &size);
    if (fits)
        *bytes = size;
    return fits;
}

nyb_status nyb_tensor_describe(nyb_tensor *out, const char *name, nyb_dtype dtype, unsigned rank,
                               const size_t *shape, nyb_err *err)
{
    *out = (nyb_tensor){.name = name, .dtype = dtype, .rank = rank};
    if (rank > NYB_MAX_RANK)
        return nyb_fail(err, NYB_E_ARG, "'%s': %u axes are more than %d", name, rank, NYB_MAX_RANK);
    for (unsigned i = 0; i < rank; i++)
        out->shape[i] = shape[i];
    if (!nyb_tensor_size(dtype, rank, shape, &out->bytes))
        return nyb_fail(err, NYB_E_ARG, "'%s': its size overflows", name);
    return NYB_OK;
}

const char *nyb_tensor_text(nyb_arena *arena, const nyb_tensor *tensor)
{
    const char *text = nyb_arena_format(arena, "%s [", nyb_dtype_name(tensor->dtype));
    for (unsigned i = 0; i < tensor->rank && text; i++)
        text = nyb_arena_format(arena, "%s%s%zu", text, i ? ", " : "", tensor->shape[i]);
    return text ? nyb_arena_format(arena, "%s]", text) : NULL;
}

// Files that are often found where a safetensors file is expected.
static const struct {
    const char *magic;
    size_t length;
    const char *text;
} strangers[] = {
    {"GGUF", 4, "a GGUF file, not safetensors"},
    {"PK\3\4", 4,
     "a zip or PyTorch pickle file, not safetensors: load it in PyTorch and save "
     "it with safetensors"},
    {"\200\2", 2,
     "a pickle file, not safetensors: load it in PyTorch and save it with "
     "safetensors"},
    {"\211HDF", 4, "an HDF5 file, not safetensors"},
    {"version https://git-lfs", 23,
     "a Git LFS pointer, not the file itself: fetch it with "
     "'git lfs pull'"},
    {"<!DOCTYPE", 9, "a web page, not safetensors: download it again"},
};

static nyb_status check_length(const unsigned char *at, size_t bytes, size_t *header,
                               const char *path, nyb_err *err)
{
    for (size_t i = 0; i < sizeof(strangers) / sizeof(strangers[0]); i++) {
        if (bytes >= strangers[i].length &&
            memcmp(at, strangers[i].magic, strangers[i].length) == 0)
            return nyb_fail(err, NYB_E_FORMAT, "%s: %s", path, strangers[i].text);
    }
    if (bytes < LENGTH_BYTES)
        return nyb_fail(err, NYB_E_FORMAT, "%s: %zu bytes are too few for a safetensors file", path,
                        bytes);

    uint64_t length = 0;
    for (unsigned i = 0; i < LENGTH_BYTES; i++)
        length |= (uint64_t) at[i] << (8 * i);
    if (length > NYB_SAFETENSORS_HEADER_LIMIT)
        return nyb_fail(err, NYB_E_FORMAT, "%s: header of %llu bytes is above the limit of %d",
                        path, (unsigned long long) length, NYB_SAFETENSORS_HEADER_LIMIT);
    if (length > bytes - LENGTH_BYTES)
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: header of %llu bytes does not fit a file of %zu bytes; is it cut off",
                        path, (unsigned long long) length, bytes);
    *header = (size_t) length;
    return NYB_OK;
}

static nyb_status check_metadata(const reading *r, json_t *metadata)
{
    const char *key = NULL;
    json_t *value = NULL;

    if (!json_is_object(metadata))
        return nyb_fail(r->err, NYB_E_FORMAT, "%s: '__metadata__' is not an object", r->file->path);
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value))
            return nyb_fail(r->err, NYB_E_FORMAT, "%s: '__metadata__' entry '%s' is not a string",
                            r->file->path, key);
    }
    r->file->metadata = json_incref(metadata);
    return NYB_OK;
}

// Types of the format that have no place in nyb_dtype.
static bool is_foreign_dtype(const char *word)
{
    static const char *const words[] = {"F4",          "F6_E2M3",     "F6_E3M2",
                                        "F8_E4M3FNUZ", "F8_E5M2FNUZ", "C64"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(words[i], word) == 0)
            return true;
    }
    return false;
}

static nyb_status read_dtype(const reading *r, nyb_tensor *tensor, const json_t *info)
{
    const json_t *const value = json_object_get(info, "dtype");
    const char *const word = json_string_value(value);

    if (!word)
        return nyb_fail(r->err, NYB_E_FORMAT, "%s: tensor '%s' has no dtype", r->file->path,
                        tensor->name);
    if (strlen(word) == json_string_length(value) && nyb_dtype_by_name(word, &tensor->dtype))
        return NYB_OK;
    if (is_foreign_dtype(word))
        return nyb_fail(r->err, NYB_E_UNSUPPORTED,
                        "%s: tensor '%s' is of type %s, which nybble "
                        "does not read",
                        r->file->path, tensor->name, word);
    return nyb_fail(r->err, NYB_E_FORMAT, "%s: tensor '%s' has the unknown dtype '%.40s'",
                    r->file->path, tensor->name, word);
}

// An array of non-negative whole numbers.
static bool read_sizes(const json_t *array, size_t *out, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const json_t *const value = json_array_get(array, i);
        if (!json_is_integer(value) || json_integer_value(value) < 0)
            return false;
        out[i] = (size_t) json_integer_value(value);
    }
    return true;
}

static nyb_status read_shape(const reading *r, nyb_tensor *tensor, const json_t *info)
{
    const json_t *const shape = json_object_get(info, "shape");
    const size_t rank = json_array_size(shape);

    if (!json_is_array(shape))
        return nyb_fail(r->err, NYB_E_FORMAT, "%s: tensor '%s' has no shape", r->file->path,
                        tensor->name);
    if (rank > NYB_MAX_RANK)
        return nyb_fail(r->err, NYB_E_UNSUPPORTED,
                        "%s: tensor '%s' has %zu axes, nybble reads up to %d", r->file->path,
                        tensor->name, rank, NYB_MAX_RANK);
    if (!read_sizes(shape, tensor->shape, rank))
        return nyb_fail(r->err, NYB_E_FORMAT,
                        "%s: the shape of tensor '%s' is not made of whole numbers of 0 or more",
                        r->file->path, tensor->name);
    tensor->rank = (unsigned) rank;
    if (!nyb_tensor_size(tensor->dtype, tensor->rank, tensor->shape, &tensor->bytes))
        return nyb_fail(r->err, NYB_E_FORMAT, "%s: the size of tensor '%s' overflows",
                        r->file->path, tensor->name);
    return NYB_OK;
}

static nyb_status read_offsets(const reading *r, nyb_tensor *tensor, const json_t *info)
{
    const json_t *const offsets = json_object_get(info, "data_offsets");
    size_t ends[2] = {0, 0};

    if (json_array_size(offsets) != 2 || !read_sizes(offsets, ends, 2))
        return nyb_fail(r->err, NYB_E_FORMAT,
                        "%s: data_offsets of tensor '%s' are not two whole numbers", r->file->path,
                        tensor->name);
    if (ends[0] > ends[1] || ends[1] > r->data_bytes)
        return nyb_fail(r->err, NYB_E_FORMAT,
                        "%s: tensor '%s' lies at [%zu, %zu) of %zu data bytes; is the file cut off",
                        r->file->path, tensor->name, ends[0], ends[1], r->data_bytes);
    if (ends[1] - ends[0] != tensor->bytes)
        return nyb_fail(r->err, NYB_E_FORMAT,
                        "%s: tensor '%s' has %zu bytes, its dtype and shape want %zu",
                        r->file->path, tensor->name, ends[1] - ends[0], tensor->bytes);
    tensor->at = r->data + ends[0];
    return NYB_OK;
}

static nyb_status read_tensor(const reading *r, nyb_tensor *tensor, const char *name,
                              const json_t *info)
{
    tensor->name = nyb_arena_text(&r->file->arena, name, strlen(name));
    if (!tensor->name)
        return nyb_no_memory(r->err, "tensor names", strlen(name), 1);
    if (!json_is_object(info))
        return nyb_fail(r->err, NYB_E_FORMAT, "%s: the entry of tensor '%s' is not an object",
                        r->file->path, name);

    nyb_status status = read_dtype(r, tensor, info);
    if (status == NYB_OK)
        status = read_shape(r, tensor, info);
    if (status == NYB_OK)
        status = read_offsets(r, tensor, info);
    return status;
}

static nyb_status read_entries(const reading *r, json_t *header)
{
    nyb_safetensors *const file = r->file;
    const char *name = NULL;
    json_t *value = NULL;
    nyb_status status = NYB_OK;

    file->tensors = nyb_arena_alloc(&file->arena, json_object_size(header), sizeof(nyb_tensor));
    if (!file->tensors)
        return nyb_no_memory(r->err, file->path, json_object_size(header), sizeof(nyb_tensor));
    json_object_foreach(header, name, value)
    {
        if (strcmp(name, "__metadata__") == 0)
            status = check_metadata(r, value);
        else
            status = read_tensor(r, &file->tensors[file->count++], name, value);
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}

// By place, then by size so that empty tensors come before the one that starts there.
static int by_place(const void *a, const void *b)
{
    const nyb_tensor *const x = a, *const y = b;
    if (x->at != y->at)
        return (const unsigned char *) x->at < (const unsigned char *) y->at ? -1 : 1;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

// Tensors in order of place leave no hole, do not overlap, and end at the end of the file.
static nyb_status check_tiling(const reading *r)
{
    const nyb_safetensors *const file = r->file;
    size_t reached = 0;

    for (size_t i = 0; i < file->count; i++) {
        const nyb_tensor *const tensor = &file->tensors[i];
        const size_t begin = (size_t) ((const unsigned char *) tensor->at - r->data);
        if (begin != reached)
            return nyb_fail(
                r->err, NYB_E_FORMAT, "%s: tensor '%s' starts at byte %zu of the data, %s %zu",
                file->path, tensor->name, begin,
                begin > reached ? "after a hole from" : "inside a tensor that ends at", reached);
        reached = begin + tensor->bytes;
    }
    if (reached != r->data_bytes)
        return nyb_fail(r->err, NYB_E_FORMAT, "%s: %zu bytes follow the last tensor", file->path,
                        r->data_bytes - reached);
    return NYB_OK;
}

static nyb_status read_header(const reading *r, const char *text, size_t length)
{
    json_t *header = NULL;
    nyb_status status = nyb_json_parse(&header, text, length, r->file->path, r->err);
    if (status != NYB_OK)
        return status;

    if (json_is_object(header))
        status = read_entries(r, header);
    else
        status =
            nyb_fail(r->err, NYB_E_FORMAT, "%s: the header is not a JSON object", r->file->path);
    json_decref(header);
    if (status != NYB_OK)
        return status;

    if (r->file->count > 1)
        qsort(r->file->tensors, r->file->count, sizeof(nyb_tensor), by_place);
    return check_tiling(r);
}

// Fills a zeroed file; the caller closes it on an error.
static nyb_status parse(nyb_safetensors *file, const unsigned char *at, size_t bytes,
                        const char *name, nyb_err *err)
{
    size_t header = 0;
    const nyb_status status = check_length(at, bytes, &header, name, err);
    if (status != NYB_OK)
        return status;
    file->path = nyb_arena_text(&file->arena, name, strlen(name));
    if (!file->path)
        return nyb_no_memory(err, name, strlen(name), 1);

    const reading r = {.file = file,
                       .data = at + LENGTH_BYTES + header,
                       .data_bytes = bytes - LENGTH_BYTES - header,
                       .err = err};
    return read_header(&r, (const char *) at + LENGTH_BYTES, header);
}

nyb_status nyb_safetensors_parse(nyb_safetensors *out, const void *bytes, size_t length,
                                 const char *name, nyb_err *err)
{
    *out = (nyb_safetensors){0};
    const nyb_status status = parse(out, bytes, length, name, err);
    if (status != NYB_OK)
        nyb_safetensors_close(out);
    return status;
}

nyb_status nyb_safetensors_open(nyb_safetensors *out, const char *path, nyb_err *err)
{
    *out = (nyb_safetensors){0};
    nyb_status status = nyb_map_open(&out->map, path, err);
    if (status == NYB_OK)
        status = parse(out, out->map.at, out->map.bytes, path, err);
    if (status != NYB_OK)
        nyb_safetensors_close(out);
    return status;
}

void nyb_safetensors_close(nyb_safetensors *file)
{
    json_decref(file->metadata);
    nyb_map_close(&file->map);
    nyb_arena_clear(&file->arena);
    *file = (nyb_safetensors){0};
}
