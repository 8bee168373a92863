#include "formats/npy.h"

#include <stdio.h>
#include <string.h>

#include "core/dtype.h"
#include "core/file.h"
#include "formats/safetensors.h"

enum { MAGIC_BYTES = 6, HEADER_ALIGN = 64, HEADER_LIMIT = 1 << 20 };

static const char magic[MAGIC_BYTES + 1] = "\x93NUMPY";

// NumPy's letter for each type; the types without one have none in NumPy.
static const char *const letters[NYB_DTYPE_COUNT] = {
    [NYB_F32] = "f4", [NYB_F16] = "f2", [NYB_F64] = "f8", [NYB_I8] = "i1",
    [NYB_U8] = "u1",  [NYB_I16] = "i2", [NYB_U16] = "u2", [NYB_I32] = "i4",
    [NYB_U32] = "u4", [NYB_I64] = "i8", [NYB_U64] = "u8", [NYB_BOOL] = "b1",
};

// ---- The header: a Python dictionary with three known keys ------------------------------------

typedef struct header {
    const char *at, *end; // what is still to be read
    char descr[8];
    bool fortran;
    unsigned rank;
    size_t shape[NYB_MAX_RANK];
    const char *unsupported; // what the file holds instead of a plain array
} header;

static void skip_space(header *h)
{
    while (h->at < h->end && strchr(" \t\r\n", *h->at) && *h->at)
        h->at++;
}

static bool take(header *h, char wanted)
{
    skip_space(h);
    if (h->at == h->end || *h->at != wanted)
        return false;
    h->at++;
    return true;
}

static bool take_word(header *h, const char *word)
{
    const size_t n = strlen(word);
    skip_space(h);
    if ((size_t) (h->end - h->at) < n || memcmp(h->at, word, n) != 0)
        return false;
    h->at += n;
    return true;
}

// A quoted string without escapes, cut to fit `out`.
static bool take_string(header *h, char *out, size_t size)
{
    skip_space(h);
    if (h->at == h->end || (*h->at != '\'' && *h->at != '"'))
        return false;
    const char quote = *h->at++;
    const char *const start = h->at;
    while (h->at < h->end && *h->at != quote)
        h->at++;
    if (h->at == h->end)
        return false;
    const size_t n = (size_t) (h->at++ - start);
    (void) snprintf(out, size, "%.*s", (int) (n < size ? n : size - 1), start);
    return n < size;
}

static bool take_size(header *h, size_t *out)
{
    skip_space(h);
    const char *const start = h->at;
    size_t value = 0;
    while (h->at < h->end && *h->at >= '0' && *h->at <= '9') {
        if (!nyb_mul_size(value, 10, &value) ||
            !nyb_add_size(value, (size_t) (*h->at - '0'), &value))
            return false;
        h->at++;
    }
    *out = value;
    return h->at > start;
}

static bool take_shape(header *h)
{
    if (!take(h, '('))
        return false;
    h->rank = 0;
    while (!take(h, ')')) {
        size_t size = 0;
        if (!take_size(h, &size))
            return false;
        if (h->rank == NYB_MAX_RANK) {
            h->unsupported = "more than 8 axes";
            return false;
        }
        h->shape[h->rank++] = size;
        if (take(h, ','))
            continue;
        // "(3)" is a number in Python, not a tuple.
        return h->rank > 1 && take(h, ')');
    }
    return true;
}

static bool take_descr(header *h)
{
    skip_space(h);
    if (h->at < h->end && *h->at == '[') {
        h->unsupported = "records";
        return false;
    }
    return take_string(h, h->descr, sizeof(h->descr));
}

// One "key: value". Each of the three sets its bit in *seen.
static bool take_pair(header *h, unsigned *seen)
{
    char key[16];
    if (!take_string(h, key, sizeof(key)) || !take(h, ':'))
        return false;

    unsigned bit = 0;
    bool good = false;
    if (strcmp(key, "descr") == 0) {
        bit = 1;
        good = take_descr(h);
    } else if (strcmp(key, "fortran_order") == 0) {
        bit = 2;
        h->fortran = take_word(h, "True");
        good = h->fortran || take_word(h, "False");
    } else if (strcmp(key, "shape") == 0) {
        bit = 4;
        good = take_shape(h);
    }
    good = good && !(*seen & bit);
    *seen |= bit;
    return good;
}

