// params.h - checks shared by the factor and the solver.
#ifndef NYB_GPTQ_PARAMS_H_
#define NYB_GPTQ_PARAMS_H_

#include "core/dtype.h"
#include "core/status.h"
#include "nybble/gptq.h"

// NYB_E_ARG when a field is outside its range for a weight of `cols` columns.
NYB_NODISCARD nyb_status nyb_gptq_check(const nyb_gptq_params *params, size_t cols, nyb_err *err);

// Columns whose scales are chosen together, with 0 spelled out.
static inline size_t nyb_gptq_group(const nyb_gptq_params *params, size_t cols)
{
    const size_t size = params->grid.block == NYB_F32 ? params->grid.group_size
                                                      : nyb_dtype_block(params->grid.block).values;
    return size ? size : cols;
}

#endif // NYB_GPTQ_PARAMS_H_
