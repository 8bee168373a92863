#include "formats/layout_parts.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/dtype.h"
#include "core/qweight.h"
#include "formats/safetensors.h"

nyb_status nyb_layer_fail(const nyb_layer *layer, const nyb_tensor *tensor, nyb_status status,
                          const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    (void) vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return nyb_fail(layer->err, status, "%s: '%s' %s",
                    tensor ? nyb_checkpoint_file_of(layer->file, tensor)
                           : nyb_checkpoint_path(layer->file),
                    tensor ? tensor->name : layer->module, text);
}

nyb_status nyb_layer_find(const nyb_tensor **out, const nyb_layer *layer, const char *suffix)
{
    nyb_arena arena = {0};
    *out = NULL;
    const char *const name = nyb_arena_format(&arena, "%s.%s", layer->module, suffix);
    if (!name)
        return nyb_no_memory(layer->err, layer->module, strlen(layer->module), 1);
    *out = nyb_checkpoint_find(layer->file, name);
    nyb_arena_clear(&arena);
    return NYB_OK;
}

nyb_status nyb_layer_get(const nyb_tensor **out, const nyb_layer *layer, const char *suffix)
{
    const nyb_status status = nyb_layer_find(out, layer, suffix);
    if (status == NYB_OK && !*out)
        return nyb_layer_fail(layer, NULL, NYB_E_FORMAT, "has no tensor '%s'", suffix);
    return status;
}

nyb_status nyb_layer_matrix(const nyb_layer *layer, const nyb_tensor *tensor, nyb_dtype dtype,
                            size_t rows, size_t cols)
{
    if (tensor->dtype == dtype && tensor->rank == 2 && tensor->shape[0] == rows &&
        tensor->shape[1] == cols)
        return NYB_OK;

    nyb_arena arena = {0};
    const char *const found = nyb_tensor_text(&arena, tensor);
    const nyb_status status =
        nyb_layer_fail(layer, tensor, NYB_E_FORMAT, "is %s, its settings want %s [%zu, %zu]",
                       found ? found : "wrong", nyb_dtype_name(dtype), rows, cols);
    nyb_arena_clear(&arena);
    return status;
}

nyb_status nyb_layer_init(nyb_qweight *out, const nyb_layout_spec *spec, nyb_err *err)
{
    const size_t group = spec->group_size < spec->cols ? spec->group_size : 0;
    const nyb_status status = nyb_qweight_init(out, spec->rows, spec->cols, spec->bits, group, err);
    out->symmetric = status == NYB_OK && spec->symmetric;
    return status;
}

nyb_status nyb_layer_end(nyb_qweight *q, nyb_status status)
{
    if (status != NYB_OK)
        nyb_qweight_clear(q);
    return status;
}

nyb_dtype nyb_layout_model_dtype(nyb_dtype model)
{
    return nyb_dtype_is_float(model) ? model : NYB_F32;
}

nyb_dtype nyb_layout_f16(nyb_dtype model)
{
    (void) model;
    return NYB_F16;
}

static nyb_status check_scale(const nyb_layer *layer, const nyb_tensor *tensor, float scale,
                              size_t row, size_t group, bool floats)
{
    if (isfinite(scale) && (scale > 0.0f || (floats && scale == 0.0f)))
        return NYB_OK;
    return nyb_layer_fail(layer, tensor, NYB_E_FORMAT,
                          "holds the scale %g for row %zu, group %zu; it has to be above 0",
                          (double) scale, row, group);
}

nyb_status nyb_layer_scales(nyb_qweight *q, const nyb_layer *layer, const nyb_tensor *tensor,
                            bool down)
{
    const bool powers = q->kind != NYB_CODE_INT && tensor->dtype == NYB_F8_E8M0;
    if (!nyb_dtype_is_float(tensor->dtype) && !powers)
        return nyb_layer_fail(layer, tensor, NYB_E_FORMAT, "is of type %s, want F16, BF16 or F32",
                              nyb_dtype_name(tensor->dtype));
    const size_t size = nyb_dtype_bytes(tensor->dtype);
    const size_t together = q->scale_rows < q->rows && q->scale_rows ? q->scale_rows
                            : q->scale_rows                          ? q->rows
                                                                     : 1;
    const size_t rows = (q->rows + together - 1) / together;
    // A lone scale may have no axes, or one.
    const bool lone = rows == 1 && q->groups == 1 && tensor->bytes == size;
    nyb_status status = lone ? NYB_OK
                             : nyb_layer_matrix(layer, tensor, tensor->dtype,
                                                down ? q->groups : rows, down ? rows : q->groups);
    q->scale_dtype = powers ? NYB_F32 : tensor->dtype;
    for (size_t i = 0; i < q->rows && status == NYB_OK; i++) {
        for (size_t g = 0; g < q->groups && status == NYB_OK; g++) {
            const size_t row = i / together, at = down ? g * rows + row : row * q->groups + g;
            float *const scale = &q->scales[i * q->groups + g];
            const unsigned char *const from = (const unsigned char *) tensor->at + at * size;
            if (powers)
                *scale = nyb_f32_of_e8m0(*from);
            else
                nyb_widen(scale, from, tensor->dtype, 1);
            status = check_scale(layer, tensor, *scale, i, g, q->kind != NYB_CODE_INT);
        }
    }
    return status;
}

