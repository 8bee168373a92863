#include "calib/walk.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "calib/imatrix.h"
#include "core/file.h"
#include "core/log.h"
#include "core/threads.h"

// What the program and its libraries take before a run allocates anything.
enum { PROGRAM_BYTES = 40 << 20 };

enum { GATHER_ROWS = 128 }; // tokens of one task when a stage's inputs are gathered

typedef struct walk {
    const nyb_context *ctx;
    const nyb_job *job;
    nyb_output *out;
    bool forward; // activations are carried along
    nyb_activations activations;
    nyb_block_weights weights;
    float *tile;            // [NYB_UNIT_TOKENS, widest input]
    nyb_hessian hessian;    // of the current stage's input
    nyb_gptq_factor factor; // of the hessian, zeroed: none yet
    nyb_gptq_params asked;  // what the factor was made for
    json_t *records;        // of the current block's layers
    size_t solved;
    nyb_imatrix imatrix;
    size_t *routed; // [experts] tokens that the current block's router sent to each
} walk;

// ---- One stage's Hessian ------------------------------------------------------------------

typedef struct gather {
    const walk *w;
    size_t stage, token0;
    nyb_mat into;
} gather;

static void gather_rows(void *arg, size_t index, unsigned worker)
{
    const gather *const g = arg;
    const size_t row0 = index * GATHER_ROWS;
    const size_t row1 = row0 + GATHER_ROWS < g->into.rows ? row0 + GATHER_ROWS : g->into.rows;
    (void) worker;
    nyb_stage_input(&g->w->activations.batch, &g->w->weights, g->stage, g->token0 + row0,
                    nyb_block(g->into, row0, row1, 0, g->into.cols));
}

// The marks of the chunk's tokens, NULL: all of them count.
static const unsigned char *marks_of(const walk *w)
{
    const nyb_activations *const a = &w->activations;
    const unsigned char *const marks = w->job->samples.marks;
    return marks ? marks + a->chunk * a->chunk_samples * a->length : NULL;
}

