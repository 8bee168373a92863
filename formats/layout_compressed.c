// compressed-tensors, format "pack-quantized": rows stay rows, codes are packed along the input
// axis.
//
//   weight_packed     [rows, cols * bits / 32]   I32  codes
//   weight_scale      [rows, groups]             the model's type
//   weight_shape      [2]                        I64  rows, cols
//   weight_zero_point [rows * bits / 32, groups] I32  only when asymmetric; packed along the rows
//
// The format's own codes and zero points are signed and stored with 2^(bits - 1) added: what is
// stored is exactly the unsigned code.
#include <string.h>

#include "core/dtype.h"
#include "formats/layout_parts.h"
#include "formats/safetensors.h"
#include "kernels/pack.h"

enum { PACKED, SCALE, SHAPE, ZERO_POINT, TENSORS };

static const char *const suffixes[TENSORS] = {"weight_packed", "weight_scale", "weight_shape",
                                              "weight_zero_point"};

static nyb_status check(const nyb_layout_spec *spec, const char *module, nyb_err *err)
{
    const nyb_status status = nyb_layout_check_spec(spec, module, err);
    if (status != NYB_OK)
        return status;
    if (spec->kind != NYB_CODE_INT || spec->scale_rows)
        return nyb_fail(err, NYB_E_UNSUPPORTED, "'%s': only whole numbers can be packed", module);
    const nyb_status whole = nyb_layout_check_whole_groups(spec, module, err);
    if (whole != NYB_OK)
        return whole;
    // One word of zero points a group: the package (0.20) fails to take its bytes apart.
    if (!spec->symmetric && spec->bits == 4 && spec->rows <= 8 && nyb_layout_groups(spec) > 1)
        return nyb_fail(
            err, NYB_E_UNSUPPORTED,
            "'%s': compressed-tensors fails to read 4-bit zero points of %zu outputs in "
            "groups; use --symmetric or --group-size -1, or leave this layer out",
            module, spec->rows);
    return NYB_OK;
}

static nyb_status tensors(nyb_tensor out[NYB_LAYOUT_TENSORS], size_t *count,
                          const nyb_layout_spec *spec, const char *module, nyb_arena *arena,
                          nyb_err *err)
{
    const size_t groups = nyb_layout_groups(spec);
    const size_t words = nyb_pack_words(spec->cols, spec->bits);
    const size_t down = nyb_pack_words(spec->rows, spec->bits);
    const nyb_layout_part parts[TENSORS] = {
        [PACKED] = {suffixes[PACKED], NYB_I32, {spec->rows, words}},
        [SCALE] = {suffixes[SCALE], spec->scale_dtype, {spec->rows, groups}},
        [SHAPE] = {suffixes[SHAPE], NYB_I64, {2, 0}},
        [ZERO_POINT] = {suffixes[ZERO_POINT], NYB_I32, {down, groups}},
    };
    *count = spec->symmetric ? ZERO_POINT : TENSORS;
    return nyb_layout_describe_parts(out, parts, *count, module, arena, err);
}

// Zero points run down the rows, so their transpose is packed and stored transposed.
static nyb_status pack_zeros(void *out, const nyb_qweight *q, nyb_err *err)
{
    uint8_t *const across = nyb_alloc_raw(q->groups, q->rows);
    if (!across)
        return nyb_no_memory(err, "zero points", q->groups, q->rows);
    nyb_transpose_u8(across, q->zeros, q->rows, q->groups);
    nyb_pack_down(out, across, q->groups, q->rows, q->bits);
    nyb_free(across);
    return NYB_OK;
}

static nyb_status pack(const nyb_qweight *q, void *const buffers[], const char *module,
                       nyb_err *err)
{
    const size_t words = nyb_pack_words(q->cols, q->bits);
    const int64_t shape[2] = {(int64_t) q->rows, (int64_t) q->cols};

    nyb_status status = nyb_layout_check_values(q, 0, module, err);
    if (status == NYB_OK && !q->symmetric)
        status = pack_zeros(buffers[ZERO_POINT], q, err);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; i < q->rows; i++)
        nyb_pack_row((unsigned char *) buffers[PACKED] + i * words * 4, q->codes + i * q->cols,
                     q->cols, q->bits);
    nyb_narrow(buffers[SCALE], q->scale_dtype, q->scales, q->rows * q->groups);
    memcpy(buffers[SHAPE], shape, sizeof(shape));
    return NYB_OK;
}