nyb_status nyb_layer_groups(nyb_qweight *q, const nyb_layer *layer, const nyb_tensor *tensor)
{
    if (tensor->dtype != NYB_I32 || tensor->rank != 1 || tensor->shape[0] != q->cols)
        return nyb_layer_fail(layer, tensor, NYB_E_FORMAT, "is not I32 [%zu]", q->cols);
    q->irregular = false;
    for (size_t j = 0; j < q->cols; j++) {
        int32_t group;
        memcpy(&group, (const unsigned char *) tensor->at + j * sizeof(group), sizeof(group));
        if (group < 0 || (size_t) group >= q->groups)
            return nyb_layer_fail(layer, tensor, NYB_E_FORMAT,
                                  "puts column %zu into group %d of %zu", j, group, q->groups);
        q->group_of[j] = (uint32_t) group;
        q->irregular = q->irregular || (size_t) group != j / q->group_size;
    }
    return NYB_OK;
}

nyb_status nyb_layer_signed_zeros(nyb_qweight *q, const nyb_layer *layer, const nyb_tensor *tensor)
{
    const int half = 1 << (q->bits - 1);
    const nyb_status status = nyb_layer_matrix(layer, tensor, NYB_I8, q->rows, q->groups);
    for (size_t k = 0; k < q->rows * q->groups && status == NYB_OK; k++) {
        const int zero = ((const int8_t *) tensor->at)[k];
        if (zero < -half || zero >= half)
            return nyb_layer_fail(layer, tensor, NYB_E_FORMAT,
                                  "holds the zero point %d, which does not fit %u bits", zero,
                                  q->bits);
        q->zeros[k] = (uint8_t) (zero + half);
    }
    return status;
}

// Floats that readers would not take for a weight.
static nyb_status check_floats(const nyb_qweight *q, const char *module, nyb_err *err)
{
    float values[256];
    nyb_code_values(q->kind, values);
    for (size_t k = 0; k < q->rows * q->cols; k++) {
        if (!isfinite(values[q->codes[k]]))
            return nyb_fail(err, NYB_E_UNSUPPORTED, "'%s': row %zu, column %zu is %g", module,
                            k / q->cols, k % q->cols, (double) values[q->codes[k]]);
    }
    return NYB_OK;
}

void nyb_layout_scales_down(unsigned char *out, const nyb_qweight *q)
{
    for (size_t g = 0; g < q->groups; g++) {
        for (size_t i = 0; i < q->rows; i++)
            nyb_narrow(out + (g * q->rows + i) * 2, NYB_F16, &q->scales[i * q->groups + g], 1);
    }
}

static nyb_status check_codes(const nyb_qweight *q, const char *module, nyb_err *err)
{
    const unsigned limit = 1u << q->bits;
    if (q->kind != NYB_CODE_INT)
        return check_floats(q, module, err);
    for (size_t k = 0; k < q->rows * q->cols; k++) {
        if (q->codes[k] >= limit)
            return nyb_fail(err, NYB_E_UNSUPPORTED,
                            "'%s': code %u at row %zu, column %zu does "
                            "not fit %u bits",
                            module, q->codes[k], k / q->cols, k % q->cols, q->bits);
    }
    return NYB_OK;
}

static nyb_status check_zeros(const nyb_qweight *q, unsigned lowest, const char *module,
                              nyb_err *err)
{
    const bool floats = q->kind != NYB_CODE_INT;
    const unsigned first = floats ? 0 : q->symmetric ? 1u << (q->bits - 1) : lowest;
    const unsigned last = q->symmetric ? first : (1u << q->bits) - 1;
    for (size_t k = 0; k < q->rows * q->groups; k++) {
        if (q->zeros[k] < first || q->zeros[k] > last)
            return nyb_fail(err, NYB_E_UNSUPPORTED,
                            "'%s': zero point %u at row %zu, group %zu "
                            "is outside [%u, %u], which the layout can hold",
                            module, q->zeros[k], k / q->groups, k % q->groups, first, last);
    }
    return NYB_OK;
}

