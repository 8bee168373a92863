#include "model/forward.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "core/linalg.h"
#include "core/threads.h"
#include "kernels/vector.h"
#include "model/binding.h"
#include "model/norm.h"
#include "model/rounding.h"
#include "model/stages.h"
#include "model/stored.h"

enum {
    ROW_TILE = 64,   // output rows of one task of a narrow stage
    PACK_PANELS = 4, // of weights that one task packs
};

size_t nyb_token_tile(size_t rows)
{
    const size_t eighth = (rows / 8 + 31) / 32 * 32;
    return eighth < NYB_NARROW_TOKENS ? NYB_NARROW_TOKENS : eighth > 192 ? 192 : eighth;
}

// ---- What a stage reads --------------------------------------------------------------------

// Rows [first, first + rows) of linear `index` of the stage, and the columns of batch->wide that
// they make.
typedef struct part {
    size_t index, first, rows, out;
} part;

typedef struct stage_run {
    nyb_batch *batch;
    const nyb_block_weights *weights;
    const nyb_model_config *config;
    const nyb_vector_ops *ops;
    nyb_stage stage;
    nyb_norm norm, post;
    size_t rows;            // of the input
    const uint32_t *tokens; // [rows] of an expert; NULL: row i is token i
    nyb_mat source;         // [*, stage.width] what the input is made of
    bool direct;            // it is the input itself
    bool operand;           // as bf16: nyb_batch.operands
    size_t part_count;
    part parts[NYB_STAGE_LINEARS];
    uint32_t *packed[NYB_STAGE_LINEARS]; // weights of each part
} stage_run;

static bool is_routed(const stage_run *r)
{
    return r->stage.expert != NYB_ALL_TOKENS;
}

static nyb_mat source_of(const nyb_batch *b, const nyb_stage *stage)
{
    switch (stage->source) {
    case NYB_FROM_START:
        return b->start;
    case NYB_FROM_WIDE:
        return nyb_block(b->wide, 0, b->tokens, stage->column, stage->column + stage->width);
    case NYB_FROM_ROUTED:
    case NYB_FROM_SHARED:
        return b->routed;
    case NYB_FROM_RESIDUAL:
        break;
    }
    return b->x;
}

// Where each linear's output goes. A gate and an up in one matrix are two parts.
static void cut_parts(stage_run *r)
{
    const nyb_stage *const stage = &r->stage;
    for (size_t i = 0; i < stage->count; i++)
        r->parts[i] = (part){
            .index = i, .rows = r->weights->weights[stage->first + i].rows, .out = stage->out[i]};
    r->part_count = stage->count;
    if (stage->then == NYB_THEN_GATE && stage->count == 1) {
        const size_t half = r->parts[0].rows / 2;
        r->parts[0].rows = half;
        r->parts[1] = (part){.first = half, .rows = half};
        r->part_count = 2;
    }
}

static stage_run describe(const nyb_batch *batch, const nyb_block_weights *weights, size_t stage)
{
    stage_run r = {
        .weights = weights,
        .config = nyb_model_config_of(batch->model),
        .ops = nyb_vector_ops_get(),
        .stage = nyb_stage_at(batch->model, weights->index, stage),
        .rows = batch->tokens,
    };
    if (r.stage.norm >= 0)
        r.norm = nyb_norm_of(weights, r.stage.norm);
    if (r.stage.post != NYB_POST_NONE)
        r.post = nyb_norm_of(weights, r.stage.post_norm);
    if (is_routed(&r) && !batch->routes.all) {
        const size_t *const starts = batch->routes.starts + r.stage.expert;
        r.tokens = batch->routes.tokens + starts[0];
        r.rows = starts[1] - starts[0];
    }
    r.direct = r.stage.norm < 0 && r.stage.source != NYB_FROM_ROUTED;
    r.operand = r.direct && r.stage.source == NYB_FROM_WIDE && batch->operands == NYB_BF16;
    r.source = r.operand ? batch->wide : source_of(batch, &r.stage);
    cut_parts(&r);
    return r;
}

static size_t token_of(const stage_run *r, size_t row)
{
    return r->tokens ? r->tokens[row] : row;
}

// What the router gives the stage's expert for a row; with a minus where it did not send it there.
static float score_of(const stage_run *r, const nyb_batch *batch, size_t row)
{
    return nyb_row(batch->routes.weights, token_of(r, row))[r->stage.expert];
}

