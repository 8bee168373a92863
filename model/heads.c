// From the stages' outputs to queries, keys and values: their order, their norms, their positions.
#include <math.h>
#include <string.h>

#include "core/threads.h"
#include "kernels/vector.h"
#include "model/binding.h"
#include "model/norm.h"
#include "model/stages.h"

typedef struct heads {
    nyb_batch *batch;
    const nyb_model_config *config;
    const nyb_vector_ops *ops;
    nyb_columns at;
    bool grouped; // a fused matrix with each k head's q heads beside it
    nyb_qk_norm qk_norm;
    nyb_norm q_norm, k_norm;
    const float *angles; // [longest, dims], NULL: nothing turns
    size_t dims;
    bool tuned;
    size_t past;
    float *keys, *values; // the cache's, NULL: none
} heads;

// From the order q.. k v, q.. k v to all q, all k, all v.
static void ungroup(const heads *h, float *row, float *scratch)
{
    const nyb_model_config *const c = h->config;
    const size_t dim = c->head_dim, each = c->heads / c->kv_heads;
    const size_t all = (c->heads + 2 * c->kv_heads) * dim;
    memcpy(scratch, row, all * sizeof(*row));
    for (size_t g = 0; g < c->kv_heads; g++) {
        const float *const from = scratch + g * (each + 2) * dim;
        memcpy(row + g * each * dim, from, each * dim * sizeof(*row));
        memcpy(row + h->at.k + g * dim, from + each * dim, dim * sizeof(*row));
        memcpy(row + h->at.v + g * dim, from + (each + 1) * dim, dim * sizeof(*row));
    }
}

static void rotate_neighbours(float *x, const float *turn, size_t half)
{
    for (size_t i = 0; i < half; i++) {
        const float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * turn[i] - b * turn[half + i];
        x[2 * i + 1] = b * turn[i] + a * turn[half + i];
    }
}

static void turn(const heads *h, float *x, const float *angles)
{
    if (h->config->interleaved)
        rotate_neighbours(x, angles, h->dims / 2);
    else
        h->ops->rotate(x, angles, h->dims / 2);
}

// Latent attention: keys are a part of their own and a turned one that all heads share.
static void expand(const heads *h, float *row, const float *angles)
{
    const nyb_model_config *const c = h->config;
    const size_t plain = c->latent.plain, turned = c->latent.turned;
    float *const shared = row + h->at.kv_rank + c->latent.kv_rank;
    turn(h, shared, angles);
    for (size_t i = 0; i < c->heads; i++) {
        const float *const kv = row + h->at.kv + i * (plain + c->value_dim);
        float *const key = row + h->at.k + i * c->head_dim;
        turn(h, row + i * c->head_dim + plain, angles);
        memcpy(key, kv, plain * sizeof(*row));
        memcpy(key + plain, shared, turned * sizeof(*row));
        memcpy(row + h->at.v + i * c->value_dim, kv + plain, c->value_dim * sizeof(*row));
    }
}

static void norm_heads(const heads *h, float *row)
{
    const nyb_model_config *const c = h->config;
    float *const keys = row + h->at.k;
    if (h->qk_norm == NYB_QK_ALL) {
        nyb_norm_row(&h->q_norm, row, row, c->heads * c->head_dim);
        nyb_norm_row(&h->k_norm, keys, keys, c->kv_heads * c->head_dim);
    } else if (h->qk_norm == NYB_QK_HEAD) {
        for (size_t i = 0; i < c->heads; i++)
            nyb_norm_row(&h->q_norm, row + i * c->head_dim, row + i * c->head_dim, c->head_dim);
        for (size_t i = 0; i < c->kv_heads; i++)
            nyb_norm_row(&h->k_norm, keys + i * c->head_dim, keys + i * c->head_dim, c->head_dim);
    }
}

// Scalable softmax for the blocks without positions: later queries are longer.
static void tune(const heads *h, float *row, size_t position)
{
    const nyb_model_config *const c = h->config;
    const double steps = floor(((double) position + 1.0) / c->tune_floor);
    h->ops->scale(row, (float) (log1p(steps) * c->tune_scale + 1.0), c->heads * c->head_dim);
}

static void shape_row(const heads *h, float *row, size_t position, float *scratch)
{
    const nyb_model_config *const c = h->config;
    const float *const angles = h->angles ? h->angles + position * h->dims : NULL;
    const size_t count = c->heads + c->kv_heads; // keys lie behind queries
    if (c->latent.kv_rank) {
        expand(h, row, angles);
        return;
    }
    if (h->grouped)
        ungroup(h, row, scratch);
    norm_heads(h, row);
    for (size_t i = 0; angles && i < count; i++)
        turn(h, row + i * c->head_dim, angles);
    for (size_t i = 0; h->qk_norm == NYB_QK_UNIT && i < count; i++)
        nyb_norm_unit(row + i * c->head_dim, c->head_dim, c->norm_eps);
    if (h->tuned)
        tune(h, row, position);
}

static void shape_span(void *arg, size_t index, unsigned worker)
{
    const heads *const h = arg;
    const nyb_span *const span = &h->batch->spans[index];
    for (size_t t = span->first; t < span->first + span->count; t++) {
        const size_t position = h->past + h->batch->position[t];
        float *const row = nyb_row(h->batch->wide, t);
        shape_row(h, row, position, nyb_row(h->batch->scratch, worker));
        if (!h->keys)
            continue;
        const size_t keys = h->batch->cache->key_width, values = h->batch->cache->value_width;
        memcpy(h->keys + position * keys, row + h->at.k, keys * sizeof(float));
        memcpy(h->values + position * values, row + h->at.v, values * sizeof(float));
    }
}

void nyb_heads_run(const nyb_context *ctx, const nyb_block_weights *weights, nyb_batch *batch)
{
    const nyb_model_config *const c = nyb_model_config_of(batch->model);
    const size_t block = weights->index;
    const bool local = c->rope_count > 1 && nyb_config_has(c, block, NYB_BLOCK_WINDOW);
    const bool turned = c->rope_count > 0 && !nyb_config_has(c, block, NYB_BLOCK_NO_ROPE);
    heads h = {
        .batch = batch,
        .config = c,
        .ops = nyb_vector_ops_get(),
        .at = nyb_columns_of(c, batch->operands),
        .grouped = c->arch->qkv && c->arch->qkv_order == NYB_QKV_GROUPED,
        .qk_norm = c->qk_norm ? c->arch->qk_norm : NYB_QK_NONE,
        .q_norm = nyb_norm_of(weights, NYB_VECTOR_Q_NORM),
        .k_norm = nyb_norm_of(weights, NYB_VECTOR_K_NORM),
        .angles = turned ? batch->ropes[local] : NULL,
        .dims = c->ropes[local].dims,
        .tuned = c->tune_scale > 0.0 && !turned,
    };
    if (h.qk_norm == NYB_QK_UNIT && !turned)
        h.qk_norm = NYB_QK_NONE;
    if (batch->cache) {
        nyb_cache *const cache = batch->cache;
        h.past = cache->used;
        h.keys = cache->memory + block * cache->capacity * (cache->key_width + cache->value_width);
        h.values = h.keys + cache->capacity * cache->key_width;
    }
    nyb_parallel(ctx, batch->span_count, shape_span, &h);
}
