// row_order.h - rows of q, k and v that lie in a file otherwise than they are named.
#ifndef NYB_CORE_ROW_ORDER_H_
#define NYB_CORE_ROW_ORDER_H_

#include <stdbool.h>
#include <stddef.h>

#include "nybble/tensor.h"

bool nyb_row_order_same(const nyb_row_order *a, const nyb_row_order *b);

// Where row `row` is stored, and the row that is stored at `at`: each is the other's inverse.
size_t nyb_row_stored(const nyb_row_order *order, size_t row);
size_t nyb_row_named(const nyb_row_order *order, size_t at);

#endif // NYB_CORE_ROW_ORDER_H_
