// inverse_factor.h - the triangular factor of an inverse, without forming the inverse.
#ifndef NYB_CORE_INVERSE_FACTOR_H_
#define NYB_CORE_INVERSE_FACTOR_H_

#include "core/status.h"
#include "nybble/context.h"
#include "nybble/tensor.h"

// h [n, n] symmetric positive definite, of which the upper triangle is read, becomes the upper
// triangular U with inv(h) = U^T U; the strict lower triangle is left undefined. Works in place
// but for small tiles on the stack; equal bits for any number of threads.
//
// NYB_E_SHAPE    h is not square.
// NYB_E_NUMERIC  h holds a NaN or an infinity; h is unchanged.
// NYB_E_NOT_PD   h is not positive definite; err names the column. The upper triangle is spoiled,
//                the strict lower one is as it was.
NYB_NODISCARD nyb_status nyb_inverse_factor(const nyb_context *ctx, nyb_mat h, nyb_err *err);

#endif // NYB_CORE_INVERSE_FACTOR_H_
