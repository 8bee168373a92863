#include "gptq/tile_refine.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "core/linalg.h"

// Columns that are worked on before their changes reach the others' slopes: enough for that
// product to be fast, few enough for the block's share to stay in the second-level cache.
enum { BLOCK = 128 };

// A tile is done when a round lowers its loss by less than this part.
#define SETTLED 1e-3

static_assert((int) NYB_CODE_ROWS == (int) NYB_LANES, "one tile of rows");

// ---- Blocks --------------------------------------------------------------------------------

// Blocks are runs of whole groups, or parts of a group that is wider than a block.
static bool wide(const nyb_refine_plan *plan)
{
    return plan->q->group_size > BLOCK;
}

static size_t group_end(const nyb_refine_plan *plan, size_t place)
{
    const size_t size = plan->q->group_size, end = (place / size + 1) * size;
    return end < plan->q->cols ? end : plan->q->cols;
}

static size_t block_end(const nyb_refine_plan *plan, size_t place)
{
    const size_t size = plan->q->group_size;
    const size_t end = wide(plan) ? place + BLOCK : place + BLOCK / size * size;
    const size_t most = wide(plan) ? group_end(plan, place) : plan->q->cols;
    return end < most ? end : most;
}

// The block's square of H.
static void load_square(const nyb_refine_plan *plan, float *square, size_t p0, size_t p1)
{
    const size_t size = p1 - p0;
    for (size_t i = 0; i < size; i++)
        memcpy(square + i * size, nyb_row(plan->h, p0 + i) + p0, size * sizeof(*square));
}

// out += H[:, p0:p1] x for the places outside [p0, p1).
static void carry_outside(const nyb_refine_plan *plan, nyb_mat out, size_t p0, size_t p1, nyb_mat x)
{
    const size_t n = plan->h.rows;
    if (p0 > 0)
        nyb_gemm_nn(nyb_block(out, 0, p0, 0, NYB_LANES), nyb_block(plan->h, 0, p0, p0, p1), x, 1.0f,
                    1.0f);
    if (p1 < n)
        nyb_gemm_nn(nyb_block(out, p1, n, 0, NYB_LANES), nyb_block(plan->h, p1, n, p0, p1), x, 1.0f,
                    1.0f);
}

static void carry_inside(nyb_mat out, const float *square, nyb_mat x, float beta)
{
    const nyb_mat h = nyb_mat_of((float *) (uintptr_t) square, out.rows, out.rows);
    nyb_gemm_nn(out, h, x, 1.0f, beta);
}

// out = H[:, c0:c1] x for the columns of several blocks; out and x have a row for each place.
static void product(const nyb_refine_plan *plan, nyb_refine_scratch s, nyb_mat out, nyb_mat x,
                    size_t c0, size_t c1)
{
    memset(out.at, 0, out.rows * NYB_LANES * sizeof(float));
    for (size_t p0 = c0, p1 = 0; p0 < c1; p0 = p1) {
        p1 = block_end(plan, p0);
        const nyb_mat part = nyb_block(x, p0, p1, 0, NYB_LANES);
        load_square(plan, s.square, p0, p1);
        carry_inside(nyb_block(out, p0, p1, 0, NYB_LANES), s.square, part, 1.0f);
        carry_outside(plan, out, p0, p1, part);
    }
}

// ---- Scales and zero points ----------------------------------------------------------------

// For one group and every lane, with c its steps and e = (1, 1, ...): c H c, c H e, e H e, and
// what the slopes without the group's own part of Q have along c and e.
typedef struct moments {
    double cc[NYB_LANES], ce[NYB_LANES], ee, c[NYB_LANES], e[NYB_LANES];
} moments;

// Lines of the group's columns: its steps, H c, and slopes.
static void add_moments(moments *m, nyb_mat steps, nyb_mat image, nyb_mat slopes)
{
    enum { CHUNK = 32 };
    for (size_t j0 = 0; j0 < steps.rows; j0 += CHUNK) {
        const size_t j1 = j0 + CHUNK < steps.rows ? j0 + CHUNK : steps.rows;
        float cc[NYB_LANES] = {0}, ce[NYB_LANES] = {0}, c[NYB_LANES] = {0}, e[NYB_LANES] = {0};
        for (size_t j = j0; j < j1; j++) {
            const float *const step = nyb_row(steps, j), *const hc = nyb_row(image, j),
                               *const slope = nyb_row(slopes, j);
            for (size_t lane = 0; lane < NYB_LANES; lane++) {
                cc[lane] += step[lane] * hc[lane];
                ce[lane] += hc[lane];
                c[lane] += step[lane] * slope[lane];
                e[lane] += slope[lane];
            }
        }
        for (size_t lane = 0; lane < NYB_LANES; lane++) {
            m->cc[lane] += (double) cc[lane];
            m->ce[lane] += (double) ce[lane];
            m->c[lane] += (double) c[lane];
            m->e[lane] += (double) e[lane];
        }
    }
}

