// tensor.h - element types, matrix views and named tensors. Views own nothing.
#ifndef NYB_TENSOR_H_
#define NYB_TENSOR_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nybble/status.h"

enum { NYB_MAX_RANK = 8 };

typedef enum nyb_dtype {
    NYB_F32 = 0,
    NYB_F16,
    NYB_BF16,
    NYB_F64,
    NYB_F8_E4M3, // E4M3FN: no infinities, largest value 448
    NYB_F8_E5M2,
    NYB_F8_E8M0, // powers of two, 2^(e - 127), for scales; 255 is NaN
    NYB_I8,
    NYB_U8,
    NYB_I16,
    NYB_U16,
    NYB_I32,
    NYB_U32,
    NYB_I64,
    NYB_U64,
    NYB_BOOL,
    NYB_DTYPE_COUNT, // of the types above, which have whole elements

    // ggml's block types: a fixed number of values along a row share scales and lie together.
    NYB_Q4_0 = NYB_DTYPE_COUNT,
    NYB_Q4_1,
    NYB_Q5_0,
    NYB_Q5_1,
    NYB_Q8_0,
    NYB_Q2_K,
    NYB_Q3_K,
    NYB_Q4_K,
    NYB_Q5_K,
    NYB_Q6_K,
    NYB_IQ4_NL,
    NYB_MXFP4,
    NYB_DTYPE_END // of all types
} nyb_dtype;

// Row-major f32 view: element (i, j) is at[i * stride + j].
typedef struct nyb_mat {
    float *at;
    size_t rows, cols;
    size_t stride; // elements from one row to the next, >= cols
} nyb_mat;

// How rows of q, k and v lie in a GGUF file, where that is not how a folder names them.
typedef struct nyb_row_order {
    size_t head; // rows of a head; 0: they lie as they are named
    // groups 0: the rows of every head lie in pairs, row i of its first half as row 2 i, row i of
    // its second as row 2 i + 1. Else the folder has `groups` of `queries` heads of q, one of k and
    // one of v, and the file first all of q, then all of k, then all of v.
    size_t groups, queries;
} nyb_row_order;

// A named, contiguous, row-major tensor whose bytes somebody else owns (usually a mapped file).
typedef struct nyb_tensor {
    const char *name;
    nyb_dtype dtype;
    unsigned rank;
    size_t shape[NYB_MAX_RANK];
    const void *at; // may be misaligned for its dtype: read fields with memcpy
    size_t bytes;
    nyb_row_order order;
} nyb_tensor;

static inline float *nyb_row(nyb_mat m, size_t row)
{
    return m.at + row * m.stride;
}

static inline nyb_mat nyb_mat_of(float *at, size_t rows, size_t cols)
{
    return (nyb_mat){.at = at, .rows = rows, .cols = cols, .stride = cols};
}

// Rows [r0, r1) and columns [c0, c1) of m.
static inline nyb_mat nyb_block(nyb_mat m, size_t r0, size_t r1, size_t c0, size_t c1)
{
    return (nyb_mat){
        .at = m.at + r0 * m.stride + c0, .rows = r1 - r0, .cols = c1 - c0, .stride = m.stride};
}

// Bytes of one element; 0 for a block type.
NYB_API size_t nyb_dtype_bytes(nyb_dtype dtype);

// Values and bytes of one block: 1 and the element's bytes for types that are not block types.
typedef struct nyb_block_size {
    size_t values, bytes;
} nyb_block_size;
NYB_API nyb_block_size nyb_dtype_block(nyb_dtype dtype);

static inline bool nyb_dtype_is_block(nyb_dtype dtype)
{
    return dtype >= NYB_DTYPE_COUNT && dtype < NYB_DTYPE_END;
}

// safetensors' spelling ("F32", "BF16", "F8_E4M3", ...), ggml's for block types ("Q4_0"). Never
// NULL.
NYB_API const char *nyb_dtype_name(nyb_dtype dtype);

// Looks up safetensors' spelling. Returns false, and leaves *out alone, for any other word.
NYB_API bool nyb_dtype_by_name(const char *name, nyb_dtype *out);

#endif // NYB_TENSOR_H_
