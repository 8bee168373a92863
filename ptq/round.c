#include <math.h>

#include "core/dtype.h"
#include "core/memory.h"
#include "core/threads.h"
#include "kernels/codes.h"
#include "kernels/vector.h"
#include "ptq/blocks.h"
#include "ptq/tile.h"

typedef struct round_job {
    nyb_mat w;                // where `stored` is not, its rows are widened one by one
    const nyb_tensor *stored; // NULL: w
    const nyb_grid_params *params;
    nyb_qweight *out;
    float *scratch;
    size_t scratch_floats; // of one worker
    nyb_tile_fault *faults;
} round_job;

// `values` of rows [row0, row0 + rows) and columns from col0 on; they become codes.
static void round_group(const round_job *job, size_t row0, size_t rows, size_t col0, nyb_mat values,
                        const nyb_grid_lanes *grid)
{
    const float top = nyb_grid_top(job->params->bits);
    for (size_t j = 0; j < values.rows; j++) {
        float *const value = nyb_row(values, j);
        for (size_t lane = 0; lane < NYB_LANES; lane++)
            value[lane] = nyb_grid_code(value[lane], grid->scale[lane], grid->zero[lane], top);
    }
    for (size_t lane = 0; lane < rows; lane++) {
        uint8_t *const codes = job->out->codes + (row0 + lane) * job->out->cols + col0;
        for (size_t j = 0; j < values.rows; j++)
            codes[j] = (uint8_t) nyb_row(values, j)[lane];
    }
}

// Keras multiplies by the reciprocal scale instead of dividing by the scale. The results differ
// only beside a tie, but there it is Keras' code that is wanted.
static void round_as_keras(const round_job *job, size_t row0, size_t rows, nyb_mat values)
{
    const float top = nyb_grid_top(job->params->bits);
    const float zero = (float) (1u << (job->params->bits - 1));
    for (size_t lane = 0; lane < rows; lane++) {
        uint8_t *const codes = job->out->codes + (row0 + lane) * job->out->cols;
        float absmax = 0.0f;
        for (size_t j = 0; j < values.rows; j++)
            absmax = fmaxf(absmax, fabsf(nyb_row(values, j)[lane]));
        const float inverse = nyb_grid_keras_inverse(absmax, job->params->bits);
        for (size_t j = 0; j < values.rows; j++) {
            const float product = nyb_clamp(nyb_row(values, j)[lane] * inverse, -zero, zero);
            codes[j] = (uint8_t) nyb_clamp(nyb_round_even(product) + zero, 0.0f, top);
        }
    }
}

static void store_grid(const round_job *job, size_t row0, size_t rows, size_t group,
                       const nyb_grid_lanes *grid)
{
    for (size_t lane = 0; lane < rows; lane++) {
        const size_t at = (row0 + lane) * job->out->groups + group;
        job->out->scales[at] = grid->scale[lane];
        job->out->zeros[at] = (uint8_t) grid->zero[lane];
    }
}

// A row of a grid that needs no more of a group than its range.
static void round_row(const round_job *job, size_t row, float *scratch, nyb_tile_fault *fault)
{
    const nyb_code_ops *const ops = nyb_code_ops_get();
    nyb_qweight *const out = job->out;
    const size_t cols = out->cols, size = out->group_size, groups = out->groups;
    float *const low = scratch, *const high = low + groups, *const zero = high + groups;
    float *const widened = zero + groups, *const scale = out->scales + row * groups;
    const float *const values = job->stored ? widened : nyb_row(job->w, row);
    if (job->stored)
        nyb_widen(widened,
                  (const char *) job->stored->at + row * cols * nyb_dtype_bytes(job->stored->dtype),
                  job->stored->dtype, cols);
    const size_t bad = nyb_vector_ops_get()->first_not_finite(values, cols);
    if (bad < cols) {
        *fault = (nyb_tile_fault){
            .kind = NYB_FAULT_WEIGHT, .row = row, .place = bad, .value = values[bad]};
        return;
    }
    ops->ranges(low, high, values, cols, size);
    const size_t large = nyb_grid_fit_ranges(job->params, low, high, groups, scale, zero);
    if (large < groups) {
        *fault = (nyb_tile_fault){.kind = NYB_FAULT_SCALE, .row = row, .place = large};
        return;
    }
    for (size_t group = 0; group < groups; group++)
        out->zeros[row * groups + group] = (uint8_t) zero[group];
    ops->nearest(out->codes + row * cols, values, cols, size, scale, zero,
                 nyb_grid_top(job->params->bits));
}

static void round_rows(void *arg, size_t tile, unsigned worker)
{
    const round_job *const job = arg;
    const size_t row0 = tile * NYB_LANES, rows = nyb_tile_rows(job->out->rows, tile);
    for (size_t i = 0; i < rows && job->faults[tile].kind == NYB_FAULT_NONE; i++)
        round_row(job, row0 + i, job->scratch + worker * job->scratch_floats, &job->faults[tile]);
}

