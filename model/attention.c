#include <math.h>
#include <string.h>

#include "core/linalg.h"
#include "core/threads.h"
#include "kernels/vector.h"
#include "model/stages.h"

typedef struct attention {
    nyb_batch *batch;
    const nyb_model_config *config;
    const nyb_vector_ops *ops;
    size_t past;          // positions before the batch's own: those of the cache
    float *keys, *values; // the cache's for this block; NULL: in batch->wide
} attention;

// Keys or values of positions [low, high) of the sample that starts at token `start`, for one
// key head. `column` is theirs in batch->wide.
static nyb_mat history(const attention *a, float *cached, size_t start, size_t low, size_t high,
                       size_t column)
{
    const size_t dim = a->config->head_dim;
    if (!cached)
        return nyb_block(a->batch->wide, start + low, start + high, column, column + dim);
    const size_t width = a->batch->cache->width;
    const size_t inside = (column - a->config->heads * dim) % width;
    return nyb_block(nyb_mat_of(cached, a->batch->cache->capacity, width), low, high, inside,
                     inside + dim);
}

// The oldest position that a query at `position` sees.
static size_t oldest(const nyb_model_config *config, size_t position)
{
    const size_t window = config->window;
    return window && position + 1 > window ? position + 1 - window : 0;
}

// A lone query, whose keys begin with the oldest that it sees.
static void attend_one(const attention *a, float *q, nyb_mat keys, nyb_mat values, float *scores)
{
    nyb_gemv(scores, keys, q);
    a->ops->scale(scores, 1.0f / sqrtf((float) keys.cols), keys.rows);
    const double total = a->ops->softmax(scores, keys.rows);
    memset(q, 0, keys.cols * sizeof(float));
    for (size_t i = 0; i < keys.rows; i++)
        a->ops->add_scaled(q, nyb_row(values, i), scores[i], keys.cols);
    a->ops->scale(q, (float) (1.0 / total), keys.cols);
}

// The heads of one span of queries that share a key head. The output takes the queries' place.
static void attend(void *arg, size_t index, unsigned worker)
{
    const attention *const a = arg;
    const nyb_model_config *const c = a->config;
    // The last spans see the most keys: they go first, so that the threads end together.
    const nyb_span *const span = &a->batch->spans[a->batch->span_count - 1 - index / c->kv_heads];
    const size_t key_head = index % c->kv_heads, group = c->heads / c->kv_heads;
    const size_t dim = c->head_dim;
    const size_t key_column = (c->heads + key_head) * dim;
    const size_t value_column = key_column + c->kv_heads * dim;
    const size_t position = a->past + (span->first - span->start);
    const size_t low = oldest(c, position), high = position + span->count;
    float *const q = nyb_row(a->batch->wide, span->first) + key_head * group * dim;
    float *const scratch = nyb_row(a->batch->scratch, worker);
    nyb_attend task = {
        .gemm = a->batch->gemm,
        .ops = a->ops,
        .q = q,
        .count = span->count,
        .stride = a->batch->wide.stride,
        .heads = group,
        .head_step = dim,
        .keys = history(a, a->keys, span->start, low, high, key_column),
        .values = history(a, a->values, span->start, low, high, value_column),
        .first = position - low,
        .window = c->window,
        .scale = 1.0f / sqrtf((float) dim),
    };
    for (size_t h = 0; span->count == 1 && h < group; h++)
        attend_one(a, q + h * dim, task.keys, task.values, scratch);
    if (span->count > 1)
        nyb_attend_run(&task, (uint32_t *) (void *) scratch);
}

// Turns the queries and keys of one span and puts its keys and values into the cache.
static void turn(void *arg, size_t index, unsigned worker)
{
    const attention *const a = arg;
    const nyb_model_config *const c = a->config;
    const nyb_span *const span = &a->batch->spans[index];
    const size_t half = c->head_dim / 2;
    (void) worker;
    for (size_t t = span->first; t < span->first + span->count; t++) {
        const size_t position = a->past + a->batch->position[t];
        const float *const angles = a->batch->rope + position * c->head_dim;
        float *const row = nyb_row(a->batch->wide, t);
        for (size_t h = 0; h < c->heads + c->kv_heads; h++)
            a->ops->rotate(row + h * c->head_dim, angles, half);
        if (!a->keys)
            continue;
        const size_t width = a->batch->cache->width;
        const float *const keys = row + c->heads * c->head_dim;
        memcpy(a->keys + position * width, keys, width * sizeof(float));
        memcpy(a->values + position * width, keys + width, width * sizeof(float));
    }
}

void nyb_attention_run(const nyb_context *ctx, size_t block, nyb_batch *batch)
{
    attention a = {
        .batch = batch, .config = nyb_model_config_of(batch->model), .ops = nyb_vector_ops_get()};
    if (batch->cache) {
        const size_t floats = batch->cache->capacity * batch->cache->width;
        a.past = batch->cache->used;
        a.keys = batch->cache->memory + 2 * block * floats;
        a.values = a.keys + floats;
    }
    nyb_parallel(ctx, batch->span_count, turn, &a);
    nyb_parallel(ctx, batch->span_count * a.config->kv_heads, attend, &a);
}
