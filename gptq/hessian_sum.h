// hessian_sum.h - sums of Hessians whose bits do not depend on the order of the terms, so that
// parts that were made apart, on several machines or on different days, add up to what one pass
// gives.
//
// Terms are f32 matrices: the sums over a few thousand tokens. Each of their elements is first
// rounded to a multiple of 2^-56. A sum is then a whole number of these steps, and is kept without
// any error as high + low: high is the sum rounded to f64, low what is left, which f64 holds as long
// as the sum is at most 2^46 (so that |low| <= 2^-7, which is at most 2^49 steps). Sums of whole
// numbers do not depend on the order, and high and low follow from the sum alone. Additions are
// Knuth's TwoSum (The Art of Computer Programming 4.2.2, theorem B), which is exact.
#ifndef NYB_GPTQ_HESSIAN_SUM_H_
#define NYB_GPTQ_HESSIAN_SUM_H_

#include "nybble/gptq.h"

enum {
    NYB_HESSIAN_STEP_EXPONENT = -56, // elements are multiples of 2 to this power
    NYB_HESSIAN_LIMIT_EXPONENT = 46, // and at most 2 to this one
};

// The upper triangle row by row: (0, 0), (0, 1), ..., (0, n - 1), (1, 1), ...
typedef struct nyb_hessian_sum {
    double *high, *low; // [nyb_triangle(n)]
    size_t n, tokens;
} nyb_hessian_sum;

// Elements of the upper triangle of an n x n matrix; 0 when they cannot be counted.
size_t nyb_triangle(size_t n);

// Where row i of the triangle begins, at its element (i, i).
static inline size_t nyb_triangle_row(size_t n, size_t i)
{
    return i * n - i * (i - 1) / 2;
}

// A zeroed sum. NYB_E_NOMEM: out holds nothing.
NYB_NODISCARD nyb_status nyb_hessian_sum_init(nyb_hessian_sum *out, size_t n, nyb_err *err);
void nyb_hessian_sum_clear(nyb_hessian_sum *sum); // zeroed is fine

// Adds a Hessian of the same order, which is a zeroed one afterwards, also on an error.
//
// NYB_E_NUMERIC  an element is not a number, or the sum leaves the range above; err names the
//                place. The sum is spoiled.
NYB_NODISCARD nyb_status nyb_hessian_sum_take(const nyb_context *ctx, nyb_hessian_sum *sum,
                                              nyb_hessian *term, nyb_err *err);

// Adds another sum of the same order. Errors as nyb_hessian_sum_take(); also where `part` is not as
// such sums are (a file may say anything).
NYB_NODISCARD nyb_status nyb_hessian_sum_merge(const nyb_context *ctx, nyb_hessian_sum *sum,
                                               const nyb_hessian_sum *part, nyb_err *err);

// The sum in f32, as a Hessian of its own: `out` is initialised here.
//
// NYB_E_NOMEM  no room; out holds nothing.
NYB_NODISCARD nyb_status nyb_hessian_sum_round(const nyb_hessian_sum *sum, nyb_hessian *out,
                                               nyb_err *err);

// Whether high alone is the sum: low is zero throughout.
bool nyb_hessian_sum_is_plain(const nyb_hessian_sum *sum);

#endif // NYB_GPTQ_HESSIAN_SUM_H_
