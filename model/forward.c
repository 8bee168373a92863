#include "model/forward.h"

#include <assert.h>
#include <string.h>

#include "core/linalg.h"
#include "core/log.h"
#include "core/threads.h"
#include "kernels/vector.h"
#include "model/stages.h"

enum {
    ROW_TILE = 64,   // output rows of one task of a narrow batch
    PACK_PANELS = 4, // of weights that one task packs
};

size_t nyb_token_tile(size_t tokens)
{
    const size_t eighth = (tokens / 8 + 31) / 32 * 32;
    return eighth < NYB_NARROW_TOKENS ? NYB_NARROW_TOKENS : eighth > 192 ? 192 : eighth;
}

size_t nyb_scratch_floats(const nyb_gemm *gemm, const nyb_model_config *config, size_t tokens,
                          size_t positions)
{
    const size_t queries = tokens < NYB_QUERY_TILE ? tokens : NYB_QUERY_TILE;
    const size_t group = config->heads / config->kv_heads;
    const size_t tile = nyb_token_tile(tokens);
    const size_t panel =
        config->intermediate < NYB_PANEL_COLS ? config->intermediate : NYB_PANEL_COLS;
    const size_t stage = tile * (config->hidden + panel);
    const size_t head = nyb_head_tile(config) * config->hidden;
    const size_t most = stage > head ? stage : head;
    const size_t attention = nyb_attend_words(gemm, queries, group, config->head_dim);
    const size_t more = attention > most ? attention : most;
    return positions > more ? positions : more; // the scores of a lone query
}

typedef struct stage_run {
    nyb_batch *batch;
    uint32_t *packed[NYB_LINEARS]; // weights of the stage's linears
    const nyb_block_weights *weights;
    const nyb_vector_ops *ops;
    const nyb_arch_stage *part;
    nyb_stage stage;
    const float *norm; // NULL: the input is in batch->wide
    double eps;
} stage_run;

static stage_run describe(const nyb_batch *batch, const nyb_block_weights *weights, size_t stage)
{
    const nyb_model_config *const config = nyb_model_config_of(batch->model);
    return (stage_run){
        .weights = weights,
        .ops = nyb_vector_ops_get(),
        .part = &config->arch->stages[stage],
        .stage = nyb_stage_at(batch->model, weights->index, stage),
        .norm = weights->norms[stage],
        .eps = config->norm_eps,
    };
}

static void norm_rows(const stage_run *r, const nyb_batch *batch, size_t token0, nyb_mat out)
{
    for (size_t i = 0; i < out.rows; i++)
        r->ops->rms_norm(nyb_row(out, i), nyb_row(batch->x, token0 + i), r->norm, out.cols, r->eps);
}

void nyb_stage_input(const nyb_batch *batch, const nyb_block_weights *weights, size_t stage,
                     size_t token0, nyb_mat out)
{
    const stage_run r = describe(batch, weights, stage);
    assert(out.cols == r.stage.width && token0 + out.rows <= batch->tokens);
    if (r.norm) {
        norm_rows(&r, batch, token0, out);
        return;
    }
    for (size_t i = 0; i < out.rows; i++)
        memcpy(nyb_row(out, i), nyb_row(batch->wide, token0 + i), out.cols * sizeof(float));
}

static void add_bias(const stage_run *r, nyb_mat out, const float *bias)
{
    for (size_t i = 0; bias && i < out.rows; i++)
        r->ops->add(nyb_row(out, i), bias, out.cols);
}

// out = in W^T + bias for output columns [c0, c0 + out.cols) of the stage's linear `i`;
// with `keep` 1 it is added to what out holds.
static void multiply(const stage_run *r, nyb_mat out, nyb_mat in, size_t i, size_t c0, float keep)
{
    const nyb_mat w = r->weights->weights[r->stage.first + i];
    const float *const bias = r->weights->biases[r->stage.first + i];
    nyb_gemm_nt(out, in, nyb_block(w, c0, c0 + out.cols, 0, w.cols), 1.0f, keep);
    add_bias(r, out, bias ? bias + c0 : NULL);
}

// The same for packed inputs and weights; c0 is a multiple of a panel's width.
static void multiply_packed(const stage_run *r, nyb_mat out, const uint32_t *in, size_t i,
                            size_t c0, bool keep)
{
    const nyb_gemm *const g = r->batch->gemm;
    const float *const bias = r->weights->biases[r->stage.first + i];
    const uint32_t *const w = r->packed[i] + c0 * nyb_gemm_depth(g, r->stage.width);
    nyb_gemm_tile(g, out, in, w, r->stage.width, 1.0f, keep);
    add_bias(r, out, bias ? bias + c0 : NULL);
}

