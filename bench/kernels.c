// Times the products behind forward passes and Hessians and prints their speed and its ratio to
// the peak of the machine, measured right before. Medians of 5.
//
// usage: kernels [THREADS]
#include <stdio.h>
#include <stdlib.h>

#include "bench/probe.h"
#include "core/linalg.h"
#include "core/memory.h"
#include "core/random.h"
#include "core/threads.h"
#include "kernels/attend.h"

enum { N = 2048, TIMES = 5 };

typedef struct bench {
    nyb_context ctx;
    const nyb_gemm *gemm;
    nyb_mat a, b, c;
    uint32_t *scratch;
} bench;

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *) a, y = *(const double *) b;
    return (x > y) - (x < y);
}

// Operations per second of run(), and its ratio to `probe`.
static void measure(bench *b, const char *name, double operations, void (*run)(bench *b),
                    double (*probe)(const nyb_context *ctx))
{
    double rates[TIMES], ratios[TIMES];
    run(b); // threads start, pages are touched
    for (int i = 0; i < TIMES; i++) {
        const double peak = probe(&b->ctx), start = probe_seconds(&b->ctx);
        run(b);
        rates[i] = operations / (probe_seconds(&b->ctx) - start);
        ratios[i] = rates[i] / peak;
    }
    qsort(rates, TIMES, sizeof(*rates), by_value);
    qsort(ratios, TIMES, sizeof(*ratios), by_value);
    printf("%-34s %8.0f GFLOP/s %6.1f %% of peak\n", name, rates[TIMES / 2] * 1e-9,
           100.0 * ratios[TIMES / 2]);
}

static void gemm(bench *b)
{
    const nyb_operand left = nyb_operand_of(b->a), right = nyb_operand_of(b->b);
    nyb_gemm_run(&b->ctx, b->gemm, b->c, &left, &right, 1.0f, false, b->scratch);
}

static void syrk(bench *b)
{
    const nyb_operand x = nyb_operand_turned(b->a);
    nyb_syrk_run(&b->ctx, b->gemm, b->c, &x, b->scratch);
}

// Causal attention of HEADS heads over N tokens; keys and values lie in b, queries in a.
enum { HEADS = 8, DIM = 64, ROOM = HEADS * DIM + 16, SPANS = N / NYB_ATTEND_TILE };

static void attend_task(void *arg, size_t index, unsigned worker)
{
    const bench *const b = arg;
    const size_t first = (SPANS - 1 - index / HEADS) * NYB_ATTEND_TILE, head = index % HEADS;
    const size_t words = nyb_attend_words(b->gemm, NYB_ATTEND_TILE, 1, DIM);
    const nyb_attend task = {
        .gemm = b->gemm,
        .ops = nyb_vector_ops_get(),
        .q = b->c.at + first * ROOM + head * DIM,
        .count = NYB_ATTEND_TILE,
        .stride = ROOM,
        .heads = 1,
        .keys = {.at = b->a.at + head * DIM, .rows = N, .cols = DIM, .stride = ROOM},
        .values = {.at = b->b.at + head * DIM, .rows = N, .cols = DIM, .stride = ROOM},
        .first = first,
        .scale = 0.125f,
    };
    nyb_attend_run(&task, b->scratch + worker * words);
}

static void attention(bench *b)
{
    nyb_parallel(&b->ctx, SPANS * HEADS, attend_task, b);
}

enum { BLAS_TILE = 256 };

static void blas_gemm_task(void *arg, size_t index, unsigned worker)
{
    const bench *const b = arg;
    const size_t i = index * BLAS_TILE;
    (void) worker;
    nyb_gemm_nt(nyb_block(b->c, i, i + BLAS_TILE, 0, N), nyb_block(b->a, i, i + BLAS_TILE, 0, N),
                b->b, 1.0f, 0.0f);
}

static void blas_gemm(bench *b)
{
    nyb_parallel(&b->ctx, N / BLAS_TILE, blas_gemm_task, b);
}

static void products(bench *b)
{
    const double cube = (double) N * N * N, seen = (double) N * (N + 1) / 2.0;
    b->gemm = nyb_gemm_get(NYB_COMPUTE_F32);
    measure(b, "gemm f32 2048^3", 2.0 * cube, gemm, probe_f32);
    measure(b, "gemm f32 2048^3, OpenBLAS tiles", 2.0 * cube, blas_gemm, probe_f32);
    measure(b, "syrk f32 2048^3", cube, syrk, probe_f32);
    measure(b, "attention f32, 2048 tokens", 4.0 * seen * HEADS * DIM, attention, probe_f32);
    b->gemm = nyb_gemm_get(NYB_COMPUTE_BF16);
    if (b->gemm->step == 2) {
        measure(b, "gemm bf16 2048^3", 2.0 * cube, gemm, probe_bf16);
        measure(b, "syrk bf16 2048^3", cube, syrk, probe_bf16);
        measure(b, "attention bf16, 2048 tokens", 4.0 * seen * HEADS * DIM, attention, probe_bf16);
    }
}

int main(int argc, char **argv)
{
    bench b = {.ctx = {.threads = argc > 1 ? (unsigned) strtoul(argv[1], NULL, 10) : 0}};
    const size_t floats = (size_t) N * N;
    float *const memory = nyb_alloc(3 * floats, sizeof(float));
    b.scratch = nyb_alloc(nyb_gemm_run_words(nyb_gemm_get(NYB_COMPUTE_F32), N, N, N), 4);
    if (!memory || !b.scratch)
        return 1;
    uint64_t seed = 1;
    for (size_t i = 0; i < 2 * floats; i++)
        memory[i] = (float) nyb_random_unit(&seed) - 0.5f;
    b.a = nyb_mat_of(memory, N, N);
    b.b = nyb_mat_of(memory + floats, N, N);
    b.c = nyb_mat_of(memory + 2 * floats, N, N);
    products(&b);
    nyb_free(memory);
    nyb_free(b.scratch);
    return 0;
}
