#include <immintrin.h>

#include "kernels/lowbit_levels.h"

#define LOWBIT_QUAD quad_avx512

typedef int32_t quad_ints __attribute__((vector_size(64)));
typedef uint32_t quad_bits __attribute__((vector_size(64)));

// The products of four codes below 16 in each lane with four inputs: sums of two products are at
// most 2 * 15 * 128, so that the 16 bits in between hold them.
static inline __attribute__((always_inline)) __m512i four_products(__m512i codes, __m512i values)
{
    return _mm512_madd_epi16(_mm512_maddubs_epi16(codes, values), _mm512_set1_epi16(1));
}

// Codes of 8 bits go as two of 4 bits, which keeps their products exact.
static inline __attribute__((always_inline)) void quad_avx512(quad_ints *sums,
                                                              const quad_bits *from, unsigned low,
                                                              unsigned bits, unsigned digits,
                                                              const int8_t *values)
{
    const unsigned part = bits == 8 ? 4 : bits;
    const quad_bits codes = *from >> low & ((1u << part) - 1) * 0x01010101u;
    const quad_bits high = *from >> 4 & 0x0f0f0f0f;
    for (unsigned d = 0; d < digits; d++) {
        int32_t four;
        __builtin_memcpy(&four, values + 4 * d, sizeof(four));
        const __m512i x = _mm512_set1_epi32(four);
        sums[d] += (quad_ints) four_products((__m512i) codes, x);
        if (bits == 8)
            sums[d] += (quad_ints) four_products((__m512i) high, x) * 16;
    }
}

#include "kernels/lowbit_loops.h"

const nyb_lowbit_ops nyb_lowbit_ops_avx512 = LOWBIT_OPS;