// ---- Reading --------------------------------------------------------------------------------

// Until 2026 the library packed 32 / bits codes into a word and left the rest of it empty, which
// differs for 3 bits: 10 codes and 2 empty bits.
static size_t padded_words(size_t n, unsigned bits)
{
    const size_t per_word = 32 / bits;
    return n / per_word + (n % per_word != 0);
}

static void unpack_padded_row(uint8_t *codes, const void *words, size_t n, unsigned bits)
{
    const size_t per_word = 32 / bits;
    for (size_t i = 0; i < n; i++) {
        uint32_t word;
        memcpy(&word, (const unsigned char *) words + i / per_word * 4, sizeof(word));
        codes[i] = (uint8_t) (word >> (i % per_word * bits) & ((1u << bits) - 1));
    }
}

static nyb_status check_shape(const nyb_qweight *q, const nyb_layer *layer)
{
    const nyb_tensor *tensor = NULL;
    int64_t shape[2] = {0, 0};
    const nyb_status status = nyb_layer_get(&tensor, layer, suffixes[SHAPE]);
    if (status != NYB_OK)
        return status;
    if ((tensor->dtype != NYB_I64 && tensor->dtype != NYB_I32) || tensor->rank != 1 ||
        tensor->shape[0] != 2)
        return nyb_layer_fail(layer, tensor, NYB_E_FORMAT, "is not I64 [2]");
    for (size_t i = 0; i < 2; i++) {
        int32_t small = 0;
        if (tensor->dtype == NYB_I64) {
            memcpy(&shape[i], (const unsigned char *) tensor->at + i * 8, 8);
        } else {
            memcpy(&small, (const unsigned char *) tensor->at + i * 4, 4);
            shape[i] = small;
        }
    }
    if (shape[0] != (int64_t) q->rows || shape[1] != (int64_t) q->cols)
        return nyb_layer_fail(layer, tensor, NYB_E_FORMAT,
                              "says %lld x %lld, the model wants %zu x %zu", (long long) shape[0],
                              (long long) shape[1], q->rows, q->cols);
    return NYB_OK;
}

// The packed codes and how they lie.
typedef struct packing {
    const nyb_tensor *tensor;
    size_t words; // of a row
    bool padded;  // the older packing
} packing;

// Looked at before anything is allocated, so that a shape that only the configuration claims
// takes no memory. Where both packings give the same width (rows of up to about a hundred codes)
// it is taken for the present one.
static nyb_status find_codes(packing *out, const nyb_layer *layer, const nyb_layout_spec *spec)
{
    const size_t dense = nyb_pack_words(spec->cols, spec->bits);
    const size_t old = padded_words(spec->cols, spec->bits);
    const nyb_status status = nyb_layer_get(&out->tensor, layer, suffixes[PACKED]);
    if (status != NYB_OK)
        return status;
    out->padded = dense != old && out->tensor->rank == 2 && out->tensor->shape[1] == old;
    out->words = out->padded ? old : dense;
    return nyb_layer_matrix(layer, out->tensor, NYB_I32, spec->rows, out->words);
}

static void unpack_codes(nyb_qweight *q, const packing *from)
{
    for (size_t i = 0; i < q->rows; i++) {
        const unsigned char *const row =
            (const unsigned char *) from->tensor->at + i * from->words * 4;
        if (from->padded)
            unpack_padded_row(q->codes + i * q->cols, row, q->cols, q->bits);
        else
            nyb_unpack_row(q->codes + i * q->cols, row, q->cols, q->bits);
    }
}