// The best scale and zero point of one lane for the codes as they are. With zero point z + shift
// the steps are c - shift e; then the loss is, but for a constant, a s^2 + 2 b s, least at -b / a.
static void choose_grid(const nyb_grid_params *grid, const moments *m, size_t lane, float *scale,
                        float *zero)
{
    const double old = (double) *scale, from = (double) *zero;
    const double c = m->c[lane] - old * m->cc[lane], e = m->e[lane] - old * m->ce[lane];
    const double first = grid->symmetric ? 0.0 : -1.0, last = grid->symmetric ? 0.0 : 1.0;
    double least = m->cc[lane] * old * old + 2.0 * c * old;
    for (double shift = first; shift <= last; shift++) {
        const double a = m->cc[lane] + shift * (shift * m->ee - 2.0 * m->ce[lane]);
        const double b = c - shift * e, wanted = -b / a, z = from + shift;
        if (!(a > 0.0 && wanted > 0.0) || z < (double) grid->lowest_zero ||
            z > (double) nyb_grid_top(grid->bits))
            continue;
        const float s = nyb_grid_storable(wanted, grid->scale_dtype);
        const double loss = a * (double) s * (double) s + 2.0 * b * (double) s;
        if (loss < least && isfinite(s)) {
            least = loss;
            *scale = s;
            *zero = (float) z;
        }
    }
}

// Lines [0, rows) get what the weights change by when steps s0 c become s1 (c - shift e).
static void move_lines(nyb_mat lines, nyb_mat along, const float *ones, const float *stretch,
                       const float *push)
{
    for (size_t j = 0; j < lines.rows; j++) {
        float *const line = nyb_row(lines, j);
        const float *const c = nyb_row(along, j), e = ones ? ones[j] : 1.0f;
        for (size_t lane = 0; lane < NYB_LANES; lane++)
            line[lane] += stretch[lane] * c[lane] - push[lane] * e;
    }
}

// Gives the group that starts at place c0 the best scales and zero points for its codes. `image` is
// H times its steps for the places from r0 on, whose slopes follow; `weights`, lines of the group,
// gets what they change by.
static void refit(const nyb_refine_plan *plan, nyb_refine_scratch s, size_t c0, size_t r0,
                  nyb_mat image, nyb_mat weights)
{
    const size_t c1 = group_end(plan, c0);
    const size_t group = c0 / plan->q->group_size;
    nyb_grid_lanes *const grid = &s.groups[group];
    const float *const ones = nyb_row(plan->ones, group);
    const nyb_mat steps = nyb_block(s.steps, c0, c1, 0, NYB_LANES);
    float stretch[NYB_LANES], push[NYB_LANES], shift[NYB_LANES];
    moments m = {.ee = 0.0};

    for (size_t j = c0; j < c1; j++)
        m.ee += (double) ones[j];
    add_moments(&m, steps, nyb_block(image, c0 - r0, c1 - r0, 0, NYB_LANES),
                nyb_block(s.slopes, c0, c1, 0, NYB_LANES));
    for (size_t lane = 0; lane < NYB_LANES; lane++) {
        const float scale = grid->scale[lane], zero = grid->zero[lane];
        choose_grid(plan->grid, &m, lane, &grid->scale[lane], &grid->zero[lane]);
        shift[lane] = grid->zero[lane] - zero;
        stretch[lane] = grid->scale[lane] - scale;
        push[lane] = grid->scale[lane] * shift[lane];
    }
    move_lines(nyb_block(s.slopes, r0, r0 + image.rows, 0, NYB_LANES), image, ones + r0, stretch,
               push);
    move_lines(weights, steps, NULL, stretch, push);
    for (size_t j = c0; j < c1; j++) {
        float *const step = nyb_row(s.steps, j);
        for (size_t lane = 0; lane < NYB_LANES; lane++)
            step[lane] -= shift[lane];
    }
}

// The group at place c0 of the block [p0, p1).
static void refit_narrow(const nyb_refine_plan *plan, nyb_refine_scratch s, size_t c0, size_t p0,
                         size_t p1)
{
    const size_t size = p1 - p0, c1 = group_end(plan, c0);
    const nyb_mat h = nyb_block(nyb_mat_of(s.square, size, size), 0, size, c0 - p0, c1 - p0);
    const nyb_mat image = nyb_block(s.image, 0, size, 0, NYB_LANES);
    nyb_gemm_nn(image, h, nyb_block(s.steps, c0, c1, 0, NYB_LANES), 1.0f, 0.0f);
    refit(plan, s, c0, p0, image, nyb_block(s.moved, c0 - p0, c1 - p0, 0, NYB_LANES));
}

