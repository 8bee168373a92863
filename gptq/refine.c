// Alternating minimisation of tr(D H D^T), D = Q - W, after the GPTQ pass.
//
// Codes: with all others fixed, the loss is a parabola in one code, and the best code is the one
// nearest to its lowest point (coordinate descent; Behdad et al., "QuantEase: Optimization-based
// Quantization for Language Models", arXiv:2309.01885, equation 8). Scales and zero points: with
// the codes fixed, the loss is a parabola in a group's scale for each zero point.
#include "gptq/refine.h"

#include "core/memory.h"
#include "core/threads.h"
#include "gptq/tile_refine.h"

typedef struct refine_job {
    nyb_refine_plan plan;
    nyb_mat h;      // the Hessian as it was summed, by column
    double *losses; // of each tile, before
    float *scratch;
    size_t scratch_floats; // of one worker
} refine_job;

static void gather_row(void *arg, size_t p, unsigned worker)
{
    const refine_job *const job = arg;
    const uint32_t *const columns = job->plan.columns;
    float *const to = nyb_row(job->plan.h, p);
    const uint32_t c = columns[p];
    (void) worker;
    for (size_t q = p; q < job->h.cols; q++) {
        const uint32_t d = columns[q];
        to[q] = c <= d ? nyb_row(job->h, c)[d] : nyb_row(job->h, d)[c];
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
    for (size_t r = 0; r < p1; r++) { // what lies in H's rows up to r, for r in and above the group
        double sum = r >= p0 ? plan->lambda : 0.0;
        for (size_t p = r > p0 ? r : p0; p < p1; p++)
            sum += (double) nyb_row(plan->h, r)[p];
        to[r] = (float) sum;
    }
    for (size_t r = p1; r < n; r++)
        to[r] = 0.0f;
    for (size_t p = p0; p < p1; p++) {
        for (size_t r = p + 1; r < n; r++)
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
    nyb_refine_plan *const plan = &job->plan;
    if (plan->columns)
        nyb_parallel(ctx, plan->h.rows, gather_row, job);
    nyb_parallel(ctx, plan->q->groups, sum_group, job);
    nyb_parallel(ctx, nyb_tile_count(plan->w.rows), refine_tile, job);
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
                      .plan = {.w = w,
                               .h = factor->hessian->h,
                               .lambda = factor->lambda,
                               .dead = factor->dead,
                               .grid = &params->grid,
                               .ops = nyb_code_ops_get(),
                               .rounds = params->refine,
                               .q = q}};
    float *gathered = NULL;
    if (q->irregular) {
        gathered = nyb_alloc_raw(n, n * sizeof(float));
        job.plan.h = nyb_mat_of(gathered, n, n);
        job.plan.columns = factor->columns;
    }
    job.scratch_floats = nyb_refine_scratch_floats(&job.plan);
    job.scratch = nyb_alloc_raw(threads, job.scratch_floats * sizeof(float));
    job.plan.ones = nyb_mat_of(nyb_alloc_raw(q->groups, n * sizeof(float)), q->groups, n);
    job.losses = nyb_alloc(tiles, sizeof(*job.losses));
    const bool room = job.scratch && job.losses && job.plan.ones.at && job.plan.h.at;
    if (room) {
        run(ctx, &job);
        *before = 0.0;
        for (size_t i = 0; i < tiles; i++)
            *before += job.losses[i];
    }
    nyb_free(gathered);
    nyb_free(job.scratch);
    nyb_free(job.losses);
    nyb_free(job.plan.ones.at);
    return room ? NYB_OK : nyb_no_memory(err, "refinement", threads, job.scratch_floats * 4);
}