static bool take_header(header *h)
{
    unsigned seen = 0;
    if (!take(h, '{'))
        return false;
    while (!take(h, '}')) {
        if (!take_pair(h, &seen))
            return false;
        if (take(h, ','))
            continue;
        if (!take(h, '}'))
            return false;
        break;
    }
    skip_space(h);
    return seen == 7 && h->at == h->end;
}

// ---- Reading --------------------------------------------------------------------------------

// Finds the header's text; h->end is where the data starts.
static nyb_status find_header(header *h, const char *at, size_t bytes, const char *name,
                              nyb_err *err)
{
    if (bytes < MAGIC_BYTES + 2 || memcmp(at, magic, MAGIC_BYTES) != 0)
        return nyb_fail(err, NYB_E_FORMAT, "%s: not a NumPy array file (.npy)", name);
    const unsigned char *const u = (const unsigned char *) at;
    const unsigned version = u[MAGIC_BYTES];
    if (version < 1 || version > 3)
        return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: .npy version %u, nybble reads 1 to 3", name,
                        version);

    const size_t field = version == 1 ? 2 : 4, start = MAGIC_BYTES + 2 + field;
    if (bytes < start)
        return nyb_fail(err, NYB_E_FORMAT, "%s: cut off inside its header", name);
    size_t length = 0;
    for (size_t i = 0; i < field; i++)
        length |= (size_t) u[MAGIC_BYTES + 2 + i] << (8 * i);
    if (length > bytes - start || length > HEADER_LIMIT)
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: header of %zu bytes does not fit a file of %zu bytes", name, length,
                        bytes);
    *h = (header){.at = at + start, .end = at + start + length};
    return NYB_OK;
}

static nyb_status find_dtype(nyb_dtype *out, const char *descr, const char *name, nyb_err *err)
{
    for (unsigned i = 0; i < NYB_DTYPE_COUNT; i++) {
        if (!letters[i] || strcmp(letters[i], descr + (descr[0] != '\0')) != 0)
            continue;
        *out = (nyb_dtype) i;
        if (descr[0] == '<' || (descr[0] == '|' && nyb_dtype_bytes(*out) == 1))
            return NYB_OK;
    }
    return nyb_fail(err, NYB_E_UNSUPPORTED,
                    "%s: its elements are '%s', nybble reads little-endian f2 f4 f8, i1 to i8, u1 "
                    "to u8 and b1: save it with astype()",
                    name, descr);
}

static nyb_status read_header(nyb_tensor *out, header *h, const char *name, nyb_err *err)
{
    if (!take_header(h)) {
        if (h->unsupported)
            return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: holds %s, nybble reads plain arrays", name,
                            h->unsupported);
        return nyb_fail(err, NYB_E_FORMAT, "%s: its header is not a NumPy array header", name);
    }
    nyb_dtype dtype = NYB_F32;
    const nyb_status status = find_dtype(&dtype, h->descr, name, err);
    if (status != NYB_OK)
        return status;
    if (h->fortran && h->rank > 1)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: in Fortran order: save it with numpy.ascontiguousarray()", name);

    *out = (nyb_tensor){.name = name, .dtype = dtype, .rank = h->rank};
    memcpy(out->shape, h->shape, sizeof(out->shape));
    if (!nyb_tensor_size(dtype, h->rank, h->shape, &out->bytes))
        return nyb_fail(err, NYB_E_FORMAT, "%s: its shape overflows", name);
    return NYB_OK;
}

nyb_status nyb_npy_parse(nyb_tensor *out, const void *bytes, size_t length, const char *name,
                         nyb_err *err)
{
    header h;
    nyb_tensor tensor = {0};
    *out = (nyb_tensor){0};
    nyb_status status = find_header(&h, bytes, length, name, err);
    if (status != NYB_OK)
        return status;
    const unsigned char *const data = (const unsigned char *) h.end;
    const size_t have = length - (size_t) (data - (const unsigned char *) bytes);
    status = read_header(&tensor, &h, name, err);
    if (status != NYB_OK)
        return status;
    if (tensor.bytes != have)
        return nyb_fail(err, NYB_E_FORMAT, "%s: holds %zu bytes of data, its shape wants %zu", name,
                        have, tensor.bytes);
    tensor.at = data;
    *out = tensor;
    return NYB_OK;
}

