#include <assert.h>

#include "core/memory.h"
#include "core/threads.h"
#include "kernels/gemm.h"

// Rows and columns of a task's part of the result: multiples of every level's panel widths.
// Narrow results are cut finer, so that threads end together.
enum { TILE = 192, NARROW_TILE = 96, NARROW = 1024, PACK_PANELS = 8 };

typedef struct product {
    const nyb_gemm *g;
    nyb_mat c;
    const nyb_operand *a, *b;
    uint32_t *packed_a, *packed_b;
    float alpha;
    bool add;
    size_t tile, tiles; // of a row of tiles
} product;

static size_t tile_of(nyb_mat c)
{
    return c.cols > NARROW ? TILE : NARROW_TILE;
}

// Tasks of packing.
static size_t packs(const nyb_gemm *g, const nyb_operand *x)
{
    return nyb_gemm_panels(x->rows, PACK_PANELS * g->width);
}

static void pack_some(const nyb_gemm *g, uint32_t *to, const nyb_operand *from, size_t index)
{
    const size_t panels = nyb_gemm_panels(from->rows, g->width), first = index * PACK_PANELS;
    nyb_gemm_pack(g, to, from, first, panels - first < PACK_PANELS ? panels : first + PACK_PANELS);
}

static void pack_task(void *arg, size_t index, unsigned worker)
{
    const product *const p = arg;
    const size_t left = packs(p->g, p->a);
    (void) worker;
    if (index < left)
        pack_some(p->g, p->packed_a, p->a, index);
    else
        pack_some(p->g, p->packed_b, p->b, index - left);
}

static void gemm_task(void *arg, size_t index, unsigned worker)
{
    const product *const p = arg;
    const size_t i0 = index / p->tiles * p->tile, j0 = index % p->tiles * p->tile;
    const size_t i1 = p->c.rows - i0 < p->tile ? p->c.rows : i0 + p->tile;
    const size_t j1 = p->c.cols - j0 < p->tile ? p->c.cols : j0 + p->tile;
    const size_t depth = p->a->depth;
    (void) worker;
    nyb_gemm_tile(p->g, nyb_block(p->c, i0, i1, j0, j1),
                  p->packed_a + nyb_gemm_place(p->g, i0, depth),
                  p->packed_b + nyb_gemm_place(p->g, j0, depth), depth, p->alpha, p->add);
}

size_t nyb_gemm_run_words(const nyb_gemm *g, size_t m, size_t n, size_t depth)
{
    return nyb_gemm_packed(g, m, depth) + nyb_gemm_packed(g, n, depth);
}

void nyb_gemm_run(const nyb_context *ctx, const nyb_gemm *g, nyb_mat c, const nyb_operand *a,
                  const nyb_operand *b, float alpha, bool add, uint32_t *scratch)
{
    const size_t tile = tile_of(c);
    product p = {.g = g,
                 .c = c,
                 .a = a,
                 .b = b,
                 .packed_a = scratch,
                 .packed_b = scratch + nyb_gemm_packed(g, a->rows, a->depth),
                 .alpha = alpha,
                 .add = add,
                 .tile = tile,
                 .tiles = nyb_gemm_panels(c.cols, tile)};
    assert(a->depth == b->depth && c.rows == a->rows && c.cols == b->rows);
    nyb_parallel(ctx, packs(g, a) + packs(g, b), pack_task, &p);
    nyb_parallel(ctx, p.tiles * nyb_gemm_panels(c.rows, tile), gemm_task, &p);
}

// ---- c += x x^T ------------------------------------------------------------------------------

typedef struct square {
    const nyb_gemm *g;
    nyb_mat c;
    const nyb_operand *x;
    uint32_t *packed;
    size_t tile;
} square;

static void pack_square_task(void *arg, size_t index, unsigned worker)
{
    const square *const s = arg;
    (void) worker;
    pack_some(s->g, s->packed, s->x, index);
}

// Tiles at and above the diagonal, column by column.
static void syrk_task(void *arg, size_t index, unsigned worker)
{
    const square *const s = arg;
    const size_t n = s->c.rows;
    size_t j = 0;
    (void) worker;
    for (; index > j; j++)
        index -= j + 1;
    const size_t i0 = index * s->tile, i1 = n - i0 < s->tile ? n : i0 + s->tile;
    const size_t j0 = j * s->tile, j1 = n - j0 < s->tile ? n : j0 + s->tile;
    const size_t depth = s->x->depth;
    const nyb_mat c = nyb_block(s->c, i0, i1, j0, j1);
    const uint32_t *const left = s->packed + nyb_gemm_place(s->g, i0, depth);
    const uint32_t *const right = s->packed + nyb_gemm_place(s->g, j0, depth);
    if (index == j)
        nyb_gemm_tile_upper(s->g, c, left, right, depth, 1.0f, true);
    else
        nyb_gemm_tile(s->g, c, left, right, depth, 1.0f, true);
}

void nyb_syrk_run(const nyb_context *ctx, const nyb_gemm *g, nyb_mat c, const nyb_operand *x,
                  uint32_t *scratch)
{
    square s = {.g = g, .c = c, .x = x, .packed = scratch, .tile = tile_of(c)};
    const size_t tiles = nyb_gemm_panels(c.rows, s.tile);
    assert(c.rows == x->rows && c.cols == x->rows);
    nyb_parallel(ctx, packs(g, x), pack_square_task, &s);
    nyb_parallel(ctx, tiles * (tiles + 1) / 2, syrk_task, &s);
}

// ---- c += x x^T and cross += x d^T --------------------------------------------------------------

typedef struct both {
    square square;
    product product;
    size_t squares; // tasks of the first
} both;

static void both_task(void *arg, size_t index, unsigned worker)
{
    both *const b = arg;
    if (index < b->squares)
        syrk_task(&b->square, index, worker);
    else
        gemm_task(&b->product, index - b->squares, worker);
}

void nyb_syrk_cross_run(const nyb_context *ctx, const nyb_gemm *g, nyb_mat c, nyb_mat cross,
                        const nyb_operand *x, const nyb_operand *d, uint32_t *scratch)
{
    const size_t tile = tile_of(c), tiles = nyb_gemm_panels(c.rows, tile);
    both b = {.square = {.g = g, .c = c, .x = x, .packed = scratch, .tile = tile},
              .product = {.g = g,
                          .c = cross,
                          .a = x,
                          .b = d,
                          .packed_a = scratch,
                          .packed_b = scratch + nyb_gemm_packed(g, x->rows, x->depth),
                          .alpha = 1.0f,
                          .add = true,
                          .tile = tile,
                          .tiles = tiles},
              .squares = tiles * (tiles + 1) / 2};
    assert(c.rows == x->rows && c.cols == x->rows && d->depth == x->depth);
    assert(cross.rows == x->rows && cross.cols == d->rows && d->rows == x->rows);
    nyb_parallel(ctx, packs(g, x) + packs(g, d), pack_task, &b.product);
    nyb_parallel(ctx, b.squares + tiles * tiles, both_task, &b);
}
