// attend.h - attention of a tile of queries without the matrix of all scores.
//
// Source: Dao, Fu, Ermon, Rudra, Re, "FlashAttention: Fast and Memory-Efficient Exact Attention
//         with IO-Awareness", arXiv:2205.14135, algorithm 1; for the running maximum and sum
//         Milakov, Gimelshein, "Online normalizer calculation for softmax", arXiv:1805.02867.
#ifndef NYB_KERNELS_ATTEND_H_
#define NYB_KERNELS_ATTEND_H_

#include "kernels/gemm.h"
#include "kernels/vector.h"

enum { NYB_ATTEND_TILE = 256 }; // most queries of a call

// Some queries of the heads that share keys and values.
typedef struct nyb_attend {
    const nyb_gemm *gemm;
    const nyb_vector_ops *ops;
    float *q;             // head h's query i: q + h * head_step + i * stride, [dim]; the result
    size_t count, stride; // takes the queries' place. count <= NYB_ATTEND_TILE
    size_t heads, head_step;
    nyb_mat keys, values; // [*, dim]
    size_t first;         // the key at the first query's own place; first + count <= keys.rows
    size_t window;        // keys that a query sees: its own and those before it; 0: all of them
    float scale;          // of the scores
} nyb_attend;

// Words of scratch, aligned to NYB_ALIGN, that nyb_attend_run() takes for at most this many
// queries and heads.
size_t nyb_attend_words(const nyb_gemm *gemm, size_t count, size_t heads, size_t dim);

void nyb_attend_run(const nyb_attend *task, uint32_t *scratch);

#endif // NYB_KERNELS_ATTEND_H_