static void refit_wide(const nyb_refine_plan *plan, nyb_refine_scratch s, size_t c0)
{
    const size_t c1 = group_end(plan, c0);
    product(plan, s, s.image, s.steps, c0, c1);
    refit(plan, s, c0, 0, s.image, nyb_block(s.d, c0, c1, 0, NYB_LANES));
}

// ---- Codes ---------------------------------------------------------------------------------

// One pass over the columns [c0, c1) of a block, all of one group.
static void descend(const nyb_refine_plan *plan, nyb_refine_scratch s, size_t c0, size_t c1,
                    size_t p0, size_t p1)
{
    const nyb_grid_lanes *const grid = &s.groups[c0 / plan->q->group_size];
    const float top = nyb_grid_top(plan->grid->bits);
    float low[NYB_LANES], high[NYB_LANES];
    for (size_t lane = 0; lane < NYB_LANES; lane++) {
        low[lane] = -grid->zero[lane];
        high[lane] = top - grid->zero[lane];
    }
    plan->ops->descend(&(nyb_descent){.h = s.square,
                                      .cols = p1 - p0,
                                      .first = c0 - p0,
                                      .end = c1 - p0,
                                      .steps = nyb_row(s.steps, p0),
                                      .slopes = nyb_row(s.slopes, p0),
                                      .moved = nyb_row(s.moved, 0),
                                      .grid = {grid->scale, low, high}});
}

static void add_lines(nyb_mat to, nyb_mat from)
{
    for (size_t j = 0; j < to.rows; j++) {
        float *const y = nyb_row(to, j);
        const float *const x = nyb_row(from, j);
        for (size_t lane = 0; lane < NYB_LANES; lane++)
            y[lane] += x[lane];
    }
}

// The block [p0, p1): each group's grid, unless it is wider than the block, and then its codes.
static void refine_block(const nyb_refine_plan *plan, nyb_refine_scratch s, size_t p0, size_t p1)
{
    const nyb_mat moved = nyb_block(s.moved, 0, p1 - p0, 0, NYB_LANES);
    load_square(plan, s.square, p0, p1);
    memset(moved.at, 0, moved.rows * NYB_LANES * sizeof(float));
    for (size_t c0 = p0, c1 = 0; c0 < p1; c0 = c1) {
        c1 = group_end(plan, c0) < p1 ? group_end(plan, c0) : p1;
        if (!wide(plan))
            refit_narrow(plan, s, c0, p0, p1);
        descend(plan, s, c0, c1, p0, p1);
    }
    add_lines(nyb_block(s.d, p0, p1, 0, NYB_LANES), moved);
    carry_outside(plan, s.slopes, p0, p1, moved);
}

static void sweep(const nyb_refine_plan *plan, nyb_refine_scratch s)
{
    for (size_t p0 = 0, p1 = 0; p0 < plan->q->cols; p0 = p1) {
        p1 = block_end(plan, p0);
        if (wide(plan) && p0 % plan->q->group_size == 0)
            refit_wide(plan, s, p0);
        refine_block(plan, s, p0, p1);
    }
}

// ---- Search --------------------------------------------------------------------------------

// Lines become rows, and those lines again. Both have room for whole turns.
static void lines_to_rows(const nyb_refine_plan *plan, nyb_mat rows, nyb_mat lines)
{
    for (size_t p = 0; p < lines.rows; p += NYB_CODE_TURN) {
        for (size_t lane = 0; lane < NYB_LANES; lane += NYB_CODE_TURN)
            plan->ops->turn(nyb_row(rows, lane) + p, rows.stride, nyb_row(lines, p) + lane,
                            NYB_LANES);
    }
}

static void rows_to_lines(const nyb_refine_plan *plan, float *lines, nyb_mat rows, size_t p)
{
    for (size_t lane = 0; lane < NYB_LANES; lane += NYB_CODE_TURN)
        plan->ops->turn(lines + lane, NYB_LANES, nyb_row(rows, lane) + p, rows.stride);
}

