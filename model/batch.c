#include <assert.h>
#include <string.h>

#include "core/memory.h"
#include "core/threads.h"
#include "kernels/weight.h"
#include "model/binding.h"
#include "model/config_parts.h"
#include "model/rope.h"
#include "model/stages.h"

// What a batch has to hold.
typedef struct shape {
    size_t samples, tokens, positions;
    unsigned workers;
    nyb_compute compute;
    nyb_dtype operands;
    bool wide; // has what stages of many rows need, however few tokens it has
} shape;

static nyb_compute compute_of(const nyb_context *ctx)
{
    return ctx ? ctx->compute : NYB_COMPUTE_AUTO;
}

nyb_dtype nyb_batch_operands(const nyb_context *ctx, const nyb_model *model)
{
    return compute_of(ctx) == NYB_COMPUTE_BF16 && nyb_model_config_of(model)->experts.count == 0
               ? NYB_BF16
               : NYB_F32;
}

// An odd number of cache lines, so that rows do not fall onto the same sets of a cache.
static size_t wide_stride(size_t cols)
{
    const size_t line = NYB_ALIGN / sizeof(float);
    return ((cols + line - 1) / line | 1) * line;
}

// Hands out pieces of one block of memory. With `at` NULL it only counts.
typedef struct carver {
    unsigned char *at;
    size_t used;
    bool fits; // false once a size does not fit size_t
} carver;

static void *carve(carver *c, size_t count, size_t size)
{
    size_t bytes = 0;
    void *const piece = c->at ? c->at + c->used : NULL;
    c->fits = c->fits && nyb_mul_size(count, size, &bytes) &&
              nyb_add_size(bytes, NYB_ALIGN - 1, &bytes) &&
              nyb_add_size(c->used, bytes - bytes % NYB_ALIGN, &c->used);
    return piece;
}

static nyb_mat carve_mat(carver *c, size_t rows, size_t cols, size_t stride)
{
    size_t count = 0;
    c->fits = c->fits && nyb_mul_size(rows, stride, &count);
    return (nyb_mat){
        .at = carve(c, count, sizeof(float)), .rows = rows, .cols = cols, .stride = stride};
}

static size_t largest(size_t a, size_t b)
{
    return a > b ? a : b;
}

size_t nyb_scratch_floats(const nyb_gemm *gemm, const nyb_model_config *config, size_t tokens,
                          size_t positions)
{
    const size_t queries = tokens < NYB_QUERY_TILE ? tokens : NYB_QUERY_TILE;
    const size_t cols = nyb_columns_of(config, NYB_F32).work, hidden = config->hidden;
    const size_t panel = 2 * (cols < NYB_PANEL_COLS ? cols : NYB_PANEL_COLS);
    const size_t width = largest(hidden, largest(config->latent.q_rank, config->latent.kv_rank));
    // A tile's input, with two panels or a whole output beside it.
    size_t most = nyb_token_tile(tokens) * (width + largest(panel, hidden));
    most = largest(most, nyb_head_tile(config) * largest(hidden, config->embed_dim));
    most = largest(most, largest(cols, config->experts.count));
    most = largest(most, positions); // the scores of a lone query
    if (!nyb_needs_scores(config))
        return largest(most, nyb_attend_words(gemm, queries, config->heads / config->kv_heads,
                                              config->head_dim));
    const size_t scores = positions < SIZE_MAX / 1024 ? queries * positions : SIZE_MAX;
    return largest(scores, most);
}

// Words that the packed weights of the largest stage take.
static size_t packed_words(const nyb_gemm *gemm, const nyb_model *model)
{
    size_t most = 0;
    for (size_t b = 0; b < nyb_block_count(model); b++) {
        for (size_t s = 0; s < nyb_stage_count(model, b); s++) {
            const nyb_stage stage = nyb_stage_at(model, b, s);
            const bool halves = stage.then == NYB_THEN_GATE && stage.count == 1;
            size_t words = 0;
            for (size_t i = stage.first; i < stage.first + stage.count; i++) {
                const size_t rows = nyb_linear_at(model, b, i)->rows;
                words +=
                    (halves ? 2 : 1) * nyb_gemm_packed(gemm, halves ? rows / 2 : rows, stage.width);
            }
            most = words > most ? words : most;
        }
    }
    return most;
}

