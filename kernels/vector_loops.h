// vector_loops.h - the loops behind vector.h. Included once by each vector_<isa>.c, which is
// compiled with that instruction set's flags; everything here is static.
#ifndef NYB_KERNELS_VECTOR_LOOPS_H_
#define NYB_KERNELS_VECTOR_LOOPS_H_

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "core/dtype.h"
#include "kernels/vector.h"

enum { LANES = 16, CHUNK = 256 };

typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef uint32_t lane_bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t lane_halves __attribute__((vector_size(2 * LANES)));

// Vectors travel by pointer: passing them by value would depend on the instruction set.
static inline void load(lanes *v, const float *x)
{
    memcpy(v, x, sizeof(*v));
}

static inline void store(float *x, const lanes *v)
{
    memcpy(x, v, sizeof(*v));
}

// The first n < LANES elements, and `rest` in the others.
static inline void load_some(lanes *v, const float *x, size_t n, float rest)
{
    float full[LANES];
    for (size_t i = 0; i < LANES; i++)
        full[i] = i < n ? x[i] : rest;
    memcpy(v, full, sizeof(*v));
}

static inline void store_some(float *x, const lanes *v, size_t n)
{
    float full[LANES];
    memcpy(full, v, sizeof(full));
    memcpy(x, full, n * sizeof(float));
}

static inline double sum(const lanes *v)
{
    float x[LANES];
    memcpy(x, v, sizeof(x));
    double total = 0.0;
    for (size_t i = 0; i < LANES; i++)
        total += (double) x[i];
    return total;
}

// a where the mask is set, else b.
static inline void choose(lanes *out, const lane_bits *mask, const lanes *a, const lanes *b)
{
    *out = (lanes) ((*mask & (lane_bits) *a) | (~*mask & (lane_bits) *b));
}

static inline void at_least(lanes *x, const lanes *low)
{
    const lane_bits below = (lane_bits) (*x < *low);
    choose(x, &below, low, x);
}

static inline void at_most(lanes *x, const lanes *high)
{
    const lane_bits above = (lane_bits) (*x > *high);
    choose(x, &above, high, x);
}

// e^x within 1.5 units in the last place for x in [-86, 88]; x is limited to that range, in
// which the result is a normal number. With n = round(x / ln 2) and r = x - n ln 2,
// e^x = 2^n (1 + r + r^2 q(r)); q is the Chebyshev fit of degree 5 to (e^r - 1 - r) / r^2 on
// |r| <= ln 2 / 2 (relative error of the whole: 1e-9).
static inline void exponential(lanes *x)
{
    const lanes low = {-86.0f, -86.0f, -86.0f, -86.0f, -86.0f, -86.0f, -86.0f, -86.0f,
                       -86.0f, -86.0f, -86.0f, -86.0f, -86.0f, -86.0f, -86.0f, -86.0f};
    const lanes high = -low + 2.0f;
    at_least(x, &low);
    at_most(x, &high);

    // Adding 1.5 * 2^23 rounds to a whole number and leaves it in the low bits.
    const float shift = 0x1.8p23f;
    const lanes shifted = *x * 0x1.715476p0f + shift;
    const lanes n = shifted - shift;
    const lanes r = (*x - n * 0.693359375f) - n * -2.12194440e-4f; // ln 2 in two parts

    lanes q = r * 0x1.a151bcp-13f + 0x1.6d4366p-10f;
    q = q * r + 0x1.1110c6p-7f;
    q = q * r + 0x1.5554e8p-5f;
    q = q * r + 0x1.555556p-3f;
    q = q * r + 0.5f;
    const lanes y = (q * (r * r) + r) + 1.0f;
    *x = (lanes) ((lane_bits) y + ((lane_bits) shifted << 23));
}

static double square_sum(const float *x, size_t n)
{
    double total = 0.0;
    lanes v;
    size_t i = 0;
    while (i + LANES <= n) {
        const size_t stop = n - i > CHUNK ? i + CHUNK : n;
        lanes part = {0};
        for (; i + LANES <= stop; i += LANES) {
            load(&v, x + i);
            part += v * v;
        }
        total += sum(&part);
    }
    for (; i < n; i++)
        total += (double) x[i] * (double) x[i];
    return total;
}

static void rms_norm(float *y, const float *x, const float *gain, size_t n, double eps)
{
    const float inverse = (float) (1.0 / sqrt(square_sum(x, n) / (double) n + eps));
    lanes v, g;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        load(&v, x + i);
        load(&g, gain + i);
        v = g * (v * inverse);
        store(y + i, &v);
    }
    for (; i < n; i++)
        y[i] = gain[i] * (x[i] * inverse);
}

static inline void silu_gate_lanes(lanes *g, const lanes *u)
{
    lanes e = -*g;
    exponential(&e);
    *g = *g / (e + 1.0f) * *u;
}

