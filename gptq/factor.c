#include <assert.h>
#include <math.h>
#include <string.h>

#include "core/clock.h"
#include "core/inverse_factor.h"
#include "core/memory.h"
#include "core/threads.h"
#include "gptq/order.h"
#include "gptq/params.h"

void nyb_gptq_factor_clear(nyb_gptq_factor *factor)
{
    nyb_free(factor->u.at);
    nyb_free(factor->columns);
    nyb_free(factor->dead);
    *factor = (nyb_gptq_factor){0};
}

typedef struct arrange_job {
    nyb_mat h; // only j >= i is valid
    nyb_gptq_factor *factor;
    float *row; // [workers, n], for permuting in place
} arrange_job;

// Row p of the ordered matrix, gathered from H's upper triangle. Dead columns have no products,
// whatever a given H holds there.
static void gather_row(void *arg, size_t p, unsigned worker)
{
    const arrange_job *const job = arg;
    const nyb_gptq_factor *const f = job->factor;
    float *const to = nyb_row(f->u, p);
    const uint32_t c = f->columns[p];
    (void) worker;
    for (size_t q = 0; q < f->u.cols; q++) {
        const uint32_t d = f->columns[q];
        to[q] = c <= d ? nyb_row(job->h, c)[d] : nyb_row(job->h, d)[c];
        if (f->dead[c] || f->dead[d])
            to[q] = 0.0f;
    }
}

static void mirror_row(void *arg, size_t i, unsigned worker)
{
    const arrange_job *const job = arg;
    (void) worker;
    for (size_t j = 0; j < i; j++)
        nyb_row(job->h, i)[j] = nyb_row(job->h, j)[i];
}

static void order_row(void *arg, size_t i, unsigned worker)
{
    const arrange_job *const job = arg;
    const nyb_gptq_factor *const f = job->factor;
    const size_t n = job->h.cols;
    float *const old = job->row + worker * n, *const row = nyb_row(job->h, i);
    memcpy(old, row, n * sizeof(float));
    for (size_t p = 0; p < n; p++)
        row[p] = f->dead[i] || f->dead[f->columns[p]] ? 0.0f : old[f->columns[p]];
}

// Moves row columns[p] to p along the permutation's cycles. `done` has a byte for each row.
static void order_rows(nyb_mat h, const uint32_t *columns, float *kept, uint8_t *done)
{
    for (size_t start = 0; start < h.rows; start++) {
        if (done[start])
            continue;
        memcpy(kept, nyb_row(h, start), h.cols * sizeof(float));
        size_t p = start;
        for (; columns[p] != start; p = columns[p]) {
            memcpy(nyb_row(h, p), nyb_row(h, columns[p]), h.cols * sizeof(float));
            done[p] = 1;
        }
        memcpy(nyb_row(h, p), kept, h.cols * sizeof(float));
        done[p] = 1;
    }
}

// As gather_row() for all rows, in H's own memory.
static nyb_status arrange_in_place(const nyb_context *ctx, arrange_job *job, nyb_err *err)
{
    const size_t n = job->h.rows, threads = nyb_threads(ctx);
    uint8_t *const done = nyb_alloc(n, 1);
    job->row = nyb_alloc_raw(threads * n, sizeof(float));
    const bool room = done && job->row;
    if (room) {
        nyb_parallel(ctx, n, mirror_row, job);
        nyb_parallel(ctx, n, order_row, job);
        order_rows(job->h, job->factor->columns, job->row, done);
    }
    nyb_free(done);
    nyb_free(job->row);
    return room ? NYB_OK : nyb_no_memory(err, "rows of the hessian", threads * n, sizeof(float));
}

// Fills keys with diag(H) and finds the dead columns. Returns the mean of diag(H) that damping is
// relative to in *mean.
static nyb_status read_diagonal(nyb_gptq_factor *f, nyb_mat h, bool reference, double *keys,
                                double *mean, nyb_err *err)
{
    double sum = 0.0;
    for (size_t j = 0; j < h.rows; j++) {
        const double value = (double) nyb_row(h, j)[j];
        if (value < 0.0)
            return nyb_fail(err, NYB_E_NUMERIC, "hessian (%zu, %zu) is %g, not a sum of squares", j,
                            j, value);
        if (!isfinite(value))
            return nyb_fail(err, NYB_E_NUMERIC,
                            "hessian (%zu, %zu) is %g: the inputs hold a NaN, an infinity or too "
                            "large a number",
                            j, j, value);
        keys[j] = value;
        sum += value;
        f->dead[j] = value == 0.0;
        f->dead_columns += f->dead[j];
    }
    const size_t alive = h.rows - f->dead_columns;
    *mean = alive ? sum / (double) alive : 1.0;
    if (reference) { // dead columns count as 1, in the order too
        *mean = (sum + (double) f->dead_columns) / (double) h.rows;
        for (size_t j = 0; j < h.rows; j++)
            keys[j] = f->dead[j] ? 1.0 : keys[j];
    }
    return NYB_OK;
}

