#include <math.h>

#include "core/dtype.h"
#include "core/memory.h"
#include "core/threads.h"
#include "kernels/codes.h"
#include "kernels/vector.h"
#include "ptq/blocks.h"
#include "ptq/tile.h"

typedef struct round_job {
    nyb_mat w;
    const nyb_grid_params *params;
    nyb_qweight *out;
    float *scratch; // one group of a tile for each worker
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
static void round_row(const round_job *job, size_t row, nyb_tile_fault *fault)
{
    const nyb_code_ops *const ops = nyb_code_ops_get();
    nyb_qweight *const out = job->out;
    const float *const values = nyb_row(job->w, row), top = nyb_grid_top(job->params->bits);
    const size_t cols = job->w.cols, bad = nyb_vector_ops_get()->first_not_finite(values, cols);
    if (bad < cols) {
        *fault = (nyb_tile_fault){
            .kind = NYB_FAULT_WEIGHT, .row = row, .place = bad, .value = values[bad]};
        return;
    }
    for (size_t group = 0; group < out->groups; group++) {
        const size_t col0 = group * out->group_size, at = row * out->groups + group;
        const size_t n = cols - col0 < out->group_size ? cols - col0 : out->group_size;
        float low, high, zero;
        ops->range(&low, &high, values + col0, n);
        if (!nyb_grid_fit_range(job->params, low, high, &out->scales[at], &zero)) {
            *fault = (nyb_tile_fault){.kind = NYB_FAULT_SCALE, .row = row, .place = group};
            return;
        }
        out->zeros[at] = (uint8_t) zero;
        ops->nearest(out->codes + row * cols + col0, values + col0, n, out->scales[at], zero, top);
    }
}

static void round_rows(void *arg, size_t tile, unsigned worker)
{
    const round_job *const job = arg;
    const size_t row0 = tile * NYB_LANES, rows = nyb_tile_rows(job->w.rows, tile);
    (void) worker;
    for (size_t i = 0; i < rows && job->faults[tile].kind == NYB_FAULT_NONE; i++)
        round_row(job, row0 + i, &job->faults[tile]);
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
            nyb_mat_of(job->scratch + worker * size * NYB_LANES, cols, NYB_LANES);
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
    const size_t tiles = nyb_tile_count(job->w.rows), threads = nyb_threads(ctx);
    const size_t size = job->out->group_size;
    job->scratch = nyb_alloc_raw(threads * NYB_LANES, size * sizeof(float));
    job->faults = nyb_alloc(tiles, sizeof(*job->faults));
    nyb_status status;
    if (job->scratch && job->faults) {
        nyb_parallel(ctx, tiles, nyb_grid_is_plain(job->params) ? round_rows : round_tile, job);
        status = nyb_tile_report(job->faults, tiles, job->params->scale_dtype, err);
    } else {
        status = nyb_no_memory(err, "tiles of rows", threads * NYB_LANES, size * sizeof(float));
    }
    nyb_free(job->scratch);
    nyb_free(job->faults);
    return status;
}

nyb_status nyb_round_nearest(const nyb_context *ctx, nyb_qweight *out, nyb_mat w,
                             const nyb_grid_params *params, nyb_err *err)
{
    const bool absmax = params->kind == NYB_GRID_ABSMAX;
    *out = (nyb_qweight){0};
    nyb_status status = nyb_grid_check(params, w.cols, err);
    if (status != NYB_OK)
        return status;
    if (params->block != NYB_F32)
        return nyb_round_blocks(ctx, out, w, params, err);
    status =
        nyb_qweight_init(out, w.rows, w.cols, params->bits, absmax ? 0 : params->group_size, err);
    if (status != NYB_OK)
        return status;

    out->symmetric = absmax || (params->kind == NYB_GRID_MINMAX && params->symmetric);
    out->scale_dtype = params->scale_dtype;
    status = round_all(ctx, &(round_job){.w = w, .params = params, .out = out}, err);
    if (status != NYB_OK)
        nyb_qweight_clear(out);
    return status;
}
