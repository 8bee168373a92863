#include "ptq/keras_round.h"

#include <math.h>

#include "core/dtype.h"
#include "core/memory.h"
#include "ptq/grid.h"

// Keras adds it where it divides.
static const float epsilon = 1e-7f;

// A result of an operation on numbers of a type, as that type has it. Keras leaves bf16 for f32 where
// it adds the epsilon, and comes back only with the finished scales.
static inline float as(float value, nyb_dtype dtype)
{
    return dtype == NYB_F16 ? nyb_round_to(value, dtype) : value;
}

static nyb_status not_finite(const nyb_tensor *w, size_t index, nyb_err *err)
{
    return nyb_fail(err, NYB_E_NUMERIC, "'%s' holds a NaN or infinity at element %zu",
                    w->name ? w->name : "a weight", index);
}

// ---- A scale for each place of some axes ----------------------------------------------------

// Runs over an array row by row, a row being the last axis, and tells the place of its scale.
typedef struct rows {
    const nyb_tensor *w;
    size_t count, cols;        // rows, and values in each
    size_t step[NYB_MAX_RANK]; // of the scale's place for a step along each axis; 0 if reduced
    size_t at[NYB_MAX_RANK];   // where the current row is
    size_t scale;              // place of the scale of its first value
    size_t scales;             // in all
} rows;

static rows rows_of(const nyb_tensor *w, const bool *reduced)
{
    rows r = {.w = w, .count = 1, .cols = 1, .scales = 1};
    for (unsigned i = w->rank; i-- > 0;) {
        r.step[i] = reduced[i] ? 0 : r.scales;
        r.scales *= reduced[i] ? 1 : w->shape[i];
        if (i + 1 < w->rank)
            r.count *= w->shape[i];
        else
            r.cols = w->shape[i];
    }
    return r;
}

static void next_row(rows *r)
{
    for (unsigned i = r->w->rank - 1; i-- > 0;) {
        r->scale += r->step[i];
        if (++r->at[i] < r->w->shape[i])
            return;
        r->scale -= r->step[i] * r->w->shape[i];
        r->at[i] = 0;
    }
}

static void load_row(float *values, const nyb_tensor *w, size_t row, size_t cols)
{
    const size_t size = nyb_dtype_bytes(w->dtype);
    nyb_widen(values, (const unsigned char *) w->at + row * cols * size, w->dtype, cols);
}

static nyb_status find_absmax(rows r, float *values, float *absmax, nyb_err *err)
{
    const size_t step = r.step[r.w->rank - 1];
    for (size_t row = 0; row < r.count; row++) {
        load_row(values, r.w, row, r.cols);
        for (size_t j = 0; j < r.cols; j++) {
            const float size = fabsf(values[j]);
            float *const most = &absmax[r.scale + j * step];
            if (!isfinite(size))
                return not_finite(r.w, row * r.cols + j, err);
            *most = size > *most ? size : *most;
        }
        next_row(&r);
    }
    return NYB_OK;
}

static void round_rows(rows r, float *values, const float *scales, nyb_keras_range range,
                       int8_t *codes)
{
    const size_t step = r.step[r.w->rank - 1];
    const nyb_dtype dtype = r.w->dtype;
    for (size_t row = 0; row < r.count; row++) {
        load_row(values, r.w, row, r.cols);
        for (size_t j = 0; j < r.cols; j++) {
            const float scaled = as(values[j] * scales[r.scale + j * step], dtype);
            const float near = nyb_clamp(scaled, -256.0f, 256.0f);
            codes[row * r.cols + j] =
                (int8_t) nyb_clamp(nyb_round_even(near), (float) range.bottom, (float) range.top);
        }
        next_row(&r);
    }
}

nyb_status nyb_keras_round(const nyb_tensor *w, const bool *reduced, nyb_keras_range range,
                           int8_t *codes, void *scales, nyb_err *err)
{
    const rows r = rows_of(w, reduced);
    float *const values = nyb_alloc(r.cols, sizeof(*values));
    float *const factors = nyb_alloc(r.scales, sizeof(*factors));
    nyb_status status = values && factors
                            ? find_absmax(r, values, factors, err)
                            : nyb_no_memory(err, "scales", r.scales + r.cols, sizeof(float));
    if (status == NYB_OK) {
        const float small = as(epsilon, w->dtype);
        for (size_t i = 0; i < r.scales; i++)
            factors[i] = as((float) range.top / as(factors[i] + small, w->dtype), w->dtype);
        round_rows(r, values, factors, range, codes);
        nyb_narrow(scales, w->dtype, factors, r.scales);
    }
    nyb_free(values);
    nyb_free(factors);
    return status;
}

