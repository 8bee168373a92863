// Times what a layer's solve is made of: the Hessian, its factor, and the pass over the columns,
// each beside the peak of the machine; and the factor as OpenBLAS makes it with its own threads.
// Medians of 5.
//
// usage: solver [THREADS]
#include <cblas.h>
#include <lapacke.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/probe.h"
#include "core/inverse_factor.h"
#include "core/linalg.h"
#include "core/memory.h"
#include "core/random.h"
#include "core/threads.h"
#include "nybble/gptq.h"

enum { N = 2048, TOKENS = 4 * N, TIMES = 5 };

typedef struct bench {
    nyb_context ctx;
    nyb_mat x, w; // [TOKENS, N] inputs, [N, N] weights
    nyb_mat h;    // x^T x and something on the diagonal, both triangles
    nyb_mat work; // [N, N]
    nyb_hessian hessian;
    nyb_gptq_factor factor;
    nyb_gptq_params params;
    nyb_err err;
    nyb_status status; // the first that was not NYB_OK
} bench;

static void note(bench *b, nyb_status status)
{
    if (b->status == NYB_OK)
        b->status = status;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *) a, y = *(const double *) b;
    return (x > y) - (x < y);
}

// Median seconds of run(), each after prepare().
static double seconds_of(bench *b, void (*prepare)(bench *b), void (*run)(bench *b))
{
    double seconds[TIMES];
    prepare(b);
    run(b); // threads start, pages are touched
    for (int i = 0; i < TIMES; i++) {
        prepare(b);
        const double start = probe_seconds(&b->ctx);
        run(b);
        seconds[i] = probe_seconds(&b->ctx) - start;
    }
    qsort(seconds, TIMES, sizeof(*seconds), by_value);
    return seconds[TIMES / 2];
}

static void print(const char *name, double seconds, double operations, double peak)
{
    printf("%-34s %8.1f ms %8.0f GFLOP/s %6.1f %% of peak\n", name, seconds * 1e3,
           operations / seconds * 1e-9, 100.0 * operations / seconds / peak);
}

static void nothing(bench *b)
{
    (void) b;
}

static void copy_hessian(bench *b)
{
    memcpy(b->work.at, b->h.at, (size_t) N * N * sizeof(float));
}

static void add_inputs(bench *b)
{
    note(b, nyb_hessian_add(&b->ctx, &b->hessian, b->x, &b->err));
}

static void own_factor(bench *b)
{
    note(b, nyb_inverse_factor(&b->ctx, b->work, &b->err));
}

// Cholesky, inverse, Cholesky: the way of the published code.
static void blas_factor(bench *b)
{
    const bool good = LAPACKE_spotrf(LAPACK_ROW_MAJOR, 'U', N, b->work.at, N) == 0 &&
                      LAPACKE_spotri(LAPACK_ROW_MAJOR, 'U', N, b->work.at, N) == 0 &&
                      LAPACKE_spotrf(LAPACK_ROW_MAJOR, 'U', N, b->work.at, N) == 0;
    note(b, good ? NYB_OK : NYB_E_NOT_PD);
}

static void solve(bench *b)
{
    nyb_qweight q = {0};
    note(b, nyb_gptq_solve(&b->ctx, &b->factor, b->w, &b->params, &q, NULL, &b->err));
    nyb_qweight_clear(&q);
}

static void make_hessian(bench *b)
{
    note(b, nyb_hessian_init(&b->hessian, N, &b->err));
    add_inputs(b);
    for (size_t i = 0; i < N; i++) {
        for (size_t j = i; j < N; j++)
            nyb_row(b->h, i)[j] = nyb_row(b->h, j)[i] = nyb_row(b->hessian.h, i)[j];
        nyb_row(b->h, i)[i] += 0.01f * TOKENS / 12.0f;
    }
}

static void measure(bench *b)
{
    const double cube = (double) N * N * N;
    make_hessian(b);
    b->ctx.compute = NYB_COMPUTE_F32;
    print("hessian f32, 8192 x 2048", seconds_of(b, nothing, add_inputs),
          TOKENS / (double) N * cube, probe_f32(&b->ctx));
    b->ctx.compute = NYB_COMPUTE_BF16;
    if (probe_bf16(&b->ctx) > 0.0)
        print("hessian bf16, 8192 x 2048", seconds_of(b, nothing, add_inputs),
              TOKENS / (double) N * cube, probe_bf16(&b->ctx));
    const double own = seconds_of(b, copy_hessian, own_factor);
    openblas_set_num_threads((int) nyb_threads(&b->ctx));
    const double theirs = seconds_of(b, copy_hessian, blas_factor);
    openblas_set_num_threads(1);
    print("factor, n = 2048", own, 2.0 / 3.0 * cube, probe_f32(&b->ctx));
    printf("%-34s %8.1f ms %8.2f x the factor's time\n", "potrf + potri + potrf of OpenBLAS",
           theirs * 1e3, theirs / own);
    note(b, nyb_gptq_prepare(&b->ctx, &b->factor, &b->hessian, &b->params, &b->err));
    b->params.skip_measurements = true;
    b->params.refine = 0;
    const double bare = seconds_of(b, nothing, solve);
    print("solve, 2048 x 2048", bare, cube, probe_f32(&b->ctx));
    b->params.grid.scale_search = true; // which refinement starts from
    const double searched = seconds_of(b, nothing, solve);
    b->params.refine = NYB_GPTQ_DEFAULTS.refine;
    const double refined = seconds_of(b, nothing, solve);
    printf("%-34s %8.1f ms %8.2f x the solve without search\n", "solve with search of scales",
           searched * 1e3, searched / bare);
    printf("%-34s %8.1f ms %8.2f x the solve with search\n", "refinement alone",
           (refined - searched) * 1e3, (refined - searched) / searched);
    nyb_gptq_factor_clear(&b->factor);
    nyb_hessian_clear(&b->hessian);
}

int main(int argc, char **argv)
{
    bench b = {.ctx = {.threads = argc > 1 ? (unsigned) strtoul(argv[1], NULL, 10) : 0},
               .params = NYB_GPTQ_DEFAULTS};
    const size_t inputs = (size_t) TOKENS * N, square = (size_t) N * N;
    float *const memory = nyb_alloc(inputs + 3 * square, sizeof(float));
    if (!memory)
        return 1;
    uint64_t seed = 1;
    for (size_t i = 0; i < inputs + square; i++)
        memory[i] = (float) nyb_random_unit(&seed) - 0.5f;
    b.x = nyb_mat_of(memory, TOKENS, N);
    b.w = nyb_mat_of(memory + inputs, N, N);
    b.h = nyb_mat_of(memory + inputs + square, N, N);
    b.work = nyb_mat_of(memory + inputs + 2 * square, N, N);
    nyb_blas_init();
    measure(&b);
    if (b.status != NYB_OK)
        fprintf(stderr, "solver: %s\n", b.err.text);
    nyb_free(memory);
    return b.status == NYB_OK ? 0 : 1;
}
