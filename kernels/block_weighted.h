// block_weighted.h - rounding where the square of each value's error has a weight: the searches and
// constants that ggml takes with an importance matrix. Included once by each level.
#ifndef NYB_KERNELS_BLOCK_WEIGHTED_H_
#define NYB_KERNELS_BLOCK_WEIGHTED_H_

#include "kernels/block_k_search.h"

// Mean of the squares.
static inline float mean_square(const float *x, size_t count)
{
    float sum = 0.0f;
    for (size_t i = 0; i < count; i++)
        sum += x[i] * x[i];
    return sum / (float) count;
}

// A value's importance counts with its size, which `level` (a square) keeps from vanishing.
static inline void weigh(float *out, const float *x, const float *importance, size_t count,
                         float level)
{
    for (size_t i = 0; i < count; i++)
        out[i] = importance[i] * sqrtf(level + x[i] * x[i]);
}

static inline float sum_of(const float *values, size_t count)
{
    float sum = 0.0f;
    for (size_t i = 0; i < count; i++)
        sum += values[i];
    return sum;
}

// ---- Blocks of 32 -----------------------------------------------------------------------------

static void weighted_even(unsigned char *head, int *q, weighed v, int top)
{
    put_half(head, search_even(v, q, top));
    for (size_t i = 0; i < v.count; i++)
        q[i] += top;
}

static void weighted_affine(unsigned char *head, int *q, weighed v, int top)
{
    const affine_rule rule = {
        .values = v.count, .top = top, .first = -0.9f, .by = 0.05f, .steps = 36};
    const affine found = search_affine(&rule, v.x, v.weights, q);
    put_half(head, found.scale);
    put_half(head + 2, -found.min);
}

// Each block of a row that has `count` of them: weighs its values and rounds to q.
#define WEIGHTED_32(name, stride, round, top, lay)                                                 \
    static void name(void *blocks, const float *x, const float *importance, size_t count)          \
    {                                                                                              \
        const float level = mean_square(x, count * VALUES);                                        \
        unsigned char *at = blocks;                                                                \
        for (; count > 0; count--, at += (stride), x += VALUES, importance += VALUES) {            \
            float weights[VALUES];                                                                 \
            int q[VALUES];                                                                         \
            weigh(weights, x, importance, VALUES, level);                                          \
            round(at, q, (weighed){x, weights, VALUES}, top);                                      \
            lay;                                                                                   \
        }                                                                                          \
    }

WEIGHTED_32(weighted_q4_0, 18, weighted_even, 8, put_nibbles(at + 2, q))
WEIGHTED_32(weighted_q4_1, 20, weighted_affine, 15, put_nibbles(at + 4, q))
WEIGHTED_32(weighted_q5_0, 22, weighted_even, 16, (put_fifth(at + 2, q), put_nibbles(at + 6, q)))
WEIGHTED_32(weighted_q5_1, 24, weighted_affine, 31, (put_fifth(at + 4, q), put_nibbles(at + 8, q)))

static void weighted_q8_0(void *blocks, const float *x, const float *importance, size_t count)
{
    (void) importance; // the steps are too small for it to matter
    put_q8_0(blocks, x, count);
}

// ---- Scales of parts --------------------------------------------------------------------------

// Rounds values >= 0 to whole multiples in [0, top] of the number that is returned.
static float round_scales(const float *x, const float *weights, size_t count, int top, int *whole)
{
    float most = 0.0f;
    for (size_t i = 0; i < count; i++)
        most = x[i] > most ? x[i] : most;
    if (most < part_of_nothing) {
        memset(whole, 0, count * sizeof(*whole));
        return 0.0f;
    }
    float best_inverse = 0.0f, best = INFINITY;
    static const int steps[] = {0, -4, -3, -2, -1, 1, 2, 3, 4};
    for (size_t s = 0; s < sizeof(steps) / sizeof(steps[0]); s++) {
        const float inverse = (0.1f * (float) steps[s] + (float) top) / most;
        const float scale = 1.0f / inverse;
        float error = 0.0f;
        for (size_t i = 0; i < count; i++) {
            const float off = x[i] - scale * (float) nearest(inverse * x[i], 0, top);
            error += weights[i] * off * off;
        }
        if (error < best) {
            best = error;
            best_inverse = inverse;
        }
    }
    float xl = 0.0f, ll = 0.0f;
    for (size_t i = 0; i < count; i++) {
        whole[i] = nearest(best_inverse * x[i], 0, top);
        const float l = (float) whole[i];
        xl += weights[i] * x[i] * l;
        ll += weights[i] * l * l;
    }
    bool moved = true;
    for (int round = 0; round < 5 && moved; round++) {
        moved = false;
        for (size_t i = 0; i < count; i++) {
            const float w = weights[i], old = (float) whole[i];
            float try_xl = xl - w * x[i] * old, try_ll = ll - w * old * old;
            if (!(try_xl > 0.0f && try_ll > 0.0f))
                continue;
            const int code = nearest(x[i] * try_ll / try_xl, 0, top);
            if (code == whole[i])
                continue;
            try_xl += w * x[i] * (float) code;
            try_ll += w * (float) code * (float) code;
            if (try_xl * try_xl * ll > xl * xl * try_ll) {
                whole[i] = code;
                xl = try_xl;
                ll = try_ll;
                moved = true;
            }
        }
    }
    return ll > 0.0f ? xl / ll : 0.0f;
}

// ---- K types ----------------------------------------------------------------------------------