static void silu_gate(float *gate, const float *up, size_t n)
{
    lanes g, u;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        load(&g, gate + i);
        load(&u, up + i);
        silu_gate_lanes(&g, &u);
        store(gate + i, &g);
    }
    if (i < n) {
        load_some(&g, gate + i, n - i, 0.0f);
        load_some(&u, up + i, n - i, 0.0f);
        silu_gate_lanes(&g, &u);
        store_some(gate + i, &g, n - i);
    }
}

static void rotate(float *x, const float *turn, size_t half)
{
    for (size_t i = 0; i < half; i++) {
        const float a = x[i], b = x[half + i];
        x[i] = a * turn[i] - b * turn[half + i];
        x[half + i] = b * turn[i] + a * turn[half + i];
    }
}

static float largest(const float *x, size_t n)
{
    lanes top, v;
    size_t i = 0;
    load_some(&top, x, n < LANES ? n : LANES - 1, x[0]);
    for (; i + LANES <= n; i += LANES) {
        load(&v, x + i);
        at_least(&top, &v);
    }
    float all[LANES];
    memcpy(all, &top, sizeof(all));
    float most = all[0];
    for (size_t l = 1; l < LANES; l++)
        most = all[l] > most ? all[l] : most;
    for (; i < n; i++)
        most = x[i] > most ? x[i] : most;
    return most;
}

// The sum of e^(x - top), whose terms go to `out` unless it is NULL.
static inline double exponentials_to(float *out, const float *x, size_t n, float top)
{
    double total = 0.0;
    lanes v;
    size_t i = 0;
    while (i + LANES <= n) {
        const size_t stop = n - i > CHUNK ? i + CHUNK : n;
        lanes part = {0};
        for (; i + LANES <= stop; i += LANES) {
            load(&v, x + i);
            v -= top;
            exponential(&v);
            part += v;
            if (out)
                store(out + i, &v);
        }
        total += sum(&part);
    }
    if (i < n) {
        float rest[LANES];
        load_some(&v, x + i, n - i, top);
        v -= top;
        exponential(&v);
        store(rest, &v);
        for (size_t l = 0; l < n - i; l++)
            total += (double) rest[l];
        if (out)
            memcpy(out + i, rest, (n - i) * sizeof(float));
    }
    return total;
}

static double exponentials(float *x, size_t n, float top)
{
    return exponentials_to(x, x, n, top);
}

static double softmax(float *x, size_t n)
{
    return exponentials_to(x, x, n, largest(x, n));
}

static double log_sum_exp(const float *x, size_t n)
{
    const float top = largest(x, n);
    return (double) top + log(exponentials_to(NULL, x, n, top));
}

static void add(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

static void add_scaled(float *y, const float *x, float factor, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += factor * x[i];
}

static void scale(float *x, float factor, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] *= factor;
}

static size_t first_not_finite(const float *x, size_t n)
{
    size_t i = 0;
    for (; i + CHUNK <= n; i += CHUNK) {
        uint32_t found = 0;
        for (size_t j = i; j < i + CHUNK; j++) {
            uint32_t bits;
            memcpy(&bits, x + j, sizeof(bits));
            found |= (bits & 0x7f800000) == 0x7f800000;
        }
        if (found)
            break;
    }
    while (i < n && isfinite(x[i]))
        i++;
    return i;
}

static size_t argmax(const float *x, size_t n)
{
    const float most = largest(x, n);
    for (size_t i = 0; i < n; i++) {
        if (x[i] == most)
            return i;
    }
    return 0; // a NaN came first
}

static void narrow(void *y, const float *x, size_t n)
{
    unsigned char *const to = y;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        lane_bits v;
        memcpy(&v, x + i, sizeof(v));
        const lane_bits nan = (lane_bits) ((v & 0x7fffffff) > 0x7f800000);
        const lane_bits up = v + 0x7fff + (v >> 16 & 1);
        const lane_halves out =
            __builtin_convertvector(((nan & (v | 0x400000)) | (~nan & up)) >> 16, lane_halves);
        memcpy(to + 2 * i, &out, sizeof(out));
    }
    nyb_narrow(to + 2 * i, NYB_BF16, x + i, n - i);
}

static void widen(float *y, const void *x, size_t n)
{
    const unsigned char *const from = x;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        lane_halves v;
        memcpy(&v, from + 2 * i, sizeof(v));
        const lane_bits out = __builtin_convertvector(v, lane_bits) << 16;
        memcpy(y + i, &out, sizeof(out));
    }
    nyb_widen(y + i, from + 2 * i, NYB_BF16, n - i);
}

#define VECTOR_OPS                                                                                 \
    {                                                                                              \
        .rms_norm = rms_norm, .silu_gate = silu_gate, .rotate = rotate, .softmax = softmax,        \
        .log_sum_exp = log_sum_exp, .add = add, .add_scaled = add_scaled, .scale = scale,          \
        .exponentials = exponentials, .largest = largest, .first_not_finite = first_not_finite,    \
        .argmax = argmax, .narrow = narrow, .widen = widen,                                        \
    }

#endif // NYB_KERNELS_VECTOR_LOOPS_H_
