#include "kernels/vector_levels.h"
#include "kernels/vector_loops.h"

const nyb_vector_ops nyb_vector_ops_avx512 = VECTOR_OPS;
