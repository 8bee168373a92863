#include "model/rounding.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "core/dtype.h"
#include "core/memory.h"
#include "core/threads.h"
#include "model/stages.h"

static const char *const names[NYB_ACTIVATIONS_COUNT] = {
    "none", "int8", "float8", "int8-per-token", "float8-per-token", "int8-static", "float8-static"};

const char *nyb_activations_name(nyb_activation_kind activations)
{
    return (unsigned) activations < NYB_ACTIVATIONS_COUNT ? names[activations] : "?";
}

bool nyb_activations_by_name(const char *name, nyb_activation_kind *out)
{
    for (unsigned i = 0; i < NYB_ACTIVATIONS_COUNT; i++) {
        if (strcmp(names[i], name) == 0) {
            *out = (nyb_activation_kind) i;
            return true;
        }
    }
    return false;
}

static bool is_int8(nyb_activation_kind kind)
{
    return kind == NYB_ACTIVATIONS_INT8 || kind == NYB_ACTIVATIONS_INT8_PER_TOKEN;
}

bool nyb_rounding_is_int8(const nyb_rounding *rounding)
{
    return is_int8(rounding->kind);
}

bool nyb_rounding_is_per_token(const nyb_rounding *rounding)
{
    return rounding->kind == NYB_ACTIVATIONS_INT8_PER_TOKEN ||
           rounding->kind == NYB_ACTIVATIONS_FLOAT8_PER_TOKEN;
}

bool nyb_rounding_applies(const nyb_rounding *rounding, const nyb_linear *linear)
{
    return rounding && linear->quantized;
}

// ---- Room -----------------------------------------------------------------------------------

static nyb_status check_layer(const nyb_model *model, const nyb_linear *linear,
                              nyb_activation_kind kind, nyb_err *err)
{
    if (!linear->quantized || !is_int8(kind))
        return NYB_OK;
    if (linear->kind != NYB_CODE_INT)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: '%s' has 8-bit floats for weights, which are not multiplied with "
                        "whole numbers; use --activations float8 or float8-per-token",
                        nyb_model_folder(model), linear->module);
    if (linear->cols > NYB_LOWBIT_INT8_COLS)
        return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: '%s' has %zu inputs, sums in 32 bits hold %d",
                        nyb_model_folder(model), linear->module, linear->cols,
                        NYB_LOWBIT_INT8_COLS);
    return NYB_OK;
}

// Bytes of one input laid out for the layer's codes, at most.
static size_t codes_bytes(const nyb_linear *linear)
{
    const size_t size = linear->group_size ? linear->group_size : linear->cols;
    const size_t groups = (linear->cols + size - 1) / size;
    return linear->cols + (groups + 1) * (32 + sizeof(int32_t));
}

static nyb_status measure(nyb_rounding *out, const nyb_model *model, nyb_err *err)
{
    for (size_t b = 0; b < nyb_block_count(model); b++) {
        for (size_t i = 0; i < nyb_linear_count(model, b); i++) {
            const nyb_linear *const linear = nyb_linear_at(model, b, i);
            const nyb_status status = check_layer(model, linear, out->kind, err);
            if (status != NYB_OK)
                return status;
            if (!linear->quantized)
                continue;
            const size_t bytes = codes_bytes(linear);
            out->width = linear->cols > out->width ? linear->cols : out->width;
            out->codes_bytes = bytes > out->codes_bytes ? bytes : out->codes_bytes;
        }
    }
    return NYB_OK;
}

static size_t whole_lines(size_t bytes)
{
    return (bytes + NYB_ALIGN - 1) / NYB_ALIGN * NYB_ALIGN;
}

// A worker has: steps [tile], one output tile's rows before row0, then bytes [tile, width] and what
// is laid out for int8, or floats [tile, width] and packed words for float8.
static size_t steps_bytes(const nyb_rounding *r)
{
    return whole_lines(r->tile * sizeof(float)) +
           whole_lines(r->tile * NYB_LOWBIT_ROWS * sizeof(float));
}

nyb_status nyb_rounding_init(nyb_rounding *out, const nyb_context *ctx, const nyb_model *model,
                             nyb_activation_kind kind, size_t tokens, nyb_err *err)
{
    const nyb_gemm *const g = nyb_gemm_get(ctx ? ctx->compute : NYB_COMPUTE_AUTO);
    nyb_rounding r = {.kind = kind, .tile = nyb_token_tile(tokens)};
    *out = (nyb_rounding){0};
    const nyb_status status = measure(&r, model, err);
    if (status != NYB_OK)
        return status;
    r.packed_words = nyb_gemm_packed(g, r.tile, r.width);
    r.stride = steps_bytes(&r);
    if (is_int8(kind))
        r.stride += whole_lines(r.tile * r.width) + whole_lines(r.tile * r.codes_bytes);
    else
        r.stride += whole_lines(r.tile * r.width * sizeof(float)) +
                    whole_lines(r.packed_words * sizeof(uint32_t));
    r.workers = nyb_alloc_raw(nyb_threads(ctx), r.stride);
    r.most = nyb_alloc(tokens, sizeof(float));
    if (!r.workers || !r.most) {
        nyb_rounding_clear(&r);
        return nyb_no_memory(err, "rounded inputs", nyb_threads(ctx), r.stride);
    }
    *out = r;
    return NYB_OK;
}