// The weighted scale and minimum of each part, and both rounded to [0, most].
typedef struct parts_found {
    int scales[16], mins[16];
    float unit, min_unit;
} parts_found;

static inline void find_parts(const affine_rule *r, const float *x, const float *importance,
                              float level, int most, int *q, parts_found *out)
{
    const size_t parts = K_VALUES / r->values;
    float scales[16], mins[16], sums[16], weights[PART_MOST];
    for (size_t j = 0; j < parts; j++) {
        const float *const part = x + r->values * j;
        weigh(weights, part, importance + r->values * j, r->values, level);
        sums[j] = sum_of(weights, r->values);
        const affine found = search_affine(r, part, weights, q + r->values * j);
        scales[j] = found.scale;
        mins[j] = found.min;
    }
    out->unit = round_scales(scales, sums, parts, most, out->scales);
    out->min_unit = round_scales(mins, sums, parts, most, out->mins);
}

static inline void settle_parts(const affine_rule *r, const float *x, int *q, const parts_found *f,
                                const unsigned char *units)
{
    const float d = half_at(units), low = half_at(units + 2);
    for (size_t j = 0; j < K_VALUES / r->values; j++)
        settle_affine(r, x + r->values * j, q + r->values * j, d * (float) f->scales[j],
                      low * (float) f->mins[j]);
}

static inline void weighted_eight(unsigned char *head, int *q, const float *x,
                                  const float *importance, const affine_rule *r)
{
    parts_found found;
    find_parts(r, x, importance, 2.0f * mean_square(x, K_VALUES), 63, q, &found);
    memset(head + 4, 0, 12);
    for (size_t j = 0; j < 8; j++)
        put_scale_min(head + 4, j, found.scales[j], found.mins[j]);
    put_half(head, found.unit);
    put_half(head + 2, found.min_unit);
    settle_parts(r, x, q, &found, head);
}

static void weighted_q4_k(void *blocks, const float *x, const float *importance, size_t count)
{
    static const affine_rule rule = {
        .values = 32, .top = 15, .first = -0.9f, .by = 0.05f, .steps = 36};
    unsigned char *at = blocks;
    for (; count > 0; count--, at += 144, x += K_VALUES, importance += K_VALUES) {
        int q[K_VALUES];
        weighted_eight(at, q, x, importance, &rule);
        put_quarters(at + 16, q);
        refuse_huge(at, x);
    }
}

static void weighted_q5_k(void *blocks, const float *x, const float *importance, size_t count)
{
    static const affine_rule rule = {
        .values = 32, .top = 31, .first = -0.9f, .by = 0.05f, .steps = 36};
    unsigned char *at = blocks;
    for (; count > 0; count--, at += 176, x += K_VALUES, importance += K_VALUES) {
        int q[K_VALUES];
        weighted_eight(at, q, x, importance, &rule);
        lay_q5_k(at, q);
        refuse_huge(at, x);
    }
}

static void weighted_q2_k(void *blocks, const float *x, const float *importance, size_t count)
{
    static const affine_rule rule = {
        .values = 16, .top = 3, .first = -0.9f, .by = 0.05f, .steps = 36};
    unsigned char *at = blocks;
    for (; count > 0; count--, at += 84, x += K_VALUES, importance += K_VALUES) {
        int q[K_VALUES];
        parts_found found;
        find_parts(&rule, x, importance, mean_square(x, K_VALUES), 15, q, &found);
        for (size_t j = 0; j < 16; j++)
            at[j] = (unsigned char) (found.scales[j] | found.mins[j] << 4);
        put_half(at + 80, found.unit);
        put_half(at + 82, found.min_unit);
        settle_parts(&rule, x, q, &found, at + 80);
        put_pairs(at + 16, q);
        refuse_huge(at + 80, x);
    }
}

static void weighted_q3_k(void *blocks, const float *x, const float *importance, size_t count)
{
    unsigned char *at = blocks;
    for (; count > 0; count--, at += 110, x += K_VALUES, importance += K_VALUES) {
        const float level = 2.0f * mean_square(x, K_VALUES);
        int q[K_VALUES], stored[16];
        float scales[16], sums[16], weights[16];
        for (size_t j = 0; j < 16; j++) {
            weigh(weights, x + 16 * j, importance + 16 * j, 16, level);
            sums[j] = sum_of(weights, 16);
            scales[j] = search_even((weighed){x + 16 * j, weights, 16}, q + 16 * j, 4);
        }
        memset(at, 0, 110);
        put_half(at + 108, search_even((weighed){scales, sums, 16}, stored, 32));
        const float d = half_at(at + 108);
        for (size_t j = 0; j < 16; j++) {
            put_scale_q3(at + 96, j, stored[j]);
            settle_even(x + 16 * j, q + 16 * j, d * (float) stored[j], 4);
        }
        for (size_t i = 0; i < K_VALUES; i++)
            q[i] += 4;
        lay_q3_k(at, q);
        refuse_huge(at + 108, x);
    }
}

static void weighted_q6_k(void *blocks, const float *x, const float *importance, size_t count)
{
    unsigned char *at = blocks;
    for (; count > 0; count--, at += 210, x += K_VALUES, importance += K_VALUES) {
        int q[K_VALUES];
        float scales[16];
        for (size_t j = 0; j < 16; j++)
            scales[j] = search_even((weighed){x + 16 * j, importance + 16 * j, 16}, q + 16 * j, 32);
        finish_q6_k(at, x, scales, q);
    }
}

#endif // NYB_KERNELS_BLOCK_WEIGHTED_H_
