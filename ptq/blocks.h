// blocks.h - the grids of ggml's block types: fitted to a block's values, and rounding onto them.
#ifndef NYB_PTQ_BLOCKS_H_
#define NYB_PTQ_BLOCKS_H_

#include "core/status.h"
#include "kernels/blocks.h"
#include "nybble/grid.h"

// A block taken apart (nyb_block_codec.split()).
typedef struct nyb_block_unit {
    uint8_t codes[NYB_BLOCK_VALUES];
    float steps[NYB_BLOCK_PARTS], mins[NYB_BLOCK_PARTS];
} nyb_block_unit;

// The codec of a type that weights can be rounded to; NULL for others.
const nyb_block_codec *nyb_block_grid(nyb_dtype block);

// The block that values of its length are rounded to, by importance where it is not NULL. False:
// the values are too large for a scale.
bool nyb_block_fit(nyb_block_unit *out, const nyb_block_codec *codec, const float *x,
                   const float *importance);

// An empty weight on the type's grid.
NYB_NODISCARD nyb_status nyb_block_weight_init(nyb_qweight *out, const nyb_block_codec *codec,
                                               size_t rows, size_t cols, nyb_err *err);

// nyb_round_nearest() for params->block, as llama-quantize rounds.
NYB_NODISCARD nyb_status nyb_round_blocks(const nyb_context *ctx, nyb_qweight *out, nyb_mat w,
                                          const nyb_grid_params *params, nyb_err *err);

#endif // NYB_PTQ_BLOCKS_H_
