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

// Turns raw scores of positions [low, low + cols) into weights that are still to be divided by
// the sum that is returned; unseen positions get weight 0.
static float weigh(const attention *a, float *scores, size_t low, size_t cols, size_t position)
{
    const size_t first = oldest(a->config, position) - low, end = position + 1 - low;
    memset(scores, 0, first * sizeof(*scores));
    const double total = a->ops->softmax(scores + first, end - first);
    memset(scores + end, 0, (cols - end) * sizeof(*scores));
    return (float) (1.0 / total);
}

static void attend_one(const attention *a, nyb_mat q, nyb_mat keys, nyb_mat values, size_t position,
                       float *scores)
{
    const size_t low = position + 1 - keys.rows;
    nyb_gemv(scores, keys, q.at);
    a->ops->scale(scores, 1.0f / sqrtf((float) q.cols), keys.rows);
    const float inverse = weigh(a, scores, low, keys.rows, position);
    memset(q.at, 0, q.cols * sizeof(float));
    for (size_t i = 0; i < keys.rows; i++)
        a->ops->add_scaled(q.at, nyb_row(values, i), scores[i], q.cols);
    a->ops->scale(q.at, inverse, q.cols);
}

static void attend_many(const attention *a, nyb_mat q, nyb_mat keys, nyb_mat values,
                        size_t position, float *scratch)
{
    const size_t low = position + q.rows - keys.rows;
    const nyb_mat scores = nyb_mat_of(scratch, q.rows, keys.rows);
    float inverse[NYB_QUERY_TILE];
    nyb_gemm_nt(scores, q, keys, 1.0f / sqrtf((float) q.cols), 0.0f);
    for (size_t i = 0; i < q.rows; i++)
        inverse[i] = weigh(a, nyb_row(scores, i), low, scores.cols, position + i);
    nyb_gemm_nn(q, scores, values, 1.0f, 0.0f);
    for (size_t i = 0; i < q.rows; i++)
        a->ops->scale(nyb_row(q, i), inverse[i], q.cols);
}

// One head of one span of queries. The output takes the queries' place.
static void attend(void *arg, size_t index, unsigned worker)
{
    const attention *const a = arg;
    const nyb_model_config *const c = a->config;
    // The last spans see the most keys: they go first, so that the threads end together.
    const nyb_span *const span = &a->batch->spans[a->batch->span_count - 1 - index / c->heads];
    const size_t head = index % c->heads, key_head = head / (c->heads / c->kv_heads);
    const size_t dim = c->head_dim;
    const size_t key_column = (c->heads + key_head) * dim;
    const size_t value_column = key_column + c->kv_heads * dim;
    const size_t position = a->past + (span->first - span->start);
    const size_t low = oldest(c, position), high = position + span->count;
    const nyb_mat q = nyb_block(a->batch->wide, span->first, span->first + span->count, head * dim,
                                (head + 1) * dim);
    const nyb_mat keys = history(a, a->keys, span->start, low, high, key_column);
    const nyb_mat values = history(a, a->values, span->start, low, high, value_column);
    float *const scratch = nyb_row(a->batch->scratch, worker);
    if (q.rows == 1)
        attend_one(a, q, keys, values, position, scratch);
    else
        attend_many(a, q, keys, values, position, scratch);
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
    nyb_parallel(ctx, batch->span_count * a.config->heads, attend, &a);
}
