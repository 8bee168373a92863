#include <assert.h>
#include <stdatomic.h>

#include "core/linalg.h"
#include "core/memory.h"
#include "core/threads.h"
#include "kernels/vector.h"
#include "model/binding.h"
#include "model/stages.h"

enum { HEAD_TILE_FLOATS = 1 << 18, HEAD_TILE_ROWS = 16 };

size_t nyb_head_tile(const nyb_model_config *config)
{
    const size_t rows = HEAD_TILE_FLOATS / config->hidden;
    const size_t enough = rows < HEAD_TILE_ROWS ? HEAD_TILE_ROWS : rows;
    return enough < config->vocab ? enough : config->vocab;
}

typedef struct embedding {
    nyb_batch *batch;
    const uint32_t *ids;
    atomic_size_t bad; // the first token whose row is not finite
} embedding;

static void keep_least(atomic_size_t *least, size_t value)
{
    size_t seen = atomic_load(least);
    while (value < seen && !atomic_compare_exchange_weak(least, &seen, value))
        ;
}

static void embed_one(void *arg, size_t token, unsigned worker)
{
    embedding *const e = arg;
    const nyb_mat row = nyb_block(e->batch->x, token, token + 1, 0, e->batch->x.cols);
    (void) worker;
    if (nyb_tensor_widen(nyb_model_embedding(e->batch->model), e->ids[token], row, NULL) != NYB_OK)
        keep_least(&e->bad, token);
}

nyb_status nyb_embed(const nyb_context *ctx, nyb_batch *batch, const uint32_t *ids, nyb_err *err)
{
    const size_t vocab = nyb_model_config_of(batch->model)->vocab;
    for (size_t i = 0; i < batch->tokens; i++) {
        if (ids[i] >= vocab)
            return nyb_fail(err, NYB_E_ARG, "token id %u at %zu is outside the vocabulary of %zu",
                            ids[i], i, vocab);
    }
    embedding e = {.batch = batch, .ids = ids, .bad = batch->tokens};
    nyb_parallel(ctx, batch->tokens, embed_one, &e);
    if (e.bad < batch->tokens)
        return nyb_tensor_widen(nyb_model_embedding(batch->model), ids[e.bad],
                                nyb_block(batch->x, e.bad, e.bad + 1, 0, batch->x.cols), err);
    return NYB_OK;
}

typedef struct head {
    const nyb_model *model;
    nyb_mat scratch; // [workers, *]
    nyb_mat in;      // [tokens, hidden]
    nyb_mat logits;  // [tokens, vocab]
    size_t tile;
    atomic_size_t bad; // the first tile that is not finite
} head;

// Rows [row0, row0 + out.rows) of the head.
static nyb_status read_rows(const nyb_model *model, size_t row0, nyb_mat out, nyb_err *err)
{
    const nyb_linear *const linear = nyb_model_head(model);
    if (!linear->quantized)
        return nyb_tensor_widen(linear->weight, row0, out, err);
    nyb_qweight_dequantize(nyb_model_head_codes(model), row0, out);
    return NYB_OK;
}

static nyb_mat tile_of(const head *h, size_t index, unsigned worker)
{
    const size_t row0 = index * h->tile, left = h->logits.cols - row0;
    return nyb_mat_of(nyb_row(h->scratch, worker), left < h->tile ? left : h->tile, h->in.cols);
}

static void run_head_tile(void *arg, size_t index, unsigned worker)
{
    head *const h = arg;
    const size_t row0 = index * h->tile;
    const nyb_mat rows = tile_of(h, index, worker);
    if (read_rows(h->model, row0, rows, NULL) != NYB_OK) {
        keep_least(&h->bad, index);
        return;
    }
    if (h->in.rows == 1)
        nyb_gemv(h->logits.at + row0, rows, h->in.at);
    else
        nyb_gemm_nt(nyb_block(h->logits, 0, h->in.rows, row0, row0 + rows.rows), h->in, rows, 1.0f,
                    0.0f);
}

// Final norm of x's rows into `in`, with the gains in a worker's scratch.
static nyb_status norm_rows(const nyb_batch *batch, size_t token0, nyb_mat in, nyb_err *err)
{
    const nyb_vector_ops *const ops = nyb_vector_ops_get();
    const double eps = nyb_model_config_of(batch->model)->norm_eps;
    const nyb_mat gains = nyb_mat_of(batch->scratch.at, 1, in.cols);
    const nyb_status status = nyb_tensor_widen(nyb_model_final_norm(batch->model), 0, gains, err);
    for (size_t i = 0; status == NYB_OK && i < in.rows; i++)
        ops->rms_norm(nyb_row(in, i), nyb_row(batch->x, token0 + i), gains.at, in.cols, eps);
    return status;
}

nyb_status nyb_head(const nyb_context *ctx, nyb_batch *batch, size_t token0, nyb_mat logits,
                    nyb_err *err)
{
    const nyb_model_config *const config = nyb_model_config_of(batch->model);
    assert(logits.cols == config->vocab && token0 + logits.rows <= batch->tokens);
    // Nothing is left in the stages' buffer after the last block: the normed rows go there.
    head h = {
        .model = batch->model,
        .scratch = batch->scratch,
        .in = nyb_block(batch->wide, token0, token0 + logits.rows, 0, config->hidden),
        .logits = logits,
        .tile = nyb_head_tile(config),
        .bad = SIZE_MAX,
    };
    const nyb_status status = norm_rows(batch, token0, h.in, err);
    if (status != NYB_OK)
        return status;
    nyb_parallel(ctx, (config->vocab + h.tile - 1) / h.tile, run_head_tile, &h);
    if (h.bad < SIZE_MAX)
        return read_rows(h.model, h.bad * h.tile, tile_of(&h, h.bad, 0), err);
    return NYB_OK;
}