// What only some families need. The matrices are columns of `wide`, so that whoever keeps its rows
// keeps them.
static void lay_out_extras(nyb_batch *b, const nyb_model_config *c, const shape *s, carver *pieces)
{
    const nyb_columns at = nyb_columns_of(c, b->operands);
    size_t sent = 0;
    if (c->parallel)
        b->start = nyb_block(b->wide, 0, s->tokens, at.start, at.start + c->hidden);
    if (c->experts.count == 0)
        return;
    b->routed = nyb_block(b->wide, 0, s->tokens, at.routed, at.routed + c->hidden);
    b->sum = nyb_block(b->wide, 0, s->tokens, at.sum, at.sum + c->hidden);
    b->routes.weights = nyb_block(b->wide, 0, s->tokens, at.scores, at.scores + c->experts.count);
    pieces->fits = pieces->fits && nyb_mul_size(s->tokens, c->experts.top_k, &sent);
    b->routes.tokens = carve(pieces, sent, sizeof(uint32_t));
    b->routes.starts = carve(pieces, c->experts.count + 1, sizeof(size_t));
}

// Lays the batch out in `memory` (NULL: only counts). SIZE_MAX when the bytes cannot be counted.
static size_t lay_out(nyb_batch *b, const nyb_model *model, const shape *s, void *memory)
{
    const nyb_model_config *const c = nyb_model_config_of(model);
    const size_t narrow = s->tokens < NYB_NARROW_TOKENS ? s->tokens : NYB_NARROW_TOKENS;
    const size_t work = nyb_columns_of(c, NYB_F32).work;
    const nyb_gemm *const g = nyb_gemm_get(s->compute);
    const bool wide = s->wide || s->tokens > NYB_NARROW_TOKENS;
    const size_t tile = nyb_gemm_panels(nyb_token_tile(s->tokens), g->width) * g->width;
    const size_t scratch = nyb_scratch_floats(g, c, s->tokens, s->positions);
    const size_t width = largest(c->hidden, largest(c->latent.q_rank, c->latent.kv_rank));
    carver pieces = {.at = memory, .fits = scratch < SIZE_MAX / 2};
    b->operands = s->tokens > NYB_NARROW_TOKENS ? s->operands : NYB_F32;
    const size_t cols = nyb_columns_of(c, b->operands).count;
    b->starts = carve(&pieces, s->samples + 1, sizeof(*b->starts));
    b->position = carve(&pieces, s->tokens, sizeof(*b->position));
    b->spans = carve(&pieces, s->samples + s->tokens / NYB_QUERY_TILE, sizeof(*b->spans));
    b->x = carve_mat(&pieces, s->tokens, c->hidden, c->hidden);
    b->wide = carve_mat(&pieces, s->tokens, cols, wide_stride(cols));
    for (size_t i = 0; i < c->rope_count; i++)
        b->ropes[i] = carve_mat(&pieces, s->positions, c->ropes[i].dims, c->ropes[i].dims).at;
    b->narrow_in = carve_mat(&pieces, narrow, width, width);
    b->narrow_up = carve_mat(&pieces, narrow, work, work);
    b->narrow_out = carve_mat(&pieces, narrow, c->hidden, c->hidden);
    lay_out_extras(b, c, s, &pieces);
    b->scratch = carve_mat(&pieces, s->workers, scratch, (scratch / 16 | 1) * 16 + 16);
    b->gemm = g;
    b->packed_stride = wide ? nyb_gemm_packed(g, tile, work) + tile / g->width * NYB_GEMM_APART : 0;
    b->packed_weights = carve(&pieces, wide ? packed_words(g, model) : 0, sizeof(uint32_t));
    b->packed_in = carve(&pieces, s->workers, b->packed_stride * sizeof(uint32_t));
    const size_t panel = NYB_WEIGHT_PANEL * largest(width, work);
    b->panels = carve_mat(&pieces, s->workers, panel, panel + NYB_ALIGN / sizeof(float));
    return pieces.fits ? pieces.used : SIZE_MAX;
}

static void fill_spans(nyb_batch *b)
{
    for (size_t i = 0; i < b->samples; i++) {
        const size_t start = b->starts[i], end = b->starts[i + 1];
        for (size_t t = start; t < end; t++)
            b->position[t] = (uint32_t) (t - start);
        for (size_t t = start; t < end; t += NYB_QUERY_TILE)
            b->spans[b->span_count++] = (nyb_span){
                .start = start,
                .end = end,
                .first = t,
                .count = end - t < NYB_QUERY_TILE ? end - t : NYB_QUERY_TILE,
            };
    }
}

typedef struct rope_fill {
    float *rows;
    const float *frequencies;
    size_t half;
    float magnitude;
} rope_fill;