static void fill_input(const stage_run *r, const nyb_batch *batch, size_t row0, nyb_mat out)
{
    const bool listed = r->stage.source == NYB_FROM_ROUTED;
    const bool scaled = listed && r->config->arch->experts.routing == NYB_ROUTE_INPUT;
    for (size_t i = 0; i < out.rows; i++) {
        const size_t row = row0 + i;
        const float *const from = nyb_row(r->source, listed ? token_of(r, row) : row);
        if (r->operand)
            r->ops->widen(nyb_row(out, i), from, out.cols);
        else if (r->stage.norm >= 0)
            nyb_norm_row(&r->norm, nyb_row(out, i), from, out.cols);
        else
            memcpy(nyb_row(out, i), from, out.cols * sizeof(float));
        if (scaled)
            r->ops->scale(nyb_row(out, i), fabsf(score_of(r, batch, row)), out.cols);
    }
}

size_t nyb_stage_rows(const nyb_batch *batch, const nyb_block_weights *weights, size_t stage)
{
    return describe(batch, weights, stage).rows;
}

const uint32_t *nyb_stage_tokens(const nyb_batch *batch, const nyb_block_weights *weights,
                                 size_t stage)
{
    return describe(batch, weights, stage).tokens;
}

size_t nyb_stage_row_at(const nyb_batch *batch, const nyb_block_weights *weights, size_t stage,
                        size_t token)
{
    const stage_run r = describe(batch, weights, stage);
    size_t row = 0;
    if (!r.tokens)
        return token < r.rows ? token : r.rows;
    while (row < r.rows && r.tokens[row] < token)
        row++;
    return row;
}

void nyb_stage_input(const nyb_batch *batch, const nyb_block_weights *weights, size_t stage,
                     size_t row0, nyb_mat out)
{
    const stage_run r = describe(batch, weights, stage);
    assert(out.cols == r.stage.width && row0 + out.rows <= r.rows);
    fill_input(&r, batch, row0, out);
}

// Rows [t0, t1) of an input that is kept as bf16.
static nyb_operand operand_rows(const stage_run *r, size_t t0, size_t t1)
{
    return (nyb_operand){.at = nyb_row(r->source, t0),
                         .dtype = NYB_BF16,
                         .rows = t1 - t0,
                         .depth = r->stage.width,
                         .stride = 2 * r->source.stride};
}

bool nyb_stage_operand(const nyb_batch *batch, const nyb_block_weights *weights, size_t stage,
                       size_t row0, size_t rows, nyb_operand *out)
{
    const stage_run r = describe(batch, weights, stage);
    assert(row0 + rows <= r.rows);
    if (r.operand)
        *out = operand_rows(&r, row0, row0 + rows);
    return r.operand;
}

// ---- What becomes of its output ------------------------------------------------------------

static void gate(const stage_run *r, nyb_mat out, nyb_mat up)
{
    const nyb_activation *const act = &r->config->activation;
    for (size_t i = 0; i < out.rows; i++) {
        float *const to = nyb_row(out, i);
        const float *const with = nyb_row(up, i);
        if (act->silu) {
            r->ops->silu_gate(to, with, out.cols);
            continue;
        }
        act->apply(to, out.cols);
        for (size_t j = 0; j < out.cols; j++)
            to[j] *= with[j];
    }
}

static void activate(const stage_run *r, nyb_mat out)
{
    for (size_t i = 0; i < out.rows; i++)
        r->config->activation.apply(nyb_row(out, i), out.cols);
}

// Whether the output has to be whole before it is added.
static bool is_apart(const stage_run *r)
{
    return r->stage.then == NYB_THEN_COLLECT ||
           (r->stage.then == NYB_THEN_RESIDUAL && r->stage.post == NYB_POST_OUTPUT);
}

static float shared_weight(const stage_run *r, size_t token)
{
    const float *const gate_row = r->weights->vectors[NYB_VECTOR_SHARED_GATE];
    const float *const x = nyb_row(r->batch->routed, token);
    double sum = 0.0;
    for (size_t i = 0; i < r->config->hidden; i++)
        sum += (double) gate_row[i] * (double) x[i];
    return (float) (1.0 / (1.0 + exp(-sum)));
}

