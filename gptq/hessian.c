#include <assert.h>

#include "core/linalg.h"
#include "core/memory.h"
#include "core/threads.h"
#include "nybble/gptq.h"

enum { TILE = 192 }; // divides the widths of many models, and is near BLAS' full speed

typedef struct sum_job {
    nyb_mat h, x;
    size_t tiles; // of one row
} sum_job;

nyb_status nyb_hessian_init(nyb_hessian *out, size_t n, nyb_err *err)
{
    *out = (nyb_hessian){0};
    size_t count = 0;
    if (n == 0)
        return nyb_fail(err, NYB_E_ARG, "hessian of 0 columns");
    float *const at = nyb_mul_size(n, n, &count) ? nyb_alloc(count, sizeof(float)) : NULL;
    if (!at)
        return nyb_no_memory(err, "hessian", n, n * sizeof(float));
    out->h = nyb_mat_of(at, n, n);
    return NYB_OK;
}

void nyb_hessian_clear(nyb_hessian *hessian)
{
    nyb_free(hessian->h.at);
    *hessian = (nyb_hessian){0};
}

// One tile of H's upper triangle, over all tokens, chunk by chunk.
static void sum_tile(void *arg, size_t index, unsigned worker)
{
    const sum_job *const job = arg;
    const size_t n = job->h.rows, tokens = job->x.rows;
    size_t i = 0;
    (void) worker;
    while (index >= job->tiles - i)
        index -= job->tiles - i++;
    const size_t i0 = i * TILE, j0 = (i + index) * TILE;
    const size_t i1 = i0 + TILE < n ? i0 + TILE : n, j1 = j0 + TILE < n ? j0 + TILE : n;
    const nyb_mat h = nyb_block(job->h, i0, i1, j0, j1);

    for (size_t t0 = 0; t0 < tokens; t0 += NYB_HESSIAN_CHUNK) {
        const size_t t1 = t0 + NYB_HESSIAN_CHUNK < tokens ? t0 + NYB_HESSIAN_CHUNK : tokens;
        const nyb_mat a = nyb_block(job->x, t0, t1, i0, i1);
        if (i0 == j0)
            nyb_syrk_t(h, a);
        else
            nyb_gemm_tn(h, a, nyb_block(job->x, t0, t1, j0, j1), 1.0f, 1.0f);
    }
}

nyb_status nyb_hessian_add(const nyb_context *ctx, nyb_hessian *hessian, nyb_mat x, nyb_err *err)
{
    const size_t n = hessian->h.rows;
    if (x.cols != n)
        return nyb_fail(err, NYB_E_SHAPE, "activations have %zu columns, the hessian %zu", x.cols,
                        n);
    sum_job job = {.h = hessian->h, .x = x, .tiles = (n + TILE - 1) / TILE};
    nyb_parallel(ctx, job.tiles * (job.tiles + 1) / 2, sum_tile, &job);
    hessian->tokens += x.rows;
    return NYB_OK;
}
