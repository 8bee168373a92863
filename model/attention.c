#include <math.h>
#include <string.h>

#include "core/dtype.h"
#include "core/linalg.h"
#include "core/threads.h"
#include "kernels/vector.h"
#include "model/binding.h"
#include "model/stages.h"

enum { KEPT_ROWS = 64 }; // rows of one task once all heads are there

typedef struct attention {
    nyb_batch *batch;
    const nyb_model_config *config;
    const nyb_vector_ops *ops;
    nyb_columns at;
    size_t window, chunk; // of this block; 0: none
    float scale;
    size_t past;          // positions before the batch's own: those of the cache
    float *keys, *values; // the cache's for this block; NULL: in batch->wide
} attention;

// Keys or values of positions [low, high) of the sample that starts at token `start`: `dim` columns
// of batch->wide, or of the cache, from `inside` of theirs on.
static nyb_mat keys_of(const attention *a, size_t start, size_t low, size_t high, size_t inside,
                       size_t dim)
{
    const size_t column = a->at.k + inside;
    if (!a->keys)
        return nyb_block(a->batch->wide, start + low, start + high, column, column + dim);
    const nyb_cache *const cache = a->batch->cache;
    return nyb_block(nyb_mat_of(a->keys, cache->capacity, cache->key_width), low, high, inside,
                     inside + dim);
}

static nyb_mat values_of(const attention *a, size_t start, size_t low, size_t high, size_t inside,
                         size_t dim)
{
    const size_t column = a->at.v + inside;
    if (!a->values)
        return nyb_block(a->batch->wide, start + low, start + high, column, column + dim);
    const nyb_cache *const cache = a->batch->cache;
    return nyb_block(nyb_mat_of(a->values, cache->capacity, cache->value_width), low, high, inside,
                     inside + dim);
}

// The oldest position that a query at `position` sees.
static size_t oldest(const attention *a, size_t position)
{
    if (a->chunk)
        return position / a->chunk * a->chunk;
    return a->window && position + 1 > a->window ? position + 1 - a->window : 0;
}

// ---- Scores --------------------------------------------------------------------------------

// The slope of a head's linear bias. Press, Smith, Lewis, "Train Short, Test Long",
// arXiv:2108.12409; numbers of heads between powers of two as their code has it. Falcon's slopes
// and biases are rounded to bfloat16.
static float slope_of(size_t head, size_t heads)
{
    size_t power = 1;
    while (2 * power <= heads)
        power *= 2;
    const double base = exp2(-8.0 / (double) power);
    const double slope = head < power ? pow(base, (double) (head + 1))
                                      : pow(sqrt(base), (double) (2 * (head - power) + 1));
    return nyb_f32_of_bf16(nyb_bf16_of_f32((float) slope));
}

static void add_slopes(const attention *a, float *scores, size_t low, size_t cols, size_t head)
{
    const float slope = slope_of(head, a->config->heads);
    for (size_t i = 0; i < cols; i++) {
        const float bias = slope * (float) (low + i);
        scores[i] += a->scale * nyb_f32_of_bf16(nyb_bf16_of_f32(bias));
    }
}

static void cap_scores(const attention *a, float *scores, size_t cols)
{
    const double cap = a->config->score_cap;
    for (size_t i = 0; i < cols; i++)
        scores[i] = (float) (cap * tanh((double) scores[i] / cap));
}

// A query among the positions [low, low + cols) whose scores are there.
typedef struct query {
    size_t position, low, cols, head;
} query;

// Turns raw scores into weights that are still to be divided by the sum that is returned; unseen
// positions get weight 0.
static float weigh(const attention *a, float *scores, const query *q)
{
    const bool both = a->config->arch->bidirectional;
    const size_t first = both ? 0 : oldest(a, q->position) - q->low;
    const size_t end = both ? q->cols : q->position + 1 - q->low;
    if (a->config->score_cap > 0.0)
        cap_scores(a, scores, q->cols);
    if (a->config->alibi)
        add_slopes(a, scores, q->low, q->cols, q->head);
    memset(scores, 0, first * sizeof(*scores));
    const double total = a->ops->softmax(scores + first, end - first);
    memset(scores + end, 0, (q->cols - end) * sizeof(*scores));
    return (float) (1.0 / total);
}

// ---- Heads ---------------------------------------------------------------------------------

static void attend_one(const attention *a, nyb_mat out, nyb_mat q, nyb_mat keys, nyb_mat values,
                       const query *at, float *scores)
{
    nyb_gemv(scores, keys, q.at);
    a->ops->scale(scores, a->scale, keys.rows);
    const float inverse = weigh(a, scores, at);
    memset(out.at, 0, out.cols * sizeof(float));
    for (size_t i = 0; i < keys.rows; i++)
        a->ops->add_scaled(out.at, nyb_row(values, i), scores[i], out.cols);
    a->ops->scale(out.at, inverse, out.cols);
}

static void attend_many(const attention *a, nyb_mat out, nyb_mat q, nyb_mat keys, nyb_mat values,
                        const query *at, float *scratch)
{
    const nyb_mat scores = nyb_mat_of(scratch, q.rows, keys.rows);
    float inverse[NYB_QUERY_TILE];
    query each = *at;
    nyb_gemm_nt(scores, q, keys, a->scale, 0.0f);
    for (size_t i = 0; i < q.rows; i++, each.position++)
        inverse[i] = weigh(a, nyb_row(scores, i), &each);
    nyb_gemm_nn(out, scores, values, 1.0f, 0.0f);
    for (size_t i = 0; i < q.rows; i++)
        a->ops->scale(nyb_row(out, i), inverse[i], out.cols);
}

