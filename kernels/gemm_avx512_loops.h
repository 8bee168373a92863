// gemm_avx512_loops.h - the innermost loop of 512-bit products: 12 x 32 results in 24 registers.
// Included by gemm_avx512.c and gemm_avx512bf16.c, which say what MULTIPLY_ADD is.
#ifndef NYB_KERNELS_GEMM_AVX512_LOOPS_H_
#define NYB_KERNELS_GEMM_AVX512_LOOPS_H_

#include <immintrin.h>

#include "kernels/gemm_pack_loops.h"

enum { ROWS = 12, COLS = 32 };

#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 12")
#endif

static void multiply(size_t count, const uint32_t *a, const uint32_t *b, float *c, size_t stride,
                     float alpha, bool add)
{
    __m512 s[ROWS][2];
    UNROLL
    for (int i = 0; i < ROWS; i++)
        s[i][0] = s[i][1] = _mm512_setzero_ps();

    for (size_t k = 0; k < count; k++, a += ROWS, b += COLS) {
        const __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + LANES);
        UNROLL
        for (int i = 0; i < ROWS; i++) {
            const __m512i x = _mm512_set1_epi32((int) a[i]);
            s[i][0] = MULTIPLY_ADD(s[i][0], x, b0);
            s[i][1] = MULTIPLY_ADD(s[i][1], x, b1);
        }
    }

    const __m512 factor = _mm512_set1_ps(alpha);
    UNROLL
    for (int i = 0; i < ROWS; i++) {
        float *const at = c + (size_t) i * stride;
        __m512 left = _mm512_mul_ps(s[i][0], factor), right = _mm512_mul_ps(s[i][1], factor);
        if (add) {
            left = _mm512_add_ps(left, _mm512_loadu_ps(at));
            right = _mm512_add_ps(right, _mm512_loadu_ps(at + LANES));
        }
        _mm512_storeu_ps(at, left);
        _mm512_storeu_ps(at + LANES, right);
    }
}

#endif // NYB_KERNELS_GEMM_AVX512_LOOPS_H_
