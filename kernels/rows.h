// rows.h - products with one vector of a weight of f32, f16 or bf16 as it lies in a file: each value
// is widened in a register and never stored.
//
// The same C source is compiled for each instruction set, without fused operations, so every
// level gives the same bits. Sums run in f32 in sixteen lanes over at most 4096 columns and in
// f64 from there on.
#ifndef NYB_KERNELS_ROWS_H_
#define NYB_KERNELS_ROWS_H_

#include "nybble/tensor.h"

typedef struct nyb_rows_ops {
    // y[i] = sum over j of w[i, j] x[j].
    //
    //   w  [rows, cols] of `dtype` (f32, f16, bf16), row-major, may be misaligned. f16: finite
    void (*multiply)(float *y, const void *w, nyb_dtype dtype, size_t rows, size_t cols,
                     const float *x);

    // n values of `dtype` as f32: nyb_widen() for finite values, as vector code.
    void (*widen)(float *to, const void *from, nyb_dtype dtype, size_t n);

    // The first value that is a NaN or an infinity, or n.
    size_t (*first_not_finite)(const void *at, nyb_dtype dtype, size_t n);
} nyb_rows_ops;

// The operations for a CPU with these features (core/cpu.h).
const nyb_rows_ops *nyb_rows_ops_for(unsigned cpu);

// Those for this machine.
const nyb_rows_ops *nyb_rows_ops_get(void);

#endif // NYB_KERNELS_ROWS_H_
