// stages.h - what the parts of the forward pass share: how work is cut into tiles. All of it
// depends on shapes alone.
#ifndef NYB_MODEL_STAGES_H_
#define NYB_MODEL_STAGES_H_

#include <stdatomic.h>

#include "kernels/attend.h"
#include "model/forward.h"

enum {
    NYB_NARROW_TOKENS = 32, // stages up to here are cut by output rows, larger ones by tokens
    NYB_QUERY_TILE = NYB_ATTEND_TILE, // queries of a span
    NYB_PANEL_COLS =
        512, // columns of an output that are in flight before the next stage reads them
};

// Rows of one task of a stage above NYB_NARROW_TOKENS.
size_t nyb_token_tile(size_t rows);

// Rows of the output head that one task reads at once.
size_t nyb_head_tile(const nyb_model_config *config);

// Floats of one worker's scratch when no position is above `positions`.
size_t nyb_scratch_floats(const nyb_gemm *gemm, const nyb_model_config *config, size_t tokens,
                          size_t positions);

// Whether attention asks for all scores of a query at once: soft caps, linear biases, chunks,
// later tokens, values of another size than keys.
bool nyb_needs_scores(const nyb_model_config *config);

// *least = value when that is less.
void nyb_keep_least(atomic_size_t *least, size_t value);

// Brings the stages' outputs into the order q, k, v, normalises and turns q and k. With a cache,
// keys and values go there too. `attention_run` does it first.
void nyb_heads_run(const nyb_context *ctx, const nyb_block_weights *weights, nyb_batch *batch);

// Attention over the q, k and v columns of batch->wide; its output goes to the columns for it, or
// to where batch->operands says.
void nyb_attention_run(const nyb_context *ctx, const nyb_block_weights *weights, nyb_batch *batch);

// Sends the tokens of x to the block's experts.
void nyb_route(const nyb_context *ctx, const nyb_block_weights *weights, nyb_batch *batch);

#endif // NYB_MODEL_STAGES_H_