void nyb_rounding_clear(nyb_rounding *rounding)
{
    nyb_free(rounding->workers);
    nyb_free(rounding->most);
    *rounding = (nyb_rounding){0};
}

// ---- Rounding -------------------------------------------------------------------------------

float nyb_rounding_largest(const float *x, size_t n)
{
    uint32_t most = 0;
    for (size_t i = 0; i < n; i++) {
        const uint32_t bits = nyb_f32_bits(x[i]) & 0x7fffffff; // in the order of the magnitudes
        most = bits > most ? bits : most;
    }
    return most < 0x7f800000 ? nyb_f32_of_bits(most) : (float) NAN;
}

// What a rounded value of 1 stands for.
static float step_of(const nyb_rounding *r, const nyb_linear *linear, float most)
{
    if (linear->input_scale > 0.0f)
        return isnan(most) ? most : linear->input_scale;
    return is_int8(r->kind) ? (most + 1e-7f) / 127.0f : most > 0.0f ? most / 448.0f : most + 1.0f;
}

// What values are multiplied with to become whole numbers.
static float inverse_of(const nyb_linear *linear, float most)
{
    return linear->input_scale > 0.0f ? 1.0f / linear->input_scale : 127.0f / (most + 1e-7f);
}

// The nearest whole number, ties to even, of a magnitude below 2^22.
static float nearest(float x)
{
    const float shift = 0x1.8p23f;
    return (x + shift) - shift;
}

static void round_to_bytes(int8_t *out, const float *x, size_t n, float inverse)
{
    for (size_t j = 0; j < n; j++) {
        float v = x[j] * inverse;
        v = v > -127.0f ? v : -127.0f; // also where there is no number: the step is none then
        v = v < 127.0f ? v : 127.0f;
        out[j] = (int8_t) nearest(v);
    }
}

static unsigned char *worker_at(const nyb_rounding *r, unsigned worker)
{
    return r->workers + worker * r->stride;
}

// out = y, or out += y.
static void put(nyb_mat out, nyb_mat y, bool keep)
{
    for (size_t t = 0; t < out.rows; t++) {
        const float *const from = nyb_row(y, t);
        float *const to = nyb_row(out, t);
        for (size_t i = 0; i < out.cols; i++)
            to[i] = keep ? to[i] + from[i] : from[i];
    }
}

void nyb_rounded_multiply(const nyb_rounding *rounding, unsigned worker, nyb_mat out,
                          const nyb_rounded_product *product)
{
    const nyb_lowbit *const codes = product->weight->codes;
    const size_t count = product->in.rows, cols = product->in.cols;
    unsigned char *at = worker_at(rounding, worker);
    float *const steps = (float *) (void *) at;
    float *const tile = (float *) (void *) (at + whole_lines(rounding->tile * sizeof(float)));
    int8_t *const bytes = (int8_t *) (at + steps_bytes(rounding));
    void *const laid_out = bytes + whole_lines(rounding->tile * rounding->width);
    assert(count <= rounding->tile && cols <= rounding->width);
    for (size_t t = 0; t < count; t++) {
        steps[t] = step_of(rounding, product->linear, product->most[t]);
        round_to_bytes(bytes + t * cols, nyb_row(product->in, t), cols,
                       inverse_of(product->linear, product->most[t]));
    }
    const nyb_lowbit_int8 input = nyb_lowbit_int8_input(codes, count, bytes, steps, laid_out);
    const nyb_lowbit_ops *const ops = nyb_lowbit_ops_get();
    for (size_t i = 0, some; i < out.cols; i += some) {
        const size_t row = product->row0 + i, skipped = row % NYB_LOWBIT_ROWS;
        const size_t left = out.cols - i, rest = NYB_LOWBIT_ROWS - skipped;
        some = left < rest ? left : rest;
        const nyb_mat y = nyb_mat_of(tile, count, skipped + some);
        ops->multiply_int8(y, codes, row - skipped, &input);
        put(nyb_block(out, 0, count, i, i + some), nyb_block(y, 0, count, skipped, skipped + some),
            product->keep);
    }
}

const uint32_t *nyb_rounded_pack(const nyb_rounding *rounding, unsigned worker,
                                 const nyb_gemm *gemm, const nyb_rounded_product *product)
{
    const size_t count = product->in.rows, cols = product->in.cols;
    unsigned char *const at = worker_at(rounding, worker) + steps_bytes(rounding);
    const nyb_mat floats = nyb_mat_of((float *) (void *) at, count, cols);
    uint32_t *const packed =
        (uint32_t *) (void *) (at + whole_lines(rounding->tile * rounding->width * sizeof(float)));
    for (size_t t = 0; t < count; t++) {
        const float step = step_of(rounding, product->linear, product->most[t]);
        const float *const from = nyb_row(product->in, t);
        float *const to = nyb_row(floats, t);
        for (size_t j = 0; j < cols; j++)
            to[j] = step * nyb_round_to(from[j] / step, NYB_F8_E4M3);
    }
    const nyb_operand rows = nyb_operand_of(floats);
    nyb_gemm_pack(gemm, packed, &rows, 0, nyb_gemm_panels(count, gemm->width));
    return packed;
}
