// tile_refine.h - coordinate descent on the layer's squared error, on one tile of rows.
#ifndef NYB_GPTQ_TILE_REFINE_H_
#define NYB_GPTQ_TILE_REFINE_H_

#include "gptq/row_search.h"
#include "nybble/gptq.h"
#include "ptq/tile.h"

// What all tiles share. A place is where a column stands in the order in which groups are runs.
typedef struct nyb_refine_plan {
    nyb_mat w; // [rows, cols]
    // [cols, cols] what is minimised, by place: H with more on its diagonal, both triangles, zeros
    // up to its stride, into which nyb_row_search_cols() fits. Columns without input have no
    // products at all.
    nyb_mat h;
    const float *diagonal;   // [cols] of h
    const float *more;       // [cols] what its diagonal has more than H's
    nyb_mat ones;            // [groups, cols] sums of h's columns over each group's places
    const uint32_t *columns; // [cols] the column at each place; NULL: as they lie
    const uint8_t *dead;     // [cols] 1 where the original column never had an input
    const nyb_grid_params *grid;
    const nyb_code_ops *ops;
    unsigned rounds;
    nyb_qweight *q; // in: what GPTQ made of w; out: refined
} nyb_refine_plan;

// Scratch of one thread. Rows are places.
typedef struct nyb_refine_scratch {
    nyb_mat d;                     // [cols, NYB_LANES] Q - W
    nyb_mat steps;                 // [cols, NYB_LANES] codes less zero points
    nyb_mat slopes;                // [cols, NYB_LANES] D H
    nyb_mat image;                 // [cols or block, NYB_LANES] steps times H, of one group
    nyb_mat moved;                 // [block, NYB_LANES] what the block's weights changed by
    float *square;                 // [block, block] of H
    nyb_mat row_slopes, row_steps; // [NYB_LANES, nyb_row_search_cols()] by row
    nyb_row_search search;
    nyb_searched_row searched[NYB_SEARCH_ROWS];
    nyb_grid_lanes *groups;
} nyb_refine_scratch;

// Floats that nyb_refine_scratch_of() cuts up.
size_t nyb_refine_scratch_floats(const nyb_refine_plan *plan);
nyb_refine_scratch nyb_refine_scratch_of(const nyb_refine_plan *plan, float *floats);

// Refines a tile's rows. A row whose loss did not fall keeps the codes, scales and zeros it had.
// Returns the sum of the losses they had.
double nyb_tile_refine(const nyb_refine_plan *plan, nyb_refine_scratch scratch, size_t tile);

#endif // NYB_GPTQ_TILE_REFINE_H_
