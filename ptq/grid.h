// grid.h - fitting a group's grid and rounding onto it, for many rows side by side.
//
// Everything here works on lanes: a tile holds NYB_LANES rows of a weight transposed, so that the
// same column of all rows lies together and compilers make vector code of plain loops. Missing
// rows of the last tile are zeros, so that a row's result does not depend on its neighbours.
#ifndef NYB_PTQ_GRID_H_
#define NYB_PTQ_GRID_H_

#include "core/status.h"
#include "nybble/grid.h"

enum { NYB_LANES = 64 };

// One group's parameters for each lane. Zero points are small integers; f32 holds them exactly.
typedef struct nyb_grid_lanes {
    float scale[NYB_LANES];
    float zero[NYB_LANES];
    float min[NYB_LANES]; // taken away from what a code gives
} nyb_grid_lanes;

// The largest code.
static inline float nyb_grid_top(unsigned bits)
{
    return (float) ((1u << bits) - 1);
}

// Keras' scale of a channel whose largest magnitude is absmax: what weights are multiplied with.
static inline float nyb_grid_keras_inverse(float absmax, unsigned bits)
{
    return (float) ((1u << (bits - 1)) - 1) / (absmax + 1e-7f);
}

// The nearest integer, ties to even, for |x| < 2^22; rintf() would be a call in vector loops of
// the baseline instruction set.
static inline float nyb_round_even(float x)
{
    const float shift = 0x1.8p23f;
    return (x + shift) - shift;
}

static inline float nyb_clamp(float x, float low, float high)
{
    x = x > low ? x : low; // also turns a NaN into `low`
    return x < high ? x : high;
}

// The code nearest to a weight that is so many scales large. Any number gives a code in [0, top].
static inline float nyb_grid_code_at(float scales, float zero, float top)
{
    // Both codes and zero points are below 256, so clamping first changes no result.
    const float steps = nyb_round_even(nyb_clamp(scales, -512.0f, 512.0f));
    return nyb_clamp(steps + zero, 0.0f, top);
}

// The code of the grid point nearest to w.
static inline float nyb_grid_code(float w, float scale, float zero, float top)
{
    return nyb_grid_code_at(w / scale, zero, top);
}

// The nearest scale that a file holds, no smaller than one that every reader takes for more than 0.
// Infinite when it is too large for dtype.
float nyb_grid_storable(double scale, nyb_dtype dtype);

// Checks every field for a weight of `cols` columns. NYB_E_ARG.
NYB_NODISCARD nyb_status nyb_grid_check(const nyb_grid_params *params, size_t cols, nyb_err *err);

// Chooses each lane's grid for a group: values [columns of the group, NYB_LANES], all finite.
// `weights` say what a squared error in each column costs, for params->scale_search; NULL: all the
// same. Returns the first lane whose scale is too large for scale_dtype, or NYB_LANES.
size_t nyb_grid_fit(const nyb_grid_params *params, nyb_mat values, const float *weights,
                    nyb_grid_lanes *out);

// The same for the ranges of n groups, with 0 in each, where nothing clips them and no scale is
// searched: nyb_grid_is_plain(). Returns the first group whose scale is too large, or n.
bool nyb_grid_is_plain(const nyb_grid_params *params);
size_t nyb_grid_fit_ranges(const nyb_grid_params *params, const float *low, const float *high,
                           size_t n, float *scale, float *zero);

// The range of each lane's values, with 0 in it.
typedef struct nyb_grid_range {
    float low[NYB_LANES], high[NYB_LANES];
} nyb_grid_range;

// The rest of nyb_grid_fit(), for params->scale_search: improves out over shrunken ranges and
// neighbouring zero points.
void nyb_grid_search(const nyb_grid_params *params, nyb_mat values, const float *weights,
                     const nyb_grid_range *range, nyb_grid_lanes *out);

// Scale and zero point of one lane for the range [low, high] as scale_dtype and lowest_zero allow.
// The scale is infinite when it is too large for scale_dtype.
void nyb_grid_span(const nyb_grid_params *params, float low, float high, float *scale, float *zero);

#endif // NYB_PTQ_GRID_H_
