// refine.h - better codes, scales and zero points for what GPTQ left, at the same size.
#ifndef NYB_GPTQ_REFINE_H_
#define NYB_GPTQ_REFINE_H_

#include "core/status.h"
#include "nybble/gptq.h"

// Lowers tr(D (H + 0.1 diag(H) + lambda I) D^T), D = W - Q, row by row, for factor->hessian and the
// damping that the factor has; no row's tr(D H D^T) rises. The layout of q stays: bits, groups, type of
// scales, lowest zero point. *before is what tr(D H D^T) was.
//
// NYB_E_ARG    the factor has no Hessian beside it.
// NYB_E_NOMEM  no room; q is as it was.
NYB_NODISCARD nyb_status nyb_gptq_refine(const nyb_context *ctx, const nyb_gptq_factor *factor,
                                         nyb_mat w, const nyb_gptq_params *params, nyb_qweight *q,
                                         double *before, nyb_err *err);

// Bytes of the Hessian's copy that nyb_gptq_refine() works on and of what goes with it: but for lines
// of row tiles, all that it allocates.
size_t nyb_gptq_refine_bytes(size_t cols, size_t groups);

#endif // NYB_GPTQ_REFINE_H_
