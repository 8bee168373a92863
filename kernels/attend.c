#include "kernels/attend.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "core/memory.h"

enum { TILE = 128 }; // keys that are looked at together

// The pieces of scratch.
typedef struct room {
    uint32_t *queries, *keys, *values, *weights; // packed; queries [heads, words_of_head]
    size_t words_of_head;
    float *scores;  // [count, TILE]
    float *sums;    // [heads, count, dim] weighted values so far
    float *tops;    // [heads, count] largest score so far
    double *totals; // [heads, count] sum of the weights so far
} room;

static uint32_t *take(uint32_t *scratch, size_t *used, size_t words)
{
    const size_t line = NYB_ALIGN / sizeof(*scratch);
    uint32_t *const piece = scratch ? scratch + *used : NULL;
    *used += (words + line - 1) / line * line;
    return piece;
}

// Lays out `scratch` (NULL: only counts); returns the words that it takes.
static size_t lay_out(room *r, const nyb_gemm *g, size_t count, size_t heads, size_t dim,
                      uint32_t *scratch)
{
    size_t used = 0;
    r->words_of_head = nyb_gemm_packed(g, count, dim);
    r->queries = take(scratch, &used, heads * r->words_of_head);
    r->keys = take(scratch, &used, nyb_gemm_packed(g, TILE, dim));
    r->values = take(scratch, &used, nyb_gemm_packed(g, dim, TILE));
    r->weights = take(scratch, &used, nyb_gemm_packed(g, count, TILE));
    r->scores = (float *) take(scratch, &used, count * TILE);
    r->sums = (float *) take(scratch, &used, heads * count * dim);
    r->tops = (float *) take(scratch, &used, heads * count);
    r->totals = (double *) (void *) take(scratch, &used, heads * count * 2);
    return used;
}

size_t nyb_attend_words(const nyb_gemm *gemm, size_t count, size_t heads, size_t dim)
{
    room counted;
    return lay_out(&counted, gemm, count, heads, dim, NULL);
}

static void pack(const nyb_gemm *g, uint32_t *to, nyb_operand from)
{
    nyb_gemm_pack(g, to, &from, 0, nyb_gemm_panels(from.rows, g->width));
}

// Scores of one query become weights relative to the largest so far; keys that it does not see
// get none. What was summed before is made relative to the new largest.
static void weigh(const nyb_attend *t, const room *r, size_t head, size_t i, size_t key0,
                  size_t keys)
{
    const size_t at = head * t->count + i, place = t->first + i;
    const size_t oldest = t->window && place + 1 > t->window ? place + 1 - t->window : 0;
    float *const scores = r->scores + i * TILE;
    size_t low = oldest > key0 ? oldest - key0 : 0, high = place + 1 > key0 ? place + 1 - key0 : 0;
    low = low < keys ? low : keys;
    high = high < keys ? high : keys;
    if (low >= high) {
        memset(scores, 0, keys * sizeof(*scores));
        return;
    }
    const nyb_gemm *const g = t->gemm;
    const float most = (g->largest ? g->largest : t->ops->largest)(scores + low, high - low);
    const float was = r->tops[at];
    const float top = most > was ? most : was;
    if (top > was) {
        const float shrink = expf(was - top);
        r->totals[at] *= (double) shrink;
        t->ops->scale(r->sums + at * t->keys.cols, shrink, t->keys.cols);
        r->tops[at] = top;
    }
    memset(scores, 0, low * sizeof(*scores));
    r->totals[at] +=
        (g->exponentials ? g->exponentials : t->ops->exponentials)(scores + low, high - low, top);
    memset(scores + high, 0, (keys - high) * sizeof(*scores));
}

static void attend_head(const nyb_attend *t, const room *r, size_t head, size_t key0, size_t keys)
{
    const nyb_gemm *const g = t->gemm;
    const size_t dim = t->keys.cols;
    // Queries before the tile's first key see none of it: whole panels of them are left out.
    const size_t before = key0 > t->first ? (key0 - t->first) / g->width * g->width : 0;
    const size_t rows = t->count - before;
    const uint32_t *const queries =
        r->queries + head * r->words_of_head + nyb_gemm_place(g, before, dim);
    const nyb_mat scores = {
        .at = r->scores + before * TILE, .rows = rows, .cols = keys, .stride = TILE};
    nyb_gemm_tile(g, scores, queries, r->keys, dim, t->scale, false);
    for (size_t i = before; i < t->count; i++)
        weigh(t, r, head, i, key0, keys);
    pack(g, r->weights, nyb_operand_of(scores));
    nyb_gemm_tile(g, nyb_mat_of(r->sums + (head * t->count + before) * dim, rows, dim), r->weights,
                  r->values, keys, 1.0f, true);
}

static void finish(const nyb_attend *t, const room *r)
{
    const size_t dim = t->keys.cols;
    for (size_t h = 0; h < t->heads; h++) {
        for (size_t i = 0; i < t->count; i++) {
            const size_t at = h * t->count + i;
            float *const out = t->q + h * t->head_step + i * t->stride;
            memcpy(out, r->sums + at * dim, dim * sizeof(*out));
            t->ops->scale(out, (float) (1.0 / r->totals[at]), dim);
        }
    }
}

void nyb_attend_run(const nyb_attend *t, uint32_t *scratch)
{
    const nyb_gemm *const g = t->gemm;
    const size_t dim = t->keys.cols, end = t->first + t->count;
    const size_t begin = t->window && t->first + 1 > t->window ? t->first + 1 - t->window : 0;
    room r;
    (void) lay_out(&r, g, t->count, t->heads, dim, scratch);
    assert(t->count <= NYB_ATTEND_TILE && end <= t->keys.rows);
    for (size_t h = 0; h < t->heads; h++) {
        const nyb_mat q = {
            .at = t->q + h * t->head_step, .rows = t->count, .cols = dim, .stride = t->stride};
        pack(g, r.queries + h * r.words_of_head, nyb_operand_of(q));
    }
    memset(r.sums, 0, t->heads * t->count * dim * sizeof(*r.sums));
    memset(r.totals, 0, t->heads * t->count * sizeof(*r.totals));
    for (size_t i = 0; i < t->heads * t->count; i++)
        r.tops[i] = -INFINITY;

    for (size_t key0 = begin; key0 < end; key0 += TILE) {
        const size_t keys = end - key0 < TILE ? end - key0 : TILE;
        pack(g, r.keys, nyb_operand_of(nyb_block(t->keys, key0, key0 + keys, 0, dim)));
        pack(g, r.values, nyb_operand_turned(nyb_block(t->values, key0, key0 + keys, 0, dim)));
        for (size_t h = 0; h < t->heads; h++)
            attend_head(t, &r, h, key0, keys);
    }
    finish(t, &r);
}
