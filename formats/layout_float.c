// Weights that are 8-bit floats, in two layouts of the same tensors but for the scales' name.
//
// compressed-tensors, format "float-quantized":
//   weight       [rows, cols] F8_E4M3
//   weight_scale [1], [rows, 1], [rows, groups], or one for each block, of the model's type
//
// Fine-grained FP8 (quant_method "fp8"):
//   weight           [rows, cols] F8_E4M3
//   weight_scale_inv [rows / 128, cols / 128], rounded up, F32; whatever its name says, the weight
//                    is multiplied with it
#include <math.h>
#include <string.h>

#include "core/dtype.h"
#include "core/qweight.h"
#include "formats/layout_parts.h"

enum { CODES, SCALE, TENSORS, BLOCK = 128 };

static nyb_dtype f32_dtype(nyb_dtype model)
{
    (void) model;
    return NYB_F32;
}

static nyb_status check(const nyb_layout_spec *spec, const char *module, nyb_err *err)
{
    const nyb_status status = nyb_layout_check_spec(spec, module, err);
    if (status != NYB_OK)
        return status;
    if (spec->kind != NYB_CODE_E4M3)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "'%s': readers know 8-bit floats of the type e4m3 alone, not %s%s", module,
                        spec->kind == NYB_CODE_INT ? "whole numbers" : "e5m2",
                        spec->kind == NYB_CODE_INT ? "; use --method float8" : "");
    if (spec->irregular)
        return nyb_fail(err, NYB_E_UNSUPPORTED, "'%s': columns of a group do not lie together",
                        module);
    return NYB_OK;
}

static nyb_status check_blocks(const nyb_layout_spec *spec, const char *module, nyb_err *err)
{
    const nyb_status status = check(spec, module, err);
    if (status != NYB_OK)
        return status;
    if (spec->scale_rows != BLOCK || (spec->group_size != BLOCK && spec->cols > BLOCK))
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "'%s': fp8 has a scale for each block of 128 x 128; use --float8-scales "
                        "block, or --format compressed-tensors",
                        module);
    return NYB_OK;
}

// Rows of scales in the file.
static size_t scale_count(size_t rows, size_t together)
{
    if (together == 0)
        return rows;
    return together < rows ? (rows + together - 1) / together : 1;
}

static nyb_status describe(nyb_tensor *out, const nyb_layout_spec *spec, const char *module,
                           const char *scale, nyb_arena *arena, nyb_err *err)
{
    const bool lone = spec->scale_rows == SIZE_MAX;
    const size_t shape[2] = {spec->rows, spec->cols};
    const size_t scales[2] = {scale_count(spec->rows, spec->scale_rows),
                              lone ? 0 : nyb_layout_groups(spec)};
    const nyb_status status = nyb_layout_describe(&out[CODES], module, "weight",
                                                  nyb_code_dtype(spec->kind), shape, arena, err);
    if (status != NYB_OK)
        return status;
    return nyb_layout_describe(&out[SCALE], module, scale, spec->scale_dtype, scales, arena, err);
}

static nyb_status tensors(nyb_tensor out[NYB_LAYOUT_TENSORS], size_t *count,
                          const nyb_layout_spec *spec, const char *module, nyb_arena *arena,
                          nyb_err *err)
{
    *count = TENSORS;
    return describe(out, spec, module, nyb_layout_float_quantized.marker, arena, err);
}

static nyb_status block_tensors(nyb_tensor out[NYB_LAYOUT_TENSORS], size_t *count,
                                const nyb_layout_spec *spec, const char *module, nyb_arena *arena,
                                nyb_err *err)
{
    *count = TENSORS;
    return describe(out, spec, module, nyb_layout_fp8.marker, arena, err);
}

static nyb_status pack(const nyb_qweight *q, void *const buffers[], const char *module,
                       nyb_err *err)
{
    const nyb_status status = nyb_layout_check_values(q, 0, module, err);
    const size_t rows = scale_count(q->rows, q->scale_rows);
    if (status != NYB_OK)
        return status;
    memcpy(buffers[CODES], q->codes, q->rows * q->cols);
    unsigned char *to = buffers[SCALE];
    for (size_t r = 0; r < rows; r++, to += q->groups * nyb_dtype_bytes(q->scale_dtype)) {
        const size_t row = rows == q->rows ? r : rows == 1 ? 0 : r * q->scale_rows;
        nyb_narrow(to, q->scale_dtype, q->scales + row * q->groups, q->groups);
    }
    return NYB_OK;
}

