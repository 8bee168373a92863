#include <immintrin.h>

#include "kernels/lowbit_levels.h"

#define LOWBIT_QUAD quad_vnni

typedef int32_t quad_ints __attribute__((vector_size(64)));
typedef uint32_t quad_bits __attribute__((vector_size(64)));

// One instruction multiplies the four codes of each lane with the four inputs and adds all up,
// exactly: products of an unsigned and a signed byte do not saturate in 32 bits.
static inline __attribute__((always_inline)) void quad_vnni(quad_ints *sums, const quad_bits *from,
                                                            unsigned low, unsigned bits,
                                                            unsigned digits, const int8_t *values)
{
    const uint32_t mask = ((1u << bits) - 1) * 0x01010101u;
    const __m512i codes = (__m512i) (*from >> low & mask);
    for (unsigned d = 0; d < digits; d++) {
        int32_t four;
        __builtin_memcpy(&four, values + 4 * d, sizeof(four));
        sums[d] =
            (quad_ints) _mm512_dpbusd_epi32((__m512i) sums[d], codes, _mm512_set1_epi32(four));
    }
}

#include "kernels/lowbit_loops.h"

const nyb_lowbit_ops nyb_lowbit_ops_avx512vnni = LOWBIT_OPS;