// What an expert's output is multiplied by.
static float weight_of(const stage_run *r, size_t row)
{
    if (!is_routed(r))
        return r->stage.shared_gate ? shared_weight(r, row) : 1.0f;
    const float score = score_of(r, r->batch, row);
    if (signbit(score))
        return 0.0f;
    return r->config->arch->experts.routing == NYB_ROUTE_INPUT ? 1.0f : score;
}

// Adds whole outputs of rows from row0 on, or normalises what they were added to.
static void finish_rows(const stage_run *r, size_t row0, nyb_mat out)
{
    for (size_t i = 0; i < out.rows; i++) {
        const size_t token = token_of(r, row0 + i);
        float *const y = nyb_row(out, i);
        if (r->stage.then == NYB_THEN_COLLECT) {
            r->ops->add_scaled(nyb_row(r->batch->sum, token), y, weight_of(r, row0 + i), out.cols);
            continue;
        }
        nyb_norm_row(&r->post, y, y, out.cols);
        if (r->stage.post == NYB_POST_OUTPUT)
            r->ops->add(nyb_row(r->batch->x, token), y, out.cols);
    }
}

// ---- Products ------------------------------------------------------------------------------

static void add_bias(const stage_run *r, nyb_mat out, const float *bias)
{
    for (size_t i = 0; bias && i < out.rows; i++)
        r->ops->add(nyb_row(out, i), bias, out.cols);
}

// out = in W^T + bias for output rows [c0, c0 + out.cols) of the stage's linear `i`;
// with `keep` 1 it is added to what out holds. `panel` is the worker's.
static void multiply(const stage_run *r, nyb_mat out, nyb_mat in, size_t i, size_t c0, float keep,
                     float *panel)
{
    const size_t linear = r->stage.first + i;
    const nyb_mat w = r->weights->weights[linear];
    const float *const bias = r->weights->biases[linear];
    if (r->weights->stored)
        nyb_weight_multiply(out, in, &r->weights->stored->weights[linear], c0, keep, panel);
    else
        nyb_gemm_nt(out, in, nyb_block(w, c0, c0 + out.cols, 0, w.cols), 1.0f, keep);
    add_bias(r, out, bias ? bias + c0 : NULL);
}

// A tile of a stage's input, as it is and packed.
typedef struct tile_input {
    nyb_mat rows; // not set where it is kept as bf16
    const uint32_t *packed;
    size_t row0; // of the stage's input
    unsigned worker;
} tile_input;

// The linear of part `i` whose input is rounded first, NULL: it is not.
static const nyb_linear *rounded_linear(const stage_run *r, size_t i)
{
    const size_t linear = r->stage.first + r->parts[i].index;
    const nyb_linear *const at = nyb_linear_at(r->batch->model, r->weights->index, linear);
    return r->weights->stored && nyb_rounding_applies(r->batch->rounding, at) ? at : NULL;
}

// Whether part `i` is multiplied as the whole numbers that it is made of.
static bool is_whole(const stage_run *r, size_t i)
{
    const nyb_linear *const linear = rounded_linear(r, i);
    return linear && nyb_rounding_is_int8(r->batch->rounding);
}

// The same for packed inputs and the packed weights of part `i`; c0 is a multiple of a panel's
// width.
static void multiply_packed(const stage_run *r, nyb_mat out, const tile_input *in, size_t i,
                            size_t c0, bool keep)
{
    const nyb_gemm *const g = r->batch->gemm;
    const part *const p = &r->parts[i];
    const size_t linear = r->stage.first + p->index;
    const float *const bias = r->weights->biases[linear];
    const nyb_linear *const rounded = rounded_linear(r, i);
    nyb_rounded_product product = {
        .linear = rounded, .in = in->rows, .row0 = p->first + c0, .keep = keep};
    if (rounded) {
        product.weight = &r->weights->stored->weights[linear];
        product.most = r->batch->rounding->most + in->row0;
    }
    if (is_whole(r, i)) {
        nyb_rounded_multiply(r->batch->rounding, in->worker, out, &product);
    } else {
        const uint32_t *const w = r->packed[i] + nyb_gemm_place(g, c0, r->stage.width);
        const uint32_t *const rows =
            rounded ? nyb_rounded_pack(r->batch->rounding, in->worker, g, &product) : in->packed;
        nyb_gemm_tile(g, out, rows, w, r->stage.width, 1.0f, keep);
    }
    add_bias(r, out, bias ? bias + p->first + c0 : NULL);
}

