// gemm_avx512_loops.h - the innermost loop of 512-bit products: 8 x 32 results in 16 registers.
// Included by gemm_avx512.c and gemm_avx512bf16.c, which say what MULTIPLY_ADD and
// POWER_COEFFICIENTS are.
#ifndef NYB_KERNELS_GEMM_AVX512_LOOPS_H_
#define NYB_KERNELS_GEMM_AVX512_LOOPS_H_

#include <immintrin.h>
#include <math.h>

#include "kernels/gemm_pack_loops.h"

enum { ROWS = 8, COLS = 32, WIDE = COLS / LANES };

#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

static void multiply(size_t count, const uint32_t *a, const uint32_t *b, float *c, size_t stride,
                     float alpha, bool add)
{
    __m512 s[ROWS][WIDE];
    UNROLL
    for (int i = 0; i < ROWS; i++)
        UNROLL
    for (int j = 0; j < WIDE; j++)
        s[i][j] = _mm512_setzero_ps();

    for (size_t k = 0; k < count; k++, a += COLS, b += COLS) {
        __m512i y[WIDE];
        UNROLL
        for (int j = 0; j < WIDE; j++)
            y[j] = _mm512_loadu_si512(b + j * LANES);
        UNROLL
        for (int i = 0; i < ROWS; i++) {
            const __m512i x = _mm512_set1_epi32((int) a[i]);
            UNROLL
            for (int j = 0; j < WIDE; j++)
                s[i][j] = MULTIPLY_ADD(s[i][j], x, y[j]);
        }
    }

    const __m512 factor = _mm512_set1_ps(alpha);
    UNROLL
    for (int i = 0; i < ROWS; i++) {
        UNROLL
        for (int j = 0; j < WIDE; j++) {
            float *const at = c + (size_t) i * stride + j * LANES;
            __m512 sum = _mm512_mul_ps(s[i][j], factor);
            if (add)
                sum = _mm512_add_ps(sum, _mm512_loadu_ps(at));
            _mm512_storeu_ps(at, sum);
        }
    }
}

static inline __mmask16 mask_of(size_t n)
{
    return (__mmask16) (n >= LANES ? 0xffff : (1u << n) - 1);
}

static float largest(const float *x, size_t n)
{
    const __m512 none = _mm512_set1_ps(-INFINITY);
    __m512 top[2] = {none, none};
    size_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        top[0] = _mm512_max_ps(top[0], _mm512_loadu_ps(x + i));
        top[1] = _mm512_max_ps(top[1], _mm512_loadu_ps(x + i + LANES));
    }
    for (; i < n; i += LANES)
        top[0] = _mm512_max_ps(top[0], _mm512_mask_loadu_ps(none, mask_of(n - i), x + i));
    return _mm512_reduce_max_ps(_mm512_max_ps(top[0], top[1]));
}

// 2^y = 2^round(y) 2^f: the second factor is the polynomial with the least relative error on
// |f| <= 1/2, which is 7.5e-8 with six coefficients and 7.5e-5 with four.
static inline __m512 power_of_two(__m512 y)
{
    static const float coefficients[] = POWER_COEFFICIENTS;
    enum { COUNT = sizeof(coefficients) / sizeof(coefficients[0]) };
    const __m512 n = _mm512_roundscale_ps(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 f = _mm512_sub_ps(y, n);
    __m512 p = _mm512_set1_ps(coefficients[COUNT - 1]);
    UNROLL
    for (int i = COUNT - 2; i >= 0; i--)
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(coefficients[i]));
    return _mm512_scalef_ps(p, n);
}

static double exponentials(float *x, size_t n, float top)
{
    const __m512 shift = _mm512_set1_ps(top), per_two = _mm512_set1_ps(0x1.715476p0f);
    __m512 sum = _mm512_setzero_ps();
    for (size_t i = 0; i < n; i += LANES) {
        const __mmask16 mask = mask_of(n - i);
        const __m512 off = _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + i), shift);
        const __m512 y = power_of_two(_mm512_mul_ps(off, per_two));
        _mm512_mask_storeu_ps(x + i, mask, y);
        sum = _mm512_mask_add_ps(sum, mask, sum, y);
    }
    return (double) _mm512_reduce_add_ps(sum);
}

#endif // NYB_KERNELS_GEMM_AVX512_LOOPS_H_
