#include "calib/finish.h"

#include <string.h>

#include "core/dtype.h"
#include "core/memory.h"
#include "core/threads.h"

// Tasks that do not need each other; from REPLACE on they are tiles of so many rows.
enum { PUT, HASH, REPLACE, ROWS = 64, LANES = 8 };

typedef struct finish_job {
    const nyb_finishing *f;
    float *rows;       // [workers, 2, cols]
    double (*sums)[2]; // [tiles] |W - Q|^2 and |W|^2
    char *sha256;
    nyb_status status; // of putting
    nyb_err *err;
} finish_job;

// Adds |w - q|^2 and |w|^2 of n values.
static void add_squares(double sums[2], const float *w, const float *q, size_t n)
{
    double error[LANES] = {0}, energy[LANES] = {0};
    size_t j = 0;
    for (; j + LANES <= n; j += LANES) {
        for (size_t k = 0; k < LANES; k++) {
            const double own = (double) w[j + k], off = own - (double) q[j + k];
            error[k] += off * off;
            energy[k] += own * own;
        }
    }
    for (size_t k = 0; j < n; j++, k++) {
        const double own = (double) w[j], off = own - (double) q[j];
        error[k] += off * off;
        energy[k] += own * own;
    }
    for (size_t k = 0; k < LANES; k++) {
        sums[0] += error[k];
        sums[1] += energy[k];
    }
}

static void replace(const finish_job *job, size_t tile, float *rows)
{
    const nyb_finishing *const f = job->f;
    const size_t cols = f->weight.cols, first = tile * ROWS, end = first + ROWS;
    double sums[2] = {0};
    for (size_t i = first; i < end && i < f->weight.rows; i++) {
        float *const own = f->stored ? rows + cols : nyb_row(f->weight, i);
        if (f->stored)
            nyb_widen(own,
                      (const char *) f->stored->at + i * cols * nyb_dtype_bytes(f->stored->dtype),
                      f->stored->dtype, cols);
        nyb_qweight_dequantize(f->q, i, nyb_mat_of(rows, 1, cols));
        add_squares(sums, own, rows, cols);
        if (!f->stored)
            memcpy(own, rows, cols * sizeof(*own));
    }
    memcpy(job->sums[tile], sums, sizeof(sums));
}

static void finish_task(void *arg, size_t index, unsigned worker)
{
    finish_job *const job = arg;
    const nyb_finishing *const f = job->f;
    if (index == PUT)
        job->status = nyb_output_put(f->out, f->layer, f->q, job->err);
    else if (index == HASH)
        nyb_job_hash(f->q, job->sha256);
    else
        replace(job, index - REPLACE, job->rows + worker * 2 * f->weight.cols);
}

nyb_status nyb_finish_layer(const nyb_context *ctx, const nyb_finishing *finishing,
                            char sha256[NYB_HASH_TEXT], double *weight_error, nyb_err *err)
{
    const size_t cols = finishing->weight.cols, threads = nyb_threads(ctx);
    const size_t tiles = (finishing->weight.rows + ROWS - 1) / ROWS;
    finish_job job = {.f = finishing,
                      .rows = nyb_alloc_raw(threads * 2 * cols, sizeof(float)),
                      .sums = nyb_alloc_raw(tiles, sizeof(*job.sums)),
                      .sha256 = sha256,
                      .err = err};
    double error = 0.0, energy = 0.0;
    if (job.rows && job.sums)
        nyb_parallel(ctx, REPLACE + tiles, finish_task, &job);
    else
        job.status = nyb_no_memory(err, finishing->layer->linear->module, tiles, sizeof(*job.sums));
    for (size_t i = 0; job.status == NYB_OK && i < tiles; i++) {
        error += job.sums[i][0];
        energy += job.sums[i][1];
    }
    nyb_free(job.rows);
    nyb_free(job.sums);
    *weight_error = energy > 0.0 ? error / energy : 0.0;
    return job.status;
}
