// order.h - the order in which columns are solved.
#ifndef NYB_GPTQ_ORDER_H_
#define NYB_GPTQ_ORDER_H_

#include "core/status.h"
#include "nybble/gptq.h"

// columns[p] becomes the column at p-th place, by the weight of each column (its diag(H)).
//
//   keys        [n]  finite
//   group_size  in [1, n]
//
// NYB_E_NOMEM  columns is undefined.
NYB_NODISCARD nyb_status nyb_order_columns(uint32_t *columns, const double *keys, size_t n,
                                           nyb_gptq_order order, size_t group_size, nyb_err *err);

#endif // NYB_GPTQ_ORDER_H_
