#include "calib/pass.h"

#include <math.h>
#include <string.h>

#include "core/cpu.h"
#include "core/file.h"
#include "core/threads.h"

enum { GATHER_ROWS = 128 }; // tokens of one task when a stage's inputs are gathered

static const size_t not_beside = SIZE_MAX; // a row that another pass does not have

// ---- What the products are made of ---------------------------------------------------------

nyb_compute nyb_calibration_compute(const nyb_context *ctx, nyb_dtype weights)
{
    if (ctx && ctx->compute != NYB_COMPUTE_AUTO)
        return ctx->compute;
    return weights == NYB_BF16 && (nyb_cpu() & NYB_CPU_AVX512BF16) ? NYB_COMPUTE_BF16
                                                                   : NYB_COMPUTE_F32;
}

nyb_dtype nyb_model_weight_dtype(const nyb_model *model)
{
    for (size_t b = 0; b < nyb_block_count(model); b++) {
        for (size_t i = 0; i < nyb_linear_count(model, b); i++) {
            const nyb_tensor *const weight = nyb_linear_at(model, b, i)->weight;
            if (weight)
                return weight->dtype;
        }
    }
    const nyb_tensor *const embedding = nyb_model_embedding(model)->weight;
    return embedding ? embedding->dtype : NYB_F32;
}

// ---- One stage's input ----------------------------------------------------------------------

typedef struct gather {
    const nyb_pass *pass;
    size_t stage, token0;
    nyb_mat into;
    const struct gather *from; // the same of another pass, to be subtracted; NULL: nothing is
} gather;

static void subtract(nyb_mat y, nyb_mat x)
{
    for (size_t i = 0; i < y.rows; i++) {
        float *const to = nyb_row(y, i);
        const float *const off = nyb_row(x, i);
        for (size_t j = 0; j < y.cols; j++)
            to[j] -= off[j];
    }
}

static nyb_mat gather_part(const gather *g, size_t index)
{
    const size_t row0 = index * GATHER_ROWS;
    const size_t row1 = row0 + GATHER_ROWS < g->into.rows ? row0 + GATHER_ROWS : g->into.rows;
    const nyb_mat rows = nyb_block(g->into, row0, row1, 0, g->into.cols);
    nyb_stage_input(&g->pass->activations.batch, &g->pass->weights, g->stage, g->token0 + row0,
                    rows);
    return rows;
}

static void gather_rows(void *arg, size_t index, unsigned worker)
{
    const gather *const g = arg;
    const nyb_mat rows = gather_part(g, index);
    (void) worker;
    if (g->from)
        subtract(rows, gather_part(g->from, index));
}

// The marks of the chunk's tokens, NULL: all of them count.
static const unsigned char *marks_of(const nyb_pass *p)
{
    const nyb_activations *const a = &p->activations;
    const unsigned char *const marks = p->samples->marks;
    return marks ? marks + a->chunk * a->chunk_samples * a->length : NULL;
}

// Puts the rows of the tokens that count together at the tile's front; returns how many.
static size_t keep_marked(const gather *g)
{
    const nyb_pass *const p = g->pass;
    const unsigned char *const marks = marks_of(p);
    const uint32_t *const tokens = nyb_stage_tokens(&p->activations.batch, &p->weights, g->stage);
    size_t kept = 0;
    if (!marks)
        return g->into.rows;
    for (size_t i = 0; i < g->into.rows; i++) {
        const size_t row = g->token0 + i;
        if (!marks[tokens ? tokens[row] : row])
            continue;
        if (kept < i)
            memcpy(nyb_row(g->into, kept), nyb_row(g->into, i), g->into.cols * sizeof(float));
        kept++;
    }
    return kept;
}

// Rows of a stage's input, in the pass's tile.
static gather gather_of(const nyb_pass *p, size_t stage, size_t t, size_t rows)
{
    const size_t width = nyb_stage_at(p->model, p->weights.index, stage).width;
    return (gather){
        .pass = p, .stage = stage, .token0 = t, .into = nyb_mat_of(p->tile, rows, width)};
}

