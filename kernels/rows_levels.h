// rows_levels.h - the compiled levels of rows_loops.h, for the dispatch in rows.c.
#ifndef NYB_KERNELS_ROWS_LEVELS_H_
#define NYB_KERNELS_ROWS_LEVELS_H_

#include "kernels/rows.h"

extern const nyb_rows_ops nyb_rows_ops_portable, nyb_rows_ops_avx2, nyb_rows_ops_avx512;

#endif // NYB_KERNELS_ROWS_LEVELS_H_
