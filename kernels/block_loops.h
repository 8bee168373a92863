// block_loops.h - the block types of 32 values. Included once by each level's source, so that the
// same C becomes code for each instruction set.
#ifndef NYB_KERNELS_BLOCK_LOOPS_H_
#define NYB_KERNELS_BLOCK_LOOPS_H_

#include <math.h>
#include <string.h>

#include "core/dtype.h"

enum { VALUES = 32, HALF = VALUES / 2 }; // of a block; bytes of its nibbles

typedef float half_floats __attribute__((vector_size(4 * HALF)));
typedef int32_t half_ints __attribute__((vector_size(4 * HALF)));
typedef int8_t half_bytes __attribute__((vector_size(HALF)));

static inline float half_at(const unsigned char *at)
{
    uint16_t half;
    memcpy(&half, at, sizeof(half));
    return nyb_f32_of_f16(half);
}

static inline void put_half(unsigned char *at, float value)
{
    const uint16_t half = nyb_f16_of_f32(value);
    memcpy(at, &half, sizeof(half));
}

// ---- Reading --------------------------------------------------------------------------------

// Codes of a block of nibbles: value j in the low one of byte j, value j + 16 in its high one.
static inline void get_nibbles(int *q, const unsigned char *at)
{
    for (size_t j = 0; j < HALF; j++) {
        q[j] = at[j] & 15;
        q[j + HALF] = at[j] >> 4;
    }
}

// Adds the fifth bits: bit j of the four bytes is value j's.
static inline void get_fifth(int *q, const unsigned char *at)
{
    uint32_t bits;
    memcpy(&bits, at, sizeof(bits));
    for (unsigned j = 0; j < VALUES; j++)
        q[j] |= (int) (bits >> j & 1) << 4;
}

static inline void codes_q5(int *q, const unsigned char *nibbles, const unsigned char *fifth)
{
    get_nibbles(q, nibbles);
    get_fifth(q, fifth);
}

static void get_q4_0(float *out, const void *blocks, size_t count)
{
    const unsigned char *at = blocks;
    for (; count > 0; count--, at += 18, out += VALUES) {
        const float d = half_at(at);
        int q[VALUES];
        get_nibbles(q, at + 2);
        for (size_t j = 0; j < VALUES; j++)
            out[j] = d * (float) (q[j] - 8);
    }
}

static void get_q4_1(float *out, const void *blocks, size_t count)
{
    const unsigned char *at = blocks;
    for (; count > 0; count--, at += 20, out += VALUES) {
        const float d = half_at(at), m = half_at(at + 2);
        int q[VALUES];
        get_nibbles(q, at + 4);
        for (size_t j = 0; j < VALUES; j++)
            out[j] = d * (float) q[j] + m;
    }
}

static void get_q5_0(float *out, const void *blocks, size_t count)
{
    const unsigned char *at = blocks;
    for (; count > 0; count--, at += 22, out += VALUES) {
        const float d = half_at(at);
        int q[VALUES];
        codes_q5(q, at + 6, at + 2);
        for (size_t j = 0; j < VALUES; j++)
            out[j] = d * (float) (q[j] - 16);
    }
}

static void get_q5_1(float *out, const void *blocks, size_t count)
{
    const unsigned char *at = blocks;
    for (; count > 0; count--, at += 24, out += VALUES) {
        const float d = half_at(at), m = half_at(at + 2);
        int q[VALUES];
        codes_q5(q, at + 8, at + 4);
        for (size_t j = 0; j < VALUES; j++)
            out[j] = d * (float) q[j] + m;
    }
}

static void get_q8_0(float *out, const void *blocks, size_t count)
{
    const unsigned char *at = blocks;
    for (; count > 0; count--, at += 34, out += VALUES) {
        const float d = half_at(at);
        int8_t q[VALUES];
        memcpy(q, at + 2, sizeof(q));
        for (size_t j = 0; j < VALUES; j++)
            out[j] = d * (float) q[j];
    }
}

static void get_iq4_nl(float *out, const void *blocks, size_t count)
{
    static const int8_t points[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};
    const unsigned char *at = blocks;
    for (; count > 0; count--, at += 18, out += VALUES) {
        const float d = half_at(at);
        int q[VALUES];
        get_nibbles(q, at + 2);
        for (size_t j = 0; j < VALUES; j++)
            out[j] = d * (float) points[q[j]];
    }
}