// What a search made of the rows.
static void take_rows(const nyb_refine_plan *plan, nyb_refine_scratch s)
{
    const size_t n = plan->q->cols;
    for (size_t p0 = 0; p0 < n; p0 += NYB_CODE_TURN) {
        const size_t p1 = p0 + NYB_CODE_TURN < n ? p0 + NYB_CODE_TURN : n;
        float found[NYB_CODE_TURN * NYB_LANES];
        rows_to_lines(plan, nyb_row(s.slopes, p0), s.row_slopes, p0);
        rows_to_lines(plan, found, s.row_steps, p0);
        for (size_t p = p0; p < p1; p++) {
            float *const d = nyb_row(s.d, p), *const steps = nyb_row(s.steps, p);
            const float *const scale = s.groups[p / plan->q->group_size].scale;
            for (size_t lane = 0; lane < NYB_LANES; lane++) {
                const float step = found[(p - p0) * NYB_LANES + lane];
                d[lane] += scale[lane] * (step - steps[lane]);
                steps[lane] = step;
            }
        }
    }
}

// Searches each row's codes.
static void search(const nyb_refine_plan *plan, nyb_refine_scratch s, size_t rows)
{
    lines_to_rows(plan, s.row_slopes, s.slopes);
    lines_to_rows(plan, s.row_steps, s.steps);
    for (size_t lane = 0; lane < rows; lane += NYB_SEARCH_ROWS) {
        const size_t count = rows - lane < NYB_SEARCH_ROWS ? rows - lane : NYB_SEARCH_ROWS;
        for (size_t i = 0; i < count; i++) {
            s.searched[i].lane = lane + i;
            s.searched[i].slopes = nyb_row(s.row_slopes, lane + i);
            s.searched[i].steps = nyb_row(s.row_steps, lane + i);
        }
        nyb_row_search_run(&s.search, s.searched, count);
    }
    take_rows(plan, s);
}

// ---- A tile --------------------------------------------------------------------------------

static size_t column_at(const nyb_refine_plan *plan, size_t place)
{
    return plan->columns ? plan->columns[place] : place;
}

// What the layer is now. Rows that are not there are zeros on a grid of zeros.
static void load_rows(const nyb_refine_plan *plan, nyb_refine_scratch s, size_t row0, size_t rows)
{
    const nyb_qweight *const q = plan->q;
    memset(s.d.at, 0, q->cols * NYB_LANES * sizeof(float));
    memset(s.steps.at, 0, q->cols * NYB_LANES * sizeof(float));
    memset(s.groups, 0, q->groups * sizeof(*s.groups));
    for (size_t lane = 0; lane < rows; lane++) {
        const uint8_t *const codes = q->codes + (row0 + lane) * q->cols;
        for (size_t group = 0; group < q->groups; group++) {
            const size_t at = (row0 + lane) * q->groups + group;
            s.groups[group].scale[lane] = q->scales[at];
            s.groups[group].zero[lane] = (float) q->zeros[at];
        }
        for (size_t p = 0; p < q->cols; p++) {
            const size_t column = column_at(plan, p);
            const nyb_grid_lanes *const grid = &s.groups[p / q->group_size];
            const float step = (float) codes[column] - grid->zero[lane];
            nyb_row(s.steps, p)[lane] = step;
            if (!plan->dead[column])
                nyb_row(s.d, p)[lane] =
                    grid->scale[lane] * step - nyb_row(plan->w, row0 + lane)[column];
        }
    }
    for (size_t group = 0; group < q->groups; group++) { // steps are divided by scales
        for (size_t lane = rows; lane < NYB_LANES; lane++)
            s.groups[group].scale[lane] = 1.0f;
    }
}

// The sum over all rows of what is minimised; `bare` is D H D^T of each.
static double measure(const nyb_refine_plan *plan, nyb_refine_scratch s, double *bare)
{
    double loss[NYB_LANES] = {0}, more[NYB_LANES] = {0}, total = 0.0;
    for (size_t p = 0; p < s.d.rows; p++) {
        const float *const d = nyb_row(s.d, p), *const slope = nyb_row(s.slopes, p);
        for (size_t lane = 0; lane < NYB_LANES; lane++) {
            loss[lane] += (double) d[lane] * (double) slope[lane];
            more[lane] += (double) plan->more[p] * (double) d[lane] * (double) d[lane];
        }
    }
    for (size_t lane = 0; lane < NYB_LANES; lane++) {
        total += loss[lane];
        bare[lane] = loss[lane] - more[lane];
    }
    return total;
}

static void store_row(const nyb_refine_plan *plan, nyb_refine_scratch s, size_t row, size_t lane)
{
    nyb_qweight *const q = plan->q;
    uint8_t *const codes = q->codes + row * q->cols;
    for (size_t p = 0; p < q->cols; p++) {
        const size_t column = column_at(plan, p);
        const float zero = s.groups[p / q->group_size].zero[lane];
        codes[column] = (uint8_t) (plan->dead[column] ? zero : nyb_row(s.steps, p)[lane] + zero);
    }
    for (size_t group = 0; group < q->groups; group++) {
        q->scales[row * q->groups + group] = s.groups[group].scale[lane];
        q->zeros[row * q->groups + group] = (uint8_t) s.groups[group].zero[lane];
    }
}

