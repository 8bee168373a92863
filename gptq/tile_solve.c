#include "gptq/tile_solve.h"

#include <math.h>
#include <string.h>

#include "core/linalg.h"
#include "gptq/tile_blocks.h"

// Columns whose errors are spread one at a time before a product carries them further: enough
// for the product to be fast, few enough for the tile's share to stay in the first-level cache.
enum { STRIP = 32 };

static size_t errors_rows(const nyb_tile_plan *plan)
{
    const size_t block = plan->params->block_cols, cols = plan->w.cols;
    const size_t rows = block > plan->group_size ? block : plan->group_size;
    return rows < cols ? rows : cols;
}

size_t nyb_tile_scratch_floats(const nyb_tile_plan *plan)
{
    return (plan->w.cols + errors_rows(plan)) * NYB_LANES +
           plan->out->groups * sizeof(nyb_grid_lanes) / sizeof(float);
}

nyb_tile_scratch nyb_tile_scratch_of(const nyb_tile_plan *plan, float *floats)
{
    const size_t cols = plan->w.cols, rows = errors_rows(plan);
    return (nyb_tile_scratch){.w = nyb_mat_of(floats, cols, NYB_LANES),
                              .errors = nyb_mat_of(floats + cols * NYB_LANES, rows, NYB_LANES),
                              .groups =
                                  (nyb_grid_lanes *) (void *) (floats + (cols + rows) * NYB_LANES)};
}

static void drop_dead(const nyb_tile_plan *plan, nyb_mat values, const uint32_t *columns,
                      size_t col0)
{
    for (size_t p = 0; plan->factor->dead_columns && p < values.rows; p++) {
        if (plan->factor->dead[columns ? columns[p] : col0 + p])
            memset(nyb_row(values, p), 0, NYB_LANES * sizeof(float));
    }
}

// The grids of one run of columns. `costs` of their errors may be NULL. `columns` says which they
// are; NULL: they lie in order.
static bool fit(const nyb_tile_plan *plan, nyb_mat values, const float *costs,
                const uint32_t *columns, size_t run, nyb_grid_lanes *groups, nyb_tile_fault *fault)
{
    nyb_grid_lanes *const out = &groups[run * plan->parts];
    const size_t bad = plan->grid->block == NYB_F32
                           ? nyb_grid_fit(plan->grid, values, costs, out)
                           : nyb_tile_fit_block(plan, values, columns, run * plan->group_size, out);
    if (bad == NYB_LANES)
        return true;
    *fault = (nyb_tile_fault){.kind = NYB_FAULT_SCALE, .row = bad, .place = run};
    return false;
}

// Every group's parameters from the untouched weights.
static bool fit_static(const nyb_tile_plan *plan, nyb_tile_scratch s, size_t row0,
                       nyb_tile_fault *fault)
{
    const size_t cols = plan->w.cols, size = plan->group_size;
    for (size_t group = 0; group < plan->out->groups / plan->parts; group++) {
        const size_t col0 = group * size, width = cols - col0 < size ? cols - col0 : size;
        const nyb_mat values = nyb_block(s.errors, 0, width, 0, NYB_LANES);
        if (!nyb_tile_load(values, plan->w, row0, col0, NULL, fault))
            return false;
        drop_dead(plan, values, NULL, col0);
        if (!fit(plan, values, plan->column_costs ? plan->column_costs + col0 : NULL, NULL, group,
                 s.groups, fault))
            return false;
    }
    return true;
}

static bool starts_group(const nyb_tile_plan *plan, size_t p)
{
    return p == 0 || plan->group_at[p] / plan->parts != plan->group_at[p - 1] / plan->parts;
}

// Where the run of places whose scales are chosen with p's ends.
static size_t group_end(const nyb_tile_plan *plan, size_t p)
{
    do
        p++;
    while (p < plan->w.cols && !starts_group(plan, p));
    return p;
}

// Fits the groups that start in [p0, p1), from the weights as they are now.
static bool fit_groups(const nyb_tile_plan *plan, nyb_tile_scratch s, size_t p0, size_t p1,
                       nyb_tile_fault *fault)
{
    for (size_t p = p0; p < p1; p++) {
        if (!starts_group(plan, p))
            continue;
        const nyb_mat values = nyb_block(s.w, p, group_end(plan, p), 0, NYB_LANES);
        if (!fit(plan, values, plan->place_costs ? plan->place_costs + p : NULL,
                 plan->factor->columns + p, plan->group_at[p] / plan->parts, s.groups, fault))
            return false;
    }
    return true;
}

// Whether parameters are chosen group by group on the way, and not before it.
static bool fits_on_the_way(const nyb_tile_plan *plan)
{
    return !plan->params->static_groups &&
           !(plan->params->grid.reference && plan->out->groups == 1);
}

static size_t block_end(const nyb_tile_plan *plan, size_t p0)
{
    const size_t cols = plan->w.cols;
    size_t p1 = p0 + plan->params->block_cols;
    if (p1 >= cols)
        return cols;
    if (plan->params->grid.reference || plan->params->static_groups)
        return p1;
    // A group that starts in this block but ends behind it would be fitted to weights that lack
    // the block's errors, so the block ends before it.
    size_t start = p1;
    while (!starts_group(plan, start))
        start--;
    return start > p0 ? start : p1;
}

// The next place where strips have to end: all weights of a group that starts there have to be up
// to date.
static size_t strip_end(const nyb_tile_plan *plan, size_t p0, size_t end)
{
    size_t p = p0 + 1;
    while (p < end && p < p0 + STRIP && !starts_group(plan, p))
        p++;
    return p;
}

