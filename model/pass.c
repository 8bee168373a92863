// All stages of a block, all blocks of a model, and what a stage reads and leaves.
#include "core/log.h"
#include "model/binding.h"
#include "model/forward.h"

nyb_stage_flow nyb_stage_flow_of(const nyb_model *model, nyb_dtype operands, size_t block,
                                 size_t stage)
{
    const nyb_model_config *const c = nyb_model_config_of(model);
    const nyb_stage at = nyb_stage_at(model, block, stage);
    const bool last = stage + 1 == nyb_stage_count(model, block);
    const bool wide = at.source == NYB_FROM_WIDE, residual = at.then == NYB_THEN_RESIDUAL;
    // Where more than the last stage's outputs outlasts a stage, all columns do.
    if (c->parallel || c->latent.kv_rank || c->experts.count) {
        const size_t all = nyb_columns_of(c, operands).count;
        return (nyb_stage_flow){.x_in = true,
                                .x_out = true,
                                .wide_in = stage == 0 ? 0 : all,
                                .wide_out = last ? 0 : all,
                                .input_x = stage == 0};
    }
    const size_t next = residual ? 0 : nyb_stage_at(model, block, stage + 1).width;
    return (nyb_stage_flow){
        .x_in = !wide || residual,
        .x_out = residual,
        .wide_in = wide ? nyb_operand_columns(operands, at.width) : 0,
        .wide_out = nyb_operand_columns(operands, next),
        .input_x = !wide,
    };
}

void nyb_block_run(const nyb_context *ctx, const nyb_block_weights *weights, nyb_batch *batch)
{
    for (size_t s = 0; s < nyb_stage_count(batch->model, weights->index); s++)
        nyb_stage_run(ctx, weights, s, batch);
}

nyb_status nyb_forward(const nyb_context *ctx, nyb_batch *batch, nyb_block_weights *weights,
                       const uint32_t *ids, const char *what, nyb_err *err)
{
    const size_t blocks = nyb_block_count(batch->model);
    nyb_status status = nyb_embed(ctx, batch, ids, err);
    for (size_t b = 0; status == NYB_OK && b < blocks; b++) {
        status = nyb_block_weights_load(ctx, weights, b, err);
        if (status != NYB_OK)
            return status;
        nyb_block_run(ctx, weights, batch);
        const nyb_progress step = {.stage = what, .unit = "layers", .done = b + 1, .total = blocks};
        nyb_step(ctx, &step);
    }
    if (status == NYB_OK && batch->cache)
        batch->cache->used += batch->tokens;
    return status;
}
