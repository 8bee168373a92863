// compressed-tensors, format "int-quantized": every code has a byte of its own.
//
//   weight            [rows, cols]   I8  codes, 0 for the middle one
//   weight_scale      [rows, groups] the model's type
//   weight_zero_point [rows, groups] I8  likewise, only when asymmetric
#include <string.h>

#include "core/dtype.h"
#include "formats/layout_parts.h"

enum { CODES, SCALE, ZERO_POINT, TENSORS };

static const char *const suffixes[TENSORS] = {"weight", "weight_scale", "weight_zero_point"};

static nyb_status check(const nyb_layout_spec *spec, const char *module, nyb_err *err)
{
    const nyb_status status = nyb_layout_check_spec(spec, module, err);
    if (status != NYB_OK)
        return status;
    if (spec->kind != NYB_CODE_INT || spec->scale_rows)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "'%s': int-quantized holds whole numbers with scales of each output",
                        module);
    return nyb_layout_check_whole_groups(spec, module, err);
}

static nyb_status tensors(nyb_tensor out[NYB_LAYOUT_TENSORS], size_t *count,
                          const nyb_layout_spec *spec, const char *module, nyb_arena *arena,
                          nyb_err *err)
{
    const size_t groups = nyb_layout_groups(spec);
    const nyb_layout_part parts[TENSORS] = {
        [CODES] = {suffixes[CODES], NYB_I8, {spec->rows, spec->cols}},
        [SCALE] = {suffixes[SCALE], spec->scale_dtype, {spec->rows, groups}},
        [ZERO_POINT] = {suffixes[ZERO_POINT], NYB_I8, {spec->rows, groups}},
    };
    *count = spec->symmetric ? ZERO_POINT : TENSORS;
    return nyb_layout_describe_parts(out, parts, *count, module, arena, err);
}

// Between codes from 0 on and signed ones; it is its own inverse.
static void move_middle(uint8_t *out, const uint8_t *codes, size_t n, unsigned bits, bool to_file)
{
    const uint8_t middle = (uint8_t) (1u << (bits - 1));
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t) (to_file ? codes[i] - middle : codes[i] + middle);
}

static nyb_status pack(const nyb_qweight *q, void *const buffers[], const char *module,
                       nyb_err *err)
{
    const nyb_status status = nyb_layout_check_values(q, 0, module, err);
    if (status != NYB_OK)
        return status;
    move_middle(buffers[CODES], q->codes, q->rows * q->cols, q->bits, true);
    nyb_narrow(buffers[SCALE], q->scale_dtype, q->scales, q->rows * q->groups);
    if (!q->symmetric)
        move_middle(buffers[ZERO_POINT], q->zeros, q->rows * q->groups, q->bits, true);
    return NYB_OK;
}

// A byte may hold more than the bits that it is said to have.
static nyb_status check_bytes(const nyb_qweight *q, const nyb_layer *layer,
                              const nyb_tensor *tensor)
{
    for (size_t k = 0; k < q->rows * q->cols; k++) {
        if (q->codes[k] >> q->bits)
            return nyb_layer_fail(
                layer, tensor, NYB_E_FORMAT, "holds %d at (%zu, %zu), which does not fit %u bits",
                (int) ((const int8_t *) tensor->at)[k], k / q->cols, k % q->cols, q->bits);
    }
    return NYB_OK;
}

static nyb_status read_parts(nyb_qweight *q, const nyb_layer *layer, const nyb_tensor *codes)
{
    const nyb_tensor *scales = NULL, *zeros = NULL;
    move_middle(q->codes, codes->at, q->rows * q->cols, q->bits, false);
    nyb_status status = check_bytes(q, layer, codes);
    if (status == NYB_OK)
        status = nyb_layer_get(&scales, layer, suffixes[SCALE]);
    if (status == NYB_OK)
        status = nyb_layer_scales(q, layer, scales, false);
    if (status == NYB_OK && !q->symmetric)
        status = nyb_layer_get(&zeros, layer, suffixes[ZERO_POINT]);
    if (status == NYB_OK && zeros)
        status = nyb_layer_signed_zeros(q, layer, zeros);
    else
        memset(q->zeros, 1 << (q->bits - 1), q->rows * q->groups);
    return status;
}

static nyb_status unpack(nyb_qweight *out, const nyb_checkpoint *file, const char *module,
                         const nyb_layout_spec *spec, nyb_err *err)
{
    const nyb_layer layer = {file, module, err};
    const nyb_tensor *codes = NULL;
    *out = (nyb_qweight){0};
    nyb_status status = nyb_layer_get(&codes, &layer, suffixes[CODES]);
    if (status == NYB_OK)
        status = nyb_layer_matrix(&layer, codes, NYB_I8, spec->rows, spec->cols);
    if (status == NYB_OK)
        status = nyb_layer_init(out, spec, err);
    if (status != NYB_OK)
        return status;
    return nyb_layer_end(out, read_parts(out, &layer, codes));
}

const nyb_layout nyb_layout_int_quantized = {
    .name = "compressed-tensors",
    .about = "compressed-tensors, a byte for each code",
    .format = "int-quantized",
    .marker = "weight_scale",
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
