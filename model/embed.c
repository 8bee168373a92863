// From token ids to the residual stream.
#include <string.h>

#include "core/linalg.h"
#include "core/memory.h"
#include "core/threads.h"
#include "kernels/vector.h"
#include "model/binding.h"
#include "model/norm.h"
#include "model/stages.h"

enum { EMBED_TILE = 32 }; // tokens of one task

typedef struct embedding {
    nyb_batch *batch;
    const nyb_model_config *config;
    const nyb_outer *outer;
    const uint32_t *ids;
    const nyb_vector_ops *ops;
    uint32_t *positions; // [tokens] rows of the learned positions, NULL: none
    nyb_mat project;     // [hidden, embed_dim]; at NULL: none
    float *token_type;   // [hidden], NULL: none
    nyb_norm norm;       // gain NULL: none
    atomic_size_t bad;   // the first token of which something is not finite
} embedding;

static nyb_status embed_row(const embedding *e, size_t t, float *scratch, nyb_err *err)
{
    const nyb_model_config *const c = e->config;
    const nyb_mat row = nyb_block(e->batch->x, t, t + 1, 0, c->hidden);
    nyb_mat raw = nyb_mat_of(scratch, 1, c->embed_dim), added = nyb_mat_of(scratch, 1, c->hidden);
    nyb_status status = nyb_model_embed(e->batch->model, e->ids[t], e->project.at ? raw : row, err);
    if (status != NYB_OK)
        return status;
    if (e->project.at)
        nyb_gemv(row.at, e->project, raw.at);
    if (c->embed_scale != 1.0)
        e->ops->scale(row.at, (float) c->embed_scale, c->hidden);
    if (e->positions) {
        status = nyb_tensor_widen(e->outer->position, e->positions[t], added, err);
        e->ops->add(row.at, added.at, c->hidden);
    }
    if (e->token_type)
        e->ops->add(row.at, e->token_type, c->hidden);
    if (e->norm.gain)
        nyb_norm_row(&e->norm, row.at, row.at, c->hidden);
    return status;
}

static void embed_tile(void *arg, size_t index, unsigned worker)
{
    embedding *const e = arg;
    const size_t t0 = index * EMBED_TILE, left = e->batch->tokens - t0;
    for (size_t t = t0; t < t0 + (left < EMBED_TILE ? left : EMBED_TILE); t++) {
        if (embed_row(e, t, nyb_row(e->batch->scratch, worker), NULL) != NYB_OK)
            nyb_keep_least(&e->bad, t);
    }
}

// Rows of the learned positions. RoBERTa counts the tokens that are no padding, from behind the
// padding's own row on.
static void fill_positions(const embedding *e)
{
    const nyb_model_config *const c = e->config;
    const nyb_batch *const b = e->batch;
    const size_t past = b->cache ? b->cache->used : 0;
    size_t seen = 0;
    for (size_t t = 0; t < b->tokens; t++) {
        const size_t position = past + b->position[t];
        e->positions[t] = (uint32_t) (position + c->arch->position_offset);
        if (!c->arch->positions_after_pad)
            continue;
        seen = b->position[t] == 0 ? 0 : seen;
        seen += e->ids[t] != c->pad;
        e->positions[t] = (uint32_t) (e->ids[t] != c->pad ? c->pad + seen : c->pad);
    }
}

static nyb_status widen_vector(nyb_arena *arena, const nyb_tensor *tensor, size_t n, float **out,
                               nyb_err *err)
{
    *out = NULL;
    if (!tensor)
        return NYB_OK;
    const nyb_mat row = nyb_arena_mat(arena, 1, n);
    if (!row.at)
        return nyb_no_memory(err, "an embedding", n, sizeof(float));
    *out = row.at;
    return nyb_tensor_widen(tensor, 0, row, err);
}

static nyb_status prepare(embedding *e, nyb_arena *arena, nyb_err *err)
{
    const nyb_model_config *const c = e->config;
    const nyb_outer *const o = e->outer;
    float *gain = NULL, *bias = NULL;
    nyb_status status = widen_vector(arena, o->embedding_norm, c->hidden, &gain, err);
    if (status == NYB_OK)
        status = widen_vector(arena, o->embedding_norm_bias, c->hidden, &bias, err);
    if (status == NYB_OK)
        status = widen_vector(arena, o->token_type, c->hidden, &e->token_type, err);
    e->norm = (nyb_norm){.kind = c->arch->norm, .gain = gain, .bias = bias, .eps = c->norm_eps};
    if (status == NYB_OK && o->position) {
        e->positions = nyb_arena_alloc(arena, e->batch->tokens, sizeof(*e->positions));
        if (!e->positions)
            return nyb_no_memory(err, "positions", e->batch->tokens, sizeof(*e->positions));
        fill_positions(e);
    }
    if (status == NYB_OK && o->project_in.weight) {
        e->project = nyb_arena_mat(arena, c->hidden, c->embed_dim);
        if (!e->project.at)
            return nyb_no_memory(err, "a projection", c->hidden, c->embed_dim);
        status = nyb_linear_widen(&o->project_in, 0, e->project, err);
    }
    return status;
}

nyb_status nyb_embed(const nyb_context *ctx, nyb_batch *batch, const uint32_t *ids, nyb_err *err)
{
    const nyb_model_config *const config = nyb_model_config_of(batch->model);
    for (size_t i = 0; i < batch->tokens; i++) {
        if (ids[i] >= config->vocab)
            return nyb_fail(err, NYB_E_ARG, "token id %u at %zu is outside the vocabulary of %zu",
                            ids[i], i, config->vocab);
    }
    nyb_arena arena = {0};
    embedding e = {.batch = batch,
                   .config = config,
                   .outer = nyb_model_outer(batch->model),
                   .ids = ids,
                   .ops = nyb_vector_ops_get(),
                   .bad = batch->tokens};
    nyb_status status = prepare(&e, &arena, err);
    if (status == NYB_OK)
        nyb_parallel(ctx, (batch->tokens + EMBED_TILE - 1) / EMBED_TILE, embed_tile, &e);
    if (status == NYB_OK && e.bad < batch->tokens)
        status = embed_row(&e, e.bad, batch->scratch.at, err);
    nyb_arena_clear(&arena);
    return status;
}
