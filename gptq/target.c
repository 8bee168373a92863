// The second objective: what a layer should give on the inputs that it will see, for its model to come
// back to what it was.
#include <string.h>

#include "core/linalg.h"
#include "core/memory.h"
#include "core/threads.h"
#include "nybble/gptq.h"

enum { TILE = 64 }; // rows of one task

typedef struct crossing {
    nyb_mat c, x, d;
} crossing;

static void add_rows(void *arg, size_t tile, unsigned worker)
{
    const crossing *const k = arg;
    const size_t i0 = tile * TILE, i1 = i0 + TILE < k->c.rows ? i0 + TILE : k->c.rows;
    (void) worker;
    nyb_gemm_tn(nyb_block(k->c, i0, i1, 0, k->c.cols), nyb_block(k->x, 0, k->x.rows, i0, i1), k->d,
                1.0f, 1.0f);
}

void nyb_cross_add(const nyb_context *ctx, nyb_mat c, nyb_mat x, nyb_mat d)
{
    crossing k = {.c = c, .x = x, .d = d};
    nyb_parallel(ctx, (c.rows + TILE - 1) / TILE, add_rows, &k);
}

typedef struct moving {
    const nyb_gptq_factor *factor;
    nyb_mat w, cross, out, u; // u with zeros below its diagonal
    double strength;
    float *scratch; // two tiles for each worker
} moving;

static void move_rows(void *arg, size_t tile, unsigned worker)
{
    const moving *const m = arg;
    const size_t n = m->w.cols, r0 = tile * TILE;
    const size_t r1 = r0 + TILE < m->w.rows ? r0 + TILE : m->w.rows;
    const uint32_t *const columns = m->factor->columns;
    float *const memory = m->scratch + worker * 2 * TILE * n;
    const nyb_mat a = nyb_mat_of(memory, r1 - r0, n), b = nyb_mat_of(memory + TILE * n, r1 - r0, n);
    nyb_gemm_nt(a, nyb_block(m->w, r0, r1, 0, n), m->cross, 1.0f, 0.0f);
    for (size_t i = 0; i < a.rows; i++) {
        for (size_t p = 0; p < n; p++)
            nyb_row(b, i)[p] = m->factor->dead[columns[p]] ? 0.0f : nyb_row(a, i)[columns[p]];
    }
    nyb_gemm_nt(a, b, m->u, 1.0f, 0.0f);
    nyb_gemm_nn(b, a, m->u, 1.0f, 0.0f);
    for (size_t i = 0; i < a.rows; i++) {
        for (size_t p = 0; p < n; p++) {
            const size_t j = columns[p];
            nyb_row(m->out, r0 + i)[j] =
                nyb_row(m->w, r0 + i)[j] + (float) (m->strength * (double) nyb_row(b, i)[p]);
        }
    }
}

nyb_status nyb_gptq_target(const nyb_context *ctx, const nyb_gptq_factor *factor, nyb_mat w,
                           nyb_mat cross, double strength, nyb_mat out, nyb_err *err)
{
    const size_t n = w.cols, threads = nyb_threads(ctx);
    if (factor->u.rows != n || cross.rows != n || cross.cols != n || out.rows != w.rows ||
        out.cols != n)
        return nyb_fail(err, NYB_E_SHAPE,
                        "weight is %zu x %zu, target %zu x %zu, cross-moment %zu x %zu, hessian of "
                        "order %zu",
                        w.rows, n, out.rows, out.cols, cross.rows, cross.cols, factor->u.rows);
    float *const u = nyb_alloc(n, n * sizeof(float));
    float *const scratch = nyb_alloc_raw(threads, 2 * TILE * n * sizeof(float));
    const bool room = u && scratch;
    if (room) {
        moving m = {.factor = factor,
                    .w = w,
                    .cross = cross,
                    .out = out,
                    .u = nyb_mat_of(u, n, n),
                    .strength = strength,
                    .scratch = scratch};
        for (size_t p = 0; p < n; p++)
            memcpy(u + p * n + p, nyb_row(factor->u, p) + p, (n - p) * sizeof(float));
        nyb_parallel(ctx, (w.rows + TILE - 1) / TILE, move_rows, &m);
    }
    nyb_free(u);
    nyb_free(scratch);
    return room ? NYB_OK : nyb_no_memory(err, "a target", n, n * sizeof(float));
}