// The older packing of zero points: word w of group g at [w, g].
static nyb_status unpack_padded_zeros(nyb_qweight *q, const nyb_layer *layer,
                                      const nyb_tensor *tensor)
{
    const size_t words = padded_words(q->rows, q->bits), per_word = 32 / q->bits;
    const nyb_status status = nyb_layer_matrix(layer, tensor, NYB_I32, words, q->groups);
    for (size_t i = 0; i < q->rows && status == NYB_OK; i++) {
        const unsigned char *const row =
            (const unsigned char *) tensor->at + i / per_word * q->groups * 4;
        for (size_t g = 0; g < q->groups; g++) {
            uint32_t word;
            memcpy(&word, row + g * 4, sizeof(word));
            q->zeros[i * q->groups + g] =
                (uint8_t) (word >> (i % per_word * q->bits) & ((1u << q->bits) - 1));
        }
    }
    return status;
}

static nyb_status unpack_zeros(nyb_qweight *q, const nyb_layer *layer, bool padded)
{
    const nyb_tensor *tensor = NULL;
    nyb_status status = NYB_OK;
    if (q->symmetric) {
        memset(q->zeros, 1 << (q->bits - 1), q->rows * q->groups);
        return NYB_OK;
    }
    status = nyb_layer_get(&tensor, layer, suffixes[ZERO_POINT]);
    if (status != NYB_OK)
        return status;
    if (tensor->dtype == NYB_I8)
        return nyb_layer_signed_zeros(q, layer, tensor);
    if (padded)
        return unpack_padded_zeros(q, layer, tensor);
    status = nyb_layer_matrix(layer, tensor, NYB_I32, nyb_pack_words(q->rows, q->bits), q->groups);
    if (status != NYB_OK)
        return status;

    uint8_t *const across = nyb_alloc_raw(q->groups, q->rows);
    if (!across)
        return nyb_no_memory(layer->err, "zero points", q->groups, q->rows);
    nyb_unpack_down(across, tensor->at, q->groups, q->rows, q->bits);
    nyb_transpose_u8(q->zeros, across, q->groups, q->rows);
    nyb_free(across);
    return NYB_OK;
}

// A group index is a thing of the past, but files with one are still about. All -1 means that it
// was never filled.
static nyb_status unpack_groups(nyb_qweight *q, const nyb_layer *layer)
{
    const nyb_tensor *tensor = NULL;
    const nyb_status status = nyb_layer_find(&tensor, layer, "weight_g_idx");
    if (status != NYB_OK || !tensor)
        return status;
    const unsigned char *const bytes = tensor->at;
    bool filled = false;
    for (size_t i = 0; i < tensor->bytes; i++)
        filled = filled || bytes[i] != 0xff;
    return filled ? nyb_layer_groups(q, layer, tensor) : NYB_OK;
}

static nyb_status unpack_parts(nyb_qweight *q, const nyb_layer *layer, bool padded)
{
    const nyb_tensor *scales = NULL;
    nyb_status status = check_shape(q, layer);
    if (status == NYB_OK)
        status = unpack_zeros(q, layer, padded);
    if (status == NYB_OK)
        status = nyb_layer_get(&scales, layer, suffixes[SCALE]);
    if (status == NYB_OK)
        status = nyb_layer_scales(q, layer, scales, false);
    if (status == NYB_OK)
        status = unpack_groups(q, layer);
    return status;
}

static nyb_status unpack(nyb_qweight *out, const nyb_checkpoint *file, const char *module,
                         const nyb_layout_spec *spec, nyb_err *err)
{
    const nyb_layer layer = {file, module, err};
    packing codes = {0};
    *out = (nyb_qweight){0};
    nyb_status status = find_codes(&codes, &layer, spec);
    if (status == NYB_OK)
        status = nyb_layer_init(out, spec, err);
    if (status != NYB_OK)
        return status;
    unpack_codes(out, &codes);
    return nyb_layer_end(out, unpack_parts(out, &layer, codes.padded));
}

const nyb_layout nyb_layout_compressed_tensors = {
    .name = "compressed-tensors",
    .about = "compressed-tensors: vLLM, transformers, llama.cpp's converter",
    .format = "pack-quantized",
    .bytes = &nyb_layout_int_quantized,
    .floats = &nyb_layout_float_quantized,
    .marker = "weight_packed",
    .lowest_zero = 0,
    .outer = true,
    .inputs = true,
    .scale_dtype = nyb_layout_model_dtype,
    .check = check,
    .tensors = tensors,
    .pack = pack,
    .unpack = unpack,
    .config = nyb_layout_compressed_config,
};