// One head of one span of queries. The output takes the queries' place when it has their width.
static void attend(void *arg, size_t index, unsigned worker)
{
    const attention *const a = arg;
    const nyb_model_config *const c = a->config;
    // The last spans see the most keys: they go first, so that the threads end together.
    const nyb_span *const span = &a->batch->spans[a->batch->span_count - 1 - index / c->heads];
    const size_t head = index % c->heads, key_head = head / (c->heads / c->kv_heads);
    const size_t dim = c->head_dim, value_dim = c->value_dim, start = span->start;
    const size_t key = key_head * dim, value = key_head * value_dim;
    const size_t position = a->past + (span->first - start);
    const size_t low = c->arch->bidirectional ? 0 : oldest(a, position);
    const size_t high = c->arch->bidirectional ? span->end - start : position + span->count;
    const size_t last = span->first + span->count;
    const nyb_mat q = nyb_block(a->batch->wide, span->first, last, head * dim, (head + 1) * dim);
    const nyb_mat out = nyb_block(a->batch->wide, span->first, last, a->at.out + head * value_dim,
                                  a->at.out + (head + 1) * value_dim);
    const nyb_mat keys = keys_of(a, start, low, high, key, dim);
    const nyb_mat values = values_of(a, start, low, high, value, value_dim);
    const query at = {.position = position, .low = low, .cols = high - low, .head = head};
    float *const scratch = nyb_row(a->batch->scratch, worker);
    if (q.rows == 1)
        attend_one(a, out, q, keys, values, &at, scratch);
    else
        attend_many(a, out, q, keys, values, &at, scratch);
}

// The heads of one span of queries that share a key head, without the matrix of all scores.
static void attend_group(void *arg, size_t index, unsigned worker)
{
    const attention *const a = arg;
    const nyb_model_config *const c = a->config;
    const nyb_span *const span = &a->batch->spans[a->batch->span_count - 1 - index / c->kv_heads];
    const size_t key_head = index % c->kv_heads, group = c->heads / c->kv_heads;
    const size_t dim = c->head_dim, key = key_head * dim, start = span->start;
    const size_t position = a->past + (span->first - start);
    const size_t low = oldest(a, position), high = position + span->count;
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
        .keys = keys_of(a, start, low, high, key, dim),
        .values = values_of(a, start, low, high, key, dim),
        .first = position - low,
        .window = a->window,
        .scale = a->scale,
    };
    for (size_t h = 0; span->count == 1 && h < group; h++) {
        const query at = {.position = position, .low = low, .cols = high - low};
        const nyb_mat one = nyb_mat_of(q + h * dim, 1, dim);
        attend_one(a, one, one, task.keys, task.values, &at, scratch);
    }
    if (span->count > 1)
        nyb_attend_run(&task, (uint32_t *) (void *) scratch);
}

bool nyb_needs_scores(const nyb_model_config *config)
{
    return config->score_cap > 0.0 || config->alibi || config->arch->bidirectional ||
           config->arch->window == NYB_WINDOW_CHUNKS || config->value_dim != config->head_dim;
}

static double scale_of(const nyb_model_config *c, size_t block)
{
    const double magnitude = c->rope_count > 0 ? c->ropes[0].score_magnitude : 1.0;
    return c->score_scale * magnitude / (c->scale_by_block ? (double) (block + 1) : 1.0);
}

// KEPT_ROWS rows of the output, from its columns to where the next stage finds it.
static void keep_rows(void *arg, size_t index, unsigned worker)
{
    const attention *const a = arg;
    const size_t t0 = index * KEPT_ROWS, tokens = a->batch->tokens;
    (void) worker;
    for (size_t t = t0; t < tokens && t < t0 + KEPT_ROWS; t++) {
        float *const row = nyb_row(a->batch->wide, t);
        a->ops->narrow(row, row + a->at.out, a->config->heads * a->config->value_dim);
    }
}

void nyb_attention_run(const nyb_context *ctx, const nyb_block_weights *weights, nyb_batch *batch)
{
    const nyb_model_config *const c = nyb_model_config_of(batch->model);
    const size_t block = weights->index;
    attention a = {.batch = batch,
                   .config = c,
                   .ops = nyb_vector_ops_get(),
                   .at = nyb_columns_of(c, batch->operands),
                   .scale = (float) scale_of(c, block)};
    if (nyb_config_has(c, block, NYB_BLOCK_WINDOW))
        a.window = c->window;
    if (nyb_config_has(c, block, NYB_BLOCK_CHUNKS))
        a.chunk = c->window;
    nyb_heads_run(ctx, weights, batch);
    if (batch->cache) {
        nyb_cache *const cache = batch->cache;
        a.past = cache->used;
        a.keys = cache->memory + block * cache->capacity * (cache->key_width + cache->value_width);
        a.values = a.keys + cache->capacity * cache->key_width;
    }
    if (nyb_needs_scores(c))
        nyb_parallel(ctx, batch->span_count * c->heads, attend, &a);
    else
        nyb_parallel(ctx, batch->span_count * c->kv_heads, attend_group, &a);
    if (batch->operands == NYB_BF16)
        nyb_parallel(ctx, (batch->tokens + KEPT_ROWS - 1) / KEPT_ROWS, keep_rows, &a);
}
