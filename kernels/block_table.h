// block_table.h - the table of one level of block codecs, from the loops that it includes.
#ifndef NYB_KERNELS_BLOCK_TABLE_H_
#define NYB_KERNELS_BLOCK_TABLE_H_

#include "kernels/block_k_loops.h"
#include "kernels/block_k_search.h"
#include "kernels/block_loops.h"

#define BLOCK_CODECS                                                                               \
    {                                                                                              \
        {NYB_Q4_0, 0, 1, get_q4_0, put_q4_0}, {NYB_Q4_1, 0, 2, get_q4_1, put_q4_1},                \
            {NYB_Q5_0, 0, 1, get_q5_0, put_q5_0}, {NYB_Q5_1, 0, 2, get_q5_1, put_q5_1},            \
            {NYB_Q8_0, 0, 1, get_q8_0, put_q8_0}, {NYB_Q2_K, 80, 2, get_q2_k, put_q2_k},           \
            {NYB_Q3_K, 108, 1, get_q3_k, put_q3_k}, {NYB_Q4_K, 0, 2, get_q4_k, put_q4_k},          \
            {NYB_Q5_K, 0, 2, get_q5_k, put_q5_k}, {NYB_Q6_K, 208, 1, get_q6_k, put_q6_k},          \
            {NYB_IQ4_NL, 0, 1, get_iq4_nl, NULL}, {NYB_MXFP4, 0, 0, get_mxfp4, NULL},              \
    }

#endif // NYB_KERNELS_BLOCK_TABLE_H_
