// Times plain rounding of 1 GiB of bf16 weights in memory to packed 4-bit codes in groups of 64, and
// prints its speed and how much of the memory's own rate it has, which is measured right before:
// each weight is read and its code and its share of a scale are written. Medians of 5.
//
// usage: rounding [THREADS]
#include <stdio.h>
#include <stdlib.h>

#include "bench/probe.h"
#include "core/memory.h"
#include "core/random.h"
#include "core/threads.h"
#include "kernels/pack.h"
#include "nybble/grid.h"

enum { TENSORS = 64, ROWS = 4096, COLS = 2048, GROUP = 64, BITS = 4, TIMES = 5 };

typedef struct bench {
    nyb_context ctx;
    nyb_tensor tensors[TENSORS];
    uint32_t *words; // of one tensor
    nyb_qweight q;
    nyb_err err;
    nyb_status status;
} bench;

static void pack(void *arg, size_t row, unsigned worker)
{
    const bench *const b = arg;
    (void) worker;
    nyb_pack_row(b->words + row * nyb_pack_words(COLS, BITS), b->q.codes + row * COLS, COLS, BITS);
}

static void round_all(bench *b)
{
    const nyb_grid_params grid = {.bits = BITS, .group_size = GROUP, .scale_dtype = NYB_F16};
    for (size_t i = 0; b->status == NYB_OK && i < TENSORS; i++) {
        b->status = nyb_round_stored(&b->ctx, &b->q, &b->tensors[i], &grid, &b->err);
        if (b->status == NYB_OK)
            nyb_parallel(&b->ctx, ROWS, pack, b);
        nyb_qweight_clear(&b->q);
    }
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *) a, y = *(const double *) b;
    return (x > y) - (x < y);
}

static void measure(bench *b)
{
    const double weights = (double) TENSORS * ROWS * COLS;
    const double bytes = weights * (2.0 + BITS / 8.0 + 2.0 / GROUP);
    double seconds[TIMES], shares[TIMES];
    round_all(b); // threads start, pages are touched
    for (int i = 0; i < TIMES; i++) {
        const double rate = probe_bandwidth(&b->ctx), start = probe_seconds(&b->ctx);
        round_all(b);
        seconds[i] = probe_seconds(&b->ctx) - start;
        shares[i] = bytes / seconds[i] / rate;
    }
    qsort(seconds, TIMES, sizeof(*seconds), by_value);
    qsort(shares, TIMES, sizeof(*shares), by_value);
    printf("%-34s %8.1f ms %8.2f G weights/s %6.1f %% of bandwidth\n", "rounding, 1 GiB of bf16",
           seconds[TIMES / 2] * 1e3, weights / seconds[TIMES / 2] * 1e-9,
           100.0 * shares[TIMES / 2]);
}

int main(int argc, char **argv)
{
    static bench b;
    const size_t each = (size_t) ROWS * COLS;
    uint16_t *const source = nyb_alloc_raw(TENSORS * each, sizeof(*source));
    uint64_t seed = 1;
    b.ctx.threads = argc > 1 ? (unsigned) strtoul(argv[1], NULL, 10) : 0;
    b.words = nyb_alloc_raw(ROWS * nyb_pack_words(COLS, BITS), sizeof(*b.words));
    if (!source || !b.words)
        return 1;
    for (size_t i = 0; i < TENSORS * each; i++) // of either sign, about 0.01
        source[i] = (uint16_t) (0x3c00 | (nyb_random_u64(&seed) >> 32 & 0x80ff));
    for (size_t t = 0; t < TENSORS; t++)
        b.tensors[t] = (nyb_tensor){.name = "weight",
                                    .dtype = NYB_BF16,
                                    .rank = 2,
                                    .shape = {ROWS, COLS},
                                    .at = source + t * each,
                                    .bytes = each * sizeof(*source)};
    measure(&b);
    if (b.status != NYB_OK)
        fprintf(stderr, "rounding: %s\n", b.err.text);
    nyb_free(source);
    nyb_free(b.words);
    return b.status == NYB_OK ? 0 : 1;
}
