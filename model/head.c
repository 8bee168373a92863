#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "core/linalg.h"
#include "core/memory.h"
#include "core/threads.h"
#include "kernels/vector.h"
#include "model/binding.h"
#include "model/norm.h"
#include "model/stages.h"

enum { HEAD_TILE_FLOATS = 1 << 18, HEAD_TILE_ROWS = 16 };

size_t nyb_head_tile(const nyb_model_config *config)
{
    const size_t rows = HEAD_TILE_FLOATS / config->hidden;
    const size_t enough = rows < HEAD_TILE_ROWS ? HEAD_TILE_ROWS : rows;
    return enough < config->vocab ? enough : config->vocab;
}

void nyb_keep_least(atomic_size_t *least, size_t value)
{
    size_t seen = atomic_load(least);
    while (value < seen && !atomic_compare_exchange_weak(least, &seen, value))
        ;
}

typedef struct head {
    const nyb_model *model;
    nyb_weight weight;
    nyb_weight_input input;  // for one token
    nyb_mat scratch, panels; // [workers, *]
    nyb_mat in;              // [tokens, hidden]
    nyb_mat logits;          // [tokens, vocab]
    size_t tile;
    atomic_size_t bad; // the first tile that is not finite
} head;

// Rows [row0, row0 + out.rows) of a head that is not quantised.
static nyb_status read_rows(const nyb_model *model, size_t row0, nyb_mat out, nyb_err *err)
{
    assert(!nyb_model_head(model)->quantized);
    return nyb_linear_widen(nyb_model_head(model), row0, out, err);
}

// The logits `out` of one token. A float of the head that is not finite shows in them: only then
// is it looked for.
static bool run_one(const head *h, size_t row0, nyb_mat rows, nyb_mat out)
{
    nyb_weight_multiply_one(out.at, &h->weight, row0, rows.rows, &h->input);
    return nyb_model_head(h->model)->quantized ||
           nyb_vector_ops_get()->first_not_finite(out.at, rows.rows) == rows.rows ||
           read_rows(h->model, row0, rows, NULL) == NYB_OK;
}

static bool run_rows(const head *h, size_t row0, nyb_mat rows, nyb_mat out)
{
    if (read_rows(h->model, row0, rows, NULL) != NYB_OK)
        return false;
    if (h->in.rows == 1)
        nyb_gemv(out.at, rows, h->in.at);
    else
        nyb_gemm_nt(out, h->in, rows, 1.0f, 0.0f);
    return true;
}

static nyb_mat tile_of(const head *h, size_t index, unsigned worker)
{
    const size_t row0 = index * h->tile, left = h->logits.cols - row0;
    return nyb_mat_of(nyb_row(h->scratch, worker), left < h->tile ? left : h->tile, h->in.cols);
}

static void cap_logits(nyb_mat logits, double cap)
{
    for (size_t i = 0; i < logits.rows; i++) {
        float *const row = nyb_row(logits, i);
        for (size_t j = 0; j < logits.cols; j++)
            row[j] = (float) (cap * tanh((double) row[j] / cap));
    }
}

static void run_head_tile(void *arg, size_t index, unsigned worker)
{
    head *const h = arg;
    const size_t row0 = index * h->tile;
    const nyb_mat rows = tile_of(h, index, worker);
    const double cap = nyb_model_config_of(h->model)->logit_cap;
    const nyb_mat out = nyb_block(h->logits, 0, h->in.rows, row0, row0 + rows.rows);
    bool finite = true;
    if (h->in.rows == 1 && (h->weight.codes || h->weight.at))
        finite = run_one(h, row0, rows, out);
    else if (nyb_model_head(h->model)->quantized)
        nyb_weight_multiply(out, h->in, &h->weight, row0, 0.0f, nyb_row(h->panels, worker));
    else
        finite = run_rows(h, row0, rows, out);
    if (!finite)
        nyb_keep_least(&h->bad, index);
    if (cap > 0.0)
        cap_logits(out, cap);
}

