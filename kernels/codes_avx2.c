#include "kernels/codes_levels.h"
#include "kernels/codes_loops.h"

const nyb_code_ops nyb_code_ops_avx2 = CODE_OPS;
