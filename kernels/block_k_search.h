// block_k_search.h - rounding to the K types: for each part of a block a scale (and a minimum)
// that is searched by weighted least squares, then the scales themselves are rounded, then the
// values on what was stored. Included once by each level.
//
// The searches and their constants are those that ggml's reference functions take without weights
// of importance, so that the files agree with llama-quantize's.
#ifndef NYB_KERNELS_BLOCK_K_SEARCH_H_
#define NYB_KERNELS_BLOCK_K_SEARCH_H_

#include "kernels/block_k_loops.h"

enum { PART_MOST = 32 }; // values of a part

static const float part_of_nothing = 1e-15f; // parts without a larger value are all 0

// The nearest integer, ties to even, kept in [low, high].
static inline int nearest(float v, int low, int high)
{
    float r = rintf(v);
    r = r > (float) low ? r : (float) low; // also settles a NaN
    r = r < (float) high ? r : (float) high;
    return (int) r;
}

// Beyond any weight's size the sums of the searches overflow f32: such a block gets an infinite
// scale at `at`, as one gets it whose scales exceed f16.
static inline void refuse_huge(unsigned char *at, const float *x)
{
    float largest = 0.0f;
    for (size_t i = 0; i < K_VALUES; i++)
        largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
    if (largest > 1e9f)
        put_half(at, INFINITY);
}

// ---- A scale and a minimum: x = scale q - min -------------------------------------------------

// How one type searches.
typedef struct affine_rule {
    size_t values;    // of a part
    int top;          // codes lie in [0, top]
    float first, by;  // the ranges tried are top + first + by * step steps wide,
    int steps;        // for step in [0, steps]
    bool by_distance; // errors count by their size, not by its square
} affine_rule;

typedef struct affine {
    float scale, min; // min >= 0 is what is taken away
} affine;

static inline float affine_error(const affine_rule *r, const float *x, const float *weights,
                                 const int *q, float scale, float low)
{
    float error = 0.0f;
    for (size_t i = 0; i < r->values; i++) {
        const float off = scale * (float) q[i] + low - x[i];
        error += weights[i] * (r->by_distance ? fabsf(off) : off * off);
    }
    return error;
}

// The sums that the least-squares line through (q, x) follows from.
typedef struct line_sums {
    float w, x, l, ll, xl;
} line_sums;

static inline bool fit_line(const line_sums *s, float *scale, float *low)
{
    const float determinant = s->w * s->ll - s->l * s->l;
    if (!(determinant > 0.0f))
        return false;
    *scale = (s->w * s->xl - s->x * s->l) / determinant;
    *low = (s->ll * s->x - s->l * s->xl) / determinant;
    if (*low > 0.0f) { // only minima below 0 can be stored
        *low = 0.0f;
        *scale = s->xl / s->ll;
    }
    return true;
}

static inline void part_codes(const affine_rule *r, const float *x, const float *weights, int *q,
                              float inverse, float low, line_sums *s)
{
    s->l = s->ll = s->xl = 0.0f;
    for (size_t i = 0; i < r->values; i++)
        q[i] = nearest(inverse * (x[i] - low), 0, r->top);
    for (size_t i = 0; i < r->values; i++) {
        const float l = (float) q[i], w = weights[i];
        s->l += w * l;
        s->ll += w * l * l;
        s->xl += w * l * x[i];
    }
}

static affine search_affine(const affine_rule *r, const float *x, const float *weights, int *q)
{
    float low = x[0], high = x[0];
    line_sums s = {.w = weights[0], .x = weights[0] * x[0]};
    for (size_t i = 1; i < r->values; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
        s.w += weights[i];
        s.x += weights[i] * x[i];
    }
    low = low > 0.0f ? 0.0f : low;
    if (high == low) {
        memset(q, 0, r->values * sizeof(*q));
        return (affine){0.0f, -low};
    }

    int trial[PART_MOST];
    line_sums unused;
    const float top = (float) r->top, first = top / (high - low);
    float scale = 1.0f / first;
    part_codes(r, x, weights, q, first, low, &unused);
    float best = affine_error(r, x, weights, q, scale, low);
    for (int step = 0; step <= r->steps; step++) {
        // The ranges start at the best minimum so far, not at the least value.
        const float inverse = (r->first + r->by * (float) step + top) / (high - low);
        float try_scale, try_low;
        part_codes(r, x, weights, trial, inverse, low, &s);
        if (!fit_line(&s, &try_scale, &try_low))
            continue;
        const float error = affine_error(r, x, weights, trial, try_scale, try_low);
        if (error < best) {
            memcpy(q, trial, r->values * sizeof(*q));
            best = error;
            scale = try_scale;
            low = try_low;
        }
    }
    return (affine){scale, -low};
}