// Rounds column p of all lanes: w becomes codes, error = (w - q) / U_pp. Adds the squared errors
// to loss.
static void round_column(float *restrict w, float *restrict error, const nyb_grid_lanes *grid,
                         float top, float pivot, double *loss)
{
    for (size_t lane = 0; lane < NYB_LANES; lane++) {
        const float scale = grid->scale[lane], zero = grid->zero[lane], min = grid->min[lane];
        const float code = nyb_grid_code(w[lane] + min, scale, zero, top);
        error[lane] = (w[lane] - (scale * (code - zero) - min)) / pivot;
        w[lane] = code;
    }
    for (size_t lane = 0; lane < NYB_LANES; lane++)
        loss[lane] += (double) error[lane] * (double) error[lane];
}

// Places [p0, p1) one after the other, their errors spread among themselves.
static void solve_strip(const nyb_tile_plan *plan, nyb_tile_scratch s, nyb_mat errors, size_t p0,
                        size_t p1, double *loss)
{
    const float top = nyb_grid_top(plan->out->bits);
    for (size_t p = p0; p < p1; p++) {
        const float *const u = nyb_row(plan->factor->u, p);
        float *const error = nyb_row(errors, p - p0);
        round_column(nyb_row(s.w, p), error, &s.groups[plan->group_at[p]], top, u[p], loss);
        for (size_t k = p + 1; k < p1; k++) {
            float *const w = nyb_row(s.w, k);
            for (size_t lane = 0; lane < NYB_LANES; lane++)
                w[lane] -= u[k] * error[lane];
        }
    }
}

// Carries the errors of places [p0, p1) into places [k0, k1): W -= U^T E (lazy batch updates,
// section 3.3 of the paper).
static void spread(const nyb_tile_plan *plan, nyb_tile_scratch s, nyb_mat errors, size_t p0,
                   size_t p1, size_t k0, size_t k1)
{
    if (k0 < k1)
        nyb_gemm_tn(nyb_block(s.w, k0, k1, 0, NYB_LANES),
                    nyb_block(plan->factor->u, p0, p1, k0, k1), errors, -1.0f, 1.0f);
}

static bool solve_columns(const nyb_tile_plan *plan, nyb_tile_scratch s, double *loss,
                          nyb_tile_fault *fault)
{
    const size_t cols = plan->w.cols;
    const bool fits = fits_on_the_way(plan), stale = plan->params->grid.reference;

    for (size_t p0 = 0, p1 = 0; p0 < cols; p0 = p1) {
        p1 = block_end(plan, p0);
        if (fits && stale && !fit_groups(plan, s, p0, p1, fault))
            return false;
        for (size_t q0 = p0, q1 = 0; q0 < p1; q0 = q1) {
            q1 = strip_end(plan, q0, p1);
            if (fits && !stale && !fit_groups(plan, s, q0, q0 + 1, fault))
                return false;
            const nyb_mat errors = nyb_block(s.errors, q0 - p0, q1 - p0, 0, NYB_LANES);
            solve_strip(plan, s, errors, q0, q1, loss);
            spread(plan, s, errors, q0, q1, q1, p1);
        }
        spread(plan, s, nyb_block(s.errors, 0, p1 - p0, 0, NYB_LANES), p0, p1, p1, cols);
    }
    return true;
}

static void store(const nyb_tile_plan *plan, nyb_tile_scratch s, size_t row0, size_t rows)
{
    nyb_qweight *const q = plan->out;
    for (size_t lane = 0; lane < rows; lane++) {
        uint8_t *const codes = q->codes + (row0 + lane) * q->cols;
        const size_t groups = (row0 + lane) * q->groups;
        for (size_t p = 0; p < q->cols; p++)
            codes[plan->factor->columns[p]] = (uint8_t) nyb_row(s.w, p)[lane];
        for (size_t group = 0; group < q->groups; group++) {
            q->scales[groups + group] = s.groups[group].scale[lane];
            q->zeros[groups + group] = (uint8_t) s.groups[group].zero[lane];
            if (q->mins)
                q->mins[groups + group] = s.groups[group].min[lane];
        }
    }
}

// Loads the tile and fits whatever is to be fitted before the first column.
static bool begin(const nyb_tile_plan *plan, nyb_tile_scratch s, size_t row0, nyb_tile_fault *fault)
{
    const uint32_t *const columns = plan->factor->columns;
    if (!nyb_tile_load(s.w, plan->w, row0, 0, columns, fault))
        return false;
    const bool whole_rows = plan->params->grid.reference && plan->out->groups == 1;
    // The reference fits whole rows before it drops dead columns, and groups after.
    if (whole_rows && !fit(plan, s.w, NULL, NULL, 0, s.groups, fault))
        return false;
    drop_dead(plan, s.w, columns, 0);
    return whole_rows || !plan->params->static_groups || fit_static(plan, s, row0, fault);
}

double nyb_tile_solve(const nyb_tile_plan *plan, nyb_tile_scratch scratch, size_t tile,
                      nyb_tile_fault *fault)
{
    const size_t row0 = tile * NYB_LANES, rows = nyb_tile_rows(plan->w.rows, tile);
    double loss[NYB_LANES] = {0}, total = 0.0;

    if (!begin(plan, scratch, row0, fault) || !solve_columns(plan, scratch, loss, fault)) {
        if (fault->kind == NYB_FAULT_SCALE)
            fault->row += row0;
        return 0.0;
    }
    for (size_t lane = 0; lane < rows; lane++) {
        total += loss[lane];
        if (!isfinite(loss[lane])) {
            *fault = (nyb_tile_fault){.kind = NYB_FAULT_UPDATE, .row = row0 + lane};
            return 0.0;
        }
    }
    store(plan, scratch, row0, rows);
    return total;
}