static void fill_rope_row(void *arg, size_t position, unsigned worker)
{
    const rope_fill *const f = arg;
    (void) worker;
    nyb_rope_row(f->rows + position * 2 * f->half, f->frequencies, f->half, position, f->magnitude);
}

static void fill_rope(const nyb_context *ctx, nyb_batch *b, size_t index)
{
    const nyb_rope_config *const rope = &nyb_model_config_of(b->model)->ropes[index];
    float frequencies[NYB_MOST_HEAD_DIM / 2];
    nyb_rope_frequencies(frequencies, rope, b->longest);
    rope_fill fill = {.rows = b->ropes[index],
                      .frequencies = frequencies,
                      .half = rope->dims / 2,
                      .magnitude = (float) rope->magnitude};
    nyb_parallel(ctx, b->longest, fill_rope_row, &fill);
}

// Learned positions end somewhere.
static nyb_status check_positions(const nyb_model *model, const shape *s, nyb_err *err)
{
    const nyb_model_config *const c = nyb_model_config_of(model);
    const size_t taken = c->arch->positions_after_pad ? c->pad + 1 : 0;
    const size_t most = c->positions > taken ? c->positions - taken : 0;
    if (c->arch->positions == NYB_POSITIONS_LEARNED && s->positions > most)
        return nyb_fail(err, NYB_E_ARG,
                        "%s: a sequence of %zu tokens, the model has positions for %zu",
                        nyb_model_folder(model), s->positions, most);
    return NYB_OK;
}

static nyb_status init(nyb_batch *out, const nyb_context *ctx, const nyb_model *model,
                       const shape *s, const size_t *starts, nyb_err *err)
{
    nyb_batch counted;
    const nyb_status status = check_positions(model, s, err);
    *out = (nyb_batch){0};
    if (status != NYB_OK)
        return status;
    const size_t bytes = lay_out(&counted, model, s, NULL);
    void *const memory = bytes < SIZE_MAX ? nyb_alloc_raw(bytes, 1) : NULL;
    if (!memory)
        return nyb_no_memory(err, "the activations of a batch of tokens", s->tokens,
                             bytes / s->tokens);
    (void) lay_out(out, model, s, memory);
    out->model = model;
    out->samples = s->samples;
    out->tokens = s->tokens;
    out->workers = s->workers;
    out->memory = memory;
    memcpy(out->starts, starts, (s->samples + 1) * sizeof(*starts));
    fill_spans(out);
    out->sample_room = s->samples;
    out->span_room = out->span_count;
    out->longest = s->positions;
    for (size_t i = 0; i < nyb_model_config_of(model)->rope_count; i++)
        fill_rope(ctx, out, i);
    return NYB_OK;
}

static size_t count_bytes(const nyb_context *ctx, const nyb_model *model, shape s)
{
    nyb_batch counted;
    s.workers = nyb_threads(ctx);
    s.compute = compute_of(ctx);
    return lay_out(&counted, model, &s, NULL);
}

size_t nyb_batch_bytes(const nyb_context *ctx, const nyb_model *model, size_t samples,
                       size_t tokens, size_t longest)
{
    return count_bytes(ctx, model,
                       (shape){.samples = samples, .tokens = tokens, .positions = longest});
}

size_t nyb_batch_kept_bytes(const nyb_context *ctx, const nyb_model *model, size_t samples,
                            size_t length, nyb_dtype operands)
{
    return count_bytes(ctx, model,
                       (shape){.samples = samples,
                               .tokens = samples * length,
                               .positions = length,
                               .operands = operands});
}

// What only some callers ask of a batch.
typedef struct wishes {
    bool wide; // as in shape
    nyb_dtype operands;
} wishes;

static nyb_status init_samples(nyb_batch *out, const nyb_context *ctx, const nyb_model *model,
                               const size_t *starts, size_t samples, wishes asked, nyb_err *err)
{
    *out = (nyb_batch){0};
    if (samples == 0 || starts[0] != 0)
        return nyb_fail(err, NYB_E_ARG, "a batch of %zu samples that start at %zu", samples,
                        samples ? starts[0] : 0);
    shape s = {.samples = samples,
               .tokens = starts[samples],
               .workers = nyb_threads(ctx),
               .compute = compute_of(ctx),
               .operands = asked.operands,
               .wide = asked.wide};
    for (size_t i = 0; i < samples; i++) {
        if (starts[i + 1] <= starts[i] || starts[i + 1] - starts[i] > UINT32_MAX)
            return nyb_fail(err, NYB_E_ARG, "sample %zu is tokens %zu to %zu", i, starts[i],
                            starts[i + 1]);
        const size_t length = starts[i + 1] - starts[i];
        s.positions = length > s.positions ? length : s.positions;
    }
    return init(out, ctx, model, &s, starts, err);
}

