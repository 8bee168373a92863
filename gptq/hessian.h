// hessian.h - nyb_hessian_add() for activations of any type that products read.
#ifndef NYB_GPTQ_HESSIAN_H_
#define NYB_GPTQ_HESSIAN_H_

#include "kernels/gemm.h"
#include "nybble/gptq.h"

// As nyb_hessian_add() for x [tokens, n] whose rows are the tokens; not `down`.
NYB_NODISCARD nyb_status nyb_hessian_add_operand(const nyb_context *ctx, nyb_hessian *hessian,
                                                 const nyb_operand *x, nyb_err *err);

#endif // NYB_GPTQ_HESSIAN_H_
