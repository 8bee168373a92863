#include "kernels/lowbit_levels.h"
#include "kernels/lowbit_loops.h"

const nyb_lowbit_ops nyb_lowbit_ops_portable = LOWBIT_OPS;
