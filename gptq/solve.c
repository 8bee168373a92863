#include <math.h>

#include "core/clock.h"
#include "core/memory.h"
#include "core/threads.h"
#include "gptq/params.h"
#include "gptq/refine.h"
#include "gptq/tile_solve.h"
#include "ptq/blocks.h"

typedef struct solve_job {
    nyb_tile_plan plan;
    float *scratch;
    size_t scratch_floats; // of one worker
    nyb_tile_fault *faults;
    double *losses; // of each tile
} solve_job;

static void solve_tile(void *arg, size_t tile, unsigned worker)
{
    const solve_job *const job = arg;
    const nyb_tile_scratch scratch =
        nyb_tile_scratch_of(&job->plan, job->scratch + worker * job->scratch_floats);
    job->losses[tile] = nyb_tile_solve(&job->plan, scratch, tile, &job->faults[tile]);
}

// Groups are runs of columns as they lie in the file, but when the activation order decides which
// columns share a scale they are runs of solved places.
static void assign_groups(nyb_qweight *out, uint32_t *group_at, const nyb_gptq_factor *factor,
                          const nyb_gptq_params *params)
{
    const bool by_place = params->order == NYB_ORDER_FULL && !params->static_groups;
    for (size_t p = 0; p < out->cols; p++) {
        const uint32_t column = factor->columns[p];
        group_at[p] = (uint32_t) ((by_place ? p : column) / out->group_size);
        out->irregular |= group_at[p] != out->group_of[column];
        out->group_of[column] = group_at[p];
    }
}

// The pass's loss is the sum of (w - q)^2 / U_pp^2: the first is what a column's weights are off by
// when it is rounded, the second says what that costs.
static void set_costs(float *places, float *columns, const nyb_gptq_factor *factor)
{
    for (size_t p = 0; p < factor->u.rows; p++) {
        const float pivot = nyb_row(factor->u, p)[p];
        places[p] = columns[factor->columns[p]] = 1.0f / (pivot * pivot);
    }
}

// Works on the arrays that run() owns.
static nyb_status run_tiles(const nyb_context *ctx, solve_job *job, double *loss, nyb_err *err)
{
    const size_t tiles = nyb_tile_count(job->plan.w.rows);
    nyb_parallel(ctx, tiles, solve_tile, job);
    const nyb_status status =
        nyb_tile_report(job->faults, tiles, job->plan.params->grid.scale_dtype, err);
    *loss = 0.0;
    for (size_t i = 0; i < tiles; i++)
        *loss += job->losses[i];
    return status;
}

static nyb_status run(const nyb_context *ctx, const nyb_gptq_factor *factor, nyb_mat w,
                      const nyb_gptq_params *params, nyb_qweight *out, double *loss, nyb_err *err)
{
    const size_t tiles = nyb_tile_count(w.rows), threads = nyb_threads(ctx);
    const bool reference = params->grid.reference;
    uint32_t *const group_at = nyb_alloc(w.cols, sizeof(*group_at));
    const size_t size = nyb_gptq_group(params, w.cols);
    float *const costs = nyb_alloc(w.cols, 2 * sizeof(*costs));
    nyb_grid_params grid = params->grid;
    grid.scale_search |= params->refine > 0;
    solve_job job = {.plan = {.w = w,
                              .factor = factor,
                              .params = params,
                              .grid = &grid,
                              .place_costs = reference ? NULL : costs,
                              .column_costs = reference ? NULL : costs + w.cols,
                              .group_size = size,
                              .parts = params->grid.block == NYB_F32 ? 1 : size / out->group_size,
                              .group_at = group_at,
                              .out = out}};
    job.scratch_floats = nyb_tile_scratch_floats(&job.plan);
    job.scratch = nyb_alloc_raw(threads, job.scratch_floats * sizeof(float));
    job.faults = nyb_alloc(tiles, sizeof(*job.faults));
    job.losses = nyb_alloc(tiles, sizeof(*job.losses));
    nyb_status status;
    if (group_at && costs && job.scratch && job.faults && job.losses) {
        set_costs(costs, costs + w.cols, factor);
        assign_groups(out, group_at, factor, params);
        status = run_tiles(ctx, &job, loss, err);
    } else {
        status = nyb_no_memory(err, "tiles of rows", threads, job.scratch_floats * sizeof(float));
    }
    nyb_free(group_at);
    nyb_free(costs);
    nyb_free(job.scratch);
    nyb_free(job.faults);
    nyb_free(job.losses);
    return status;
}

// |D|^2 over the columns that were solved.
static double distance(const nyb_gptq_factor *factor, nyb_mat w, const nyb_qweight *q)
{
    double total = 0.0;
    for (size_t i = 0; i < w.rows; i++) {
        for (size_t j = 0; j < w.cols; j++) {
            const size_t at = i * q->groups + q->group_of[j];
            const int steps = (int) q->codes[i * q->cols + j] - (int) q->zeros[at];
            const float min = q->mins ? q->mins[at] : 0.0f;
            const double off =
                (double) nyb_row(w, i)[j] - (double) (q->scales[at] * (float) steps - min);
            total += factor->dead[j] ? 0.0 : off * off;
        }
    }
    return total;
}