// Rounds a part again, on the scale and minimum that were stored.
static inline void settle_affine(const affine_rule *r, const float *x, int *q, float scale,
                                 float min)
{
    if (scale == 0.0f)
        return;
    for (size_t i = 0; i < r->values; i++)
        q[i] = nearest((x[i] + min) / scale, 0, r->top);
}

static inline void affine_tops(const affine *parts, size_t count, float *scale, float *min)
{
    *scale = *min = 0.0f;
    for (size_t j = 0; j < count; j++) {
        *scale = parts[j].scale > *scale ? parts[j].scale : *scale;
        *min = parts[j].min > *min ? parts[j].min : *min;
    }
}

// Q4_K and Q5_K: writes d, dmin and the 12 bytes of scales, and rounds to q.
static inline void round_eight(unsigned char *head, int *q, const float *x, const affine_rule *r)
{
    affine parts[8];
    for (size_t j = 0; j < 8; j++) {
        const float *const part = x + 32 * j;
        float weights[PART_MOST], squares = 0.0f;
        for (size_t l = 0; l < 32; l++)
            squares += part[l] * part[l];
        const float mean = sqrtf(squares / 32.0f);
        for (size_t l = 0; l < 32; l++)
            weights[l] = mean + fabsf(part[l]);
        parts[j] = search_affine(r, part, weights, q + 32 * j);
    }
    float top_scale, top_min;
    affine_tops(parts, 8, &top_scale, &top_min);
    const float scale_inverse = top_scale > 0.0f ? 63.0f / top_scale : 0.0f;
    const float min_inverse = top_min > 0.0f ? 63.0f / top_min : 0.0f;
    memset(head + 4, 0, 12);
    for (size_t j = 0; j < 8; j++)
        put_scale_min(head + 4, j, nearest(scale_inverse * parts[j].scale, 0, 63),
                      nearest(min_inverse * parts[j].min, 0, 63));
    put_half(head, top_scale / 63.0f);
    put_half(head + 2, top_min / 63.0f);

    const float d = half_at(head), low = half_at(head + 2);
    for (size_t j = 0; j < 8; j++) {
        int scale, min;
        get_scale_min(head + 4, j, &scale, &min);
        settle_affine(r, x + 32 * j, q + 32 * j, d * (float) scale, low * (float) min);
    }
}

static void put_q4_k(void *blocks, const float *x, size_t count)
{
    static const affine_rule rule = {
        .values = 32, .top = 15, .first = -1.0f, .by = 0.1f, .steps = 20};
    unsigned char *at = blocks;
    for (; count > 0; count--, at += 144, x += K_VALUES) {
        int q[K_VALUES];
        round_eight(at, q, x, &rule);
        put_quarters(at + 16, q);
        refuse_huge(at, x);
    }
}

static void put_q5_k(void *blocks, const float *x, size_t count)
{
    static const affine_rule rule = {
        .values = 32, .top = 31, .first = -0.5f, .by = 0.1f, .steps = 15};
    unsigned char *at = blocks;
    for (; count > 0; count--, at += 176, x += K_VALUES) {
        int q[K_VALUES];
        round_eight(at, q, x, &rule);
        lay_q5_k(at, q);
        refuse_huge(at, x);
    }
}

