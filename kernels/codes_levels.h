// codes_levels.h - the compiled levels of codes_loops.h, for the dispatch in codes.c.
#ifndef NYB_KERNELS_CODES_LEVELS_H_
#define NYB_KERNELS_CODES_LEVELS_H_

#include "kernels/codes.h"

extern const nyb_code_ops nyb_code_ops_portable, nyb_code_ops_avx2, nyb_code_ops_avx512;

#endif // NYB_KERNELS_CODES_LEVELS_H_