static size_t width_of(const stage_run *r, size_t i)
{
    return r->weights->weights[r->stage.first + i].rows;
}

static void gate(const stage_run *r, nyb_mat out, nyb_mat up)
{
    for (size_t i = 0; i < out.rows; i++)
        r->ops->silu_gate(nyb_row(out, i), nyb_row(up, i), out.cols);
}

// gate and up, panel by panel, so that both are still in the cache when they meet.
static void run_gated_tile(const stage_run *r, const uint32_t *in, size_t t0, size_t t1,
                           float *scratch)
{
    const size_t cols = width_of(r, 0);
    for (size_t c = 0; c < cols; c += NYB_PANEL_COLS) {
        const size_t end = cols - c < NYB_PANEL_COLS ? cols : c + NYB_PANEL_COLS;
        const nyb_mat out = nyb_block(r->batch->wide, t0, t1, c, end);
        const nyb_mat up = nyb_mat_of(scratch, t1 - t0, end - c);
        multiply_packed(r, out, in, 0, c, false);
        multiply_packed(r, up, in, 1, c, false);
        gate(r, out, up);
    }
}

// All of a stage but attention, for one tile of tokens.
static void run_tile(void *arg, size_t index, unsigned worker)
{
    const stage_run *const r = arg;
    const size_t tile = nyb_token_tile(r->batch->tokens), t0 = index * tile;
    const size_t t1 = r->batch->tokens - t0 < tile ? r->batch->tokens : t0 + tile;
    float *const scratch = nyb_row(r->batch->scratch, worker);
    nyb_mat in = nyb_block(r->batch->wide, t0, t1, 0, r->stage.width);
    if (r->norm) {
        in = nyb_mat_of(scratch, t1 - t0, r->stage.width);
        norm_rows(r, r->batch, t0, in);
    }
    uint32_t *const packed = r->batch->packed_in + worker * r->batch->packed_stride;
    const nyb_operand rows = nyb_operand_of(in);
    const size_t width = r->batch->gemm->a_width;
    nyb_gemm_pack(r->batch->gemm, packed, &rows, width, 0, nyb_gemm_panels(in.rows, width));
    if (r->part->then == NYB_THEN_GATE) {
        run_gated_tile(r, packed, t0, t1, scratch + tile * r->stage.width);
    } else if (r->part->then == NYB_THEN_RESIDUAL) {
        multiply_packed(r, nyb_block(r->batch->x, t0, t1, 0, r->batch->x.cols), packed, 0, 0, true);
    } else {
        size_t column = 0;
        for (size_t i = 0; i < r->stage.count; i++) {
            const size_t end = column + width_of(r, i);
            multiply_packed(r, nyb_block(r->batch->wide, t0, t1, column, end), packed, i, 0, false);
            column = end;
        }
    }
}

// Where a narrow batch puts the output of the stage's linear `i`.
static nyb_mat narrow_out(const stage_run *r, size_t i)
{
    const size_t tokens = r->batch->tokens;
    if (r->part->then == NYB_THEN_RESIDUAL)
        return r->batch->x;
    if (r->part->then == NYB_THEN_GATE && i == 1)
        return nyb_block(r->batch->narrow_up, 0, tokens, 0, width_of(r, 1));
    size_t column = 0;
    for (size_t k = 0; k < i; k++)
        column += width_of(r, k);
    return nyb_block(r->batch->wide, 0, tokens, column, column + width_of(r, i));
}

static void multiply_one(const stage_run *r, float *out, const float *in, size_t i, size_t c0,
                         size_t c1)
{
    const nyb_mat w = r->weights->weights[r->stage.first + i];
    const float *const bias = r->weights->biases[r->stage.first + i];
    float y[ROW_TILE];
    nyb_gemv(y, nyb_block(w, c0, c1, 0, w.cols), in);
    if (bias)
        r->ops->add(y, bias + c0, c1 - c0);
    if (r->part->then == NYB_THEN_RESIDUAL)
        r->ops->add(out + c0, y, c1 - c0);
    else
        memcpy(out + c0, y, (c1 - c0) * sizeof(*y));
}

// ROW_TILE output rows of one of the stage's linears, for all tokens of a narrow batch.
static void run_rows(void *arg, size_t index, unsigned worker)
{
    const stage_run *const r = arg;
    const size_t tokens = r->batch->tokens;
    size_t i = 0;
    (void) worker;
    for (size_t tiles; index >= (tiles = (width_of(r, i) + ROW_TILE - 1) / ROW_TILE); i++)
        index -= tiles;
    const size_t c0 = index * ROW_TILE;
    const size_t c1 = width_of(r, i) - c0 < ROW_TILE ? width_of(r, i) : c0 + ROW_TILE;
    const nyb_mat in = r->norm ? nyb_block(r->batch->narrow_in, 0, tokens, 0, r->stage.width)
                               : nyb_block(r->batch->wide, 0, tokens, 0, r->stage.width);
    const nyb_mat out = narrow_out(r, i);
    if (tokens == 1)
        multiply_one(r, out.at, in.at, i, c0, c1);
    else
        multiply(r, nyb_block(out, 0, tokens, c0, c1), in, i, c0,
                 r->part->then == NYB_THEN_RESIDUAL ? 1.0f : 0.0f);
}

