#include "calib/divergence.h"

#include <math.h>
#include <string.h>

#include "core/threads.h"

static size_t stream_floats(const nyb_divergence *d)
{
    return d->batch.tokens * d->batch.x.cols;
}

// Runs the blocks from `first` on with the weights in the file, and keeps the stream before each
// where `keep` says so.
static nyb_status run_blocks(nyb_divergence *d, size_t first, bool keep, nyb_err *err)
{
    nyb_status status = NYB_OK;
    for (size_t b = first; status == NYB_OK && b < nyb_block_count(d->model); b++) {
        if (keep)
            memcpy(d->starts + b * stream_floats(d), d->batch.x.at,
                   stream_floats(d) * sizeof(float));
        status = nyb_block_weights_load(d->ctx, &d->weights, b, err);
        if (status == NYB_OK)
            nyb_block_run(d->ctx, &d->weights, &d->batch);
    }
    return status;
}

static nyb_status open_parts(nyb_divergence *d, const uint32_t *ids, size_t samples, size_t length,
                             nyb_err *err)
{
    const size_t vocabulary = nyb_model_config_of(d->model)->vocab;
    nyb_status status = nyb_batch_init_even(&d->batch, d->ctx, d->model, samples, length, err);
    if (status == NYB_OK)
        status = nyb_block_weights_init_stored(&d->weights, d->model, err);
    if (status != NYB_OK)
        return status;
    const size_t tokens = d->batch.tokens;
    d->starts = nyb_alloc_raw(nyb_block_count(d->model), stream_floats(d) * sizeof(float));
    d->base = nyb_mat_of(nyb_alloc_raw(tokens, vocabulary * sizeof(float)), tokens, vocabulary);
    d->tile = nyb_mat_of(nyb_alloc_raw(NYB_DIVERGENCE_ROWS, vocabulary * sizeof(float)),
                         NYB_DIVERGENCE_ROWS, vocabulary);
    d->rows = nyb_alloc(NYB_DIVERGENCE_ROWS, sizeof(*d->rows));
    if (!d->starts || !d->base.at || !d->tile.at || !d->rows)
        return nyb_no_memory(err, "predictions", tokens, vocabulary * sizeof(float));
    status = nyb_embed(d->ctx, &d->batch, ids, err);
    if (status == NYB_OK)
        status = run_blocks(d, 0, true, err);
    return status == NYB_OK ? nyb_head(d->ctx, &d->batch, 0, d->base, err) : status;
}

nyb_status nyb_divergence_open(nyb_divergence *out, const nyb_context *ctx, nyb_model *model,
                               const uint32_t *ids, size_t samples, size_t length, nyb_err *err)
{
    *out = (nyb_divergence){.ctx = ctx, .model = model};
    const nyb_status status = open_parts(out, ids, samples, length, err);
    if (status != NYB_OK)
        nyb_divergence_close(out);
    return status;
}

void nyb_divergence_close(nyb_divergence *d)
{
    nyb_batch_clear(&d->batch);
    nyb_block_weights_clear(&d->weights);
    nyb_free(d->starts);
    nyb_free(d->base.at);
    nyb_free(d->tile.at);
    nyb_free(d->rows);
    *d = (nyb_divergence){0};
}

// ---- One change -----------------------------------------------------------------------------------

typedef struct comparing {
    nyb_divergence *d;
    size_t row0;
} comparing;

static double log_norm(const float *logits, size_t n)
{
    double top = (double) logits[0], sum = 0.0;
    for (size_t i = 1; i < n; i++)
        top = (double) logits[i] > top ? (double) logits[i] : top;
    for (size_t i = 0; i < n; i++)
        sum += (double) expf((float) ((double) logits[i] - top));
    return top + log(sum);
}

static void compare_row(void *arg, size_t row, unsigned worker)
{
    const comparing *const c = arg;
    const float *const base = nyb_row(c->d->base, c->row0 + row);
    const float *const other = nyb_row(c->d->tile, row);
    const size_t n = c->d->base.cols;
    const double base_norm = log_norm(base, n), other_norm = log_norm(other, n);
    double sum = 0.0;
    (void) worker;
    for (size_t i = 0; i < n; i++) {
        const double log_p = (double) base[i] - base_norm;
        sum += (double) expf((float) log_p) * (log_p - ((double) other[i] - other_norm));
    }
    c->d->rows[row] = sum;
}

nyb_status nyb_divergence_of(nyb_divergence *d, const nyb_block_weights *changed, double *out,
                             nyb_err *err)
{
    const size_t tokens = d->batch.tokens;
    double total = 0.0;
    memcpy(d->batch.x.at, d->starts + changed->index * stream_floats(d),
           stream_floats(d) * sizeof(float));
    nyb_block_run(d->ctx, changed, &d->batch);
    nyb_status status = run_blocks(d, changed->index + 1, false, err);
    for (size_t t = 0; status == NYB_OK && t < tokens; t += NYB_DIVERGENCE_ROWS) {
        const size_t left = tokens - t;
        const size_t rows = left < NYB_DIVERGENCE_ROWS ? left : NYB_DIVERGENCE_ROWS;
        status = nyb_head(d->ctx, &d->batch, t, nyb_block(d->tile, 0, rows, 0, d->tile.cols), err);
        if (status == NYB_OK)
            nyb_parallel(d->ctx, rows, compare_row, &(comparing){.d = d, .row0 = t});
        for (size_t i = 0; i < rows; i++)
            total += d->rows[i];
    }
    *out = total / (double) tokens;
    return status;
}