static nyb_status measure_rounding(const nyb_context *ctx, const nyb_hessian *hessian, nyb_mat w,
                                   const nyb_grid_params *grid, nyb_gptq_report *report,
                                   nyb_err *err)
{
    nyb_qweight rounded;
    nyb_status status = nyb_round_nearest(ctx, &rounded, w, grid, err);
    if (status == NYB_OK)
        status = nyb_hessian_yardsticks(ctx, hessian, w, &rounded, &report->rtn_loss,
                                        &report->output_energy, err);
    nyb_qweight_clear(&rounded);
    return status;
}

static nyb_status measure(const nyb_context *ctx, const nyb_gptq_factor *factor, nyb_mat w,
                          const nyb_gptq_params *params, const nyb_qweight *q,
                          nyb_gptq_report *report, nyb_err *err)
{
    report->rtn_loss = report->output_energy = report->relative_error = (double) NAN;
    if (!factor->hessian) {
        report->loss = report->solver_loss - factor->lambda * distance(factor, w, q);
        return NYB_OK;
    }
    nyb_status status = nyb_hessian_loss(ctx, factor->hessian, w, q, &report->loss, err);
    if (status != NYB_OK || params->skip_measurements)
        return status;
    status = measure_rounding(ctx, factor->hessian, w, &params->grid, report, err);
    report->relative_error =
        report->output_energy > 0.0 ? report->loss / report->output_energy : 0.0;
    return status;
}

static nyb_status refine(const nyb_context *ctx, const nyb_gptq_factor *factor, nyb_mat w,
                         const nyb_gptq_params *params, nyb_qweight *q, nyb_gptq_report *report,
                         nyb_err *err)
{
    const double start = nyb_seconds();
    const nyb_status status =
        params->refine ? nyb_gptq_refine(ctx, factor, w, params, q, &report->pass_loss, err)
                       : NYB_OK;
    report->refine_seconds = params->refine ? nyb_seconds() - start : 0.0;
    return status;
}

static nyb_status check(const nyb_gptq_factor *factor, nyb_mat w, const nyb_gptq_params *params,
                        nyb_err *err)
{
    if (factor->u.rows != w.cols)
        return nyb_fail(err, NYB_E_SHAPE, "hessian has order %zu, weight has %zu columns",
                        factor->u.rows, w.cols);
    const nyb_status status = nyb_gptq_check(params, w.cols, err);
    if (status != NYB_OK)
        return status;
    const size_t size = nyb_gptq_group(params, w.cols);
    if (factor->order != params->order ||
        (params->order == NYB_ORDER_GROUP && factor->group_size != size))
        return nyb_fail(err, NYB_E_ARG,
                        "the factor was prepared for order %d and groups of %zu, not for order %d "
                        "and %zu",
                        (int) factor->order, factor->group_size, (int) params->order, size);
    return NYB_OK;
}

static nyb_status check_target(nyb_mat w, nyb_mat target, nyb_err *err)
{
    if (!target.at || (target.rows == w.rows && target.cols == w.cols))
        return NYB_OK;
    return nyb_fail(err, NYB_E_SHAPE, "the target is %zu x %zu, the weight %zu x %zu", target.rows,
                    target.cols, w.rows, w.cols);
}

static nyb_status init_weight(nyb_qweight *out, nyb_mat w, const nyb_grid_params *grid,
                              nyb_err *err)
{
    if (grid->block != NYB_F32)
        return nyb_block_weight_init(out, nyb_block_grid(grid->block), w.rows, w.cols, err);
    const nyb_status status =
        nyb_qweight_init(out, w.rows, w.cols, grid->bits, grid->group_size, err);
    out->symmetric = grid->symmetric;
    out->scale_dtype = grid->scale_dtype;
    return status;
}

nyb_status nyb_gptq_solve(const nyb_context *ctx, const nyb_gptq_factor *factor, nyb_mat w,
                          const nyb_gptq_params *params, nyb_qweight *out, nyb_gptq_report *report,
                          nyb_err *err)
{
    const double start = nyb_seconds();
    nyb_gptq_report result = {.damping = factor->damping,
                              .attempts = factor->attempts,
                              .dead_columns = factor->dead_columns,
                              .tokens = factor->tokens};
    *out = (nyb_qweight){0};
    const nyb_mat goal = params->target.at ? params->target : w;
    nyb_status status = check(factor, w, params, err);
    if (status == NYB_OK)
        status = check_target(w, params->target, err);
    if (status != NYB_OK)
        return status;
    status = init_weight(out, w, &params->grid, err);
    if (status != NYB_OK)
        return status;

    status = run(ctx, factor, goal, params, out, &result.solver_loss, err);
    if (status == NYB_OK)
        status = refine(ctx, factor, goal, params, out, &result, err);
    if (status == NYB_OK && report)
        status = measure(ctx, factor, w, params, out, &result, err);
    if (status != NYB_OK) {
        nyb_qweight_clear(out);
        return status;
    }
    if (params->target.at)
        result.pass_loss = (double) NAN;
    else if (!params->refine)
        result.pass_loss = result.loss;
    result.seconds = nyb_seconds() - start;
    if (report)
        *report = result;
    return NYB_OK;
}