static nyb_status check_codes(const nyb_qweight *q, const nyb_layer *layer,
                              const nyb_tensor *tensor)
{
    float values[256];
    nyb_code_values(q->kind, values);
    for (size_t k = 0; k < q->rows * q->cols; k++) {
        if (!isfinite(values[q->codes[k]]))
            return nyb_layer_fail(layer, tensor, NYB_E_FORMAT, "holds %g at (%zu, %zu)",
                                  (double) values[q->codes[k]], k / q->cols, k % q->cols);
    }
    return NYB_OK;
}

// Writers give blocks of zeros the scale 0: with a scale of 1 their codes are zeros of the same sign.
static void settle_zeros(nyb_qweight *q)
{
    for (size_t i = 0; i < q->rows; i++) {
        for (size_t j = 0; j < q->cols; j++) {
            if (q->scales[i * q->groups + j / q->group_size] == 0.0f)
                q->codes[i * q->cols + j] &= 0x80;
        }
        for (size_t g = 0; g < q->groups; g++) {
            float *const scale = &q->scales[i * q->groups + g];
            *scale = *scale == 0.0f ? 1.0f : *scale;
        }
    }
}

static nyb_status read(nyb_qweight *out, const nyb_layer *layer, const nyb_layout_spec *spec,
                       const char *scale)
{
    const nyb_tensor *codes = NULL, *scales = NULL;
    *out = (nyb_qweight){0};
    nyb_status status = nyb_layer_get(&codes, layer, "weight");
    if (status == NYB_OK)
        status = nyb_layer_matrix(layer, codes, nyb_code_dtype(spec->kind), spec->rows, spec->cols);
    if (status == NYB_OK)
        status = nyb_layer_init(out, spec, layer->err);
    if (status != NYB_OK)
        return status;
    out->kind = spec->kind;
    out->symmetric = true;
    out->scale_rows = spec->scale_rows;
    memcpy(out->codes, codes->at, spec->rows * spec->cols);
    status = check_codes(out, layer, codes);
    if (status == NYB_OK)
        status = nyb_layer_get(&scales, layer, scale);
    if (status == NYB_OK)
        status = nyb_layer_scales(out, layer, scales, false);
    if (status == NYB_OK)
        settle_zeros(out);
    if (status != NYB_OK)
        nyb_qweight_clear(out);
    return status;
}

static nyb_status unpack(nyb_qweight *out, const nyb_checkpoint *file, const char *module,
                         const nyb_layout_spec *spec, nyb_err *err)
{
    const nyb_layer layer = {file, module, err};
    const nyb_tensor *scale = NULL;
    // A tensor's one scale may have the name of blocks' scales.
    const nyb_status status = spec->scale_rows == SIZE_MAX
                                  ? nyb_layer_find(&scale, &layer, nyb_layout_fp8.marker)
                                  : NYB_OK;
    *out = (nyb_qweight){0};
    if (status != NYB_OK)
        return status;
    return read(out, &layer, spec,
                scale ? nyb_layout_fp8.marker : nyb_layout_float_quantized.marker);
}

static nyb_status unpack_blocks(nyb_qweight *out, const nyb_checkpoint *file, const char *module,
                                const nyb_layout_spec *spec, nyb_err *err)
{
    const nyb_layer layer = {file, module, err};
    return read(out, &layer, spec, nyb_layout_fp8.marker);
}

static json_t *fp8_config(const nyb_layout_run *run)
{
    json_t *const document = json_pack("{s:s, s:s, s:s, s:[i, i], s:[]}", "quant_method", "fp8",
                                       "fmt", "e4m3", "activation_scheme", "dynamic",
                                       "weight_block_size", BLOCK, BLOCK, "modules_to_not_convert");
    json_t *const plain = json_object_get(document, "modules_to_not_convert");
    bool good = plain != NULL;
    for (size_t i = 0; i < run->count && good; i++) {
        if (!run->modules[i].quantized)
            good = json_array_append_new(plain, json_string(run->modules[i].name)) == 0;
    }
    if (good)
        return document;
    json_decref(document);
    return NULL;
}

const nyb_layout nyb_layout_float_quantized = {
    .name = "compressed-tensors",
    .about = "compressed-tensors, 8-bit floats",
    .format = "float-quantized",
    .outer = true,
    .inputs = true,
    .marker = "weight_scale",
    .scale_dtype = nyb_layout_model_dtype,
    .check = check,
    .tensors = tensors,
    .pack = pack,
    .unpack = unpack,
    .config = nyb_layout_compressed_config,
};

const nyb_layout nyb_layout_fp8 = {
    .name = "fp8",
    .about = "8-bit floats with scales of 128 x 128 blocks: vLLM, transformers",
    .floats = &nyb_layout_fp8,
    .blocks = true,
    .marker = "weight_scale_inv",
    .scale_dtype = f32_dtype,
    .check = check_blocks,
    .tensors = block_tensors,
    .pack = pack,
    .unpack = unpack_blocks,
    .config = fp8_config,
};
