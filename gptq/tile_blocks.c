#include "gptq/tile_blocks.h"

#include "ptq/blocks.h"

static void store(nyb_grid_lanes *out, size_t parts, size_t lane, const nyb_block_unit *block,
                  float zero)
{
    for (size_t k = 0; k < parts; k++) {
        out[k].scale[lane] = block->steps[k];
        out[k].min[lane] = block->mins[k];
        out[k].zero[lane] = zero;
    }
}

size_t nyb_tile_fit_block(const nyb_tile_plan *plan, nyb_mat values, const uint32_t *columns,
                          size_t col0, nyb_grid_lanes *out)
{
    const nyb_block_codec *const codec = nyb_block_grid(plan->params->grid.block);
    const size_t parts = values.rows / codec->part;
    for (size_t lane = 0; lane < NYB_LANES; lane++) {
        float x[NYB_BLOCK_VALUES];
        nyb_block_unit block;
        for (size_t p = 0; p < values.rows; p++)
            x[columns ? columns[p] - col0 : p] = nyb_row(values, p)[lane];
        if (!nyb_block_fit(&block, codec, x, plan->column_costs + col0))
            return lane;
        store(out, parts, lane, &block, (float) codec->zero);
    }
    return NYB_LANES;
}
