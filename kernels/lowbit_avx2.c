#include <immintrin.h>

#include "kernels/lowbit_levels.h"

#define LOWBIT_QUAD quad_avx2

typedef int32_t quad_ints __attribute__((vector_size(64)));
typedef uint32_t quad_bits __attribute__((vector_size(64)));

// The products of four codes below 16 in each lane with four inputs: sums of two products are at
// most 2 * 15 * 128, so that the 16 bits in between hold them.
static inline __attribute__((always_inline)) __m256i four_products(__m256i codes, __m256i values)
{
    return _mm256_madd_epi16(_mm256_maddubs_epi16(codes, values), _mm256_set1_epi16(1));
}

// Codes of 8 bits go as two of 4 bits, which keeps their products exact.
static inline __attribute__((always_inline)) void quad_avx2(quad_ints *sums, const quad_bits *from,
                                                            unsigned low, unsigned bits,
                                                            unsigned digits, const int8_t *values)
{
    const unsigned part = bits == 8 ? 4 : bits;
    const quad_bits codes = *from >> low & ((1u << part) - 1) * 0x01010101u;
    const quad_bits high = *from >> 4 & 0x0f0f0f0f;
    for (unsigned d = 0; d < digits; d++) {
        int32_t four;
        __builtin_memcpy(&four, values + 4 * d, sizeof(four));
        const __m256i x = _mm256_set1_epi32(four);
        for (unsigned h = 0; h < 2; h++) {
            __m256i *const to = (__m256i *) &sums[d] + h;
            const __m256i lows = four_products(((const __m256i *) &codes)[h], x);
            *to = _mm256_add_epi32(*to, lows);
            if (bits == 8)
                *to = _mm256_add_epi32(
                    *to, _mm256_slli_epi32(four_products(((const __m256i *) &high)[h], x), 4));
        }
    }
}

#include "kernels/lowbit_loops.h"

const nyb_lowbit_ops nyb_lowbit_ops_avx2 = LOWBIT_OPS;