static void run_gather(gather *g)
{
    const size_t tasks = (g->into.rows + GATHER_ROWS - 1) / GATHER_ROWS;
    nyb_parallel(g->pass->ctx, tasks, gather_rows, g);
}

// Rows [t, t + rows) of the stage's input in the pass's tile, and in the other pass's, where that has
// them from row `beside` on, what its own differ by. Those that count, that is; all of them stay where
// they are kept if they can be multiplied there.
static nyb_pass_rows gather_tile(nyb_pass *p, size_t stage, size_t t, size_t rows, size_t beside)
{
    gather g = gather_of(p, stage, t, rows);
    nyb_pass_rows out = {0};
    if (!marks_of(p) &&
        nyb_stage_operand(&p->activations.batch, &p->weights, stage, t, rows, &out.operand))
        return out;
    if (beside == not_beside) {
        run_gather(&g);
    } else {
        gather other = gather_of(p->beside, stage, beside, rows);
        other.from = &g;
        run_gather(&other);
        out.off = nyb_mat_of(p->beside->tile, keep_marked(&other), g.into.cols);
    }
    out.x = nyb_mat_of(p->tile, keep_marked(&g), g.into.cols);
    out.operand = nyb_operand_of(out.x);
    return out;
}

// Where the other pass has the unit that is the chunk's `index`-th: its first row.
static size_t row_beside(const nyb_pass *p, size_t stage, size_t index, size_t unit)
{
    if (!p->beside || index % p->beside_step != 0)
        return not_beside;
    return nyb_stage_row_at(&p->beside->activations.batch, &p->beside->weights, stage,
                            index / p->beside_step * unit);
}

static void scale_row(float *x, float by, size_t n)
{
    for (size_t j = 0; j < n; j++)
        x[j] *= by;
}

// Puts a token's row of a stage's input, times `by`, at a row of the pass's tile.
static void take_row(const nyb_pass *p, size_t stage, size_t t, size_t row, size_t width, float by)
{
    float *const to = p->tile + row * width;
    nyb_stage_input(&p->activations.batch, &p->weights, stage, t, nyb_mat_of(to, 1, width));
    scale_row(to, by, width);
}

// Shows those of rows [first, end) again that begin a sample: x x^T was counted once, and is counted
// first_weight - 1 times more.
static nyb_status show_first(nyb_pass *p, size_t stage, size_t first, size_t end, size_t beside,
                             nyb_pass_use *use, void *arg, nyb_err *err)
{
    const size_t width = nyb_stage_at(p->model, p->weights.index, stage).width;
    const float by = sqrtf((float) (p->samples->first_weight - 1));
    const uint32_t *const tokens = nyb_stage_tokens(&p->activations.batch, &p->weights, stage);
    const unsigned char *const marks = marks_of(p);
    nyb_pass_rows out = {.again = true};
    size_t count = 0;
    for (size_t t = first; t < end; t++) {
        const size_t token = tokens ? tokens[t] : t;
        if (token % p->activations.length != 0 || (marks && !marks[token]))
            continue;
        take_row(p, stage, t, count, width, by);
        if (beside != not_beside)
            take_row(p->beside, stage, beside + t - first, count, width, by);
        count++;
    }
    if (count == 0)
        return NYB_OK;
    out.x = nyb_mat_of(p->tile, count, width);
    out.operand = nyb_operand_of(out.x);
    if (beside != not_beside) {
        out.off = nyb_mat_of(p->beside->tile, count, width);
        subtract(out.off, out.x);
    }
    return use(arg, &out, err);
}

