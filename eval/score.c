#include "eval/score.h"

#include <math.h>
#include <string.h>

#include "core/log.h"
#include "core/threads.h"
#include "model/rounding.h"

enum { TILE_BYTES = 96 << 20 }; // of logits held at once for one model

// What one position gives for one model.
typedef struct point {
    double loss, kl;
    bool agrees;
} point;

typedef struct scoring {
    const nyb_context *ctx;
    nyb_model *const *models;
    size_t models_count, vocabulary, hidden;
    const nyb_windows *windows;
    nyb_finals *kept; // of models[0]; NULL: nothing
    nyb_score *scores;

    // One batch of windows.
    nyb_batch batch;
    nyb_mat *finals;   // [models_count] x after the last block, each [tokens, hidden]
    uint32_t *targets; // [tokens] the next token
    uint8_t *scored;   // [tokens] whether the prediction at this position counts

    // One tile of positions.
    size_t token0, tile_rows;
    nyb_mat base, other; // logits; the same memory when there is one model
    double *base_norms;  // [tile_rows] log of the sum of exponentials
    point *points;       // [tile_rows]
} scoring;

// ---- One position -------------------------------------------------------------------------

static size_t largest(const float *logits, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

// log sum exp, relative to which a logit is a log-probability.
static double log_norm(const float *logits, size_t n, double top)
{
    enum { LANES = 8 };
    double sums[LANES] = {0};
    for (size_t i = 0; i < n; i++)
        sums[i % LANES] += (double) expf(logits[i] - (float) top);
    double sum = 0.0;
    for (size_t l = 0; l < LANES; l++)
        sum += sums[l];
    return top + log(sum);
}

static double divergence(const float *base, double base_norm, const float *other, double other_norm,
                         size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double log_p = (double) base[i] - base_norm;
        sum += (double) expf((float) log_p) * (log_p - ((double) other[i] - other_norm));
    }
    return sum;
}

static void score_base_row(void *arg, size_t row, unsigned worker)
{
    const scoring *const s = arg;
    const float *const logits = nyb_row(s->base, row);
    (void) worker;
    if (!s->scored[s->token0 + row])
        return;
    const size_t top = largest(logits, s->vocabulary);
    s->base_norms[row] = log_norm(logits, s->vocabulary, (double) logits[top]);
    s->points[row] = (point){
        .loss = s->base_norms[row] - (double) logits[s->targets[s->token0 + row]], .agrees = true};
}

static void score_other_row(void *arg, size_t row, unsigned worker)
{
    const scoring *const s = arg;
    const float *const base = nyb_row(s->base, row), *const other = nyb_row(s->other, row);
    (void) worker;
    if (!s->scored[s->token0 + row])
        return;
    const size_t top = largest(other, s->vocabulary);
    const double norm = log_norm(other, s->vocabulary, (double) other[top]);
    s->points[row] = (point){
        .loss = norm - (double) other[s->targets[s->token0 + row]],
        .kl = divergence(base, s->base_norms[row], other, norm, s->vocabulary),
        .agrees = top == largest(base, s->vocabulary),
    };
}

// ---- Tiles and batches --------------------------------------------------------------------

static nyb_status add_points(scoring *s, size_t model, size_t rows, nyb_err *err)
{
    nyb_score *const to = &s->scores[model];
    for (size_t row = 0; row < rows; row++) {
        if (!s->scored[s->token0 + row])
            continue;
        const point *const p = &s->points[row];
        if (!isfinite(p->loss) || !isfinite(p->kl))
            return nyb_fail(err, NYB_E_NUMERIC, "%s: the prediction for token %zu is not a number",
                            nyb_model_folder(s->models[model]), s->token0 + row);
        to->loss += p->loss;
        to->kl += p->kl;
        to->agree += p->agrees;
        to->scored++;
    }
    return NYB_OK;
}