// The upper triangle from the lower one, and the diagonal with lambda.
static void fill_upper(nyb_gptq_factor *f, const double *keys, double dead_value)
{
    const size_t n = f->u.rows;
    for (size_t p = 0; p < n; p++) {
        const uint32_t column = f->columns[p];
        const double value = f->dead[column] ? dead_value : keys[column];
        nyb_row(f->u, p)[p] = (float) (value + f->lambda);
    }
    for (size_t p = 0; f->attempts > 0 && p < n; p++) {
        for (size_t q = p + 1; q < n; q++)
            nyb_row(f->u, p)[q] = nyb_row(f->u, q)[p];
    }
}

// A failed factorisation leaves the strict lower triangle alone, and that holds H's other half.
static nyb_status damp_and_factor(const nyb_context *ctx, nyb_gptq_factor *f,
                                  const nyb_gptq_params *params, const double *keys, double mean,
                                  nyb_err *err)
{
    nyb_err last = {0};
    double tried = 0.0;
    for (double damping = params->damping; damping <= params->damping_limit;
         damping *= params->damping_growth) {
        tried = damping;
        f->damping = damping;
        f->lambda = damping * mean;
        fill_upper(f, keys, params->grid.reference ? 1.0 : mean);
        f->attempts++;
        const nyb_status status = nyb_inverse_factor(ctx, f->u, &last);
        if (status == NYB_OK)
            return NYB_OK;
        if (status != NYB_E_NOT_PD)
            return nyb_fail(err, status,
                            "%s: the inputs hold a NaN, an infinity or too large a "
                            "number",
                            last.text);
    }
    return nyb_fail(err, NYB_E_NOT_PD,
                    "%s with damping %g to %g: raise the damping or its limit, "
                    "or calibrate on more tokens",
                    last.text, params->damping, tried);
}

static nyb_status arrange_and_factor(const nyb_context *ctx, nyb_gptq_factor *f,
                                     const nyb_gptq_params *params, nyb_mat h, double *keys,
                                     nyb_err *err)
{
    const size_t n = h.rows;
    double mean = 0.0;
    nyb_status status = read_diagonal(f, h, params->grid.reference, keys, &mean, err);
    if (status != NYB_OK)
        return status;
    status = nyb_order_columns(f->columns, keys, n, params->order, f->group_size, err);
    if (status != NYB_OK)
        return status;

    arrange_job job = {.h = h, .factor = f};
    if (f->u.at == h.at)
        status = arrange_in_place(ctx, &job, err);
    else
        nyb_parallel(ctx, n, gather_row, &job);
    if (status != NYB_OK)
        return status;
    return damp_and_factor(ctx, f, params, keys, mean, err);
}

// Owns f's arrays; u is set where the matrix is to be made.
static nyb_status prepare(const nyb_context *ctx, nyb_gptq_factor *f, const nyb_gptq_params *params,
                          nyb_mat h, nyb_err *err)
{
    const size_t n = h.rows;
    const double start = nyb_seconds();
    f->columns = nyb_alloc(n, sizeof(*f->columns));
    f->dead = nyb_alloc(n, 1);
    f->order = params->order;
    f->group_size = nyb_gptq_group(params, n);
    double *const keys = nyb_alloc(n, sizeof(*keys));
    nyb_status status;
    if (f->u.at && f->columns && f->dead && keys)
        status = arrange_and_factor(ctx, f, params, h, keys, err);
    else
        status = nyb_no_memory(err, "factor of the hessian", n, n * sizeof(float));
    nyb_free(keys);
    f->seconds = nyb_seconds() - start;
    if (status != NYB_OK)
        nyb_gptq_factor_clear(f);
    return status;
}

nyb_status nyb_gptq_prepare(const nyb_context *ctx, nyb_gptq_factor *out,
                            const nyb_hessian *hessian, const nyb_gptq_params *params, nyb_err *err)
{
    const size_t n = hessian->h.rows;
    *out = (nyb_gptq_factor){0};
    const nyb_status status = nyb_gptq_check(params, n, err);
    if (status != NYB_OK)
        return status;
    out->u = nyb_mat_of(nyb_alloc_raw(n, n * sizeof(float)), n, n);
    out->hessian = hessian;
    out->tokens = hessian->tokens;
    return prepare(ctx, out, params, hessian->h, err);
}

nyb_status nyb_gptq_prepare_in_place(const nyb_context *ctx, nyb_gptq_factor *out,
                                     nyb_hessian *hessian, const nyb_gptq_params *params,
                                     nyb_err *err)
{
    const nyb_mat h = hessian->h;
    *out = (nyb_gptq_factor){0};
    const nyb_status status = nyb_gptq_check(params, h.rows, err);
    if (status != NYB_OK) {
        nyb_hessian_clear(hessian);
        return status;
    }
    out->u = h;
    out->tokens = hessian->tokens;
    hessian->h.at = NULL;
    nyb_hessian_clear(hessian);
    return prepare(ctx, out, params, h, err);
}
