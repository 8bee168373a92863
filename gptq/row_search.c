// Descent to the nearest codes that no single step betters ends far above the best ones: on real
// layers some tenth of the loss. Going on from there by the least harmful step, and answering it by
// whichever step is then the best, finds far better ones, if what was just done cannot be undone at
// once: tabu search (Glover, "Tabu Search - Part I", ORSA Journal on Computing 1 (3), 1989). All
// columns of the row take part: the same moves over blocks of it gained less than half as much.
#include "gptq/row_search.h"

#include <assert.h>
#include <stdbool.h>

enum { TENURE = 8, FEWEST = 16 };

// What a step that must not be taken costs. Finite, for slopes are added to it.
#define NEVER 1e30f

#define SIGN UINT32_C(0x80000000)

size_t nyb_row_search_moves(size_t places)
{
    return places / 8 > FEWEST ? places / 8 : FEWEST;
}

// Lets the columns [c0, c1), all of one group, be moved to the sides on which the grid has a code.
static void allow(const nyb_row_search *s, size_t c0, size_t c1)
{
    const nyb_grid_lanes *const grid = &s->groups[c0 / s->group_size];
    const float scale = grid->scale[s->lane], low = -grid->zero[s->lane], high = low + s->top;
    const float *const steps = s->steps, *const diagonal = s->diagonal;
    float *const restrict cost = s->cost, *const restrict twice = s->twice;
    uint32_t *const restrict kept = s->kept;
    for (size_t j = c0; j < c1; j++) { // one of the sides has a code, for grids have two or more
        const uint32_t down = steps[j] > low ? SIGN : 0, up = steps[j] < high ? SIGN : 0;
        kept[j] = ~(down & up);
        twice[j] = steps[j] > low ? 2.0f * scale : -2.0f * scale;
        cost[j] = diagonal[j] > 0.0f ? scale * scale * diagonal[j] : NEVER;
    }
}

static void prepare(const nyb_row_search *s)
{
    const size_t n = s->h.rows;
    for (size_t c0 = 0; c0 < n; c0 += s->group_size)
        allow(s, c0, c0 + s->group_size < n ? c0 + s->group_size : n);
    for (size_t j = n; j < s->cols; j++) {
        s->slopes[j] = s->twice[j] = 0.0f;
        s->kept[j] = 0;
        s->cost[j] = NEVER;
    }
}

// Moves the code of column j by a step to the better side. Returns what the weight changes by.
static float step(const nyb_row_search *s, size_t j)
{
    const bool both = s->kept[j] == ~SIGN, up = both ? s->slopes[j] < 0.0f : s->twice[j] < 0.0f;
    const float by = up ? 1.0f : -1.0f;
    s->steps[j] += by;
    s->cost[j] = NEVER;
    return by * s->groups[j / s->group_size].scale[s->lane];
}

void nyb_row_search_run(const nyb_row_search *s)
{
    const size_t moves = nyb_row_search_moves(s->h.rows);
    const size_t tenure = s->h.rows / 2 < TENURE ? s->h.rows / 2 : TENURE;
    const nyb_moves all = {s->cols, s->slopes, s->twice, s->kept, s->cost};
    double loss = 0.0, least = 0.0;
    size_t made = 0, best = 0;
    float change = 0.0f;
    assert(s->cols % NYB_MOVE_COLS == 0 && s->cols >= s->h.rows);

    prepare(s);
    size_t j = s->ops->move(&all, nyb_row(s->h, 0), 0.0f, &change);
    while (made < moves && change < NEVER / 2.0f) {
        loss += (double) change;
        s->column[made] = (uint32_t) j;
        s->by[made] = step(s, j);
        if (made >= tenure)
            allow(s, s->column[made - tenure], s->column[made - tenure] + 1);
        j = s->ops->move(&all, nyb_row(s->h, j), s->by[made], &change);
        made++;
        if (loss < least) {
            least = loss;
            best = made;
        }
    }
    while (made > best) { // what only made it worse
        made--;
        j = s->column[made];
        s->steps[j] -= s->by[made] > 0.0f ? 1.0f : -1.0f;
        s->ops->move(&all, nyb_row(s->h, j), -s->by[made], &change);
    }
}
