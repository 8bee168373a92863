#include <assert.h>

#include "core/dtype.h"
#include "core/file.h"
#include "core/memory.h"
#include "core/row_order.h"
#include "core/threads.h"
#include "kernels/blocks.h"
#include "kernels/rows.h"
#include "kernels/vector.h"
#include "model/binding.h"
#include "model/stored.h"

static nyb_status check_finite(const nyb_tensor *tensor, size_t index, const float *x, size_t n,
                               nyb_err *err)
{
    const size_t bad = nyb_vector_ops_get()->first_not_finite(x, n);
    if (bad < n)
        return nyb_fail(err, NYB_E_NUMERIC, "tensor '%s' holds %g at (%zu, %zu)", tensor->name,
                        (double) x[bad], index, bad);
    return NYB_OK;
}

nyb_status nyb_tensor_widen(const nyb_tensor *tensor, size_t row0, nyb_mat out, nyb_err *err)
{
    const nyb_block_codec *const codec = nyb_block_codec_get(tensor->dtype);
    const nyb_block_size block = nyb_dtype_block(tensor->dtype);
    const size_t blocks = out.cols / block.values, row_bytes = blocks * block.bytes;
    assert(out.cols % block.values == 0 && (row0 + out.rows) * row_bytes <= tensor->bytes);
    for (size_t i = 0; i < out.rows; i++) {
        float *const to = nyb_row(out, i);
        const unsigned char *const from = (const unsigned char *) tensor->at +
                                          nyb_row_stored(&tensor->order, row0 + i) * row_bytes;
        if (codec)
            codec->dequantize(to, from, blocks);
        else
            nyb_widen(to, from, tensor->dtype, out.cols);
        const nyb_status status = check_finite(tensor, row0 + i, to, out.cols, err);
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}

// Rows of a matrix that is stored [cols, *]: `rows` of its columns are read at a time.
static nyb_status widen_transposed(const nyb_linear *linear, size_t row0, nyb_mat out, nyb_err *err)
{
    enum { STEP = 64 };
    const nyb_tensor *const t = linear->weight;
    const size_t stored = t->shape[t->rank - 1], size = nyb_dtype_bytes(t->dtype);
    const size_t first = linear->slice * linear->cols;
    float row[STEP];
    for (size_t c = 0; c < linear->cols; c++) {
        const unsigned char *const from =
            (const unsigned char *) t->at + ((first + c) * stored + linear->first + row0) * size;
        for (size_t r = 0; r < out.rows; r += STEP) {
            const size_t some = out.rows - r < STEP ? out.rows - r : STEP;
            nyb_widen(row, from + r * size, t->dtype, some);
            const nyb_status status = check_finite(t, c, row, some, err);
            if (status != NYB_OK)
                return status;
            for (size_t i = 0; i < some; i++)
                nyb_row(out, r + i)[c] = row[i];
        }
    }
    return NYB_OK;
}

nyb_status nyb_linear_widen(const nyb_linear *linear, size_t row0, nyb_mat out, nyb_err *err)
{
    assert(out.cols == linear->cols && row0 + out.rows <= linear->rows);
    if (linear->transposed)
        return widen_transposed(linear, row0, out, err);
    return nyb_tensor_widen(linear->weight, row0, out, err);
}

bool nyb_linear_is_plain(const nyb_linear *linear)
{
    return nyb_dtype_is_float(linear->weight->dtype) && linear->weight->order.head == 0 &&
           !linear->transposed && linear->slice == 0;
}

// Floats that a vector or matrix takes, so that the next one starts on a cache line.
static size_t padded(size_t floats)
{
    const size_t line = NYB_ALIGN / sizeof(float);
    return (floats + line - 1) / line * line;
}

static size_t vector_floats(const nyb_tensor *tensor)
{
    return tensor->shape[0] * (tensor->rank > 1 ? tensor->shape[1] : 1);
}

// Lays the arrays of block `index` out from `memory` on (NULL: only counts), returns how many
// floats they take. Every product is far from overflow: config.h bounds the extents.
static size_t lay_out(nyb_block_weights *w, size_t index, float *memory)
{
    const nyb_model *const m = w->model;
    size_t used = 0;
    for (size_t i = 0; i < nyb_linear_count(m, index); i++) {
        const nyb_linear *const linear = nyb_linear_at(m, index, i);
        const size_t floats = w->stored ? 0 : padded(linear->rows * linear->cols);
        if (memory) {
            float *const at = w->stored ? NULL : memory + used;
            w->weights[i] = nyb_mat_of(at, linear->rows, linear->cols);
            w->biases[i] = linear->bias ? memory + used + floats : NULL;
        }
        used += floats + (linear->bias ? padded(linear->rows) : 0);
    }
    for (nyb_vector v = 0; v < NYB_VECTORS; v++) {
        const nyb_tensor *const tensor = nyb_vector_at(m, index, v);
        w->vectors[v] = tensor && memory ? memory + used : NULL;
        used += tensor ? padded(vector_floats(tensor)) : 0;
    }
    return used;
}

static size_t most_linears(const nyb_model *m)
{
    size_t most = 0;
    for (size_t b = 0; b < nyb_block_count(m); b++)
        most = nyb_linear_count(m, b) > most ? nyb_linear_count(m, b) : most;
    return most;
}

// Of the largest block: blocks may differ, quantised ones in whether they have a bias.
static size_t most_floats(const nyb_model *m, nyb_stored *stored)
{
    nyb_block_weights counted = {.model = m, .stored = stored};
    size_t most = 0;
    for (size_t b = 0; b < nyb_block_count(m); b++) {
        const size_t floats = lay_out(&counted, b, NULL);
        most = floats > most ? floats : most;
    }
    return most;
}

size_t nyb_block_weights_bytes(const nyb_model *model)
{
    return most_floats(model, NULL) * sizeof(float);
}

size_t nyb_block_weights_stored_bytes(const nyb_model *model)
{
    nyb_stored some = {0};
    const size_t codes = nyb_stored_bytes(model);
    const size_t bytes = most_floats(model, &some) * sizeof(float);
    return codes < SIZE_MAX - bytes ? codes + bytes : SIZE_MAX;
}

// Gives `out` memory for all but what is stored, which it takes over, also on an error.
static nyb_status init(nyb_block_weights *out, const nyb_model *model, nyb_stored *stored,
                       nyb_err *err)
{
    const size_t floats = most_floats(model, stored), linears = most_linears(model);
    *out = (nyb_block_weights){.model = model, .floats = floats, .stored = stored};
    out->memory = nyb_alloc_raw(floats, sizeof(float));
    out->weights = nyb_alloc(linears, sizeof(*out->weights));
    out->biases = nyb_alloc(linears, sizeof(*out->biases));
    if (out->memory && out->weights && out->biases)
        return NYB_OK;
    nyb_block_weights_clear(out);
    return nyb_no_memory(err, "the weights of a block", floats, sizeof(float));
}

nyb_status nyb_block_weights_init(nyb_block_weights *out, const nyb_model *model, nyb_err *err)
{
    return init(out, model, NULL, err);
}

nyb_status nyb_block_weights_init_stored(nyb_block_weights *out, const nyb_model *model,
                                         nyb_err *err)
{
    nyb_stored *stored = NULL;
    *out = (nyb_block_weights){0};
    const nyb_status status = nyb_stored_new(&stored, model, err);
    return status == NYB_OK ? init(out, model, stored, err) : status;
}

void nyb_block_weights_clear(nyb_block_weights *weights)
{
    nyb_free(weights->memory);
    nyb_free(weights->weights);
    nyb_free(weights->biases);
    nyb_stored_free(weights->stored);
    *weights = (nyb_block_weights){0};
}

typedef struct load {
    nyb_block_weights *weights;
    size_t block;
    size_t linears;
    nyb_status *status; // [linears]
    nyb_err *err;       // [linears]
} load;

nyb_status nyb_linear_read(const nyb_model *m, const nyb_linear *linear, nyb_mat out, nyb_err *err)
{
    if (!linear->quantized)
        return nyb_linear_widen(linear, 0, out, err);
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
    l->status[i] = w->stored ? nyb_stored_load(w->stored, w->model, l->block, i, &l->err[i])
                             : nyb_linear_read(w->model, linear, w->weights[i], &l->err[i]);
    if (linear->weight && !w->stored) // the copy is what is worked with from here on
        nyb_map_release(linear->weight->at, linear->weight->bytes);
    if (l->status[i] == NYB_OK && linear->bias)
        l->status[i] = nyb_tensor_widen(linear->bias, 0, nyb_mat_of(w->biases[i], 1, linear->rows),
                                        &l->err[i]);
}

// Gemma stores what its gains are above 1.
static void add_one(float *gains, size_t n)
{
    for (size_t i = 0; i < n; i++)
        gains[i] += 1.0f;
}

static nyb_status load_vectors(nyb_block_weights *w, nyb_err *err)
{
    const bool plus = nyb_model_config_of(w->model)->arch->norm == NYB_NORM_RMS_PLUS;
    for (nyb_vector v = 0; v < NYB_VECTORS; v++) {
        const nyb_tensor *const tensor = nyb_vector_at(w->model, w->index, v);
        if (!tensor)
            continue;
        const size_t cols = tensor->shape[tensor->rank - 1], n = vector_floats(tensor);
        const nyb_status status =
            nyb_tensor_widen(tensor, 0, nyb_mat_of(w->vectors[v], n / cols, cols), err);
        if (status != NYB_OK)
            return status;
        if (plus && v < NYB_VECTOR_NORMS)
            add_one(w->vectors[v], n);
    }
    return NYB_OK;
}

static nyb_status load_all(const nyb_context *ctx, load *l, nyb_err *err)
{
    nyb_parallel(ctx, l->linears, load_linear, l);
    for (size_t i = 0; i < l->linears; i++) {
        if (l->status[i] != NYB_OK)
            return nyb_fail(err, l->status[i], "%s", l->err[i].text);
    }
    const nyb_status status =
        l->weights->stored ? nyb_stored_finish(l->weights->stored, l->weights->model, l->block, err)
                           : NYB_OK;
    return status == NYB_OK ? load_vectors(l->weights, err) : status;
}

nyb_status nyb_block_weights_load(const nyb_context *ctx, nyb_block_weights *weights, size_t index,
                                  nyb_err *err)
{
    const size_t count = nyb_linear_count(weights->model, index);
    nyb_arena arena = {0};
    load l = {.weights = weights,
              .block = index,
              .linears = count,
              .status = nyb_arena_alloc(&arena, count, sizeof(*l.status)),
              .err = nyb_arena_alloc(&arena, count, sizeof(*l.err))};
    nyb_checkpoint_release(nyb_model_checkpoint(weights->model)); // of the block before
    weights->index = index;
    (void) lay_out(weights, index, weights->memory); // the caller may have changed the views
    const nyb_status status = l.status && l.err
                                  ? load_all(ctx, &l, err)
                                  : nyb_no_memory(err, "a block's errors", count, sizeof(*l.err));
    nyb_arena_clear(&arena);
    return status;
}
