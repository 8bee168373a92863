#include <assert.h>

#include "core/memory.h"
#include "core/threads.h"
#include "kernels/gemm.h"

// Rows and columns of a task's part of the result: multiples of every level's panel widths.
// Narrow results are cut finer, so that threads end together.
enum { TILE = 192, NARROW_TILE = 96, NARROW = 1024, PACK_PANELS = 8, PACK_WORDS = 64 };

typedef struct product {
    const nyb_gemm *g;
    nyb_mat c;
    const nyb_operand *a, *b;
    uint32_t *packed_a, *packed_b;
    float alpha;
    bool add;
    size_t tile, tiles; // of a row of tiles
} product;

static size_t packs(const nyb_operand *x, size_t width)
{
    return nyb_gemm_panels(nyb_gemm_panels(x->rows, width), PACK_PANELS);
}

static void pack_some(const nyb_gemm *g, uint32_t *to, const nyb_operand *from, size_t width,
                      size_t index)
{
    const size_t panels = nyb_gemm_panels(from->rows, width), first = index * PACK_PANELS;
    nyb_gemm_pack(g, to, from, width, first,
                  panels - first < PACK_PANELS ? panels : first + PACK_PANELS);
}

static void pack_task(void *arg, size_t index, unsigned worker)
{
    const product *const p = arg;
    const size_t left = packs(p->a, p->g->a_width);
    (void) worker;
    if (index < left)
        pack_some(p->g, p->packed_a, p->a, p->g->a_width, index);
    else
        pack_some(p->g, p->packed_b, p->b, p->g->b_width, index - left);
}

// Both packed forms of the same rows, in turns, so that memory is read once.
static void pack_both_task(void *arg, size_t index, unsigned worker)
{
    const product *const p = arg;
    const nyb_gemm *const g = p->g;
    const size_t words = nyb_gemm_depth(g, p->a->depth), begin = index * NARROW_TILE;
    const size_t end = p->c.rows - begin < NARROW_TILE ? p->c.rows : begin + NARROW_TILE;
    (void) worker;
    for (size_t w = 0; w < words; w += PACK_WORDS) {
        nyb_pack_part part = {.begin = w, .end = words - w < PACK_WORDS ? words : w + PACK_WORDS};
        part.width = g->a_width;
        for (part.row0 = begin; part.row0 < end; part.row0 += part.width)
            g->pack(p->packed_a + part.row0 * words, p->a, &part);
        part.width = g->b_width;
        for (part.row0 = begin; part.row0 < end; part.row0 += part.width)
            g->pack(p->packed_b + part.row0 * words, p->a, &part);
    }
}

// Rows [i0, ...) and columns [j0, ...) of the result; both are multiples of the panels' widths.
static void multiply_tile(const product *p, size_t i0, size_t j0, bool upper)
{
    const size_t i1 = p->c.rows - i0 < p->tile ? p->c.rows : i0 + p->tile;
    const size_t j1 = p->c.cols - j0 < p->tile ? p->c.cols : j0 + p->tile;
    const size_t depth = p->a->depth, words = nyb_gemm_depth(p->g, depth);
    const nyb_mat c = nyb_block(p->c, i0, i1, j0, j1);
    const uint32_t *const a = p->packed_a + i0 * words, *const b = p->packed_b + j0 * words;
    if (upper)
        nyb_gemm_tile_upper(p->g, c, a, b, depth, p->alpha, p->add);
    else
        nyb_gemm_tile(p->g, c, a, b, depth, p->alpha, p->add);
}

static void gemm_task(void *arg, size_t index, unsigned worker)
{
    const product *const p = arg;
    (void) worker;
    multiply_tile(p, index / p->tiles * p->tile, index % p->tiles * p->tile, false);
}

// Tiles at and above the diagonal, column by column.
static void syrk_task(void *arg, size_t index, unsigned worker)
{
    const product *const p = arg;
    size_t j = 0;
    (void) worker;
    for (; index > j; j++)
        index -= j + 1;
    multiply_tile(p, index * p->tile, j * p->tile, index == j);
}

static product describe(const nyb_gemm *g, nyb_mat c, const nyb_operand *a, const nyb_operand *b,
                        uint32_t *scratch)
{
    const size_t words = nyb_gemm_packed(g, a->rows, a->depth, g->a_width);
    const size_t line = NYB_ALIGN / sizeof(*scratch);
    const size_t tile = c.cols > NARROW ? TILE : NARROW_TILE;
    assert(a->depth == b->depth && c.rows == a->rows && c.cols == b->rows);
    return (product){.g = g,
                     .c = c,
                     .a = a,
                     .b = b,
                     .packed_a = scratch,
                     .packed_b = scratch + nyb_gemm_panels(words, line) * line,
                     .tile = tile,
                     .tiles = nyb_gemm_panels(c.cols, tile)};
}

size_t nyb_gemm_run_words(const nyb_gemm *g, size_t m, size_t n, size_t depth)
{
    return nyb_gemm_packed(g, m, depth, g->a_width) + NYB_ALIGN / sizeof(uint32_t) +
           nyb_gemm_packed(g, n, depth, g->b_width);
}

void nyb_gemm_run(const nyb_context *ctx, const nyb_gemm *g, nyb_mat c, const nyb_operand *a,
                  const nyb_operand *b, float alpha, bool add, uint32_t *scratch)
{
    product p = describe(g, c, a, b, scratch);
    p.alpha = alpha;
    p.add = add;
    nyb_parallel(ctx, packs(a, g->a_width) + packs(b, g->b_width), pack_task, &p);
    nyb_parallel(ctx, p.tiles * nyb_gemm_panels(c.rows, p.tile), gemm_task, &p);
}

void nyb_syrk_run(const nyb_context *ctx, const nyb_gemm *g, nyb_mat c, const nyb_operand *x,
                  uint32_t *scratch)
{
    product p = describe(g, c, x, x, scratch);
    p.alpha = 1.0f;
    p.add = true;
    nyb_parallel(ctx, nyb_gemm_panels(c.rows, NARROW_TILE), pack_both_task, &p);
    nyb_parallel(ctx, p.tiles * (p.tiles + 1) / 2, syrk_task, &p);
}
