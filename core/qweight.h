// qweight.h - what codes that are floats stand for.
#ifndef NYB_CORE_QWEIGHT_H_
#define NYB_CORE_QWEIGHT_H_

#include "core/status.h"
#include "nybble/qweight.h"

// How codes of this kind lie in a file that gives each a byte: NYB_I8 for whole numbers.
nyb_dtype nyb_code_dtype(nyb_code_kind kind);

// The value of every code of a kind that is not NYB_CODE_INT.
void nyb_code_values(nyb_code_kind kind, float values[256]);

// As nyb_qweight_init() for the grid of a block type, with minima unless it is symmetric. Of
// `parts`, group_size, bits and symmetric are read.
NYB_NODISCARD nyb_status nyb_qweight_init_block(nyb_qweight *out, size_t rows, size_t cols,
                                                nyb_dtype block, const nyb_qweight *parts,
                                                nyb_err *err);

// All of the dequantised weight, [rows, cols], freed by nyb_free().
//
// NYB_E_NOMEM  *out is NULL.
NYB_NODISCARD nyb_status nyb_qweight_floats(float **out, const nyb_qweight *q, nyb_err *err);

#endif // NYB_CORE_QWEIGHT_H_