// The points are E2M1's doubled, so the block's power of two is half of 2^(e - 127). Exponents 0
// and 1 make it subnormal.
static void get_mxfp4(float *out, const void *blocks, size_t count)
{
    static const int8_t points[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    const unsigned char *at = blocks;
    for (; count > 0; count--, at += 17, out += VALUES) {
        const uint32_t e = at[0];
        const float d = nyb_f32_of_bits(e < 2 ? 0x200000u << e : (e - 1) << 23);
        int q[VALUES];
        get_nibbles(q, at + 1);
        for (size_t j = 0; j < VALUES; j++)
            out[j] = d * (float) points[q[j]];
    }
}

// ---- Writing --------------------------------------------------------------------------------

// The bits of the magnitudes, which are in the order of the magnitudes; returns the largest.
static inline uint32_t magnitudes(uint32_t *bits, const float *x)
{
    uint32_t top = 0;
    memcpy(bits, x, VALUES * sizeof(*bits));
    for (size_t j = 0; j < VALUES; j++) {
        bits[j] &= INT32_MAX;
        top = bits[j] > top ? bits[j] : top;
    }
    return top;
}

static inline float largest_magnitude(const float *x)
{
    uint32_t bits[VALUES];
    return nyb_f32_of_bits(magnitudes(bits, x));
}

// The first value of the largest magnitude, with its sign.
static inline float extreme(const float *x)
{
    uint32_t bits[VALUES], found = 0;
    const uint32_t top = magnitudes(bits, x);
    for (unsigned j = 0; j < VALUES; j++)
        found |= (uint32_t) (bits[j] == top) << j;
    return x[__builtin_ctz(found)];
}

static inline void range_of(const float *x, float *low, float *high)
{
    float down[HALF], up[HALF];
    for (size_t j = 0; j < HALF; j++) {
        down[j] = x[j + HALF] < x[j] ? x[j + HALF] : x[j];
        up[j] = x[j + HALF] > x[j] ? x[j + HALF] : x[j];
    }
    for (size_t step = HALF / 2; step > 0; step /= 2) {
        for (size_t j = 0; j < step; j++) {
            down[j] = down[j] < down[j + step] ? down[j] : down[j + step];
            up[j] = up[j] > up[j + step] ? up[j] : up[j + step];
        }
    }
    *low = down[0];
    *high = up[0];
}

static inline float inverse_of(float d)
{
    return d != 0.0f ? 1.0f / d : 0.0f;
}

// Codes trunc((x - low) * inverse + shift), kept in [0, top]. The choices also settle what a NaN
// becomes, which 0 times the inverse of a subnormal scale gives.
static inline void round_codes(int *q, const float *x, float low, float inverse, float shift,
                               float top)
{
    for (size_t j = 0; j < VALUES; j++) {
        float v = (x[j] - low) * inverse + shift;
        v = v > 0.0f ? v : 0.0f;
        v = v < top ? v : top;
        q[j] = (int) v;
    }
}

static inline void put_nibbles(unsigned char *at, const int *q)
{
    for (size_t j = 0; j < HALF; j++)
        at[j] = (unsigned char) ((q[j] & 15) | (q[j + HALF] & 15) << 4);
}

static inline void put_fifth(unsigned char *at, const int *q)
{
    uint32_t bits = 0;
    for (unsigned j = 0; j < VALUES; j++)
        bits |= (uint32_t) (q[j] >> 4 & 1) << j;
    memcpy(at, &bits, sizeof(bits));
}

static void put_q4_0(void *blocks, const float *x, size_t count)
{
    unsigned char *at = blocks;
    for (; count > 0; count--, at += 18, x += VALUES) {
        const float d = extreme(x) / -8.0f;
        int q[VALUES];
        round_codes(q, x, 0.0f, inverse_of(d), 8.5f, 15.0f);
        put_half(at, d);
        put_nibbles(at + 2, q);
    }
}

static void put_q4_1(void *blocks, const float *x, size_t count)
{
    unsigned char *at = blocks;
    for (; count > 0; count--, at += 20, x += VALUES) {
        float low, high;
        range_of(x, &low, &high);
        const float d = (high - low) / 15.0f;
        int q[VALUES];
        round_codes(q, x, low, inverse_of(d), 0.5f, 15.0f);
        put_half(at, d);
        put_half(at + 2, low);
        put_nibbles(at + 4, q);
    }
}

static void put_q5_0(void *blocks, const float *x, size_t count)
{
    unsigned char *at = blocks;
    for (; count > 0; count--, at += 22, x += VALUES) {
        const float d = extreme(x) / -16.0f;
        int q[VALUES];
        round_codes(q, x, 0.0f, inverse_of(d), 16.5f, 31.0f);
        put_half(at, d);
        put_fifth(at + 2, q);
        put_nibbles(at + 6, q);
    }
}

static void put_q5_1(void *blocks, const float *x, size_t count)
{
    unsigned char *at = blocks;
    for (; count > 0; count--, at += 24, x += VALUES) {
        float low, high;
        range_of(x, &low, &high);
        const float d = (high - low) / 31.0f;
        int q[VALUES];
        round_codes(q, x, low, inverse_of(d), 0.5f, 31.0f);
        put_half(at, d);
        put_half(at + 2, low);
        put_fifth(at + 4, q);
        put_nibbles(at + 8, q);
    }
}

// Half a block of 8-bit codes. Rounds halves away from 0: the fraction behind the truncated magnitude
// decides.
static inline void round_eighths(unsigned char *at, const float *x, float inverse)
{
    half_floats v;
    memcpy(&v, x, sizeof(v));
    v = v * inverse;
    const half_ints negative = v < 0.0f;
    half_floats a = (half_floats) ((half_ints) v & INT32_MAX);
    const half_ints below = a < 127.0f;
    a = (half_floats) (((half_ints) a & below) |
                       ((half_ints) ((half_floats){0} + 127.0f) & ~below));
    const half_ints whole = __builtin_convertvector(a, half_ints);
    const half_ints up = a - __builtin_convertvector(whole, half_floats) >= 0.5f; // -1 where true
    const half_bytes q = __builtin_convertvector(((whole - up) ^ negative) - negative, half_bytes);
    memcpy(at, &q, sizeof(q));
}

static void put_q8_0(void *blocks, const float *x, size_t count)
{
    unsigned char *at = blocks;
    for (; count > 0; count--, at += 34, x += VALUES) {
        const float d = largest_magnitude(x) / 127.0f, inverse = inverse_of(d);
        put_half(at, d);
        round_eighths(at + 2, x, inverse);
        round_eighths(at + 2 + HALF, x + HALF, inverse);
    }
}

#endif // NYB_KERNELS_BLOCK_LOOPS_H_