nyb_status nyb_batch_init(nyb_batch *out, const nyb_context *ctx, const nyb_model *model,
                          const size_t *starts, size_t samples, nyb_err *err)
{
    return init_samples(out, ctx, model, starts, samples, (wishes){0}, err);
}

nyb_status nyb_batch_init_rounded(nyb_batch *out, const nyb_context *ctx, const nyb_model *model,
                                  const size_t *starts, size_t samples, nyb_err *err)
{
    return init_samples(out, ctx, model, starts, samples, (wishes){.wide = true}, err);
}

nyb_status nyb_batch_init_even(nyb_batch *out, const nyb_context *ctx, const nyb_model *model,
                               size_t samples, size_t length, nyb_err *err)
{
    return nyb_batch_init_kept(out, ctx, model, samples, length, NYB_F32, err);
}

nyb_status nyb_batch_init_kept(nyb_batch *out, const nyb_context *ctx, const nyb_model *model,
                               size_t samples, size_t length, nyb_dtype operands, nyb_err *err)
{
    assert(operands == NYB_F32 || operands == nyb_batch_operands(ctx, model));
    size_t tokens = 0;
    *out = (nyb_batch){0};
    if (!nyb_mul_size(samples, length, &tokens) || samples == SIZE_MAX)
        return nyb_no_memory(err, "a batch of samples", samples, length);
    size_t *const starts = nyb_alloc(samples + 1, sizeof(*starts));
    if (!starts)
        return nyb_no_memory(err, "a batch of samples", samples, sizeof(*starts));
    for (size_t i = 0; i <= samples; i++)
        starts[i] = i * length;
    const nyb_status status =
        init_samples(out, ctx, model, starts, samples, (wishes){.operands = operands}, err);
    nyb_free(starts);
    return status;
}

nyb_status nyb_batch_init_cached(nyb_batch *out, const nyb_context *ctx, const nyb_model *model,
                                 size_t tokens, nyb_cache *cache, nyb_err *err)
{
    const size_t starts[2] = {0, tokens};
    const shape s = {.samples = 1,
                     .tokens = tokens,
                     .positions = cache->capacity,
                     .workers = nyb_threads(ctx),
                     .compute = compute_of(ctx)};
    *out = (nyb_batch){0};
    if (tokens == 0 || tokens > cache->capacity || cache->capacity > UINT32_MAX)
        return nyb_fail(err, NYB_E_ARG, "a batch of %zu tokens for a cache of %zu", tokens,
                        cache->capacity);
    const nyb_status status = init(out, ctx, model, &s, starts, err);
    if (status == NYB_OK)
        out->cache = cache;
    return status;
}

void nyb_batch_use(nyb_batch *batch, size_t samples)
{
    assert(samples > 0 && samples <= batch->sample_room);
    batch->samples = samples;
    batch->tokens = batch->starts[samples];
    batch->span_count = 0;
    while (batch->span_count < batch->span_room &&
           batch->spans[batch->span_count].start < batch->tokens)
        batch->span_count++;
}

void nyb_batch_clear(nyb_batch *batch)
{
    nyb_free(batch->memory);
    *batch = (nyb_batch){0};
}

nyb_status nyb_cache_init(nyb_cache *out, const nyb_model *model, size_t capacity, nyb_err *err)
{
    const nyb_model_config *const c = nyb_model_config_of(model);
    const size_t keys = c->kv_heads * c->head_dim, values = c->kv_heads * c->value_dim;
    size_t rows = 0;
    *out = (nyb_cache){0};
    if (c->arch->bidirectional)
        return nyb_fail(err, NYB_E_UNSUPPORTED, "a model of type '%s' does not generate text",
                        c->arch->model_type);
    float *const memory = nyb_mul_size(c->blocks, capacity, &rows)
                              ? nyb_alloc_raw(rows, (keys + values) * sizeof(float))
                              : NULL;
    if (!memory)
        return nyb_no_memory(err, "the keys and values of earlier positions", capacity,
                             c->blocks * (keys + values) * sizeof(float));
    *out = (nyb_cache){
        .capacity = capacity, .key_width = keys, .value_width = values, .memory = memory};
    return NYB_OK;
}

void nyb_cache_clear(nyb_cache *cache)
{
    nyb_free(cache->memory);
    *cache = (nyb_cache){0};
}