// Shows the inputs of the chunk at hand, unit by unit.
static nyb_status show(nyb_pass *p, size_t stage, nyb_pass_use *use, void *arg, nyb_err *err)
{
    const nyb_batch *const batch = &p->activations.batch;
    const size_t length = p->activations.length, unit = nyb_activations_unit(length) * length;
    nyb_status status = NYB_OK;
    for (size_t u = 0; u < batch->tokens; u += unit) {
        const size_t stop = batch->tokens - u < unit ? batch->tokens : u + unit;
        const size_t first = nyb_stage_row_at(batch, &p->weights, stage, u);
        const size_t end = nyb_stage_row_at(batch, &p->weights, stage, stop);
        const size_t beside = row_beside(p, stage, u / unit, unit);
        for (size_t t = first; status == NYB_OK && t < end; t += NYB_UNIT_TOKENS) {
            const size_t rows = end - t < NYB_UNIT_TOKENS ? end - t : NYB_UNIT_TOKENS;
            const nyb_pass_rows shown =
                gather_tile(p, stage, t, rows, beside == not_beside ? beside : beside + t - first);
            if (shown.operand.rows > 0)
                status = use(arg, &shown, err);
        }
        if (status == NYB_OK && p->samples->first_weight > 1)
            status = show_first(p, stage, first, end, beside, use, arg, err);
    }
    return status;
}

// ---- Stages and blocks ------------------------------------------------------------------------

// Tokens that count and were sent to each expert.
static void count_routed(nyb_pass *p)
{
    const nyb_routes *const routes = &p->activations.batch.routes;
    const unsigned char *const marks = marks_of(p);
    for (size_t e = 0; e < nyb_model_config_of(p->model)->experts.count; e++)
        for (size_t i = routes->starts[e]; i < routes->starts[e + 1]; i++)
            p->routed[e] += !marks || marks[routes->tokens[i]];
}

// What a stage reads and writes of a chunk.
typedef struct parts {
    nyb_activation_part in, out;
    bool some, expert, routes;
} parts;

// Loads a chunk and takes it through the stage `run`.
static nyb_status run_chunk(nyb_pass *p, const parts *of, size_t run, size_t chunk, nyb_err *err)
{
    nyb_activations *const a = &p->activations;
    const nyb_status status = nyb_activations_load(a, chunk, of->in, err);
    if (status != NYB_OK)
        return status;
    if (of->expert && a->chunks > 1)
        nyb_batch_list_routes(&a->batch);
    if (of->some)
        nyb_stage_run(p->ctx, &p->weights, run, &a->batch);
    if (of->routes)
        count_routed(p);
    return NYB_OK;
}

nyb_status nyb_pass_stage(nyb_pass *p, size_t run, size_t next, nyb_pass_use *use, void *arg,
                          nyb_err *err)
{
    const nyb_model *const model = p->model;
    const size_t block = p->weights.index;
    nyb_activations *const a = &p->activations;
    const nyb_dtype operands = a->batch.operands;
    nyb_stage_flow first = {0}, second = {0};
    if (run != nyb_no_stage)
        first = nyb_stage_flow_of(model, operands, block, run);
    if (next != nyb_no_stage)
        second = nyb_stage_flow_of(model, operands, block, next);
    const bool some = run != nyb_no_stage;
    const parts of = {
        .in = {.x = first.x_in || (second.input_x && !first.x_out),
               .wide = some ? first.wide_in : second.wide_in},
        .out = {.x = first.x_out, .wide = first.wide_out},
        .some = some,
        .expert = some && nyb_stage_at(model, block, run).expert != NYB_ALL_TOKENS,
        .routes = some && nyb_stage_at(model, block, run).routes,
    };
    nyb_status status = NYB_OK;
    if (of.routes)
        memset(p->routed, 0, nyb_model_config_of(model)->experts.count * sizeof(*p->routed));
    for (size_t c = 0; status == NYB_OK && c < a->chunks; c++) {
        status = run_chunk(p, &of, run, c, err);
        if (status == NYB_OK && p->beside)
            status = run_chunk(p->beside, &of, run, c, err);
        if (status == NYB_OK && next != nyb_no_stage)
            status = show(p, next, use, arg, err);
        if (status == NYB_OK)
            status = nyb_activations_save(a, of.out, err);
        if (status == NYB_OK && p->beside)
            status = nyb_activations_save(&p->beside->activations, of.out, err);
    }
    return status;
}