typedef struct npy_owner {
    nyb_map map;
    char *path;
} npy_owner;

static void free_owner(npy_owner *owner)
{
    nyb_map_close(&owner->map);
    nyb_free(owner->path);
    nyb_free(owner);
}

static nyb_status open_into(nyb_npy *out, npy_owner *owner, const char *path, nyb_err *err)
{
    owner->path = nyb_strdup(path);
    if (!owner->path)
        return nyb_no_memory(err, path, strlen(path), 1);
    const nyb_status status = nyb_map_open(&owner->map, path, err);
    if (status != NYB_OK)
        return status;
    return nyb_npy_parse(&out->tensor, owner->map.at, owner->map.bytes, owner->path, err);
}

nyb_status nyb_npy_open(nyb_npy *out, const char *path, nyb_err *err)
{
    *out = (nyb_npy){0};
    npy_owner *const owner = nyb_alloc(1, sizeof(*owner));
    if (!owner)
        return nyb_no_memory(err, path, 1, sizeof(*owner));
    const nyb_status status = open_into(out, owner, path, err);
    if (status == NYB_OK)
        out->owner = owner;
    else
        free_owner(owner);
    return status;
}

void nyb_npy_close(nyb_npy *array)
{
    if (array->owner)
        free_owner(array->owner);
    *array = (nyb_npy){0};
}

// ---- Conversion -----------------------------------------------------------------------------

static nyb_status one_integer(int64_t *dst, const unsigned char *at, const nyb_tensor *array,
                              nyb_err *err)
{
    const size_t size = nyb_dtype_bytes(array->dtype);
    uint64_t bits = 0;
    memcpy(&bits, at, size); // little-endian, so the low bytes come first

    const bool is_signed = array->dtype == NYB_I8 || array->dtype == NYB_I16 ||
                           array->dtype == NYB_I32 || array->dtype == NYB_I64;
    const unsigned spare = (unsigned) (64 - 8 * size);
    if (!is_signed && bits > INT64_MAX)
        return nyb_fail(err, NYB_E_FORMAT, "%s: %llu does not fit a signed number", array->name,
                        (unsigned long long) bits);
    *dst = is_signed ? (int64_t) (bits << spare) >> spare : (int64_t) bits;
    return NYB_OK;
}

nyb_status nyb_npy_integers(int64_t *dst, const nyb_tensor *array, size_t first, size_t n,
                            nyb_err *err)
{
    const size_t size = nyb_dtype_bytes(array->dtype);
    switch (array->dtype) {
    case NYB_I8:
    case NYB_I16:
    case NYB_I32:
    case NYB_I64:
    case NYB_U8:
    case NYB_U16:
    case NYB_U32:
    case NYB_U64:
        break;
    default:
        return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: holds %s where integers are needed",
                        array->name, nyb_dtype_name(array->dtype));
    }
    for (size_t i = 0; i < n; i++) {
        const nyb_status status = one_integer(
            &dst[i], (const unsigned char *) array->at + (first + i) * size, array, err);
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}

nyb_status nyb_npy_floats(float *dst, const nyb_tensor *array, size_t first, size_t n, nyb_err *err)
{
    const size_t size = nyb_dtype_bytes(array->dtype);
    const unsigned char *const from = (const unsigned char *) array->at + first * size;
    if (array->dtype == NYB_F32 || array->dtype == NYB_F16) {
        nyb_widen(dst, from, array->dtype, n);
        return NYB_OK;
    }
    if (array->dtype != NYB_F64)
        return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: holds %s where floats are needed", array->name,
                        nyb_dtype_name(array->dtype));
    for (size_t i = 0; i < n; i++) {
        double value = 0;
        memcpy(&value, from + i * size, size);
        dst[i] = (float) value;
    }
    return NYB_OK;
}
