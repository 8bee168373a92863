#include <assert.h>
#include <math.h>

#include "kernels/codes.h"
#include "ptq/grid.h"

static_assert((int) NYB_CODE_ROWS == (int) NYB_LANES, "one tile of rows");

// Weighted squared distance of every lane from its grid. Codes come from a product with 1 / scale,
// which is much faster than a quotient and can only differ beside a tie, where both codes are as
// near.
static void square_error(nyb_mat values, const float *weights, const nyb_grid_lanes *grid,
                         float top, double *total)
{
    float low[NYB_LANES], high[NYB_LANES];
    for (size_t lane = 0; lane < NYB_LANES; lane++) {
        low[lane] = -grid->zero[lane];
        high[lane] = top - grid->zero[lane];
    }
    assert(values.stride == NYB_LANES);
    nyb_code_ops_get()->distance(total, values.at, weights, values.rows,
                                 &(nyb_code_grid){grid->scale, low, high});
}

// The reference's norm: the sum of |distance|^2.4.
static void reference_error(nyb_mat values, const nyb_grid_lanes *grid, float top, double *total)
{
    for (size_t lane = 0; lane < NYB_LANES; lane++) {
        const float scale = grid->scale[lane], zero = grid->zero[lane];
        total[lane] = 0.0;
        for (size_t j = 0; j < values.rows; j++) {
            const float value = nyb_row(values, j)[lane];
            const float code = nyb_grid_code(value, scale, zero, top);
            total[lane] += (double) powf(fabsf(scale * (code - zero) - value), 2.4f);
        }
    }
}

// Factors of the range that are tried, widest first. A symmetric grid has one code less above
// zero than below, so the widest of its ranges is the one that reaches the largest weight.
static float widest(const nyb_grid_params *params)
{
    const float top = nyb_grid_top(params->bits);
    return params->symmetric && !params->reference ? top / (top - 1.0f) : 1.0f;
}

// Zero points that are tried on either side of the range's own.
static int neighbours(const nyb_grid_params *params)
{
    return params->symmetric || params->reference ? 0 : 1;
}

// Grids of every lane: `trial` with its zero point moved, as far as that is allowed.
static void move_zero(const nyb_grid_params *params, const nyb_grid_lanes *from, int by,
                      nyb_grid_lanes *trial)
{
    const float least = (float) params->lowest_zero, most = nyb_grid_top(params->bits);
    for (size_t lane = 0; lane < NYB_LANES; lane++) {
        trial->scale[lane] = from->scale[lane];
        trial->zero[lane] =
            by ? nyb_clamp(from->zero[lane] + (float) by, least, most) : from->zero[lane];
    }
}

void nyb_grid_search(const nyb_grid_params *params, nyb_mat values, const float *weights,
                     const nyb_grid_range *range, nyb_grid_lanes *out)
{
    // Half as many give the same losses; the reference's own number is for its results.
    const int steps = params->reference ? 80 : 40, choices = 2 * neighbours(params) + 1;
    const float top = nyb_grid_top(params->bits), start = widest(params);
    double best[NYB_LANES], total[NYB_LANES];
    nyb_grid_lanes span, trial;

    for (size_t lane = 0; lane < NYB_LANES; lane++)
        best[lane] = INFINITY;
    for (int trying = 0; trying < steps * choices; trying++) {
        const int step = trying / choices, by = trying % choices - choices / 2;
        const float shrink = start * (float) (1.0 - step / (1.25 * steps));
        for (size_t lane = 0; trying % choices == 0 && lane < NYB_LANES; lane++)
            nyb_grid_span(params, shrink * range->low[lane], shrink * range->high[lane],
                          &span.scale[lane], &span.zero[lane]);
        move_zero(params, &span, by, &trial);
        if (params->reference)
            reference_error(values, &trial, top, total);
        else
            square_error(values, weights, &trial, top, total);
        for (size_t lane = 0; lane < NYB_LANES; lane++) {
            if (total[lane] < best[lane] && isfinite(trial.scale[lane])) {
                best[lane] = total[lane];
                out->scale[lane] = trial.scale[lane];
                out->zero[lane] = trial.zero[lane];
            }
        }
    }
}
