#include <immintrin.h>

#include "kernels/gemm_levels.h"
#include "kernels/gemm_pack_loops.h"

enum { ROWS = 4, COLS = 16, HALF = 8, WIDE = COLS / HALF };

#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 4")
#endif

// 4 x 16 results in 8 of the 16 registers.
static void multiply(size_t count, const uint32_t *a, const uint32_t *b, float *c, size_t stride,
                     float alpha, bool add)
{
    __m256 s[ROWS][WIDE];
    UNROLL
    for (int i = 0; i < ROWS; i++)
        UNROLL
    for (int j = 0; j < WIDE; j++)
        s[i][j] = _mm256_setzero_ps();

    for (size_t k = 0; k < count; k++, a += COLS, b += COLS) {
        __m256 y[WIDE];
        UNROLL
        for (int j = 0; j < WIDE; j++)
            y[j] = _mm256_castsi256_ps(_mm256_loadu_si256((const void *) (b + j * HALF)));
        UNROLL
        for (int i = 0; i < ROWS; i++) {
            const __m256 x = _mm256_castsi256_ps(_mm256_set1_epi32((int) a[i]));
            UNROLL
            for (int j = 0; j < WIDE; j++)
                s[i][j] = _mm256_fmadd_ps(x, y[j], s[i][j]);
        }
    }

    const __m256 factor = _mm256_set1_ps(alpha);
    UNROLL
    for (int i = 0; i < ROWS; i++) {
        UNROLL
        for (int j = 0; j < WIDE; j++) {
            float *const at = c + (size_t) i * stride + j * HALF;
            __m256 sum = _mm256_mul_ps(s[i][j], factor);
            if (add)
                sum = _mm256_add_ps(sum, _mm256_loadu_ps(at));
            _mm256_storeu_ps(at, sum);
        }
    }
}

static void pack(uint32_t *to, const nyb_operand *from, const nyb_pack_part *part)
{
    pack_panel(to, from, part, COLS, CONTENT_FLOAT);
}

static void pack_rounded(uint32_t *to, const nyb_operand *from, const nyb_pack_part *part)
{
    pack_panel(to, from, part, COLS, CONTENT_ROUNDED);
}

const nyb_gemm nyb_gemm_avx2 = {
    .width = COLS, .height = ROWS, .step = 1, .pack = pack, .multiply = multiply};
const nyb_gemm nyb_gemm_rounded_avx2 = {
    .width = COLS, .height = ROWS, .step = 1, .pack = pack_rounded, .multiply = multiply};