static nyb_status score_tile(scoring *s, size_t rows, nyb_err *err)
{
    for (size_t m = 0; m < s->models_count; m++) {
        // The batch's buffers serve every model: they have the same shapes.
        nyb_batch view = s->batch;
        view.model = s->models[m];
        view.x = s->finals[m];
        const nyb_mat logits = m == 0 ? s->base : s->other;
        nyb_status status =
            nyb_head(s->ctx, &view, s->token0, nyb_mat_of(logits.at, rows, s->vocabulary), err);
        if (status != NYB_OK)
            return status;
        nyb_parallel(s->ctx, rows, m == 0 ? score_base_row : score_other_row, s);
        status = add_points(s, m, rows, err);
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}

static nyb_status run_model(scoring *s, size_t m, const uint32_t *ids, nyb_err *err)
{
    nyb_block_weights weights;
    nyb_status status = nyb_block_weights_init_stored(&weights, s->models[m], err);
    if (status != NYB_OK)
        return status;
    nyb_batch view = s->batch;
    nyb_rounding rounding = {0};
    view.model = s->models[m];
    if (s->windows->activations != NYB_ACTIVATIONS_NONE) {
        status = nyb_rounding_init(&rounding, s->ctx, view.model, s->windows->activations,
                                   view.tokens, err);
        view.rounding = &rounding;
    }
    if (status == NYB_OK)
        status = nyb_forward(s->ctx, &view, &weights, ids, "evaluate", err);
    nyb_rounding_clear(&rounding);
    nyb_block_weights_clear(&weights);
    if (status == NYB_OK && s->models_count > 1)
        memcpy(s->finals[m].at, view.x.at, s->batch.tokens * s->hidden * sizeof(float));
    return status;
}

// Which position predicts which token.
static void aim(scoring *s, const nyb_window *windows, size_t count)
{
    size_t at = 0;
    for (size_t w = 0; w < count; w++) {
        const uint32_t *const ids = s->windows->ids + windows[w].start;
        for (size_t i = 0; i < windows[w].length; i++, at++) {
            const bool last = i + 1 == windows[w].length;
            s->scored[at] = !last && i + 1 >= windows[w].first;
            s->targets[at] = last ? 0 : ids[i + 1];
        }
    }
}

// The original, whose stream an earlier call may have kept.
static nyb_status run_original(scoring *s, size_t start, nyb_err *err)
{
    const size_t floats = s->batch.tokens * s->hidden;
    float *const at = s->kept ? s->kept->at + start * s->hidden : NULL;
    if (at && s->kept->known) {
        memcpy(s->finals[0].at, at, floats * sizeof(float));
        return NYB_OK;
    }
    const nyb_status status = run_model(s, 0, s->windows->ids + start, err);
    if (status == NYB_OK && at)
        memcpy(at, s->finals[0].at, floats * sizeof(float));
    return status;
}

static nyb_status run_batch(scoring *s, const nyb_window *windows, size_t count, nyb_err *err)
{
    aim(s, windows, count);
    nyb_status status = run_original(s, windows[0].start, err);
    for (size_t m = 1; status == NYB_OK && m < s->models_count; m++)
        status = run_model(s, m, s->windows->ids + windows[0].start, err);
    for (size_t t = 0; status == NYB_OK && t < s->batch.tokens; t += s->tile_rows) {
        const size_t left = s->batch.tokens - t;
        s->token0 = t;
        status = score_tile(s, left < s->tile_rows ? left : s->tile_rows, err);
    }
    return status;
}

// Room for one batch, in an arena that goes with it.
static nyb_status make_room(scoring *s, nyb_arena *arena, size_t tokens, nyb_err *err)
{
    s->tile_rows = TILE_BYTES / sizeof(float) / s->vocabulary;
    s->tile_rows = s->tile_rows < 64 ? 64 : s->tile_rows;
    s->tile_rows = s->tile_rows > tokens ? tokens : s->tile_rows;
    s->base = nyb_arena_mat(arena, s->tile_rows, s->vocabulary);
    s->other = s->models_count > 1 ? nyb_arena_mat(arena, s->tile_rows, s->vocabulary) : s->base;
    s->base_norms = nyb_arena_alloc(arena, s->tile_rows, sizeof(*s->base_norms));
    s->points = nyb_arena_alloc(arena, s->tile_rows, sizeof(*s->points));
    s->targets = nyb_arena_alloc(arena, tokens, sizeof(*s->targets));
    s->scored = nyb_arena_alloc(arena, tokens, sizeof(*s->scored));
    s->finals = nyb_arena_alloc(arena, s->models_count, sizeof(*s->finals));
    bool whole = s->base.at && s->other.at && s->base_norms && s->points && s->targets &&
                 s->scored && s->finals;
    for (size_t m = 0; whole && m < s->models_count; m++) {
        s->finals[m] = s->models_count > 1 ? nyb_arena_mat(arena, tokens, s->hidden) : s->batch.x;
        whole = s->finals[m].at;
    }
    return whole ? NYB_OK : nyb_no_memory(err, "predictions", s->tile_rows, s->vocabulary);
}

static nyb_status score_batch(scoring *s, size_t first, size_t count, nyb_err *err)
{
    const nyb_window *const windows = s->windows->at + first;
    nyb_arena arena = {0};
    size_t *const starts = nyb_arena_alloc(&arena, count + 1, sizeof(*starts));
    if (!starts)
        return nyb_no_memory(err, "windows", count, sizeof(*starts));
    for (size_t i = 0; i < count; i++)
        starts[i + 1] = starts[i] + windows[i].length;

    nyb_status status =
        s->windows->activations == NYB_ACTIVATIONS_NONE
            ? nyb_batch_init(&s->batch, s->ctx, s->models[0], starts, count, err)
            : nyb_batch_init_rounded(&s->batch, s->ctx, s->models[0], starts, count, err);
    if (status == NYB_OK)
        status = make_room(s, &arena, s->batch.tokens, err);
    if (status == NYB_OK)
        status = run_batch(s, windows, count, err);
    nyb_batch_clear(&s->batch);
    nyb_arena_clear(&arena);
    return status;
}

static nyb_status check_shapes(nyb_model *const *models, size_t count, nyb_err *err)
{
    const nyb_model_config *const base = nyb_model_config_of(models[0]);
    for (size_t m = 1; m < count; m++) {
        const nyb_model_config *const c = nyb_model_config_of(models[m]);
        if (c->hidden != base->hidden || c->vocab != base->vocab ||
            nyb_batch_bytes(NULL, models[m], 1, 1, 1) != nyb_batch_bytes(NULL, models[0], 1, 1, 1))
            return nyb_fail(err, NYB_E_SHAPE,
                            "%s: hidden size %zu and vocabulary %zu, but %s has %zu and %zu",
                            nyb_model_folder(models[m]), c->hidden, c->vocab,
                            nyb_model_folder(models[0]), base->hidden, base->vocab);
    }
    return NYB_OK;
}

nyb_status nyb_score_windows(const nyb_context *ctx, nyb_model *const *models, size_t count,
                             const nyb_windows *windows, nyb_finals *finals, nyb_score *scores,
                             nyb_err *err)
{
    scoring s = {.ctx = ctx,
                 .models = models,
                 .models_count = count,
                 .vocabulary = nyb_model_config_of(models[0])->vocab,
                 .hidden = nyb_model_config_of(models[0])->hidden,
                 .windows = windows,
                 .kept = finals,
                 .scores = scores};
    nyb_status status = check_shapes(models, count, err);
    memset(scores, 0, count * sizeof(*scores));
    for (size_t first = 0; status == NYB_OK && first < windows->count;) {
        const size_t some = nyb_windows_batch(windows, first);
        status = score_batch(&s, first, some, err);
        first += some;
    }
    if (finals)
        finals->known |= status == NYB_OK;
    return status;
}
