// stages.h - what the parts of the forward pass share: how work is cut into tiles. All of it
// depends on shapes alone.
#ifndef NYB_MODEL_STAGES_H_
#define NYB_MODEL_STAGES_H_

#include "kernels/attend.h"
#include "model/forward.h"

enum {
    NYB_NARROW_TOKENS = 32, // batches up to here are cut by output rows, larger ones by tokens
    NYB_QUERY_TILE = NYB_ATTEND_TILE, // queries of a span
    NYB_PANEL_COLS = 1024,            // columns of a side output that are in flight
};

// Tokens of one task of a batch above NYB_NARROW_TOKENS.
size_t nyb_token_tile(size_t tokens);

// Rows of the output head that one task reads at once.
size_t nyb_head_tile(const nyb_model_config *config);

// Floats of one worker's scratch when no position is above `positions`.
size_t nyb_scratch_floats(const nyb_gemm *gemm, const nyb_model_config *config, size_t tokens,
                          size_t positions);

// Words that the packed weights of the largest stage take.
size_t nyb_packed_words(const nyb_gemm *gemm, const nyb_model *model);

// Attention over the q, k and v columns of batch->wide, whose q and k are not turned yet;
// leaves its output in the q columns. With a cache, keys and values go there first.
void nyb_attention_run(const nyb_context *ctx, size_t block, nyb_batch *batch);

#endif // NYB_MODEL_STAGES_H_