// Puts the rows of the tokens that count together at the tile's front; returns how many.
static size_t keep_marked(const walk *w, const gather *g)
{
    const unsigned char *const marks = marks_of(w);
    const uint32_t *const tokens = nyb_stage_tokens(&w->activations.batch, &w->weights, g->stage);
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

// Adds the inputs of the chunk at hand, unit by unit.
static nyb_status accumulate(walk *w, size_t stage, nyb_err *err)
{
    const nyb_batch *const batch = &w->activations.batch;
    const size_t length = w->activations.length, unit = nyb_activations_unit(length) * length;
    const size_t width = w->hessian.h.cols;
    nyb_status status = NYB_OK;
    for (size_t u = 0; u < batch->tokens; u += unit) {
        const size_t stop = batch->tokens - u < unit ? batch->tokens : u + unit;
        const size_t first = nyb_stage_row_at(batch, &w->weights, stage, u);
        const size_t end = nyb_stage_row_at(batch, &w->weights, stage, stop);
        for (size_t t = first; status == NYB_OK && t < end; t += NYB_UNIT_TOKENS) {
            const size_t rows = end - t < NYB_UNIT_TOKENS ? end - t : NYB_UNIT_TOKENS;
            gather g = {
                .w = w, .stage = stage, .token0 = t, .into = nyb_mat_of(w->tile, rows, width)};
            nyb_parallel(w->ctx, (rows + GATHER_ROWS - 1) / GATHER_ROWS, gather_rows, &g);
            const size_t kept = keep_marked(w, &g);
            if (kept > 0)
                status =
                    nyb_hessian_add(w->ctx, &w->hessian, nyb_mat_of(w->tile, kept, width), err);
        }
    }
    return status;
}

// The factor of the stage's Hessian; made anew only when a layer's settings ask for another one.
static nyb_status prepare(walk *w, const nyb_gptq_params *params, nyb_err *err)
{
    if (w->factor.u.at && w->asked.order == params->order &&
        w->asked.grid.group_size == params->grid.group_size && w->asked.damping == params->damping)
        return NYB_OK;
    nyb_gptq_factor_clear(&w->factor);
    w->asked = *params;
    return nyb_gptq_prepare(w->ctx, &w->factor, &w->hessian, params, err);
}

// ---- One layer ----------------------------------------------------------------------------

// |W - Q|^2 / |W|^2, row by row in w's place, which is left dequantised.
static double replace(nyb_mat w, const nyb_qweight *q, float *row)
{
    double error = 0.0, energy = 0.0;
    for (size_t i = 0; i < w.rows; i++) {
        float *const at = nyb_row(w, i);
        nyb_qweight_dequantize(q, i, nyb_mat_of(row, 1, w.cols));
        for (size_t j = 0; j < w.cols; j++) {
            const double off = (double) at[j] - (double) row[j];
            error += off * off;
            energy += (double) at[j] * (double) at[j];
            at[j] = row[j];
        }
    }
    return energy > 0.0 ? error / energy : 0.0;
}

static void set_real(json_t *record, const char *key, double value)
{
    if (isfinite(value))
        json_object_set_new(record, key, json_real(value));
}

static nyb_status record(walk *w, const nyb_job_layer *layer, const nyb_qweight *q,
                         const nyb_gptq_report *report, double weight_error, nyb_err *err)
{
    char hash[NYB_HASH_TEXT];
    json_t *const r = nyb_settings_json(&layer->settings);
    nyb_job_hash(q, hash);
    if (!r || json_object_set_new(r, "module", json_string(layer->linear->module)) != 0 ||
        json_object_set_new(r, "sha256", json_string(hash)) != 0)
        return nyb_no_memory(err, "record", 1, 1);
    json_object_set_new(r, "rows", json_integer((json_int_t) q->rows));
    json_object_set_new(r, "cols", json_integer((json_int_t) q->cols));
    set_real(r, "bits_per_weight", nyb_qweight_bits(q));
    set_real(r, "weight_error", weight_error);
    json_object_set_new(r, "tokens", json_integer((json_int_t) report->tokens));
    set_real(r, "loss", report->loss);
    if (nyb_job_calibrates(layer) && layer->settings.refine > 0) {
        set_real(r, "pass_loss", report->pass_loss);
        set_real(r, "refine_seconds", report->refine_seconds);
    }
    set_real(r, "rtn_loss", report->rtn_loss);
    set_real(r, "output_error", report->relative_error);
    set_real(r, "seconds", report->seconds + w->factor.seconds);
    if (nyb_job_calibrates(layer)) {
        json_object_set_new(r, "damping_used", json_real(report->damping));
        json_object_set_new(r, "damping_attempts", json_integer(report->attempts));
        json_object_set_new(r, "dead_columns", json_integer((json_int_t) report->dead_columns));
        if (report->attempts > 1)
            nyb_log(w->ctx, NYB_LOG_WARNING,
                    "%s: damping raised to %g, its Hessian is nearly singular",
                    layer->linear->module, report->damping);
    }
    return json_array_append_new(w->records, r) == 0 ? NYB_OK : nyb_no_memory(err, "record", 1, 1);
}

static nyb_status solve(walk *w, const nyb_job_layer *layer, nyb_qweight *q,
                        nyb_gptq_report *report, nyb_err *err)
{
    const nyb_mat weight = w->weights.weights[layer->index];
    const nyb_solve_params params = nyb_job_solve(w->job, layer);
    nyb_solve_input input = {.hessian = w->hessian.h.at ? &w->hessian : NULL};
    if (nyb_job_calibrates(layer)) {
        const nyb_status status = prepare(w, &params.gptq, err);
        if (status != NYB_OK)
            return status;
        input.factor = &w->factor;
    }
    const nyb_status status = nyb_solve_layer(w->ctx, input, weight, &params, q, report, err);
    q->input_scale = layer->input_scale;
    return status;
}

static nyb_status finish_layer(walk *w, const nyb_job_layer *layer, const nyb_qweight *q,
                               const nyb_gptq_report *report, nyb_err *err)
{
    const nyb_status status = nyb_output_put(w->out, layer, q, err);
    if (status != NYB_OK)
        return status;
    const double weight_error = replace(w->weights.weights[layer->index], q, w->tile);
    nyb_step(w->ctx, &(nyb_progress){.stage = "quantize",
                                     .item = layer->linear->module,
                                     .unit = "layers",
                                     .done = ++w->solved,
                                     .total = w->job->rounded});
    return record(w, layer, q, report, weight_error, err);
}

// Adds to the last layer's record what it has to say as part of an expert.
static void record_expert(walk *w, int expert, bool fallback)
{
    json_t *const r = json_array_get(w->records, json_array_size(w->records) - 1);
    json_object_set_new(r, "expert", json_integer(expert));
    json_object_set_new(r, "routed_tokens", json_integer((json_int_t) w->routed[expert]));
    if (fallback)
        json_object_set_new(r, "fallback", json_string("too few calibration tokens"));
}

static nyb_status round_layer(walk *w, const nyb_job_layer *layer, int expert, bool fallback,
                              nyb_err *err)
{
    nyb_err inner = {0};
    nyb_qweight q = {0};
    nyb_gptq_report report = {0};
    nyb_status status = solve(w, layer, &q, &report, &inner);
    if (status == NYB_OK && w->imatrix.job && w->hessian.h.at)
        status = nyb_imatrix_add(&w->imatrix, layer, &w->hessian, &inner);
    if (status != NYB_OK)
        return nyb_fail(err, status, "%s: '%s': %s", nyb_model_folder(w->job->model),
                        layer->linear->module, inner.text);
    status = finish_layer(w, layer, &q, &report, err);
    if (status == NYB_OK && expert != NYB_ALL_TOKENS && w->forward)
        record_expert(w, expert, fallback);
    nyb_qweight_clear(&q);
    return status;
}

// ---- Stages and blocks --------------------------------------------------------------------

static const size_t no_stage = SIZE_MAX;

// Whether a layer of the block's stage needs the Hessian of its input.
static bool calibrates(const walk *w, size_t block, size_t stage)
{
    size_t count = 0;
    const nyb_job_layer *const layers = nyb_job_block(w->job, block, &count);
    const nyb_stage at = nyb_stage_at(w->job->model, block, stage);
    bool needed = false;
    for (size_t i = at.first; i < at.first + at.count; i++)
        needed |= nyb_job_calibrates(&layers[i]);
    return needed;
}

// Tokens that count and were sent to each expert.
static void count_routed(walk *w)
{
    const nyb_routes *const routes = &w->activations.batch.routes;
    const unsigned char *const marks = marks_of(w);
    for (size_t e = 0; e < nyb_model_config_of(w->job->model)->experts.count; e++)
        for (size_t i = routes->starts[e]; i < routes->starts[e + 1]; i++)
            w->routed[e] += !marks || marks[routes->tokens[i]];
}

// Takes every chunk through the stage `run` and adds the inputs of the stage `next`, which may be
// the one behind `run` or the first of all. Either may be no_stage.
static nyb_status pass(walk *w, size_t block, size_t run, size_t next, nyb_err *err)
{
    const nyb_model *const model = w->job->model;
    nyb_activations *const a = &w->activations;
    nyb_stage_flow first = {0}, second = {0};
    if (run != no_stage)
        first = nyb_stage_flow_of(model, block, run);
    if (next != no_stage)
        second = nyb_stage_flow_of(model, block, next);
    const nyb_activation_part in = {
        .x = first.x_in || (second.input_x && !first.x_out),
        .wide = run != no_stage ? first.wide_in : second.wide_in,
    };
    const nyb_activation_part out = {.x = first.x_out, .wide = first.wide_out};

    const bool expert = run != no_stage && nyb_stage_at(model, block, run).expert != NYB_ALL_TOKENS;
    const bool routes = run != no_stage && nyb_stage_at(model, block, run).routes;
    nyb_status status = NYB_OK;
    if (routes)
        memset(w->routed, 0, nyb_model_config_of(model)->experts.count * sizeof(*w->routed));
    if (next != no_stage)
        status = nyb_hessian_init(&w->hessian, nyb_stage_at(model, block, next).width, err);
    for (size_t c = 0; status == NYB_OK && c < a->chunks; c++) {
        status = nyb_activations_load(a, c, in, err);
        if (status == NYB_OK && expert && a->chunks > 1)
            nyb_batch_list_routes(&a->batch);
        if (status == NYB_OK && run != no_stage)
            nyb_stage_run(w->ctx, &w->weights, run, &a->batch);
        if (status == NYB_OK && routes)
            count_routed(w);
        if (status == NYB_OK && next != no_stage)
            status = accumulate(w, next, err);
        if (status == NYB_OK)
            status = nyb_activations_save(a, out, err);
    }
    return status;
}

// The experts with too few tokens, for a message.
static void list_starved(const walk *w, char *text, size_t room)
{
    const size_t least = w->job->params->experts.min_tokens;
    size_t used = 0;
    for (size_t e = 0; e < nyb_model_config_of(w->job->model)->experts.count; e++) {
        if (w->routed[e] < (least ? least : 1) && used < room)
            used += (size_t) snprintf(text + used, room - used, "%s%zu (%zu tokens)",
                                      used ? ", " : "", e, w->routed[e]);
    }
}

// Whether the expert has tokens to be calibrated on; *enough false and no error: it is rounded to
// nearest, as the parameters allow.
static nyb_status check_expert(const walk *w, size_t block, int expert, bool *enough, nyb_err *err)
{
    const nyb_expert_params *const p = &w->job->params->experts;
    const size_t least = p->min_tokens ? p->min_tokens : 1;
    char starved[400] = "";
    *enough = true;
    if (expert == NYB_ALL_TOKENS || p->calibration == NYB_EXPERTS_ALL || w->routed[expert] >= least)
        return NYB_OK;
    *enough = false;
    if (p->fallback == NYB_EXPERTS_RTN)
        return NYB_OK;
    list_starved(w, starved, sizeof(starved));
    return nyb_fail(err, NYB_E_ARG,
                    "%s: layer %zu sends fewer than %zu calibration tokens to experts %s; give "
                    "more text, use --expert-calibration all, or --expert-fallback rtn",
                    nyb_model_folder(w->job->model), block, least, starved);
}

// As the settings say, or to nearest when an expert has too few tokens.
static nyb_status round_as_allowed(walk *w, const nyb_job_layer *layer, int expert, nyb_err *err)
{
    bool enough = true;
    nyb_job_layer plain = *layer;
    nyb_status status = NYB_OK;
    if (nyb_job_calibrates(layer))
        status = check_expert(w, layer->block, expert, &enough, err);
    if (status != NYB_OK)
        return status;
    if (enough)
        return round_layer(w, layer, expert, false, err);
    nyb_log(w->ctx, NYB_LOG_WARNING,
            "%s: rounded to nearest, its expert has %zu calibration tokens", layer->linear->module,
            w->routed[expert]);
    plain.settings.method = NYB_METHOD_RTN;
    return round_layer(w, &plain, expert, true, err);
}

static nyb_status round_stage(walk *w, size_t block, size_t stage_index, nyb_err *err)
{
    size_t count = 0;
    const nyb_job_layer *const layers = nyb_job_block(w->job, block, &count);
    const nyb_stage stage = nyb_stage_at(w->job->model, block, stage_index);
    nyb_status status = NYB_OK;
    for (size_t i = stage.first; status == NYB_OK && i < stage.first + stage.count; i++) {
        if (!layers[i].settings.skip)
            status = round_as_allowed(w, &layers[i], stage.expert, err);
    }
    nyb_gptq_factor_clear(&w->factor);
    nyb_hessian_clear(&w->hessian);
    return status;
}

static nyb_status round_stages(walk *w, size_t block, nyb_err *err)
{
    const size_t stages = nyb_stage_count(w->job->model, block);
    const bool last_block = block + 1 == nyb_block_count(w->job->model);
    nyb_status status = calibrates(w, block, 0) ? pass(w, block, no_stage, 0, err) : NYB_OK;
    for (size_t s = 0; status == NYB_OK && s < stages; s++) {
        const bool last = s + 1 == stages;
        status = round_stage(w, block, s, err);
        if (status == NYB_OK && w->forward && !(last && last_block)) // nobody reads the last output
            status =
                pass(w, block, s, !last && calibrates(w, block, s + 1) ? s + 1 : no_stage, err);
    }
    return status;
}

static nyb_status round_block(walk *w, size_t block, nyb_err *err)
{
    nyb_status status = nyb_block_weights_load(w->ctx, &w->weights, block, err);
    if (status != NYB_OK)
        return status;
    w->records = json_array();
    if (!w->records)
        return nyb_no_memory(err, "records", 1, 1);
    status = round_stages(w, block, err);
    json_t *const line = status == NYB_OK ? json_pack("{s:I, s:O}", "block", (json_int_t) block,
                                                      "layers", w->records)
                                          : NULL;
    json_decref(w->records);
    w->records = NULL;
    return status == NYB_OK ? nyb_output_commit(w->out, line, err) : status;
}

// Takes every chunk through the block whose weights these are.
static nyb_status run_block(walk *w, nyb_err *err)
{
    nyb_activations *const a = &w->activations;
    nyb_status status = NYB_OK;
    for (size_t c = 0; status == NYB_OK && c < a->chunks; c++) {
        status = nyb_activations_load(a, c, (nyb_activation_part){.x = true}, err);
        if (status == NYB_OK) {
            nyb_block_run(w->ctx, &w->weights, &a->batch);
            status = nyb_activations_save(a, (nyb_activation_part){.x = true}, err);
        }
    }
    return status;
}

static nyb_status embed(walk *w, nyb_err *err)
{
    nyb_activations *const a = &w->activations;
    const size_t step = a->chunk_samples * a->length;
    nyb_status status = NYB_OK;
    for (size_t c = 0; status == NYB_OK && c < a->chunks; c++) {
        status = nyb_activations_load(a, c, (nyb_activation_part){0}, err);
        if (status == NYB_OK)
            status = nyb_embed(w->ctx, &a->batch, w->job->samples.ids + c * step, err);
        if (status == NYB_OK)
            status = nyb_activations_save(a, (nyb_activation_part){.x = true}, err);
    }
    const nyb_tensor *const table = nyb_model_embedding(w->job->model);
    nyb_map_release(table->at, table->bytes);
    return status;
}

// Runs the finished blocks with what was written of them.
static nyb_status replay(walk *w, size_t blocks, nyb_err *err)
{
    nyb_model *written = NULL;
    nyb_block_weights_clear(&w->weights); // there is room for those of one model
    nyb_status status = nyb_model_open(&written, w->out->partial, err);
    if (status == NYB_OK)
        status = nyb_block_weights_init(&w->weights, written, err);
    for (size_t b = 0; status == NYB_OK && b < blocks; b++) {
        status = nyb_block_weights_load(w->ctx, &w->weights, b, err);
        if (status == NYB_OK)
            status = run_block(w, err);
        nyb_step(w->ctx, &(nyb_progress){
                             .stage = "replay", .unit = "blocks", .done = b + 1, .total = blocks});
    }
    nyb_block_weights_clear(&w->weights);
    nyb_model_close(written);
    return status == NYB_OK ? nyb_block_weights_init(&w->weights, w->job->model, err) : status;
}

static nyb_status run(walk *w, nyb_err *err)
{
    const size_t blocks = nyb_block_count(w->job->model);
    const size_t finished = json_array_size(w->out->journal.blocks);
    nyb_status status = NYB_OK;
    const char *const imatrix = w->job->params->imatrix;
    if (imatrix && (finished > 0 || !w->forward))
        return nyb_fail(
            err, NYB_E_ARG, "%s: an importance matrix needs the inputs of every layer: %s", imatrix,
            finished > 0 ? "start over with --force instead of --resume" : "use --method gptq");
    if (finished == blocks)
        return NYB_OK;
    if (imatrix)
        status = nyb_imatrix_open(&w->imatrix, w->job, err);
    if (status == NYB_OK && w->forward)
        status = embed(w, err);
    if (status == NYB_OK && w->forward && finished > 0)
        status = replay(w, finished, err);
    for (size_t i = 0; i < w->job->count; i++)
        w->solved += w->job->layers[i].block < finished && !w->job->layers[i].settings.skip;
    for (size_t b = finished; status == NYB_OK && b < blocks; b++)
        status = round_block(w, b, err);
    return status == NYB_OK && imatrix ? nyb_imatrix_save(&w->imatrix, err) : status;
}

static size_t widest_input(const nyb_job *job)
{
    size_t widest = 0;
    for (size_t i = 0; i < job->count; i++)
        widest = job->layers[i].linear->cols > widest ? job->layers[i].linear->cols : widest;
    return widest;
}

nyb_status nyb_walk(const nyb_context *ctx, const nyb_job *job, nyb_output *out, nyb_err *err)
{
    walk w = {.ctx = ctx, .job = job, .out = out, .forward = job->calibrated};
    const size_t width = widest_input(job);
    w.tile = nyb_alloc_raw(NYB_UNIT_TOKENS * width, sizeof(float));
    nyb_status status =
        w.tile ? NYB_OK : nyb_no_memory(err, "inputs", NYB_UNIT_TOKENS * width, sizeof(float));
    if (status == NYB_OK)
        status = nyb_block_weights_init(&w.weights, job->model, err);
    if (status == NYB_OK && w.forward)
        status = nyb_activations_open(&w.activations, ctx, job->model, job->samples.count,
                                      job->samples.length, nyb_walk_memory(ctx, job).chunk_samples,
                                      out->partial, err);
    w.routed = nyb_alloc(nyb_model_config_of(job->model)->experts.count + 1, sizeof(*w.routed));
    if (status == NYB_OK && !w.routed)
        status = nyb_no_memory(err, "experts", 1, sizeof(*w.routed));
    w.activations.batch.routes.all = job->params->experts.calibration == NYB_EXPERTS_ALL;
    if (status == NYB_OK)
        status = run(&w, err);
    nyb_free(w.routed);
    nyb_imatrix_close(&w.imatrix);
    nyb_gptq_factor_clear(&w.factor);
    nyb_hessian_clear(&w.hessian);
    nyb_activations_close(&w.activations);
    nyb_block_weights_clear(&w.weights);
    nyb_free(w.tile);
    return status;
}

// What refinement takes for one layer, lines of its row tiles apart.
static size_t refine_bytes(const nyb_job_layer *layer)
{
    const nyb_settings *const s = &layer->settings;
    const size_t cols = layer->linear->cols;
    if (!nyb_job_calibrates(layer) || s->refine == 0)
        return 0;
    const bool reordered = s->order == NYB_ORDER_FULL && !s->static_groups && s->group_size != 0;
    return (nyb_layout_groups(&layer->spec) + (reordered ? cols : 0)) * cols * sizeof(float);
}

nyb_walk_bytes nyb_walk_memory(const nyb_context *ctx, const nyb_job *job)
{
    const size_t width = widest_input(job);
    const nyb_samples *const s = &job->samples;
    nyb_walk_bytes bytes = {.weights = nyb_block_weights_bytes(job->model)};
    size_t largest = 0, refined = 0;
    for (size_t i = 0; i < job->count; i++) {
        const size_t more = refine_bytes(&job->layers[i]);
        refined = more > refined ? more : refined;
        const size_t size = job->layers[i].linear->rows * job->layers[i].linear->cols;
        largest = size > largest ? size : largest;
    }
    // The codes and their packed copy, the solver's working copies of a row tile for each thread.
    const size_t lines = refined > 0 ? 4 : 1;
    bytes.other = PROGRAM_BYTES + 3 * largest + nyb_threads(ctx) * lines * 4 * 64 * width;
    bytes.other += NYB_UNIT_TOKENS * width * sizeof(float) + s->count * s->length * 5;
    if (!job->calibrated)
        return bytes;
    bytes.hessians = 2 * width * width * sizeof(float) +
                     nyb_hessian_scratch(ctx, width, NYB_UNIT_TOKENS) +
                     nyb_hessian_loss_bytes(ctx, width) + refined;
    const size_t fixed = bytes.weights + bytes.hessians + bytes.other;
    const size_t ceiling = ctx ? ctx->memory_bytes : 0;
    const size_t room = ceiling > fixed ? ceiling - fixed : ceiling > 0 ? 1 : 0;
    bytes.chunk_samples = nyb_activations_fit(ctx, job->model, s->count, s->length, room);
    bytes.activations = nyb_activations_memory(ctx, job->model, bytes.chunk_samples, s->length);
    bytes.spilled = nyb_activations_spill(job->model, bytes.chunk_samples, s->count, s->length);
    return bytes;
}