static inline void round_q2(unsigned char *at, int *q, const float *x)
{
    static const affine_rule rule = {
        .values = 16, .top = 3, .first = -0.5f, .by = 0.1f, .steps = 15, .by_distance = true};
    affine parts[16];
    for (size_t j = 0; j < 16; j++) {
        float weights[16];
        for (size_t l = 0; l < 16; l++)
            weights[l] = fabsf(x[16 * j + l]);
        parts[j] = search_affine(&rule, x + 16 * j, weights, q + 16 * j);
    }
    float top_scale, top_min;
    affine_tops(parts, 16, &top_scale, &top_min);
    const float scale_inverse = top_scale > 0.0f ? 15.0f / top_scale : 0.0f;
    const float min_inverse = top_min > 0.0f ? 15.0f / top_min : 0.0f;
    for (size_t j = 0; j < 16; j++)
        at[j] = (unsigned char) (nearest(scale_inverse * parts[j].scale, 0, 15) |
                                 nearest(min_inverse * parts[j].min, 0, 15) << 4);
    put_half(at + 80, top_scale / 15.0f);
    put_half(at + 82, top_min / 15.0f);
    const float d = half_at(at + 80), low = half_at(at + 82);
    for (size_t j = 0; j < 16; j++)
        settle_affine(&rule, x + 16 * j, q + 16 * j, d * (float) (at[j] & 15),
                      low * (float) (at[j] >> 4));
}

static void put_q2_k(void *blocks, const float *x, size_t count)
{
    unsigned char *at = blocks;
    for (; count > 0; count--, at += 84, x += K_VALUES) {
        int q[K_VALUES];
        round_q2(at, q, x);
        put_pairs(at + 16, q);
        refuse_huge(at + 80, x);
    }
}

// ---- A scale alone: x = scale q, q in [-top, top) ---------------------------------------------

// The first of n values with the largest magnitude; 0 for a part of nothing.
static inline float part_extreme(const float *x, size_t n)
{
    float largest = 0.0f, value = 0.0f;
    for (size_t i = 0; i < n; i++) {
        const float a = fabsf(x[i]);
        value = a > largest ? x[i] : value;
        largest = a > largest ? a : largest;
    }
    return largest < part_of_nothing ? 0.0f : value;
}

// Values to be rounded, and how much the square of each one's error counts.
typedef struct weighed {
    const float *x, *weights;
    size_t count; // at most PART_MOST
} weighed;

// Weights of plain rounding: the squares of 16 values.
static inline weighed squared(const float *x, float *weights)
{
    for (size_t i = 0; i < 16; i++)
        weights[i] = x[i] * x[i];
    return (weighed){x, weights, 16};
}

// Codes at this inverse scale, with the sums of w x q and w q^2.
static inline void even_codes(weighed v, int *q, int top, float inverse, float *xl, float *ll)
{
    *xl = *ll = 0.0f;
    for (size_t i = 0; i < v.count; i++)
        q[i] = nearest(inverse * v.x[i], -top, top - 1);
    for (size_t i = 0; i < v.count; i++) {
        const float w = v.weights[i], l = (float) q[i];
        *xl += w * v.x[i] * l;
        *ll += w * l * l;
    }
}

// Tries ranges around the largest value.
static float search_even(weighed v, int *q, int top)
{
    const float value = part_extreme(v.x, v.count);
    if (value == 0.0f) {
        memset(q, 0, v.count * sizeof(*q));
        return 0.0f;
    }
    float xl, ll;
    even_codes(v, q, top, -(float) top / value, &xl, &ll);
    float scale = ll != 0.0f ? xl / ll : 0.0f, best = scale * xl;
    for (int step = -9; step <= 9; step++) {
        int trial[PART_MOST];
        if (step == 0)
            continue;
        even_codes(v, trial, top, -((float) top + 0.1f * (float) step) / value, &xl, &ll);
        if (ll > 0.0f && xl * xl > best * ll) {
            memcpy(q, trial, v.count * sizeof(*q));
            scale = xl / ll;
            best = scale * xl;
        }
    }
    return scale;
}