// The hidden outputs of an MLP, panel by panel, so that they are still in the cache when gate and up
// meet and when they are rounded.
static void run_hidden_tile(const stage_run *r, const tile_input *in, size_t t0, size_t t1,
                            float *scratch)
{
    const size_t cols = r->parts[0].rows, rows = t1 - t0;
    const bool round = r->batch->operands == NYB_BF16;
    for (size_t c = 0; c < cols; c += NYB_PANEL_COLS) {
        const size_t end = cols - c < NYB_PANEL_COLS ? cols : c + NYB_PANEL_COLS;
        const nyb_mat up = nyb_mat_of(scratch, rows, end - c);
        const nyb_mat out = round ? nyb_mat_of(up.at + rows * up.cols, rows, up.cols)
                                  : nyb_block(r->batch->wide, t0, t1, c, end);
        multiply_packed(r, out, in, 0, c, false);
        if (r->stage.then == NYB_THEN_GATE) {
            multiply_packed(r, up, in, 1, c, false);
            gate(r, out, up);
        } else {
            activate(r, out);
        }
        for (size_t i = 0; round && i < rows; i++)
            r->ops->narrow((uint16_t *) (void *) nyb_row(r->batch->wide, t0 + i) + c,
                           nyb_row(out, i), out.cols);
    }
}

// One output, added to the residual stream or to the experts' sum.
static void run_added_tile(const stage_run *r, const tile_input *in, size_t t0, size_t t1,
                           float *scratch)
{
    const size_t hidden = r->batch->x.cols;
    if (is_apart(r)) {
        const nyb_mat out = nyb_mat_of(scratch, t1 - t0, hidden);
        multiply_packed(r, out, in, 0, 0, false);
        finish_rows(r, t0, out);
        return;
    }
    const nyb_mat out = nyb_block(r->batch->x, t0, t1, 0, hidden);
    multiply_packed(r, out, in, 0, 0, true);
    if (r->stage.post == NYB_POST_SUM)
        finish_rows(r, t0, out);
}

// All of a stage but attention, for one tile of rows.
static void run_tile(void *arg, size_t index, unsigned worker)
{
    const stage_run *const r = arg;
    const size_t tile = nyb_token_tile(r->rows), t0 = index * tile;
    const size_t t1 = r->rows - t0 < tile ? r->rows : t0 + tile;
    float *const scratch = nyb_row(r->batch->scratch, worker);
    float *const rest = scratch + (r->direct ? 0 : tile * r->stage.width);
    nyb_mat in = nyb_mat_of(scratch, t1 - t0, r->stage.width);
    if (!r->direct)
        fill_input(r, r->batch, t0, in);
    else if (!r->operand)
        in = nyb_block(r->source, t0, t1, 0, r->stage.width);
    uint32_t *const packed = r->batch->packed_in + worker * r->batch->packed_stride;
    const nyb_operand rows = r->operand ? operand_rows(r, t0, t1) : nyb_operand_of(in);
    const nyb_gemm *const g = r->batch->gemm;
    const tile_input input = {.rows = in, .packed = packed, .row0 = t0, .worker = worker};
    nyb_gemm_pack(g, packed, &rows, 0, nyb_gemm_panels(in.rows, g->width));

    if (r->stage.then == NYB_THEN_GATE || r->stage.then == NYB_THEN_ACTIVATE) {
        run_hidden_tile(r, &input, t0, t1, rest);
    } else if (r->stage.then == NYB_THEN_RESIDUAL || r->stage.then == NYB_THEN_COLLECT) {
        run_added_tile(r, &input, t0, t1, rest);
    } else {
        for (size_t i = 0; i < r->part_count; i++) {
            const size_t out = r->parts[i].out;
            const nyb_mat to = nyb_block(r->batch->wide, t0, t1, out, out + r->parts[i].rows);
            multiply_packed(r, to, &input, i, 0, false);
        }
    }
}

// ---- Stages of few rows --------------------------------------------------------------------

// Where such a stage puts the output of its part `i`.
static nyb_mat narrow_out(const stage_run *r, size_t i)
{
    const nyb_batch *const b = r->batch;
    const part *const p = &r->parts[i];
    if (is_apart(r))
        return nyb_block(b->narrow_out, 0, r->rows, 0, p->rows);
    if (r->stage.then == NYB_THEN_RESIDUAL)
        return b->x;
    if (r->stage.then == NYB_THEN_GATE && i == 1)
        return nyb_block(b->narrow_up, 0, r->rows, 0, p->rows);
    return nyb_block(b->wide, 0, r->rows, p->out, p->out + p->rows);
}

