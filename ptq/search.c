#include <float.h>
#include <math.h>

#include "ptq/grid.h"

// Columns whose errors are summed in f32 before they join the f64 sum.
enum { CHUNK = 32 };

// Squared distance of every lane from its grid. Codes come from a product with 1 / scale, which
// is much faster than a quotient and can only differ beside a tie, where both codes are as near.
static void square_error(nyb_mat values, const nyb_grid_lanes *grid, float top, double *total)
{
    float inverse[NYB_LANES];
    for (size_t lane = 0; lane < NYB_LANES; lane++) {
        inverse[lane] = 1.0f / grid->scale[lane];
        total[lane] = 0.0;
    }
    for (size_t j0 = 0; j0 < values.rows; j0 += CHUNK) {
        const size_t j1 = j0 + CHUNK < values.rows ? j0 + CHUNK : values.rows;
        float sum[NYB_LANES] = {0};
        for (size_t j = j0; j < j1; j++) {
            const float *const value = nyb_row(values, j);
            for (size_t lane = 0; lane < NYB_LANES; lane++) {
                const float scale = grid->scale[lane], zero = grid->zero[lane];
                const float code = nyb_grid_code_at(value[lane] * inverse[lane], zero, top);
                const float off = scale * (code - zero) - value[lane];
                sum[lane] += off * off;
            }
        }
        for (size_t lane = 0; lane < NYB_LANES; lane++)
            total[lane] += (double) sum[lane];
    }
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

void nyb_grid_search(const nyb_grid_params *params, nyb_mat values, const float *low,
                     const float *high, nyb_grid_lanes *out)
{
    enum { STEPS = 80 };
    const float top = nyb_grid_top(params->bits), start = widest(params);
    double best[NYB_LANES], total[NYB_LANES];
    nyb_grid_lanes trial;

    for (size_t lane = 0; lane < NYB_LANES; lane++)
        best[lane] = INFINITY;
    for (int step = 0; step < STEPS; step++) {
        const float shrink = start * (float) (1.0 - step / 100.0);
        for (size_t lane = 0; lane < NYB_LANES; lane++)
            nyb_grid_span(params, shrink * low[lane], shrink * high[lane], &trial.scale[lane],
                          &trial.zero[lane]);
        if (params->reference)
            reference_error(values, &trial, top, total);
        else
            square_error(values, &trial, top, total);
        for (size_t lane = 0; lane < NYB_LANES; lane++) {
            if (total[lane] < best[lane] && isfinite(trial.scale[lane])) {
                best[lane] = total[lane];
                out->scale[lane] = trial.scale[lane];
                out->zero[lane] = trial.zero[lane];
            }
        }
    }
}