// Q3_K: moves one code after the other while that lowers the error of the best scale.
static float search_moves(const float *x, int *q, int top)
{
    const float value = part_extreme(x, 16);
    float weights[16];
    if (value == 0.0f) {
        memset(q, 0, 16 * sizeof(*q));
        return 0.0f;
    }
    float xl, ll;
    even_codes(squared(x, weights), q, top, -(float) top / value, &xl, &ll);
    bool moved = true;
    for (int round = 0; round < 5 && moved; round++) {
        moved = false;
        for (size_t i = 0; i < 16; i++) {
            const float w = x[i] * x[i], old = (float) q[i];
            float try_xl = xl - w * x[i] * old, try_ll = ll - w * old * old;
            if (!(try_xl > 0.0f))
                continue;
            const int code = nearest(x[i] * try_ll / try_xl, -top, top - 1);
            if (code == q[i])
                continue;
            try_xl += w * x[i] * (float) code;
            try_ll += w * (float) code * (float) code;
            if (try_ll > 0.0f && try_xl * try_xl * ll > xl * xl * try_ll) {
                q[i] = code;
                xl = try_xl;
                ll = try_ll;
                moved = true;
            }
        }
    }
    return ll > 0.0f ? xl / ll : 0.0f;
}

// The scale of the largest magnitude among 16.
static inline float top_of(const float *scales)
{
    float largest = 0.0f, value = 0.0f;
    for (size_t j = 0; j < 16; j++) {
        const float a = fabsf(scales[j]);
        value = a > largest ? scales[j] : value;
        largest = a > largest ? a : largest;
    }
    return value;
}

static inline void settle_even(const float *x, int *q, float scale, int top)
{
    if (scale == 0.0f)
        return;
    for (size_t i = 0; i < 16; i++)
        q[i] = nearest(x[i] / scale, -top, top - 1);
}

static void put_q3_k(void *blocks, const float *x, size_t count)
{
    unsigned char *at = blocks;
    for (; count > 0; count--, at += 110, x += K_VALUES) {
        int q[K_VALUES];
        float scales[16];
        for (size_t j = 0; j < 16; j++)
            scales[j] = search_moves(x + 16 * j, q + 16 * j, 4);
        const float top = top_of(scales), inverse = top != 0.0f ? -32.0f / top : 0.0f;
        memset(at, 0, 110);
        for (size_t j = 0; j < 16 && top != 0.0f; j++)
            put_scale_q3(at + 96, j, nearest(inverse * scales[j], -32, 31));
        put_half(at + 108, top != 0.0f ? 1.0f / inverse : 0.0f);
        const float d = half_at(at + 108);
        for (size_t j = 0; j < 16; j++)
            settle_even(x + 16 * j, q + 16 * j, d * (float) get_scale_q3(at + 96, j), 4);
        for (size_t i = 0; i < K_VALUES; i++)
            q[i] += 4;
        lay_q3_k(at, q);
        refuse_huge(at + 108, x);
    }
}

// Q6_K from the best scale of each part.
static inline void finish_q6_k(unsigned char *at, const float *x, const float *scales, int *q)
{
    const float top = top_of(scales);
    int8_t stored[16];
    if (fabsf(top) < part_of_nothing) {
        memset(at, 0, 210);
        refuse_huge(at + 208, x);
        return;
    }
    const float inverse = -128.0f / top;
    for (size_t j = 0; j < 16; j++)
        stored[j] = (int8_t) nearest(inverse * scales[j], -128, 127);
    put_half(at + 208, 1.0f / inverse);
    const float d = half_at(at + 208);
    for (size_t j = 0; j < 16; j++)
        settle_even(x + 16 * j, q + 16 * j, d * (float) stored[j], 32);
    for (size_t i = 0; i < K_VALUES; i++)
        q[i] += 32;
    memcpy(at + 192, stored, sizeof(stored));
    put_sixes(at, at + 128, q);
    refuse_huge(at + 208, x);
}

static void put_q6_k(void *blocks, const float *x, size_t count)
{
    unsigned char *at = blocks;
    for (; count > 0; count--, at += 210, x += K_VALUES) {
        int q[K_VALUES];
        float scales[16], weights[16];
        for (size_t j = 0; j < 16; j++)
            scales[j] = search_even(squared(x + 16 * j, weights), q + 16 * j, 32);
        finish_q6_k(at, x, scales, q);
    }
}

#endif // NYB_KERNELS_BLOCK_K_SEARCH_H_