// ---- Groups with zero points ----------------------------------------------------------------

enum { BOTTOM = -8, TOP = 7 };

typedef struct grid {
    float scale, zero;
} grid;

static grid grid_of(float low, float high, nyb_dtype dtype)
{
    const float span = dtype == NYB_F32 ? high - low : nyb_round_to(high - low, dtype);
    const float width = as(span + as(epsilon, dtype), dtype);
    const float scale = as(width / (float) (TOP - BOTTOM), dtype);
    const float steps = nyb_clamp(as(-low / scale, dtype), -512.0f, 512.0f);
    const float zero = nyb_round_even(steps) + (float) BOTTOM;
    return (grid){.scale = scale, .zero = nyb_clamp(zero, (float) BOTTOM, (float) TOP)};
}

static int8_t code_of(float value, grid g, nyb_dtype dtype)
{
    const float steps = nyb_clamp(as(value / g.scale, dtype), -512.0f, 512.0f);
    return (int8_t) nyb_clamp(nyb_round_even(steps) + g.zero, (float) BOTTOM, (float) TOP);
}

// One line of values that share grids block by block: `stride` apart, with a grid every
// `grid_stride` places.
typedef struct line {
    const float *values;
    int8_t *codes, *zeros;
    float *scales;
    size_t length, stride, grid_stride;
} line;

static void round_line(const line *l, size_t block, nyb_dtype dtype)
{
    for (size_t first = 0, group = 0; first < l->length; first += block, group++) {
        const size_t end = first + block < l->length ? first + block : l->length;
        float low = l->values[first * l->stride], high = low;
        // Keras fills the last group up with zeros, which count.
        if (end - first < block) {
            low = low < 0.0f ? low : 0.0f;
            high = high > 0.0f ? high : 0.0f;
        }
        for (size_t i = first; i < end; i++) {
            const float value = l->values[i * l->stride];
            low = value < low ? value : low;
            high = value > high ? value : high;
        }
        const grid g = grid_of(low, high, dtype);
        l->scales[group * l->grid_stride] = g.scale;
        l->zeros[group * l->grid_stride] = (int8_t) g.zero;
        for (size_t i = first; i < end; i++)
            l->codes[i * l->stride] = code_of(l->values[i * l->stride], g, dtype);
    }
}

static nyb_status round_lines(const nyb_tensor *w, nyb_keras_groups groups, float *values, line all,
                              nyb_err *err)
{
    const size_t height = w->shape[0], cols = w->shape[1];
    const bool down = groups.axis == 0;
    nyb_widen(values, w->at, w->dtype, height * cols);
    for (size_t i = 0; i < height * cols; i++) {
        if (!isfinite(values[i]))
            return not_finite(w, i, err);
    }
    const size_t lines = down ? cols : height;
    const size_t count = ((down ? height : cols) + groups.block - 1) / groups.block;
    for (size_t i = 0; i < lines; i++) {
        const size_t at = down ? i : i * cols, grids = down ? i : i * count;
        const line l = {.values = values + at,
                        .codes = all.codes + at,
                        .zeros = all.zeros + grids,
                        .scales = all.scales + grids,
                        .length = down ? height : cols,
                        .stride = down ? cols : 1,
                        .grid_stride = down ? cols : 1};
        round_line(&l, groups.block, w->dtype);
    }
    return NYB_OK;
}

nyb_status nyb_keras_round_groups(const nyb_tensor *w, nyb_keras_groups groups, int8_t *codes,
                                  void *scales, int8_t *zeros, nyb_err *err)
{
    const size_t length = w->shape[groups.axis], lines = w->shape[1 - groups.axis];
    const size_t count = (length + groups.block - 1) / groups.block * lines;
    float *const values = nyb_alloc_raw(w->shape[0] * w->shape[1], sizeof(*values));
    float *const wide = nyb_alloc(count, sizeof(*wide));
    const line all = {.codes = codes, .zeros = zeros, .scales = wide};
    nyb_status status = values && wide ? round_lines(w, groups, values, all, err)
                                       : nyb_no_memory(err, "values", w->shape[0] * w->shape[1], 4);
    if (status == NYB_OK)
        nyb_narrow(scales, w->dtype, wide, count);
    nyb_free(values);
    nyb_free(wide);
    return status;
}
