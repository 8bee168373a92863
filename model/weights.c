#include <assert.h>

#include "core/dtype.h"
#include "core/file.h"
#include "core/memory.h"
#include "core/threads.h"
#include "kernels/blocks.h"
#include "kernels/vector.h"
#include "model/binding.h"

static size_t stored_row(const nyb_tensor *tensor, size_t row)
{
    if (tensor->paired_rows == 0)
        return row;
    const size_t inside = row % tensor->paired_rows, half = tensor->paired_rows / 2;
    return row - inside + (inside < half ? 2 * inside : 2 * (inside - half) + 1);
}

nyb_status nyb_tensor_widen(const nyb_tensor *tensor, size_t row0, nyb_mat out, nyb_err *err)
{
    const nyb_block_codec *const codec = nyb_block_codec_get(tensor->dtype);
    const nyb_block_size block = nyb_dtype_block(tensor->dtype);
    const size_t blocks = out.cols / block.values, row_bytes = blocks * block.bytes;
    const nyb_vector_ops *const ops = nyb_vector_ops_get();
    assert(out.cols % block.values == 0 && (row0 + out.rows) * row_bytes <= tensor->bytes);
    for (size_t i = 0; i < out.rows; i++) {
        float *const to = nyb_row(out, i);
        const unsigned char *const from =
            (const unsigned char *) tensor->at + stored_row(tensor, row0 + i) * row_bytes;
        if (codec)
            codec->dequantize(to, from, blocks);
        else
            nyb_widen(to, from, tensor->dtype, out.cols);
        const size_t bad = ops->first_not_finite(to, out.cols);
        if (bad < out.cols)
            return nyb_fail(err, NYB_E_NUMERIC, "tensor '%s' holds %g at (%zu, %zu)", tensor->name,
                            (double) to[bad], row0 + i, bad);
    }
    return NYB_OK;
}

// Floats that a vector or matrix takes, so that the next one starts on a cache line.
static size_t padded(size_t floats)
{
    const size_t line = NYB_ALIGN / sizeof(float);
    return (floats + line - 1) / line * line;
}

// Lays the arrays out from `memory` on (NULL: only counts), returns how many floats they take.
// Every product is far from overflow: config.h bounds the extents.
static size_t lay_out(nyb_block_weights *w, float *memory)
{
    const nyb_model *const m = w->model;
    size_t used = 0;
    for (size_t i = 0; i < nyb_linear_count(m, 0); i++) {
        const nyb_linear *const linear = nyb_linear_at(m, 0, i);
        w->weights[i] = nyb_mat_of(memory ? memory + used : NULL, linear->rows, linear->cols);
        used += padded(linear->rows * linear->cols);
    }
    // Room for every bias: quantised blocks may differ in whether they have one.
    for (size_t i = 0; i < nyb_linear_count(m, 0); i++) {
        w->biases[i] = memory ? memory + used : NULL;
        used += padded(nyb_linear_at(m, 0, i)->rows);
    }
    for (size_t s = 0; s < nyb_stage_count(m, 0); s++) {
        if (!nyb_norm_at(m, 0, s))
            continue;
        w->norms[s] = memory ? memory + used : NULL;
        used += padded(nyb_stage_at(m, 0, s).width);
    }
    return used;
}

size_t nyb_block_weights_bytes(const nyb_model *model)
{
    nyb_block_weights counted = {.model = model};
    return lay_out(&counted, NULL) * sizeof(float);
}

nyb_status nyb_block_weights_init(nyb_block_weights *out, const nyb_model *model, nyb_err *err)
{
    const size_t bytes = nyb_block_weights_bytes(model);
    *out = (nyb_block_weights){0};
    float *const memory = nyb_alloc_raw(bytes, 1);
    if (!memory)
        return nyb_no_memory(err, "the weights of a block", bytes, 1);
    out->model = model;
    out->memory = memory;
    (void) lay_out(out, memory);
    return NYB_OK;
}

void nyb_block_weights_clear(nyb_block_weights *weights)
{
    nyb_free(weights->memory);
    *weights = (nyb_block_weights){0};
}

typedef struct load {
    nyb_block_weights *weights;
    size_t block;
    nyb_status status[NYB_LINEARS];
    nyb_err err[NYB_LINEARS];
} load;

static nyb_status read_matrix(nyb_mat out, const nyb_model *m, const nyb_linear *linear,
                              nyb_err *err)
{
    if (!linear->quantized)
        return nyb_tensor_widen(linear->weight, 0, out, err);
    nyb_qweight q;
    const nyb_status status =
        nyb_quantization_read(&q, nyb_model_quantization(m), nyb_model_checkpoint(m),
                              linear->module, linear->rows, linear->cols, err);
    if (status == NYB_OK)
        nyb_qweight_dequantize(&q, 0, out);
    nyb_qweight_clear(&q);
    return status;
}

static void load_linear(void *arg, size_t i, unsigned worker)
{
    load *const l = arg;
    nyb_block_weights *const w = l->weights;
    const nyb_linear *const linear = nyb_linear_at(w->model, l->block, i);
    (void) worker;
    l->status[i] = read_matrix(w->weights[i], w->model, linear, &l->err[i]);
    if (linear->weight) // the copy is what is worked with from here on
        nyb_map_release(linear->weight->at, linear->weight->bytes);
    if (l->status[i] == NYB_OK && linear->bias)
        l->status[i] = nyb_tensor_widen(linear->bias, 0, nyb_mat_of(w->biases[i], 1, linear->rows),
                                        &l->err[i]);
}

nyb_status nyb_block_weights_load(const nyb_context *ctx, nyb_block_weights *weights, size_t index,
                                  nyb_err *err)
{
    const nyb_model *const m = weights->model;
    const size_t count = nyb_linear_count(m, index);
    load l = {.weights = weights, .block = index};
    weights->index = index;
    (void) lay_out(weights, weights->memory); // the caller may have changed the views
    nyb_parallel(ctx, count, load_linear, &l);
    for (size_t i = 0; i < count; i++) {
        if (l.status[i] != NYB_OK)
            return nyb_fail(err, l.status[i], "%s", l.err[i].text);
        if (!nyb_linear_at(m, index, i)->bias)
            weights->biases[i] = NULL;
    }
    for (size_t s = 0; s < nyb_stage_count(m, index); s++) {
        const nyb_tensor *const norm = nyb_norm_at(m, index, s);
        if (!norm)
            continue;
        const nyb_status status =
            nyb_tensor_widen(norm, 0, nyb_mat_of(weights->norms[s], 1, norm->shape[0]), err);
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}