static nyb_mat narrow_in(const stage_run *r)
{
    return r->direct ? nyb_block(r->source, 0, r->rows, 0, r->stage.width)
                     : nyb_block(r->batch->narrow_in, 0, r->rows, 0, r->stage.width);
}

static void multiply_one(const stage_run *r, float *out, const float *in, const part *p, size_t c0,
                         size_t c1)
{
    const size_t linear = r->stage.first + p->index, row0 = p->first + c0;
    const nyb_mat w = r->weights->weights[linear];
    const float *const bias = r->weights->biases[linear];
    const nyb_stored *const s = r->weights->stored;
    float y[ROW_TILE];
    if (s)
        nyb_weight_multiply_one(y, &s->weights[linear], row0, c1 - c0, &s->inputs[linear]);
    else
        nyb_gemv(y, nyb_block(w, row0, p->first + c1, 0, w.cols), in);
    if (bias)
        r->ops->add(y, bias + row0, c1 - c0);
    if (r->stage.then == NYB_THEN_RESIDUAL && !is_apart(r))
        r->ops->add(out + c0, y, c1 - c0);
    else
        memcpy(out + c0, y, (c1 - c0) * sizeof(*y));
}

// ROW_TILE output rows of one of the stage's parts, for all rows of its input.
static void run_rows(void *arg, size_t index, unsigned worker)
{
    const stage_run *const r = arg;
    size_t i = 0;
    for (size_t tiles; index >= (tiles = (r->parts[i].rows + ROW_TILE - 1) / ROW_TILE); i++)
        index -= tiles;
    const part *const p = &r->parts[i];
    const size_t c0 = index * ROW_TILE;
    const size_t c1 = p->rows - c0 < ROW_TILE ? p->rows : c0 + ROW_TILE;
    const nyb_mat in = narrow_in(r), out = narrow_out(r, i);
    const bool add = r->stage.then == NYB_THEN_RESIDUAL && !is_apart(r);
    if (r->rows == 1)
        multiply_one(r, out.at, in.at, p, c0, c1);
    else
        multiply(r, nyb_block(out, 0, r->rows, c0, c1), in, p->index, p->first + c0,
                 add ? 1.0f : 0.0f, nyb_row(r->batch->panels, worker));
}

static void run_narrow(const nyb_context *ctx, stage_run *r)
{
    size_t tasks = 0;
    for (size_t i = 0; i < r->part_count; i++)
        tasks += (r->parts[i].rows + ROW_TILE - 1) / ROW_TILE;
    if (!r->direct)
        fill_input(r, r->batch, 0, narrow_in(r));
    if (r->rows == 1 && r->weights->stored)
        nyb_stored_input(r->weights->stored, r->stage.first, r->stage.count, narrow_in(r).at);
    nyb_parallel(ctx, tasks, run_rows, r);
    if (r->stage.then == NYB_THEN_GATE)
        gate(r, narrow_out(r, 0), narrow_out(r, 1));
    else if (r->stage.then == NYB_THEN_ACTIVATE)
        activate(r, narrow_out(r, 0));
    else if (is_apart(r) || r->stage.post == NYB_POST_SUM)
        finish_rows(r, 0, narrow_out(r, 0));
}

// ---- Stages of many rows -------------------------------------------------------------------

// PACK_PANELS panels of one of the stage's parts.
static void pack_weights(void *arg, size_t index, unsigned worker)
{
    const stage_run *const r = arg;
    const nyb_gemm *const g = r->batch->gemm;
    size_t i = 0, panels;
    for (;; i++) {
        panels = nyb_gemm_panels(r->parts[i].rows, g->width);
        const size_t tasks = nyb_gemm_panels(panels, PACK_PANELS);
        if (index < tasks)
            break;
        index -= tasks;
    }
    const part *const p = &r->parts[i];
    const size_t linear = r->stage.first + p->index, first = index * PACK_PANELS;
    if (is_whole(r, i))
        return;
    const size_t end = panels - first < PACK_PANELS ? panels : first + PACK_PANELS;
    const nyb_mat w = r->weights->weights[linear];
    if (r->weights->stored) {
        const nyb_weight_rows rows = {&r->weights->stored->weights[linear], p->first, p->rows};
        nyb_weight_pack(g, r->packed[i], &rows, first, end, nyb_row(r->batch->panels, worker));
        return;
    }
    const nyb_operand from = nyb_operand_of(nyb_block(w, p->first, p->first + p->rows, 0, w.cols));
    nyb_gemm_pack(g, r->packed[i], &from, first, end);
}

