// Alternating minimisation of tr(D H D^T), D = Q - W, after the GPTQ pass.
//
// Codes: with all others fixed, the loss is a parabola in one code, and the best code is the one
// nearest to its lowest point (coordinate descent; Behdad et al., "QuantEase: Optimization-based
// Quantization for Language Models", arXiv:2309.01885, equation 8). Scales and zero points: with
// the codes fixed, the loss is a parabola in a group's scale for each zero point.
// Search: from there on tabu search over all codes of a row, see row_search.c.
#include "gptq/refine.h"

#include <string.h>

#include "core/memory.h"
#include "core/threads.h"
#include "gptq/tile_refine.h"

// What the diagonal is raised by, as a part of itself. The errors that pay off on the tokens seen lean
// on how their inputs go together; this counts a little less of that, which others share less.
#define RAISE 0.15

enum { SQUARE = 64 }; // of H, to be transposed at once

typedef struct refine_job {
    nyb_refine_plan plan;
    nyb_mat h; // the Hessian as it was summed, by column
    double lambda;
    float *diagonal, *more; // as in the plan, one behind the other
    double *losses;         // of each tile, before
    float *scratch;
    size_t scratch_floats; // of one worker
} refine_job;

// Row p of the upper triangle.
static void gather_row(void *arg, size_t p, unsigned worker)
{
    const refine_job *const job = arg;
    const nyb_refine_plan *const plan = &job->plan;
    const size_t n = plan->h.cols, c = plan->columns ? plan->columns[p] : p;
    float *const to = nyb_row(plan->h, p);
    (void) worker;
    for (size_t q = p; q < n; q++) {
        const size_t d = plan->columns ? plan->columns[q] : q;
        to[q] = c <= d ? nyb_row(job->h, c)[d] : nyb_row(job->h, d)[c];
        if (plan->dead[c] || plan->dead[d]) // whatever a given H holds there
            to[q] = 0.0f;
    }
    for (size_t q = n; q < plan->h.stride; q++)
        to[q] = 0.0f;
    const double own = (double) to[p];
    if (!plan->dead[c])
        to[p] = (float) (own * (1.0 + RAISE) + job->lambda);
    job->diagonal[p] = to[p];
    job->more[p] = (float) ((double) to[p] - own);
}

// The lower triangle's squares in a row of them.
static void mirror_rows(void *arg, size_t chunk, unsigned worker)
{
    const refine_job *const job = arg;
    const nyb_mat h = job->plan.h;
    const size_t p0 = chunk * SQUARE, p1 = p0 + SQUARE < h.rows ? p0 + SQUARE : h.rows;
    (void) worker;
    for (size_t q0 = 0; q0 < p1; q0 += SQUARE) {
        for (size_t p = p0; p < p1; p++) {
            const size_t q1 = q0 + SQUARE < p ? q0 + SQUARE : p;
            for (size_t q = q0; q < q1; q++)
                nyb_row(h, p)[q] = nyb_row(h, q)[p];
        }
    }
}

static void sum_group(void *arg, size_t group, unsigned worker)
{
    const refine_job *const job = arg;
    const nyb_refine_plan *const plan = &job->plan;
    const size_t n = plan->h.rows, size = plan->q->group_size, p0 = group * size;
    const size_t p1 = p0 + size < n ? p0 + size : n;
    float *const to = nyb_row(plan->ones, group);
    (void) worker;
    memset(to, 0, n * sizeof(*to));
    for (size_t p = p0; p < p1; p++) {
        for (size_t r = 0; r < n; r++)
            to[r] += nyb_row(plan->h, p)[r];
    }
}

static void refine_tile(void *arg, size_t tile, unsigned worker)
{
    const refine_job *const job = arg;
    job->losses[tile] = nyb_tile_refine(
        &job->plan, nyb_refine_scratch_of(&job->plan, job->scratch + worker * job->scratch_floats),
        tile);
}

// Works on the arrays that nyb_gptq_refine() owns.
static void run(const nyb_context *ctx, refine_job *job)
{
    const nyb_refine_plan *const plan = &job->plan;
    nyb_parallel(ctx, plan->h.rows, gather_row, job);
    nyb_parallel(ctx, (plan->h.rows + SQUARE - 1) / SQUARE, mirror_rows, job);
    nyb_parallel(ctx, plan->q->groups, sum_group, job);
    nyb_parallel(ctx, nyb_tile_count(plan->w.rows), refine_tile, job);
}

// Floats from one row of H to the next: no power of two, at which a block's rows would share a few
// sets of the caches.
static size_t stride_of(size_t cols)
{
    return nyb_row_search_cols(cols) + NYB_ALIGN / sizeof(float);
}

size_t nyb_gptq_refine_bytes(size_t cols, size_t groups)
{
    return (stride_of(cols) + groups) * cols * sizeof(float);
}

nyb_status nyb_gptq_refine(const nyb_context *ctx, const nyb_gptq_factor *factor, nyb_mat w,
                           const nyb_gptq_params *params, nyb_qweight *q, double *before,
                           nyb_err *err)
{
    const size_t n = w.cols, tiles = nyb_tile_count(w.rows), threads = nyb_threads(ctx);
    if (!factor->hessian)
        return nyb_fail(err, NYB_E_ARG,
                        "refinement needs the hessian, which the factor took over: prepare the "
                        "factor beside it or ask for 0 rounds");
    refine_job job = {.h = factor->hessian->h,
                      .lambda = factor->lambda,
                      .diagonal = nyb_alloc_raw(n, 2 * sizeof(float)),
                      .plan = {.w = w,
                               .h = {.at = nyb_alloc_raw(n, stride_of(n) * sizeof(float)),
                                     .rows = n,
                                     .cols = n,
                                     .stride = stride_of(n)},
                               .columns = q->irregular ? factor->columns : NULL,
                               .dead = factor->dead,
                               .grid = &params->grid,
                               .ops = nyb_code_ops_get(),
                               .rounds = params->refine,
                               .q = q}};
    job.plan.diagonal = job.diagonal;
    if (job.diagonal)
        job.plan.more = job.more = job.diagonal + n;
    job.scratch_floats = nyb_refine_scratch_floats(&job.plan);
    job.scratch = nyb_alloc_raw(threads, job.scratch_floats * sizeof(float));
    job.plan.ones = nyb_mat_of(nyb_alloc_raw(q->groups, n * sizeof(float)), q->groups, n);
    job.losses = nyb_alloc(tiles, sizeof(*job.losses));
    const bool room =
        job.scratch && job.losses && job.diagonal && job.plan.ones.at && job.plan.h.at;
    if (room) {
        run(ctx, &job);
        *before = 0.0;
        for (size_t i = 0; i < tiles; i++)
            *before += job.losses[i];
    }
    nyb_free(job.plan.h.at);
    nyb_free(job.diagonal);
    nyb_free(job.scratch);
    nyb_free(job.losses);
    nyb_free(job.plan.ones.at);
    return room ? NYB_OK : nyb_no_memory(err, "refinement", n, stride_of(n) * sizeof(float));
}