static void run_narrow(const nyb_context *ctx, stage_run *r)
{
    const size_t tokens = r->batch->tokens;
    size_t tasks = 0;
    for (size_t i = 0; i < r->stage.count; i++)
        tasks += (width_of(r, i) + ROW_TILE - 1) / ROW_TILE;
    if (r->norm)
        norm_rows(r, r->batch, 0, nyb_block(r->batch->narrow_in, 0, tokens, 0, r->stage.width));
    nyb_parallel(ctx, tasks, run_rows, r);
    if (r->part->then == NYB_THEN_GATE)
        gate(r, narrow_out(r, 0), narrow_out(r, 1));
}

size_t nyb_packed_words(const nyb_gemm *gemm, const nyb_model *model)
{
    size_t most = 0;
    for (size_t b = 0; b < nyb_block_count(model); b++) {
        for (size_t s = 0; s < nyb_stage_count(model, b); s++) {
            const nyb_stage stage = nyb_stage_at(model, b, s);
            size_t words = 0;
            for (size_t i = stage.first; i < stage.first + stage.count; i++)
                words += nyb_gemm_packed(gemm, nyb_linear_at(model, b, i)->rows, stage.width,
                                         gemm->b_width);
            most = words > most ? words : most;
        }
    }
    return most;
}

// PACK_PANELS panels of one of the stage's weights.
static void pack_weights(void *arg, size_t index, unsigned worker)
{
    const stage_run *const r = arg;
    const nyb_gemm *const g = r->batch->gemm;
    size_t i = 0, panels;
    (void) worker;
    for (;; i++) {
        panels = nyb_gemm_panels(width_of(r, i), g->b_width);
        const size_t tasks = nyb_gemm_panels(panels, PACK_PANELS);
        if (index < tasks)
            break;
        index -= tasks;
    }
    const nyb_operand from = nyb_operand_of(r->weights->weights[r->stage.first + i]);
    const size_t first = index * PACK_PANELS;
    nyb_gemm_pack(g, r->packed[i], &from, g->b_width, first,
                  panels - first < PACK_PANELS ? panels : first + PACK_PANELS);
}

// All of a stage but attention, for a batch of many tokens: its weights are packed once.
static void run_wide(const nyb_context *ctx, stage_run *r)
{
    const nyb_gemm *const g = r->batch->gemm;
    const size_t tile = nyb_token_tile(r->batch->tokens);
    size_t tasks = 0, words = 0;
    for (size_t i = 0; i < r->stage.count; i++) {
        const size_t panels = nyb_gemm_panels(width_of(r, i), g->b_width);
        r->packed[i] = r->batch->packed_weights + words;
        words += nyb_gemm_packed(g, width_of(r, i), r->stage.width, g->b_width);
        tasks += nyb_gemm_panels(panels, PACK_PANELS);
    }
    nyb_parallel(ctx, tasks, pack_weights, r);
    nyb_parallel(ctx, (r->batch->tokens + tile - 1) / tile, run_tile, r);
}

void nyb_stage_run(const nyb_context *ctx, const nyb_block_weights *weights, size_t stage,
                   nyb_batch *batch)
{
    stage_run r = describe(batch, weights, stage);
    r.batch = batch;
    assert(nyb_threads(ctx) <= batch->workers);
    if (batch->tokens <= NYB_NARROW_TOKENS)
        run_narrow(ctx, &r);
    else
        run_wide(ctx, &r);
    if (r.part->then == NYB_THEN_ATTENTION)
        nyb_attention_run(ctx, weights->index, batch);
}

nyb_stage_flow nyb_stage_flow_of(const nyb_model *model, size_t block, size_t stage)
{
    const nyb_arch *const arch = nyb_model_config_of(model)->arch;
    const nyb_arch_stage *const part = &arch->stages[stage];
    const bool residual = part->then == NYB_THEN_RESIDUAL;
    return (nyb_stage_flow){
        .x_in = part->norm || residual,
        .x_out = residual,
        .wide_in = part->norm ? 0 : nyb_stage_at(model, block, stage).width,
        .wide_out = residual ? 0 : nyb_stage_at(model, block, stage + 1).width,
        .input_x = part->norm != NULL,
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
