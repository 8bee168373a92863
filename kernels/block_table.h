// block_table.h - the table of one level of block codecs, from the loops that it includes.
#ifndef NYB_KERNELS_BLOCK_TABLE_H_
#define NYB_KERNELS_BLOCK_TABLE_H_

#include "kernels/block_k_loops.h"
#include "kernels/block_k_search.h"
#include "kernels/block_loops.h"
#include "kernels/block_parts.h"
#include "kernels/block_weighted.h"

// A type that is read and written: its functions, and the part, bits, zero and minima of a block.
#define BLOCK_CODEC(dtype, half_at, halves, name, ...)                                             \
    {                                                                                              \
        dtype, half_at, halves, get_##name, put_##name, weighted_##name, part_##name, join_##name, \
            __VA_ARGS__                                                                            \
    }

#define BLOCK_CODECS                                                                               \
    {                                                                                              \
        BLOCK_CODEC(NYB_Q4_0, 0, 1, q4_0, 32, 4, 8, false),                                        \
            BLOCK_CODEC(NYB_Q4_1, 0, 2, q4_1, 32, 4, 0, true),                                     \
            BLOCK_CODEC(NYB_Q5_0, 0, 1, q5_0, 32, 5, 16, false),                                   \
            BLOCK_CODEC(NYB_Q5_1, 0, 2, q5_1, 32, 5, 0, true),                                     \
            BLOCK_CODEC(NYB_Q8_0, 0, 1, q8_0, 32, 8, 128, false),                                  \
            BLOCK_CODEC(NYB_Q2_K, 80, 2, q2_k, 16, 2, 0, true),                                    \
            BLOCK_CODEC(NYB_Q3_K, 108, 1, q3_k, 16, 3, 4, false),                                  \
            BLOCK_CODEC(NYB_Q4_K, 0, 2, q4_k, 32, 4, 0, true),                                     \
            BLOCK_CODEC(NYB_Q5_K, 0, 2, q5_k, 32, 5, 0, true),                                     \
            BLOCK_CODEC(NYB_Q6_K, 208, 1, q6_k, 16, 6, 32, false),                                 \
            {.dtype = NYB_IQ4_NL, .half_at = 0, .halves = 1, .dequantize = get_iq4_nl},            \
            {.dtype = NYB_MXFP4, .dequantize = get_mxfp4},                                         \
    }

#endif // NYB_KERNELS_BLOCK_TABLE_H_
