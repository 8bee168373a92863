// qweight.h - one quantised linear layer in nybble's own plain form. Solvers fill it, layouts
// pack it into a file's bytes and unpack it from there.
//
// Element (i, j) of the dequantised weight is
//     scales[i, g] * (codes[i, j] - zeros[i, g])    with g = group_of[j],
// computed in f32: the subtraction of two small integers is exact, the product is rounded once.
// Where codes are 8-bit floats it is scales[i, g] times the float. On the grid of a ggml block type
// that has minima, mins[i, g] is then taken away.
#ifndef NYB_QWEIGHT_H_
#define NYB_QWEIGHT_H_

#include "nybble/tensor.h"

// What codes are.
typedef enum nyb_code_kind {
    NYB_CODE_INT = 0, // whole numbers
    NYB_CODE_E4M3,    // the bits of an E4M3FN float
    NYB_CODE_E5M2,    // the bits of an E5M2 float
} nyb_code_kind;

typedef struct nyb_qweight {
    nyb_code_kind kind;
    size_t rows, cols;     // out_features, in_features
    size_t groups;         // groups of one row; 1: one per channel
    size_t group_size;     // columns of a full group, cols when groups is 1
    size_t scale_rows;     // adjacent rows that share their scales, from row 0 on; 0: one,
                           // SIZE_MAX: all
    nyb_dtype block;       // ggml's block type whose grid this is; NYB_F32: of none
    unsigned bits;         // 2, 3, 4 or 8; of floats 8; of block types also 5 and 6
    bool symmetric;        // every zero is 2^(bits-1); of floats true
    bool irregular;        // group_of is not j / group_size: the file needs g_idx
    nyb_dtype scale_dtype; // every scale is exactly a value of this type
    float input_scale;     // what the layer's input is divided by where it is rounded; 0: unknown
    uint8_t *codes;        // [rows, cols] in [0, 2^bits); of floats neither NaN nor infinite
    float *scales;         // [rows, groups] finite; > 0 but on the grid of a block type
    uint8_t *zeros;        // [rows, groups] in [0, 2^bits); of floats 0
    float *mins;           // [rows, groups] finite; NULL: nothing is taken away
    uint32_t *group_of;    // [cols] in [0, groups)
} nyb_qweight;

// Allocates the arrays for the given shape, zeroed, with group_of[j] = j / group_size.
//
//   group_size  columns that share a scale, in [1, cols]; 0 means all of them
//
// NYB_E_ARG    bits, rows or cols is outside its range.
// NYB_E_NOMEM  out holds nothing.
NYB_API NYB_NODISCARD nyb_status nyb_qweight_init(nyb_qweight *out, size_t rows, size_t cols,
                                                  unsigned bits, size_t group_size, nyb_err *err);

// Frees the arrays and zeroes q. A zeroed q is fine.
NYB_API void nyb_qweight_clear(nyb_qweight *q);

// Writes the dequantised rows [row0, row0 + out.rows) into out [*, cols].
NYB_API void nyb_qweight_dequantize(const nyb_qweight *q, size_t row0, nyb_mat out);

// Bits a weight takes by itself: codes, scales (in scale_dtype, each once), zeros (bits each, none
// when symmetric), divided by rows * cols. In a file it takes what the file's layout gives it, which
// is what commands call bits per weight (docs/formats.md).
NYB_API double nyb_qweight_bits(const nyb_qweight *q);

#endif // NYB_QWEIGHT_H_