static void round_tile(void *arg, size_t tile, unsigned worker)
{
    const round_job *const job = arg;
    const size_t size = job->out->group_size, row0 = tile * NYB_LANES;
    const size_t rows = nyb_tile_rows(job->w.rows, tile);
    const bool keras = job->params->kind == NYB_GRID_ABSMAX &&
                       job->params->scale_dtype == NYB_F32 &&
                       job->params->range.kind == NYB_RANGE_ABSMAX;

    for (size_t group = 0; group < job->out->groups; group++) {
        const size_t col0 = group * size;
        const size_t cols = job->w.cols - col0 < size ? job->w.cols - col0 : size;
        const nyb_mat values =
            nyb_mat_of(job->scratch + worker * job->scratch_floats, cols, NYB_LANES);
        nyb_grid_lanes grid;

        if (!nyb_tile_load(values, job->w, row0, col0, NULL, &job->faults[tile]))
            return;
        const size_t bad = nyb_grid_fit(job->params, values, NULL, &grid);
        if (bad != NYB_LANES) {
            job->faults[tile] =
                (nyb_tile_fault){.kind = NYB_FAULT_SCALE, .row = row0 + bad, .place = group};
            return;
        }
        store_grid(job, row0, rows, group, &grid);
        if (keras)
            round_as_keras(job, row0, rows, values);
        else
            round_group(job, row0, rows, col0, values, &grid);
    }
}

static nyb_status round_all(const nyb_context *ctx, round_job *job, nyb_err *err)
{
    const nyb_qweight *const out = job->out;
    const size_t tiles = nyb_tile_count(out->rows), threads = nyb_threads(ctx);
    const bool plain = nyb_grid_is_plain(job->params);
    job->scratch_floats = plain ? 3 * out->groups + out->cols : out->group_size * NYB_LANES;
    job->scratch = nyb_alloc_raw(threads, job->scratch_floats * sizeof(float));
    job->faults = nyb_alloc(tiles, sizeof(*job->faults));
    nyb_status status;
    if (job->scratch && job->faults) {
        nyb_parallel(ctx, tiles, plain ? round_rows : round_tile, job);
        status = nyb_tile_report(job->faults, tiles, job->params->scale_dtype, err);
    } else {
        status = nyb_no_memory(err, "tiles of rows", threads, job->scratch_floats * sizeof(float));
    }
    nyb_free(job->scratch);
    nyb_free(job->faults);
    return status;
}

// Gives the job a weight to fill, and fills it.
static nyb_status round_into(const nyb_context *ctx, round_job *job, size_t rows, size_t cols,
                             nyb_err *err)
{
    const nyb_grid_params *const params = job->params;
    nyb_qweight *const out = job->out;
    const bool absmax = params->kind == NYB_GRID_ABSMAX;
    nyb_status status =
        nyb_qweight_init(out, rows, cols, params->bits, absmax ? 0 : params->group_size, err);
    if (status != NYB_OK)
        return status;
    out->symmetric = absmax || (params->kind == NYB_GRID_MINMAX && params->symmetric);
    out->scale_dtype = params->scale_dtype;
    status = round_all(ctx, job, err);
    if (status != NYB_OK)
        nyb_qweight_clear(out);
    return status;
}

nyb_status nyb_round_nearest(const nyb_context *ctx, nyb_qweight *out, nyb_mat w,
                             const nyb_grid_params *params, nyb_err *err)
{
    *out = (nyb_qweight){0};
    const nyb_status status = nyb_grid_check(params, w.cols, err);
    if (status != NYB_OK)
        return status;
    if (params->block != NYB_F32)
        return nyb_round_blocks(ctx, out, w, params, err);
    return round_into(ctx, &(round_job){.w = w, .params = params, .out = out}, w.rows, w.cols, err);
}

static nyb_status widen_and_round(const nyb_context *ctx, nyb_qweight *out, const nyb_tensor *w,
                                  const nyb_grid_params *params, nyb_err *err)
{
    const size_t rows = w->shape[0], cols = w->shape[1];
    const nyb_mat values = nyb_mat_of(nyb_alloc_raw(rows * cols, sizeof(float)), rows, cols);
    if (!values.at)
        return nyb_no_memory(err, w->name, rows, cols * sizeof(float));
    nyb_widen(values.at, w->at, w->dtype, rows * cols);
    const nyb_status status = nyb_round_nearest(ctx, out, values, params, err);
    nyb_free(values.at);
    return status;
}

nyb_status nyb_round_stored(const nyb_context *ctx, nyb_qweight *out, const nyb_tensor *w,
                            const nyb_grid_params *params, nyb_err *err)
{
    *out = (nyb_qweight){0};
    if (w->rank != 2 || !nyb_dtype_is_float(w->dtype))
        return nyb_fail(err, NYB_E_ARG, "'%s' is no matrix of F32, F16 or BF16", w->name);
    const size_t rows = w->shape[0], cols = w->shape[1];
    const nyb_status status = nyb_grid_check(params, cols, err);
    if (status != NYB_OK)
        return status;
    if (params->block != NYB_F32 || !nyb_grid_is_plain(params))
        return widen_and_round(ctx, out, w, params, err);
    return round_into(ctx, &(round_job){.stored = w, .params = params, .out = out}, rows, cols,
                      err);
}
