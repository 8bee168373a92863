// rows_loops.h - the loops behind rows.h. Included once by each rows_<isa>.c, which is compiled with
// that instruction set's flags; everything here is static. Vectors travel by pointer: passing
// them by value would depend on the instruction set.
#ifndef NYB_KERNELS_ROWS_LOOPS_H_
#define NYB_KERNELS_ROWS_LOOPS_H_

#include <string.h>

#include "core/dtype.h"
#include "kernels/rows.h"

enum { LANES = 16, CHUNK = 4096 };

typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef uint32_t lane_bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t lane_halves __attribute__((vector_size(2 * LANES)));

#define INLINE static inline __attribute__((always_inline))

// Sixteen values from index `at` on.
INLINE void load(lanes *to, const unsigned char *from, size_t at, nyb_dtype dtype)
{
    if (dtype == NYB_F32) {
        memcpy(to, from + 4 * at, sizeof(*to));
        return;
    }
    lane_halves h;
    memcpy(&h, from + 2 * at, sizeof(h));
    const lane_bits wide = __builtin_convertvector(h, lane_bits);
    if (dtype == NYB_BF16) {
        *to = (lanes) (wide << 16);
        return;
    }
    // The exponent moves from a bias of 15 to one of 127; subnormal halves come out right too.
    const lanes magnitude = (lanes) ((wide & 0x7fff) << 13) * 0x1p112f;
    *to = (lanes) ((lane_bits) magnitude | (wide & 0x8000) << 16);
}

INLINE float one(const unsigned char *from, size_t at, nyb_dtype dtype)
{
    unsigned char bytes[4];
    float value;
    memcpy(bytes, from + at * (dtype == NYB_F32 ? 4 : 2), dtype == NYB_F32 ? 4 : 2);
    nyb_widen(&value, bytes, dtype, 1);
    return value;
}

// Halves are added to halves down to four lanes: the lanes' order is the same at every level.
INLINE double sum(const lanes *v)
{
    float x[LANES];
    memcpy(x, v, sizeof(x));
    for (size_t half = LANES / 2; half >= 4; half /= 2) {
        for (size_t i = 0; i < half; i++)
            x[i] += x[i + half];
    }
    return ((double) x[0] + (double) x[1]) + ((double) x[2] + (double) x[3]);
}

// One row after the other: several side by side are several streams through memory, which is
// slower than the loads of x that they would share.
INLINE float multiply_row(const unsigned char *w, nyb_dtype dtype, size_t cols, const float *x)
{
    const size_t whole = cols - cols % (4 * LANES);
    double total = 0.0;
    lanes v, a;
    size_t j = 0;
    while (j < whole) {
        const size_t stop = whole - j > CHUNK ? j + CHUNK : whole;
        lanes part[4] = {{0}};
        for (; j < stop; j += 4 * LANES) {
            for (size_t k = 0; k < 4; k++) {
                load(&v, w, j + k * LANES, dtype);
                memcpy(&a, x + j + k * LANES, sizeof(a));
                part[k] += v * a;
            }
        }
        part[0] = (part[0] + part[1]) + (part[2] + part[3]);
        total += sum(&part[0]);
    }
    lanes rest = {0};
    for (; j + LANES <= cols; j += LANES) {
        load(&v, w, j, dtype);
        memcpy(&a, x + j, sizeof(a));
        rest += v * a;
    }
    total += sum(&rest);
    for (; j < cols; j++)
        total += (double) one(w, j, dtype) * (double) x[j];
    return (float) total;
}

INLINE void multiply_typed(float *y, const unsigned char *w, nyb_dtype dtype, size_t rows,
                           size_t cols, const float *x)
{
    const size_t stride = cols * (dtype == NYB_F32 ? 4 : 2);
    for (size_t i = 0; i < rows; i++)
        y[i] = multiply_row(w + i * stride, dtype, cols, x);
}

static void multiply(float *y, const void *w, nyb_dtype dtype, size_t rows, size_t cols,
                     const float *x)
{
    if (dtype == NYB_F32)
        multiply_typed(y, w, NYB_F32, rows, cols, x);
    else if (dtype == NYB_BF16)
        multiply_typed(y, w, NYB_BF16, rows, cols, x);
    else
        multiply_typed(y, w, NYB_F16, rows, cols, x);
}

static void widen(float *to, const void *from, nyb_dtype dtype, size_t n)
{
    size_t i = 0;
    lanes v;
    for (; i + LANES <= n; i += LANES) {
        load(&v, from, i, dtype);
        memcpy(to + i, &v, sizeof(v));
    }
    for (; i < n; i++)
        to[i] = one(from, i, dtype);
}

// Whether all bits of the exponent are set.
INLINE uint32_t is_wild(const unsigned char *at, size_t i, nyb_dtype dtype)
{
    if (dtype == NYB_F32) {
        uint32_t bits;
        memcpy(&bits, at + 4 * i, sizeof(bits));
        return (bits & 0x7f800000) == 0x7f800000;
    }
    const uint16_t mask = dtype == NYB_BF16 ? 0x7f80 : 0x7c00;
    uint16_t bits;
    memcpy(&bits, at + 2 * i, sizeof(bits));
    return (bits & mask) == mask;
}

INLINE size_t find_wild(const unsigned char *at, nyb_dtype dtype, size_t n)
{
    size_t i = 0;
    for (; i + CHUNK <= n; i += CHUNK) {
        uint32_t found = 0;
        for (size_t j = i; j < i + CHUNK; j++)
            found |= is_wild(at, j, dtype);
        if (found)
            break;
    }
    while (i < n && !is_wild(at, i, dtype))
        i++;
    return i;
}

static size_t first_not_finite(const void *at, nyb_dtype dtype, size_t n)
{
    if (dtype == NYB_F32)
        return find_wild(at, NYB_F32, n);
    if (dtype == NYB_BF16)
        return find_wild(at, NYB_BF16, n);
    return find_wild(at, NYB_F16, n);
}

#define ROWS_OPS                                                                                   \
    {                                                                                              \
        .multiply = multiply, .widen = widen, .first_not_finite = first_not_finite                 \
    }

#endif // NYB_KERNELS_ROWS_LOOPS_H_