// The largest magnitude of each row of the stage's input.
static void find_row_largest(void *arg, size_t index, unsigned worker)
{
    const stage_run *const r = arg;
    const size_t tile = nyb_token_tile(r->rows), t0 = index * tile;
    const size_t t1 = r->rows - t0 < tile ? r->rows : t0 + tile;
    nyb_mat in = nyb_mat_of(nyb_row(r->batch->scratch, worker), t1 - t0, r->stage.width);
    if (r->direct)
        in = nyb_block(r->source, t0, t1, 0, r->stage.width);
    else
        fill_input(r, r->batch, t0, in);
    for (size_t t = t0; t < t1; t++)
        r->batch->rounding->most[t] = nyb_rounding_largest(nyb_row(in, t - t0), in.cols);
}

// What each row is rounded relative to: its own, or that of all rows of its sample.
static void find_largest(const nyb_context *ctx, stage_run *r)
{
    const size_t tile = nyb_token_tile(r->rows);
    const size_t *const starts = r->batch->starts;
    float *const most = r->batch->rounding->most;
    nyb_parallel(ctx, (r->rows + tile - 1) / tile, find_row_largest, r);
    for (size_t first = 0, end = 0, s = 0;
         first < r->rows && !nyb_rounding_is_per_token(r->batch->rounding); first = end, s++) {
        float all = 0.0f;
        while (end < r->rows && token_of(r, end) < starts[s + 1])
            end++;
        for (size_t t = first; t < end; t++)
            all = most[t] <= all ? all : most[t]; // NaN stays
        for (size_t t = first; t < end; t++)
            most[t] = all;
    }
}

// All of a stage but attention, for many rows: its weights are packed once.
static void run_wide(const nyb_context *ctx, stage_run *r)
{
    const nyb_gemm *const g = r->batch->gemm;
    const size_t tile = nyb_token_tile(r->rows);
    size_t tasks = 0, words = 0;
    for (size_t i = 0; i < r->part_count; i++) {
        const size_t panels = nyb_gemm_panels(r->parts[i].rows, g->width);
        r->packed[i] = r->batch->packed_weights + words;
        words += nyb_gemm_packed(g, r->parts[i].rows, r->stage.width);
        tasks += nyb_gemm_panels(panels, PACK_PANELS);
    }
    if (r->batch->rounding)
        find_largest(ctx, r);
    nyb_parallel(ctx, tasks, pack_weights, r);
    nyb_parallel(ctx, (r->rows + tile - 1) / tile, run_tile, r);
}

// ---- Stages and blocks ---------------------------------------------------------------------

static void copy_rows(nyb_mat to, nyb_mat from)
{
    for (size_t i = 0; i < to.rows; i++)
        memcpy(nyb_row(to, i), nyb_row(from, i), to.cols * sizeof(float));
}

void nyb_stage_run(const nyb_context *ctx, const nyb_block_weights *weights, size_t stage,
                   nyb_batch *batch)
{
    stage_run r = describe(batch, weights, stage);
    const bool kept = batch->operands == NYB_BF16;
    r.batch = batch;
    assert(nyb_threads(ctx) <= batch->workers && !(kept && batch->rounding));
    if (stage == 0 && r.config->parallel)
        copy_rows(batch->start, batch->x);
    if (r.rows > NYB_NARROW_TOKENS || (r.rows > 0 && (batch->rounding || kept)))
        run_wide(ctx, &r);
    else if (r.rows > 0)
        run_narrow(ctx, &r);
    if (r.stage.then == NYB_THEN_ATTENTION)
        nyb_attention_run(ctx, weights, batch);
    if (r.stage.routes)
        nyb_route(ctx, weights, batch);
    for (size_t t = 0; r.stage.last_of_experts && t < batch->tokens; t++)
        r.ops->add(nyb_row(batch->x, t), nyb_row(batch->sum, t), batch->x.cols);
}
