#include "kernels/rows_levels.h"
#include "kernels/rows_loops.h"

const nyb_rows_ops nyb_rows_ops_portable = ROWS_OPS;
