#include "ptq/grid.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "core/dtype.h"
#include "kernels/codes.h"
#include "ptq/blocks.h"
#include "ptq/observer.h"

nyb_status nyb_grid_check(const nyb_grid_params *params, size_t cols, nyb_err *err)
{
    const unsigned bits = params->bits;
    const size_t block = nyb_dtype_block(params->block).values;
    if (params->block != NYB_F32 && !nyb_block_grid(params->block))
        return nyb_fail(err, NYB_E_ARG, "no weights are rounded to %s",
                        nyb_dtype_name(params->block));
    if (params->block != NYB_F32 && cols % block != 0)
        return nyb_fail(err, NYB_E_ARG, "%zu columns are no whole blocks of %s, which have %zu",
                        cols, nyb_dtype_name(params->block), block);
    if (params->block != NYB_F32)
        return NYB_OK;
    if ((unsigned) params->kind > NYB_GRID_EXTREMES)
        return nyb_fail(err, NYB_E_ARG, "grid kind is %d", (int) params->kind);
    if (bits != 2 && bits != 3 && bits != 4 && bits != 8)
        return nyb_fail(err, NYB_E_ARG, "weight bits are %u, want 2, 3, 4 or 8", bits);
    if (params->group_size > cols)
        return nyb_fail(err, NYB_E_ARG, "group size %zu is more than the %zu columns",
                        params->group_size, cols);
    if (!nyb_dtype_is_float(params->scale_dtype))
        return nyb_fail(err, NYB_E_ARG, "scales cannot be stored as %s, want F32, F16 or BF16",
                        nyb_dtype_name(params->scale_dtype));
    if ((unsigned) params->range.kind >= NYB_RANGE_COUNT ||
        !(params->range.percentile >= 0.0 && params->range.percentile <= 100.0))
        return nyb_fail(err, NYB_E_ARG, "range is %d, its percentile %g", (int) params->range.kind,
                        params->range.percentile);
    if (params->lowest_zero > 1u << (bits - 1))
        return nyb_fail(err, NYB_E_ARG, "lowest zero point is %u, want at most %u",
                        params->lowest_zero, 1u << (bits - 1));
    return NYB_OK;
}

// Smallest scale that is ever used. A subnormal f32 or bf16 may be flushed to zero by readers;
// f16 is widened before it is multiplied, so its subnormals are safe.
static float smallest_scale(nyb_dtype dtype)
{
    return dtype == NYB_F16 ? 0x1p-24f : FLT_MIN;
}

float nyb_grid_storable(double scale, nyb_dtype dtype)
{
    const float rounded = nyb_round_to((float) scale, dtype), least = smallest_scale(dtype);
    return rounded > least ? rounded : least;
}

void nyb_grid_span(const nyb_grid_params *params, float low, float high, float *scale, float *zero)
{
    const double top = (double) nyb_grid_top(params->bits), least = params->lowest_zero;
    const double step = params->reference ? (double) ((high - low) / (float) top)
                                          : ((double) high - (double) low) / top;
    *scale = nyb_grid_storable(step, params->scale_dtype);
    if (params->symmetric) {
        *zero = (float) (1u << (params->bits - 1));
        return;
    }
    const double wanted =
        params->reference ? (double) rintf(-low / *scale) : rint(-(double) low / (double) *scale);
    if (!params->reference && wanted < least) // fewer codes lie above zero now: widen the steps
        *scale = nyb_grid_storable((double) high / (top - least), params->scale_dtype);
    *zero = (float) (wanted < least ? least : wanted > top ? top : wanted);
}

// The smallest and largest value of each lane, with 0 always between them.
static void find_range(nyb_mat values, nyb_grid_range *range)
{
    float *const low = range->low, *const high = range->high;
    for (size_t lane = 0; lane < NYB_LANES; lane++)
        low[lane] = high[lane] = 0.0f;
    for (size_t j = 0; j < values.rows; j++) {
        const float *const value = nyb_row(values, j);
        for (size_t lane = 0; lane < NYB_LANES; lane++) {
            low[lane] = value[lane] < low[lane] ? value[lane] : low[lane];
            high[lane] = value[lane] > high[lane] ? value[lane] : high[lane];
        }
    }
}

// Moves the range of each lane to where it is to be clipped.
static void clip_ranges(const nyb_grid_params *params, nyb_mat values, nyb_grid_range *range)
{
    float *const low = range->low, *const high = range->high;
    const bool whole = params->kind == NYB_GRID_MINMAX;
    if (params->range.kind == NYB_RANGE_ABSMAX || (whole && params->range.kind == NYB_RANGE_MSE))
        return;
    // Steps that a magnitude has: half of all where signs share them.
    const nyb_rounding_to rounding = {.top = (float) ((1u << (params->bits - 1)) - 1)};
    for (size_t lane = 0; lane < NYB_LANES; lane++) {
        nyb_observer seen = {0};
        nyb_observer_add(&seen, values.at + lane, values.rows, values.stride);
        const float limit = nyb_observer_range(&seen, &params->range, rounding);
        low[lane] = fmaxf(low[lane], -limit);
        high[lane] = fminf(high[lane], limit);
    }
}