// Final norm of x's rows into `in`, with the gains in a worker's scratch. x when there is none.
static nyb_status norm_rows(const nyb_batch *batch, size_t token0, nyb_mat in, nyb_err *err)
{
    const nyb_model_config *const config = nyb_model_config_of(batch->model);
    const nyb_outer *const outer = nyb_model_outer(batch->model);
    const nyb_mat gain = nyb_mat_of(batch->scratch.at, 1, in.cols);
    const nyb_mat bias = nyb_mat_of(batch->scratch.at + in.cols, 1, in.cols);
    nyb_norm norm = {.kind = config->arch->norm, .eps = config->norm_eps};
    nyb_status status = NYB_OK;
    if (outer->final_norm)
        status = nyb_tensor_widen(outer->final_norm, 0, gain, err);
    if (status == NYB_OK && outer->final_norm_bias)
        status = nyb_tensor_widen(outer->final_norm_bias, 0, bias, err);
    norm.gain = outer->final_norm ? gain.at : NULL;
    norm.bias = outer->final_norm_bias ? bias.at : NULL;
    for (size_t i = 0; norm.gain && norm.kind == NYB_NORM_RMS_PLUS && i < in.cols; i++)
        gain.at[i] += 1.0f;
    for (size_t i = 0; status == NYB_OK && i < in.rows; i++) {
        const float *const x = nyb_row(batch->x, token0 + i);
        if (config->no_final_norm)
            memcpy(nyb_row(in, i), x, in.cols * sizeof(float));
        else
            nyb_norm_row(&norm, nyb_row(in, i), x, in.cols);
    }
    return status;
}

// in = in P^T, row by row, through a worker's scratch.
static nyb_status project_rows(const nyb_batch *batch, nyb_mat *in, nyb_err *err)
{
    const nyb_linear *const linear = &nyb_model_outer(batch->model)->project_out;
    const nyb_mat out = nyb_block(*in, 0, in->rows, 0, linear->rows);
    nyb_arena arena = {0};
    const nyb_mat matrix = nyb_arena_mat(&arena, linear->rows, linear->cols);
    nyb_status status = matrix.at ? nyb_linear_widen(linear, 0, matrix, err)
                                  : nyb_no_memory(err, "a projection", linear->rows, linear->cols);
    float *const row = batch->scratch.at;
    for (size_t i = 0; status == NYB_OK && i < in->rows; i++) {
        nyb_gemv(row, matrix, nyb_row(*in, i));
        memcpy(nyb_row(out, i), row, out.cols * sizeof(float));
    }
    nyb_arena_clear(&arena);
    *in = out;
    return status;
}

nyb_status nyb_head(const nyb_context *ctx, nyb_batch *batch, size_t token0, nyb_mat logits,
                    nyb_err *err)
{
    const nyb_model_config *const config = nyb_model_config_of(batch->model);
    assert(logits.cols == config->vocab && token0 + logits.rows <= batch->tokens);
    if (config->labels || config->bare)
        return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: %s has no next token to predict",
                        nyb_model_folder(batch->model),
                        config->bare ? "an encoder" : "a sequence classifier");
    // Nothing is left in the stages' buffer after the last block: the normed rows go there.
    head h = {
        .model = batch->model,
        .weight = nyb_model_head_weight(batch->model),
        .scratch = batch->scratch,
        .panels = batch->panels,
        .in = nyb_block(batch->wide, token0, token0 + logits.rows, 0, config->hidden),
        .logits = logits,
        .tile = nyb_head_tile(config),
        .bad = SIZE_MAX,
    };
    nyb_status status = norm_rows(batch, token0, h.in, err);
    if (status == NYB_OK && nyb_model_outer(batch->model)->project_out.weight)
        status = project_rows(batch, &h.in, err);
    if (status != NYB_OK)
        return status;
    if (h.in.rows == 1)
        h.input = nyb_model_head_input(batch->model, h.in.at);
    nyb_parallel(ctx, (config->vocab + h.tile - 1) / h.tile, run_head_tile, &h);
    if (h.bad < SIZE_MAX)
        return read_rows(h.model, h.bad * h.tile, tile_of(&h, h.bad, 0), err);
    return NYB_OK;
}
