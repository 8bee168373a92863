#include <immintrin.h>

#include "kernels/gemm_levels.h"
#include "kernels/gemm_pack_loops.h"

enum { ROWS = 6, COLS = 16, HALF = COLS / 2 };

#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 6")
#endif

// 6 x 16 results in 12 of the 16 registers.
static void multiply(size_t count, const uint32_t *a, const uint32_t *b, float *c, size_t stride,
                     float alpha, bool add)
{
    __m256 s[ROWS][2];
    UNROLL
    for (int i = 0; i < ROWS; i++)
        s[i][0] = s[i][1] = _mm256_setzero_ps();

    for (size_t k = 0; k < count; k++, a += ROWS, b += COLS) {
        const __m256 b0 = _mm256_castsi256_ps(_mm256_loadu_si256((const void *) b));
        const __m256 b1 = _mm256_castsi256_ps(_mm256_loadu_si256((const void *) (b + HALF)));
        UNROLL
        for (int i = 0; i < ROWS; i++) {
            const __m256 x = _mm256_castsi256_ps(_mm256_set1_epi32((int) a[i]));
            s[i][0] = _mm256_fmadd_ps(x, b0, s[i][0]);
            s[i][1] = _mm256_fmadd_ps(x, b1, s[i][1]);
        }
    }

    const __m256 factor = _mm256_set1_ps(alpha);
    UNROLL
    for (int i = 0; i < ROWS; i++) {
        float *const at = c + (size_t) i * stride;
        __m256 left = _mm256_mul_ps(s[i][0], factor), right = _mm256_mul_ps(s[i][1], factor);
        if (add) {
            left = _mm256_add_ps(left, _mm256_loadu_ps(at));
            right = _mm256_add_ps(right, _mm256_loadu_ps(at + HALF));
        }
        _mm256_storeu_ps(at, left);
        _mm256_storeu_ps(at + HALF, right);
    }
}

static void pack(uint32_t *to, const nyb_operand *from, const nyb_pack_part *part)
{
    pack_panel(to, from, part, CONTENT_FLOAT);
}

static void pack_rounded(uint32_t *to, const nyb_operand *from, const nyb_pack_part *part)
{
    pack_panel(to, from, part, CONTENT_ROUNDED);
}

const nyb_gemm nyb_gemm_avx2 = {
    .a_width = ROWS, .b_width = COLS, .step = 1, .pack = pack, .multiply = multiply};
const nyb_gemm nyb_gemm_rounded_avx2 = {
    .a_width = ROWS, .b_width = COLS, .step = 1, .pack = pack_rounded, .multiply = multiply};