double nyb_tile_refine(const nyb_refine_plan *plan, nyb_refine_scratch s, size_t tile)
{
    const size_t row0 = tile * NYB_LANES, rows = nyb_tile_rows(plan->w.rows, tile);
    double before[NYB_LANES], after[NYB_LANES];

    load_rows(plan, s, row0, rows);
    product(plan, s, s.slopes, s.d, 0, plan->q->cols);
    double loss = measure(plan, s, before), total = 0.0;
    for (unsigned round = 0; round < plan->rounds; round++) {
        const double last = loss;
        sweep(plan, s);
        search(plan, s, rows);
        loss = measure(plan, s, after);
        if (loss > last * (1.0 - SETTLED))
            break;
    }
    for (size_t lane = 0; lane < rows; lane++) {
        total += before[lane];
        if (after[lane] < before[lane])
            store_row(plan, s, row0 + lane, lane);
    }
    return total;
}

// Floats of one row's search, but for what becomes of its line.
static size_t searched_floats(size_t places)
{
    return 2 * nyb_row_search_cols(places) + 2 * nyb_row_search_cols(nyb_row_search_moves(places));
}

static size_t search_floats(size_t places)
{
    return 2 * NYB_LANES * nyb_row_search_cols(places) + NYB_SEARCH_ROWS * searched_floats(places);
}

// Lines of so many places, with room for whole turns.
static size_t lines_floats(size_t places)
{
    return (places + NYB_CODE_TURN - 1) / NYB_CODE_TURN * NYB_CODE_TURN * NYB_LANES;
}

size_t nyb_refine_scratch_floats(const nyb_refine_plan *plan)
{
    const size_t n = plan->q->cols, image = wide(plan) ? n : BLOCK;
    return 3 * lines_floats(n) + (image + BLOCK) * NYB_LANES + BLOCK * BLOCK + search_floats(n) +
           plan->q->groups * sizeof(nyb_grid_lanes) / sizeof(float);
}

static nyb_row_search search_of(const nyb_refine_plan *plan, const nyb_grid_lanes *groups)
{
    return (nyb_row_search){.h = plan->h,
                            .cols = nyb_row_search_cols(plan->h.rows),
                            .diagonal = plan->diagonal,
                            .ops = plan->ops,
                            .groups = groups,
                            .group_size = plan->q->group_size,
                            .top = nyb_grid_top(plan->grid->bits)};
}

static nyb_searched_row searched_of(size_t places, float *floats)
{
    const size_t cols = nyb_row_search_cols(places);
    float *const lists = floats + 2 * cols;
    return (nyb_searched_row){.twice = floats,
                              .cost = floats + cols,
                              .by = lists,
                              .column =
                                  (uint32_t *) (void *) (lists + nyb_row_search_moves(places))};
}

nyb_refine_scratch nyb_refine_scratch_of(const nyb_refine_plan *plan, float *floats)
{
    const size_t n = plan->q->cols, image = wide(plan) ? n : BLOCK, lines = lines_floats(n);
    const size_t cols = nyb_row_search_cols(n);
    float *const rest = floats + 3 * lines + image * NYB_LANES;
    float *const square = rest + BLOCK * NYB_LANES, *const by_row = square + BLOCK * BLOCK;
    nyb_grid_lanes *const groups = (nyb_grid_lanes *) (void *) (by_row + search_floats(n));
    nyb_refine_scratch s = {.d = nyb_mat_of(floats, n, NYB_LANES),
                            .steps = nyb_mat_of(floats + lines, n, NYB_LANES),
                            .slopes = nyb_mat_of(floats + 2 * lines, n, NYB_LANES),
                            .image = nyb_mat_of(floats + 3 * lines, image, NYB_LANES),
                            .moved = nyb_mat_of(rest, BLOCK, NYB_LANES),
                            .square = square,
                            .row_slopes = nyb_mat_of(by_row, NYB_LANES, cols),
                            .row_steps = nyb_mat_of(by_row + NYB_LANES * cols, NYB_LANES, cols),
                            .search = search_of(plan, groups),
                            .groups = groups};
    for (size_t i = 0; i < NYB_SEARCH_ROWS; i++)
        s.searched[i] = searched_of(n, by_row + 2 * NYB_LANES * cols + i * searched_floats(n));
    return s;
}
