// tile_solve.h - Algorithm 1 of the GPTQ paper on one tile of rows.
#ifndef NYB_GPTQ_TILE_SOLVE_H_
#define NYB_GPTQ_TILE_SOLVE_H_

#include "nybble/gptq.h"
#include "ptq/tile.h"

// What all tiles share.
typedef struct nyb_tile_plan {
    nyb_mat w; // [rows, cols]
    const nyb_gptq_factor *factor;
    const nyb_gptq_params *params;
    const nyb_grid_params *grid; // of the first scales
    size_t group_size;           // columns whose scales are chosen together, in [1, cols]
    size_t parts;                // groups of each such run: 1, but on the grid of a block type
    const uint32_t *group_at;    // [cols] the group of the p-th solved column
    // [cols] what a squared error at each place, and in each column, costs; NULL: all the same.
    const float *place_costs, *column_costs;
    nyb_qweight *out;
} nyb_tile_plan;

// Scratch of one thread. Rows of the matrices are columns of the weight, in solving order.
typedef struct nyb_tile_scratch {
    nyb_mat w;              // [cols, NYB_LANES] weights; where they are solved, codes
    nyb_mat errors;         // [block or group, NYB_LANES] scaled errors of a block
    nyb_grid_lanes *groups; // [groups]
} nyb_tile_scratch;

// Floats that nyb_tile_scratch_of() cuts up.
size_t nyb_tile_scratch_floats(const nyb_tile_plan *plan);
nyb_tile_scratch nyb_tile_scratch_of(const nyb_tile_plan *plan, float *floats);

// Solves a tile's rows and writes their codes, scales and zeros. Returns the sum of the squared
// scaled errors; on a fault *fault is set and the result means nothing.
double nyb_tile_solve(const nyb_tile_plan *plan, nyb_tile_scratch scratch, size_t tile,
                      nyb_tile_fault *fault);

#endif // NYB_GPTQ_TILE_SOLVE_H_