// The range that the grid has to span.
static void settle(const nyb_grid_params *params, float *low, float *high)
{
    if (params->symmetric) {
        *high = fmaxf(-*low, *high);
        if (!params->reference || *low < 0.0f)
            *low = -*high;
    }
    if (*low == 0.0f && *high == 0.0f) {
        *low = -1.0f;
        *high = 1.0f;
    }
}

// Keras' formula, whose epsilon keeps the scale above zero.
static void fit_absmax(const nyb_grid_params *params, const nyb_grid_range *range,
                       nyb_grid_lanes *out)
{
    const float steps = (float) ((1u << (params->bits - 1)) - 1);
    for (size_t lane = 0; lane < NYB_LANES; lane++) {
        const float absmax = fmaxf(-range->low[lane], range->high[lane]) + 1e-7f;
        out->scale[lane] = nyb_grid_storable((double) (absmax / steps), params->scale_dtype);
        out->zero[lane] = (float) (1u << (params->bits - 1));
    }
}

// Keras' formula for groups, step by step in f32 as it computes.
static void fit_extremes(const nyb_grid_params *params, nyb_mat values, nyb_grid_lanes *out)
{
    const float top = nyb_grid_top(params->bits), least = (float) params->lowest_zero;
    const bool filled_up = params->group_size && values.rows < params->group_size;
    nyb_grid_range range;
    float *const low = range.low, *const high = range.high;
    for (size_t lane = 0; lane < NYB_LANES; lane++) {
        low[lane] = high[lane] = filled_up ? 0.0f : values.at[lane];
        for (size_t j = 0; j < values.rows; j++) {
            low[lane] = fminf(low[lane], nyb_row(values, j)[lane]);
            high[lane] = fmaxf(high[lane], nyb_row(values, j)[lane]);
        }
    }
    clip_ranges(params, values, &range);
    for (size_t lane = 0; lane < NYB_LANES; lane++) {
        const float step = ((high[lane] - low[lane]) + 1e-7f) / top;
        out->scale[lane] = nyb_grid_storable((double) step, params->scale_dtype);
        out->zero[lane] = nyb_clamp(rintf(-low[lane] / out->scale[lane]), least, top);
    }
}

static size_t first_infinite(const float *scale)
{
    for (size_t lane = 0; lane < NYB_LANES; lane++) {
        if (!isfinite(scale[lane]))
            return lane;
    }
    return NYB_LANES;
}

bool nyb_grid_is_plain(const nyb_grid_params *params)
{
    return params->kind == NYB_GRID_MINMAX && params->range.kind == NYB_RANGE_ABSMAX &&
           !params->scale_search;
}

// As the reference computes, in its order.
static void fit_reference(const nyb_grid_params *params, float low, float high, float *scale,
                          float *zero)
{
    settle(params, &low, &high);
    nyb_grid_span(params, low, high, scale, zero);
}

size_t nyb_grid_fit_ranges(const nyb_grid_params *params, const float *low, const float *high,
                           size_t n, float *scale, float *zero)
{
    const nyb_code_span span = {.scale_dtype = params->scale_dtype,
                                .top = nyb_grid_top(params->bits),
                                .lowest = (float) params->lowest_zero,
                                .symmetric = params->symmetric};
    assert(nyb_grid_is_plain(params));
    if (!params->reference)
        nyb_code_ops_get()->spans(scale, zero, low, high, n, &span);
    for (size_t g = 0; params->reference && g < n; g++)
        fit_reference(params, low[g], high[g], &scale[g], &zero[g]);
    size_t bad = 0;
    while (bad < n && isfinite(scale[bad]))
        bad++;
    return bad;
}

size_t nyb_grid_fit(const nyb_grid_params *params, nyb_mat values, const float *weights,
                    nyb_grid_lanes *out)
{
    nyb_grid_range range;
    assert(values.cols == NYB_LANES);

    memset(out->min, 0, sizeof(out->min));
    if (params->kind == NYB_GRID_EXTREMES) {
        fit_extremes(params, values, out);
        return first_infinite(out->scale);
    }
    find_range(values, &range);
    clip_ranges(params, values, &range);
    if (params->kind == NYB_GRID_ABSMAX) {
        fit_absmax(params, &range, out);
        return first_infinite(out->scale);
    }
    for (size_t lane = 0; lane < NYB_LANES; lane++) {
        settle(params, &range.low[lane], &range.high[lane]);
        nyb_grid_span(params, range.low[lane], range.high[lane], &out->scale[lane],
                      &out->zero[lane]);
    }
    const size_t bad = first_infinite(out->scale);
    if (bad == NYB_LANES && (params->scale_search || params->range.kind == NYB_RANGE_MSE))
        nyb_grid_search(params, values, weights, &range, out);
    return bad;
}
