// codes.h - loops over codes: a row's range and its nearest codes; and, for the rows of a tile side by
// side, how far weights are from a grid, and coordinate descent.
//
// The same C source is compiled for each instruction set, with sixteen explicit lanes and no
// fused operations, so every level gives the same bits.
#ifndef NYB_KERNELS_CODES_H_
#define NYB_KERNELS_CODES_H_

#include <stddef.h>
#include <stdint.h>

#include "nybble/tensor.h"

enum {
    NYB_CODE_ROWS = 64, // rows of a tile: values of a line below
    NYB_MOVE_COLS = 32, // what the columns of nyb_moves come in
    NYB_CODE_TURN = 16, // lines that are turned at once
};

// A grid for each row, and where its codes lie: bounds of code less zero point.
typedef struct nyb_code_grid {
    const float *scale, *low, *high; // [rows]
} nyb_code_grid;

// A block of columns. Lines hold a column's values of all rows.
typedef struct nyb_descent {
    const float *h; // [cols, cols] their products, symmetric
    size_t cols;
    size_t first, end; // the columns to descend over; they share the grid below
    float *steps;      // [cols, rows] codes less zero points, in and out
    float *slopes;     // [cols, rows] D H, half the loss's derivative by the weights, in and out
    float *moved;      // [cols, rows] what the weights changed by is added
    nyb_code_grid grid;
} nyb_descent;

// The moves of one row by a single step of a single code. A step by t = -1 or 1 changes the loss by
// scale^2 h_jj + 2 t scale slope: for the better t, by scale^2 h_jj - |2 scale slope|.
typedef struct nyb_moves {
    size_t cols;        // a multiple of NYB_MOVE_COLS
    float *slopes;      // [cols] D H, in and out
    const float *twice; // [cols] 2 scale, where only one t can be taken times -t
    const float *cost; // [cols] scale^2 h_jj, or far more where no step is wanted; where only one t
                       // can be taken with a minus before it
} nyb_moves;

// What grids of whole groups are like.
typedef struct nyb_code_span {
    nyb_dtype scale_dtype;
    float top;    // the largest code
    float lowest; // zero point
    bool symmetric;
} nyb_code_span;

typedef struct nyb_code_ops {
    // low[g] and high[g]: the smallest and the largest of group g, with 0 between them. Groups are
    // runs of `size` of the n values; the last one may be shorter.
    void (*ranges)(float *low, float *high, const float *x, size_t n, size_t size);

    // Grids of n groups with these ranges: as nyb_grid_span(), where a range has not been settled.
    void (*spans)(float *scale, float *zero, const float *low, const float *high, size_t n,
                  const nyb_code_span *span);

    // codes[i] = the whole number nearest to x[i] / scale[g], ties to even, plus zero[g], within
    // [0, top], for the same groups g.
    void (*nearest)(uint8_t *codes, const float *x, size_t n, size_t size, const float *scale,
                    const float *zero, float top);

    // total[row] = sum over the columns of weight * (distance of the value from the grid)^2.
    //
    //   values   [cols, rows]
    //   weights  [cols], NULL: 1
    void (*distance)(double *total, const float *values, const float *weights, size_t cols,
                     const nyb_code_grid *grid);

    // Gives one column after the other the step that lowers the loss most while all others stay:
    // that nearest to step - slope / (scale h_jj). Columns with h_jj <= 0 are left alone.
    void (*descend)(const nyb_descent *block);

    // slopes += by * h, and then the column whose better step changes the loss by least, the first
    // of equal ones. *change: by how much. `ahead` is brought near meanwhile, as long as h.
    size_t (*move)(const nyb_moves *moves, const float *h, float by, const float *ahead,
                   float *change);

    // sums[j] += by[i] * rows[i][j] for one i after the other; cols is a multiple of NYB_MOVE_COLS.
    void (*add_rows)(float *sums, size_t cols, const float *const *rows, const float *by,
                     size_t count);

    // to[j][i] = from[i][j] for the NYB_CODE_TURN lines of each. They do not overlap.
    void (*turn)(float *to, size_t to_stride, const float *from, size_t from_stride);
} nyb_code_ops;

// The operations for a CPU with these features (core/cpu.h).
const nyb_code_ops *nyb_code_ops_for(unsigned cpu);

// Those for this machine.
const nyb_code_ops *nyb_code_ops_get(void);

#endif // NYB_KERNELS_CODES_H_