static nyb_status check_scales(const nyb_qweight *q, const char *module, nyb_err *err)
{
    for (size_t k = 0; k < q->rows * q->groups; k++) {
        const float scale = q->scales[k];
        if (!isfinite(scale) || scale <= 0.0f || nyb_round_to(scale, q->scale_dtype) != scale)
            return nyb_fail(err, NYB_E_UNSUPPORTED,
                            "'%s': scale %.9g at row %zu, group %zu is "
                            "no positive %s",
                            module, (double) scale, k / q->groups, k % q->groups,
                            nyb_dtype_name(q->scale_dtype));
    }
    return NYB_OK;
}

nyb_status nyb_layout_check_values(const nyb_qweight *q, unsigned lowest_zero, const char *module,
                                   nyb_err *err)
{
    nyb_status status = check_codes(q, module, err);
    if (status == NYB_OK)
        status = check_zeros(q, lowest_zero, module, err);
    if (status == NYB_OK)
        status = check_scales(q, module, err);
    return status;
}

nyb_status nyb_layout_check_spec(const nyb_layout_spec *spec, const char *module, nyb_err *err)
{
    if (spec->bits != 2 && spec->bits != 3 && spec->bits != 4 && spec->bits != 8)
        return nyb_fail(err, NYB_E_ARG, "'%s': weight bits are %u, want 2, 3, 4 or 8", module,
                        spec->bits);
    if (spec->kind != NYB_CODE_INT && (spec->bits != 8 || !spec->symmetric))
        return nyb_fail(err, NYB_E_ARG, "'%s': floats of %u bits%s", module, spec->bits,
                        spec->symmetric ? "" : " with zero points");
    if (spec->rows == 0 || spec->cols == 0 || spec->rows > INT32_MAX || spec->cols > INT32_MAX)
        return nyb_fail(err, NYB_E_ARG, "'%s': a weight of %zu x %zu cannot be packed", module,
                        spec->rows, spec->cols);
    if (spec->group_size > spec->cols)
        return nyb_fail(err, NYB_E_ARG, "'%s': group size %zu is more than its %zu columns", module,
                        spec->group_size, spec->cols);
    if (!nyb_dtype_is_float(spec->scale_dtype))
        return nyb_fail(err, NYB_E_ARG, "'%s': scales of type %s are not floats", module,
                        nyb_dtype_name(spec->scale_dtype));
    return NYB_OK;
}

nyb_status nyb_layout_check_whole_groups(const nyb_layout_spec *spec, const char *module,
                                         nyb_err *err)
{
    if (spec->irregular)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "'%s': readers of compressed-tensors no longer take columns in an order of "
                        "their own; use --activation-order group, or --format gptq",
                        module);
    if (spec->group_size && spec->cols % spec->group_size != 0)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "'%s': readers of compressed-tensors want whole groups, and %zu columns "
                        "are not a multiple of %zu; choose another --group-size (-1: one per "
                        "channel), or leave this layer out",
                        module, spec->cols, spec->group_size);
    return NYB_OK;
}

nyb_status nyb_layout_describe(nyb_tensor *out, const char *module, const char *suffix,
                               nyb_dtype dtype, const size_t shape[2], nyb_arena *arena,
                               nyb_err *err)
{
    const char *const name = nyb_arena_format(arena, "%s.%s", module, suffix);
    if (!name)
        return nyb_no_memory(err, module, strlen(module), 1);
    return nyb_tensor_describe(out, name, dtype, shape[1] ? 2 : 1, shape, err);
}

nyb_status nyb_layout_describe_parts(nyb_tensor *out, const nyb_layout_part *parts, size_t count,
                                     const char *module, nyb_arena *arena, nyb_err *err)
{
    nyb_status status = NYB_OK;
    for (size_t i = 0; status == NYB_OK && i < count; i++)
        status = nyb_layout_describe(&out[i], module, parts[i].suffix, parts[i].dtype,
                                     parts[i].shape, arena, err);
    return status;
}

bool nyb_layout_same_settings(const nyb_layout_spec *a, const nyb_layout_spec *b)
{
    return a->kind == b->kind && a->inputs == b->inputs && a->bits == b->bits &&
           a->scale_rows == b->scale_rows && a->group_size == b->group_size &&
           a->symmetric == b->symmetric && a->irregular == b->irregular;
}