nyb_status nyb_pass_block(nyb_pass *p, nyb_err *err)
{
    nyb_activations *const a = &p->activations;
    nyb_status status = NYB_OK;
    for (size_t c = 0; status == NYB_OK && c < a->chunks; c++) {
        status = nyb_activations_load(a, c, (nyb_activation_part){.x = true}, err);
        if (status == NYB_OK) {
            nyb_block_run(p->ctx, &p->weights, &a->batch);
            status = nyb_activations_save(a, (nyb_activation_part){.x = true}, err);
        }
    }
    return status;
}

nyb_status nyb_pass_embed(nyb_pass *p, nyb_err *err)
{
    nyb_activations *const a = &p->activations;
    const size_t step = a->chunk_samples * a->length;
    nyb_status status = NYB_OK;
    for (size_t c = 0; status == NYB_OK && c < a->chunks; c++) {
        status = nyb_activations_load(a, c, (nyb_activation_part){0}, err);
        if (status == NYB_OK)
            status = nyb_embed(p->ctx, &a->batch, p->samples->ids + c * step, err);
        if (status == NYB_OK)
            status = nyb_activations_save(a, (nyb_activation_part){.x = true}, err);
    }
    const nyb_tensor *const table = nyb_model_embedding(p->model)->weight;
    if (table)
        nyb_map_release(table->at, table->bytes);
    return status;
}

// ---- Opening ----------------------------------------------------------------------------------

size_t nyb_pass_width(const nyb_model *model)
{
    size_t widest = 0;
    for (size_t b = 0; b < nyb_block_count(model); b++) {
        for (size_t i = 0; i < nyb_linear_count(model, b); i++) {
            const size_t cols = nyb_linear_at(model, b, i)->cols;
            widest = cols > widest ? cols : widest;
        }
    }
    return widest;
}

static nyb_status open_parts(nyb_pass *p, const nyb_pass_params *params, nyb_err *err)
{
    const size_t width = nyb_pass_width(p->model);
    const size_t experts = nyb_model_config_of(p->model)->experts.count;
    p->tile = nyb_alloc_raw(NYB_UNIT_TOKENS * width, sizeof(float));
    p->routed = nyb_alloc(experts + 1, sizeof(*p->routed));
    if (!p->tile || !p->routed)
        return nyb_no_memory(err, "inputs", NYB_UNIT_TOKENS * width + experts, sizeof(float));
    nyb_status status = params->stored ? nyb_block_weights_init_stored(&p->weights, p->model, err)
                                       : nyb_block_weights_init(&p->weights, p->model, err);
    if (status == NYB_OK && p->samples) {
        const nyb_activations_params own = {.samples = p->samples->count,
                                            .length = p->samples->length,
                                            .chunk_samples = params->chunk_samples,
                                            .operands = params->operands,
                                            .folder = params->folder};
        status = nyb_activations_open(&p->activations, p->ctx, p->model, &own, err);
    }
    p->activations.batch.routes.all = params->all_experts;
    return status;
}

nyb_status nyb_pass_open(nyb_pass *out, const nyb_context *ctx, const nyb_model *model,
                         const nyb_pass_params *params, nyb_err *err)
{
    *out = (nyb_pass){.ctx = ctx, .model = model, .samples = params->samples};
    const nyb_status status = open_parts(out, params, err);
    if (status != NYB_OK)
        nyb_pass_close(out);
    return status;
}

void nyb_pass_close(nyb_pass *p)
{
    nyb_activations_close(&p->activations);
    nyb_block_weights_clear(&p->weights);
    nyb_free(p->tile);
    nyb_free(p->routed);
    *p = (nyb_pass){0};
}
