// The quadratic form tr(D H D^T), tile of rows by tile of rows, from H's upper triangle alone:
// each tile of columns meets its own square once, and what lies right of it twice.
#include <assert.h>
#include <string.h>

#include "core/linalg.h"
#include "core/memory.h"
#include "core/qweight.h"
#include "core/threads.h"
#include "nybble/gptq.h"
#include "ptq/tile.h"

enum { TILE = 192 };

typedef struct loss_job {
    nyb_mat h, w;
    const nyb_qweight *q; // may be NULL
    float *scratch;
    size_t scratch_floats; // of one worker
    nyb_tile_fault *faults;
    double *losses; // of each tile
} loss_job;

// d -= q, for the rows from row0 on
static void subtract(nyb_mat d, const nyb_qweight *q, size_t row0, size_t rows)
{
    float values[256];
    for (int c = 0; c < 256; c++)
        values[c] = (float) c;
    if (q->kind != NYB_CODE_INT)
        nyb_code_values(q->kind, values);
    for (size_t lane = 0; lane < rows; lane++) {
        const uint8_t *const codes = q->codes + (row0 + lane) * q->cols;
        const float *const scales = q->scales + (row0 + lane) * q->groups;
        const uint8_t *const zeros = q->zeros + (row0 + lane) * q->groups;
        const float *const mins = q->mins ? q->mins + (row0 + lane) * q->groups : NULL;
        for (size_t j = 0; j < q->cols; j++) {
            const uint32_t g = q->group_of[j];
            const float value = scales[g] * (values[codes[j]] - (float) zeros[g]);
            nyb_row(d, j)[lane] -= mins ? value - mins[g] : value;
        }
    }
}

static double inner_product(nyb_mat a, nyb_mat b)
{
    double sum[NYB_LANES] = {0}, total = 0.0;
    for (size_t p = 0; p < a.rows; p++) {
        const float *const x = nyb_row(a, p), *const y = nyb_row(b, p);
        for (size_t lane = 0; lane < NYB_LANES; lane++)
            sum[lane] += (double) x[lane] * (double) y[lane];
    }
    for (size_t lane = 0; lane < NYB_LANES; lane++)
        total += sum[lane];
    return total;
}

// tr(D H D^T) for d = D^T [n, NYB_LANES]
static double quadratic(nyb_mat h, nyb_mat d, float *scratch)
{
    const size_t n = h.rows;
    double total = 0.0;
    for (size_t i0 = 0; i0 < n; i0 += TILE) {
        const size_t i1 = i0 + TILE < n ? i0 + TILE : n, size = i1 - i0;
        const nyb_mat square = nyb_mat_of(scratch, size, size);
        const nyb_mat product = nyb_mat_of(scratch + TILE * TILE, size, NYB_LANES);
        const nyb_mat here = nyb_block(d, i0, i1, 0, NYB_LANES);
        for (size_t i = 0; i < size; i++) {
            const float *const from = nyb_row(h, i0 + i) + i0;
            for (size_t j = i; j < size; j++)
                nyb_row(square, i)[j] = nyb_row(square, j)[i] = from[j];
        }
        nyb_gemm_nn(product, square, here, 1.0f, 0.0f);
        total += inner_product(here, product);
        if (i1 == n)
            break;
        nyb_gemm_nn(product, nyb_block(h, i0, i1, i1, n), nyb_block(d, i1, n, 0, NYB_LANES), 1.0f,
                    0.0f);
        total += 2.0 * inner_product(here, product);
    }
    return total;
}

static void measure_tile(void *arg, size_t tile, unsigned worker)
{
    const loss_job *const job = arg;
    const size_t n = job->h.rows;
    float *const scratch = job->scratch + worker * job->scratch_floats;
    const nyb_mat d = nyb_mat_of(scratch, n, NYB_LANES);

    if (!nyb_tile_load(d, job->w, tile * NYB_LANES, 0, NULL, &job->faults[tile]))
        return;
    if (job->q)
        subtract(d, job->q, tile * NYB_LANES, nyb_tile_rows(job->w.rows, tile));
    job->losses[tile] = quadratic(job->h, d, scratch + n * NYB_LANES);
}

static nyb_status measure(const nyb_context *ctx, loss_job *job, double *loss, nyb_err *err)
{
    const size_t tiles = nyb_tile_count(job->w.rows), threads = nyb_threads(ctx);
    job->scratch_floats = job->h.rows * NYB_LANES + TILE * TILE + TILE * NYB_LANES;
    job->scratch = nyb_alloc_raw(threads, job->scratch_floats * sizeof(float));
    job->faults = nyb_alloc(tiles, sizeof(*job->faults));
    job->losses = nyb_alloc(tiles, sizeof(*job->losses));
    nyb_status status;
    if (job->scratch && job->faults && job->losses) {
        nyb_parallel(ctx, tiles, measure_tile, job);
        status = nyb_tile_report(job->faults, tiles, NYB_F32, err);
    } else {
        status = nyb_no_memory(err, "tiles of rows", threads, job->scratch_floats * sizeof(float));
    }
    if (status == NYB_OK) {
        double total = 0.0;
        for (size_t i = 0; i < tiles; i++)
            total += job->losses[i];
        *loss = total;
    }
    nyb_free(job->scratch);
    nyb_free(job->faults);
    nyb_free(job->losses);
    return status;
}

nyb_status nyb_hessian_loss(const nyb_context *ctx, const nyb_hessian *hessian, nyb_mat w,
                            const nyb_qweight *q, double *loss, nyb_err *err)
{
    if (hessian->h.rows != w.cols)
        return nyb_fail(err, NYB_E_SHAPE, "hessian has order %zu, weight has %zu columns",
                        hessian->h.rows, w.cols);
    if (q && (q->rows != w.rows || q->cols != w.cols))
        return nyb_fail(err, NYB_E_SHAPE, "weight is %zu x %zu, its quantised form %zu x %zu",
                        w.rows, w.cols, q->rows, q->cols);
    return measure(ctx, &(loss_job){.h = hessian->h, .w = w, .q = q}, loss, err);
}
