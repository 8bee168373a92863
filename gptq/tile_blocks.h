// tile_blocks.h - the grids of ggml's block types inside the solver.
#ifndef NYB_GPTQ_TILE_BLOCKS_H_
#define NYB_GPTQ_TILE_BLOCKS_H_

#include "gptq/tile_solve.h"

// Chooses the steps and minima of one block for each lane.
//
//   values   [columns of the block, NYB_LANES]
//   columns  [values.rows] the column of the weight that each row of values is; NULL: they lie in
//            order from `col0` on
//   col0     the block's first column
//   out      the grids of the block's parts
//
// Returns the first lane whose values are too large, or NYB_LANES.
size_t nyb_tile_fit_block(const nyb_tile_plan *plan, nyb_mat values, const uint32_t *columns,
                          size_t col0, nyb_grid_lanes *out);

#endif // NYB_GPTQ_TILE_BLOCKS_H_
