// grid.h - integer grids for weights, and plain rounding onto them.
//
// A grid gives each group of a row a scale s and an integer zero point z; code q in [0, 2^bits)
// stands for s * (q - z). Rounding is to the nearest code, ties to even.
//
// Scales are rounded to the type that they will be stored in, and zero points are limited to
// what the target layout's readers accept, before any weight is rounded: codes are always the
// nearest on the grid that the file holds.
#ifndef NYB_GRID_H_
#define NYB_GRID_H_

#include "nybble/context.h"
#include "nybble/qweight.h"
#include "nybble/range.h"

typedef enum nyb_grid_kind {
    // Spans the group's smallest to largest weight, always with 0 on the grid (the GPTQ family).
    // Asymmetric: s = (max - min) / (2^bits - 1), z = round(-min / s).
    // Symmetric: s = 2 absmax / (2^bits - 1), z = 2^(bits-1).
    NYB_GRID_MINMAX = 0,
    // Keras' int4 and int8 with one scale a channel: s = (absmax + 1e-7) / (2^(bits-1) - 1),
    // z = 2^(bits-1). group_size, symmetric and scale_search do not apply.
    NYB_GRID_ABSMAX,
    // Keras' int4 in groups: from the smallest to the largest weight, wherever 0 lies,
    // s = (max - min + 1e-7) / (2^bits - 1), z = round(-min / s) as far as that is a code. The zeros
    // that fill the last group up count as weights. symmetric and scale_search do not apply.
    NYB_GRID_EXTREMES,
} nyb_grid_kind;

typedef struct nyb_grid_params {
    nyb_grid_kind kind;
    // NYB_F32: as the rest says. Else ggml's block type whose grid is meant: its bits and groups are
    // the type's own, and of the rest only scale_dtype is read, for errors.
    nyb_dtype block;
    unsigned bits;         // 2, 3, 4 or 8
    size_t group_size;     // input columns that share a scale, in [1, cols]; 0: a whole row
    bool symmetric;        // zero point fixed to the middle code
    bool scale_search;     // shrink the range where that lowers the group's squared error
    nyb_dtype scale_dtype; // NYB_F32, NYB_F16 or NYB_BF16: what scales are stored as
    unsigned lowest_zero;  // smallest zero point that readers accept; 1 for GPTQ v1, else 0
    // What the group's extremes are taken for; scale_search then looks at nothing beyond. `mse` of
    // NYB_GRID_MINMAX is scale_search itself.
    nyb_range_params range;
    // Choose parameters exactly as the GPTQ paper's published code does, for comparison with its
    // results: a symmetric group without negative weights gets half the range, and the search
    // takes 80 steps by the 2.4-norm.
    bool reference;
} nyb_grid_params;

#define NYB_GRID_DEFAULTS ((nyb_grid_params){.bits = 4, .group_size = 128, .scale_dtype = NYB_F32})

// Rounds every weight to the nearest point of its group's grid.
//
//   out  in: anything that owns nothing; out: allocated here, freed by nyb_qweight_clear()
//   w    [rows, cols]  read only
//
// A group of zeros gets the grid of [-1, 1]. A scale below what scale_dtype holds becomes its
// smallest normal value (f16: smallest subnormal).
//
// NYB_E_ARG      a parameter is outside its range.
// NYB_E_NUMERIC  a weight is NaN or infinite, or a scale is too large for scale_dtype; err names
//                the place.
// NYB_E_NOMEM    no room for the result.
// After an error out holds nothing.
NYB_API NYB_NODISCARD nyb_status nyb_round_nearest(const nyb_context *ctx, nyb_qweight *out,
                                                   nyb_mat w, const nyb_grid_params *params,
                                                   nyb_err *err);

// The same for a matrix as a file holds it, of rank 2 and of F32, F16 or BF16; its bytes need no
// alignment. Grids that a group's range alone makes are made row by row, without a copy of the
// matrix in f32.
//
// Errors as above; NYB_E_ARG also for a tensor of another kind.
NYB_API NYB_NODISCARD nyb_status nyb_round_stored(const nyb_context *ctx, nyb_qweight *out,
                                                  const nyb_tensor *w,
                                                  const nyb_grid_params *params, nyb_err *err);

#endif // NYB_GRID_H_
