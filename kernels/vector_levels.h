// vector_levels.h - the compiled levels of vector_loops.h, for the dispatch in vector.c.
#ifndef NYB_KERNELS_VECTOR_LEVELS_H_
#define NYB_KERNELS_VECTOR_LEVELS_H_

#include "kernels/vector.h"

extern const nyb_vector_ops nyb_vector_ops_portable, nyb_vector_ops_avx2, nyb_vector_ops_avx512;

#endif // NYB_KERNELS_VECTOR_LEVELS_H_
