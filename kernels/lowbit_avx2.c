#include <immintrin.h>

#include "kernels/lowbit_levels.h"

// Half a tile: with more the sums would not stay in registers.
#define LOWBIT_LANES 8
#define LOWBIT_QUAD  quad_avx2

typedef int32_t quad_ints __attribute__((vector_size(32)));
typedef uint32_t quad_bits __attribute__((vector_size(32)));

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
        sums[d] += (quad_ints) four_products((__m256i) codes, x);
        if (bits == 8)
            sums[d] += (quad_ints) four_products((__m256i) high, x) * 16;
    }
}

#include "kernels/lowbit_loops.h"

const nyb_lowbit_ops nyb_lowbit_ops_avx2 = LOWBIT_OPS;
