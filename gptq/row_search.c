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

// How far a row's search is.
typedef struct progress {
    size_t made, best;  // moves, and after how many of them the loss was least
    double loss, least; // less what it was at the start
    size_t next;        // column of the move that comes
    float change;       // of the loss, by that move
} progress;

size_t nyb_row_search_cols(size_t places)
{
    return (places + NYB_MOVE_COLS - 1) / NYB_MOVE_COLS * NYB_MOVE_COLS;
}

size_t nyb_row_search_moves(size_t places)
{
    return places / 4 > FEWEST ? places / 4 : FEWEST;
}

// Lets the columns [c0, c1), all of one group, be moved to the sides on which the grid has a code.
static void allow(const nyb_row_search *s, const nyb_searched_row *row, size_t c0, size_t c1)
{
    const nyb_grid_lanes *const grid = &s->groups[c0 / s->group_size];
    const float scale = grid->scale[row->lane], low = -grid->zero[row->lane], high = low + s->top;
    const float *const steps = row->steps, *const diagonal = s->diagonal;
    float *const restrict cost = row->cost, *const restrict twice = row->twice;
    for (size_t j = c0; j < c1; j++) { // one of the sides has a code, for grids have two or more
        const bool down = steps[j] > low, both = down && steps[j] < high;
        const float own = diagonal[j] > 0.0f ? scale * scale * diagonal[j] : NEVER;
        twice[j] = down ? 2.0f * scale : -2.0f * scale;
        cost[j] = both ? own : -own;
    }
}

static void prepare(const nyb_row_search *s, const nyb_searched_row *row)
{
    const size_t n = s->h.rows;
    for (size_t c0 = 0; c0 < n; c0 += s->group_size)
        allow(s, row, c0, c0 + s->group_size < n ? c0 + s->group_size : n);
    for (size_t j = n; j < s->cols; j++) {
        row->slopes[j] = row->twice[j] = 0.0f;
        row->cost[j] = NEVER;
    }
}

// Moves the code of column j by a step to the better side. Returns what the weight changes by.
static float step(const nyb_row_search *s, const nyb_searched_row *row, size_t j)
{
    const bool both = row->cost[j] > 0.0f;
    const float by = (both ? row->slopes[j] : row->twice[j]) < 0.0f ? 1.0f : -1.0f;
    row->steps[j] += by;
    row->cost[j] = NEVER;
    return by * s->groups[j / s->group_size].scale[row->lane];
}

// What comes of a change of column j, and the move that comes then; `ahead` is a row of h that is
// wanted after it.
static void find_next(const nyb_row_search *s, const nyb_searched_row *row, progress *at, size_t j,
                      float by, size_t ahead)
{
    const nyb_moves all = {s->cols, row->slopes, row->twice, row->cost};
    at->next = s->ops->move(&all, nyb_row(s->h, j), by, nyb_row(s->h, ahead), &at->change);
}

static void advance(const nyb_row_search *s, const nyb_searched_row *row, progress *at,
                    size_t ahead)
{
    const size_t tenure = s->h.rows / 2 < TENURE ? s->h.rows / 2 : TENURE;
    const size_t j = at->next, made = at->made;
    if (at->change >= NEVER / 2.0f)
        return;
    row->column[made] = (uint32_t) j;
    row->by[made] = step(s, row, j);
    if (made >= tenure)
        allow(s, row, row->column[made - tenure], row->column[made - tenure] + 1);
    at->made = made + 1;
    at->loss += (double) at->change;
    at->best = at->loss < at->least ? made + 1 : at->best;
    at->least = at->loss < at->least ? at->loss : at->least;
    find_next(s, row, at, j, row->by[made], ahead);
}

// Takes back the moves after the best codes, which only made it worse.
static void go_back(const nyb_row_search *s, const nyb_searched_row *row, const progress *at)
{
    enum { SOME = 8 };
    const float *lines[SOME];
    float by[SOME];
    size_t count = 0;
    for (size_t i = at->made; i-- > at->best;) {
        const size_t j = row->column[i];
        row->steps[j] -= row->by[i] > 0.0f ? 1.0f : -1.0f;
        lines[count] = nyb_row(s->h, j);
        by[count++] = -row->by[i];
        if (count == SOME || i == at->best) {
            s->ops->add_rows(row->slopes, s->cols, lines, by, count);
            count = 0;
        }
    }
}

void nyb_row_search_run(const nyb_row_search *s, const nyb_searched_row *rows, size_t count)
{
    const size_t moves = nyb_row_search_moves(s->h.rows);
    progress at[NYB_SEARCH_ROWS] = {{.made = 0}};
    assert(s->cols % NYB_MOVE_COLS == 0 && s->cols >= s->h.rows && count <= NYB_SEARCH_ROWS);

    for (size_t i = 0; i < count; i++) {
        prepare(s, &rows[i]);
        find_next(s, &rows[i], &at[i], 0, 0.0f, 0);
    }
    for (size_t move = 0; move < moves; move++) {
        for (size_t i = 0; i < count; i++)
            advance(s, &rows[i], &at[i], at[(i + 1) % count].next);
    }
    for (size_t i = 0; i < count; i++)
        go_back(s, &rows[i], &at[i]);
}
