#include "calib/walk.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "calib/beside.h"
#include "calib/finish.h"
#include "calib/imatrix.h"
#include "calib/pass.h"
#include "core/log.h"
#include "core/threads.h"
#include "gptq/hessian.h"

typedef struct walk {
    const nyb_context *ctx;
    const nyb_job *job;
    nyb_output *out;
    bool forward; // activations are carried along
    nyb_pass pass;
    nyb_beside beside;      // where pass.beside is set
    nyb_hessian hessian;    // of the current stage's input
    nyb_gptq_factor factor; // of the hessian, zeroed: none yet
    nyb_gptq_params asked;  // what the factor was made for
    size_t place;           // of the stage's first layer among all, of a stored Hessian
    json_t *records;        // of the current block's layers
    size_t solved;
    nyb_imatrix imatrix;
} walk;

// ---- One stage's Hessian ------------------------------------------------------------------

static nyb_status accumulate(void *arg, const nyb_pass_rows *rows, nyb_err *err)
{
    walk *const w = arg;
    const size_t tokens = w->hessian.tokens;
    const nyb_status status =
        rows->off.at ? nyb_beside_add(&w->beside, &w->hessian, rows, err)
                     : nyb_hessian_add_operand(w->ctx, &w->hessian, &rows->operand, err);
    if (rows->again)
        w->hessian.tokens = tokens;
    return status;
}

// The factor of a stored Hessian, which an earlier run may have made.
static nyb_status prepare_stored(walk *w, const nyb_gptq_params *params, nyb_err *err)
{
    nyb_factor_cache *const cache = &w->job->shared->factors;
    const nyb_factor_key key = nyb_factor_key_of(w->place, params);
    bool found = false;
    nyb_status status = nyb_factor_cache_get(cache, key, &w->hessian, &w->factor, &found, err);
    if (status != NYB_OK || found)
        return status;
    status = nyb_gptq_prepare(w->ctx, &w->factor, &w->hessian, params, err);
    if (status == NYB_OK)
        nyb_factor_cache_put(cache, key, &w->factor);
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
    if (w->job->shared && w->job->hessians)
        return prepare_stored(w, params, err);
    return nyb_gptq_prepare(w->ctx, &w->factor, &w->hessian, params, err);
}

// ---- One layer ----------------------------------------------------------------------------

static void set_real(json_t *record, const char *key, double value)
{
    if (isfinite(value))
        json_object_set_new(record, key, json_real(value));
}

static nyb_status record(walk *w, const nyb_job_layer *layer, const nyb_qweight *q,
                         const nyb_gptq_report *report, const char *hash, double weight_error,
                         nyb_err *err)
{
    json_t *const r = nyb_settings_json(&layer->settings);
    size_t bytes = 0;
    const nyb_status status = nyb_layout_bytes(layer->layout, &layer->spec, &bytes, err);
    if (status != NYB_OK) {
        json_decref(r);
        return status;
    }
    if (!r || json_object_set_new(r, "module", json_string(layer->linear->module)) != 0 ||
        json_object_set_new(r, "sha256", json_string(hash)) != 0)
        return nyb_no_memory(err, "record", 1, 1);
    json_object_set_new(r, "rows", json_integer((json_int_t) q->rows));
    json_object_set_new(r, "cols", json_integer((json_int_t) q->cols));
    set_real(r, "bits_per_weight", 8.0 * (double) bytes / ((double) q->rows * (double) q->cols));
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

// What earlier runs may have measured of the layer.
static nyb_status measure_shared(walk *w, const nyb_job_layer *layer, nyb_mat weight,
                                 const nyb_grid_params *grid, nyb_gptq_report *report, nyb_err *err)
{
    const nyb_shared_layer shared = {.hessian = &w->hessian,
                                     .w = weight,
                                     .index = nyb_job_place(w->job, layer),
                                     .count = w->job->count};
    return nyb_shared_measure(w->job->shared, w->ctx, &shared, grid, report, err);
}

static nyb_status solve(walk *w, const nyb_job_layer *layer, nyb_mat weight, nyb_qweight *q,
                        nyb_gptq_report *report, nyb_err *err)
{
    nyb_solve_params params = nyb_job_solve(w->job, layer);
    nyb_solve_input input = {.hessian = w->hessian.h.at ? &w->hessian : NULL};
    const bool shared = nyb_job_calibrates(layer) && w->job->shared && w->job->hessians;
    params.gptq.skip_measurements = shared;
    if (nyb_job_calibrates(layer)) {
        nyb_status status = prepare(w, &params.gptq, err);
        if (status == NYB_OK && w->pass.beside)
            status = nyb_beside_target(&w->beside, &w->factor, weight, &params.gptq.target, err);
        if (status != NYB_OK)
            return status;
        input.factor = &w->factor;
    }
    nyb_status status = nyb_solve_layer(w->ctx, input, weight, &params, q, report, err);
    if (status == NYB_OK && shared)
        status = measure_shared(w, layer, weight, &params.gptq.grid, report, err);
    if (status != NYB_OK)
        nyb_qweight_clear(q);
    nyb_free(params.gptq.target.at);
    q->input_scale = layer->input_scale;
    return status;
}

// `stored` is what `weight` is the shape of, when it has no memory.
static nyb_status finish_layer(walk *w, const nyb_job_layer *layer, nyb_mat weight,
                               const nyb_tensor *stored, const nyb_qweight *q,
                               const nyb_gptq_report *report, nyb_err *err)
{
    const nyb_finishing finishing = {
        .out = w->out, .layer = layer, .q = q, .weight = weight, .stored = stored};
    char hash[NYB_HASH_TEXT];
    double error = 0.0;
    const nyb_status status = nyb_finish_layer(w->ctx, &finishing, hash, &error, err);
    if (status != NYB_OK)
        return status;
    nyb_step(w->ctx, &(nyb_progress){.stage = "quantize",
                                     .item = layer->linear->module,
                                     .unit = "layers",
                                     .done = ++w->solved,
                                     .total = w->job->rounded});
    return record(w, layer, q, report, hash, error, err);
}

// Adds to the last layer's record what it has to say as part of an expert.
static void record_expert(walk *w, int expert, bool fallback)
{
    json_t *const r = json_array_get(w->records, json_array_size(w->records) - 1);
    json_object_set_new(r, "expert", json_integer(expert));
    json_object_set_new(r, "routed_tokens", json_integer((json_int_t) w->pass.routed[expert]));
    if (fallback)
        json_object_set_new(r, "fallback", json_string("too few calibration tokens"));
}

// Rounds the layer; its weight is left as it was rounded.
static nyb_status round_weight(walk *w, const nyb_job_layer *layer, nyb_mat weight, nyb_err *err)
{
    nyb_err inner = {0};
    nyb_qweight q = {0};
    nyb_gptq_report report = {0};
    nyb_status status = solve(w, layer, weight, &q, &report, &inner);
    if (status == NYB_OK && w->imatrix.job && w->hessian.h.at)
        status = nyb_imatrix_add(&w->imatrix, layer, &w->hessian, &inner);
    if (status != NYB_OK)
        return nyb_fail(err, status, "%s: '%s': %s", nyb_model_folder(w->job->model),
                        layer->linear->module, inner.text);
    status = finish_layer(w, layer, weight, NULL, &q, &report, err);
    nyb_qweight_clear(&q);
    return status;
}

// Whether the layer is rounded from the bytes of the file.
static bool rounds_stored(const nyb_job_layer *layer)
{
    const nyb_linear *const l = layer->linear;
    return !l->quantized && nyb_linear_is_plain(l) && !nyb_job_calibrates(layer) &&
           layer->settings.method != NYB_METHOD_FLOAT8;
}

static nyb_status round_stored_weight(walk *w, const nyb_job_layer *layer, nyb_err *err)
{
    const nyb_linear *const l = layer->linear;
    const nyb_tensor stored = {.name = l->weight->name,
                               .dtype = l->weight->dtype,
                               .rank = 2,
                               .shape = {l->rows, l->cols},
                               .at = l->weight->at,
                               .bytes = l->rows * l->cols * nyb_dtype_bytes(l->weight->dtype)};
    const nyb_solve_params params = nyb_job_solve(w->job, layer);
    nyb_err inner = {0};
    nyb_qweight q = {0};
    nyb_gptq_report report = {0};
    nyb_status status = nyb_solve_stored(w->ctx, &stored, &params, &q, &report, &inner);
    if (status != NYB_OK)
        return nyb_fail(err, status, "%s: '%s': %s", nyb_model_folder(w->job->model), l->module,
                        inner.text);
    q.input_scale = layer->input_scale;
    status = finish_layer(w, layer, nyb_mat_of(NULL, l->rows, l->cols), &stored, &q, &report, err);
    nyb_qweight_clear(&q);
    return status;
}

static nyb_status round_layer(walk *w, const nyb_job_layer *layer, int expert, bool fallback,
                              nyb_err *err)
{
    const nyb_mat weight = w->pass.weights.weights[layer->index];
    const nyb_status status = round_weight(w, layer, weight, err);
    if (status == NYB_OK && expert != NYB_ALL_TOKENS && (w->forward || w->job->hessians))
        record_expert(w, expert, fallback);
    return status;
}

// ---- Stages and blocks --------------------------------------------------------------------

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

// Takes the tokens through the stage `run` and sums up the Hessian of the stage `next`.
static nyb_status pass(walk *w, size_t block, size_t run, size_t next, nyb_err *err)
{
    nyb_status status = NYB_OK;
    const size_t width = next != nyb_no_stage ? nyb_stage_at(w->job->model, block, next).width : 0;
    if (width)
        status = nyb_hessian_renew(&w->hessian, width, err);
    if (status == NYB_OK && width && w->pass.beside)
        status = nyb_beside_begin(&w->beside, width, err);
    return status == NYB_OK ? nyb_pass_stage(&w->pass, run, next, accumulate, w, err) : status;
}

// The experts with too few tokens, for a message.
static void list_starved(const walk *w, char *text, size_t room)
{
    const size_t least = w->job->params->experts.min_tokens;
    size_t used = 0;
    for (size_t e = 0; e < nyb_model_config_of(w->job->model)->experts.count; e++) {
        if (w->pass.routed[e] < (least ? least : 1) && used < room)
            used += (size_t) snprintf(text + used, room - used, "%s%zu (%zu tokens)",
                                      used ? ", " : "", e, w->pass.routed[e]);
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
    if (expert == NYB_ALL_TOKENS || p->calibration == NYB_EXPERTS_ALL ||
        w->pass.routed[expert] >= least)
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
            w->pass.routed[expert]);
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
    nyb_hessian_empty(&w->hessian);
    return status;
}

// The stage's Hessian from the store: also where no layer is solved with it, for the losses.
static nyb_status read_stage(walk *w, size_t block, size_t index, nyb_err *err)
{
    size_t count = 0;
    const nyb_stage stage = nyb_stage_at(w->job->model, block, index);
    w->place = nyb_job_place(w->job, nyb_job_block(w->job, block, &count) + stage.first);
    return nyb_hessian_store_read(w->job->hessians,
                                  nyb_linear_at(w->job->model, block, stage.first)->module,
                                  stage.width, &w->hessian, err);
}

// What the block's router did when the store was made.
static nyb_status read_routed(walk *w, size_t block, nyb_err *err)
{
    nyb_status status = NYB_OK;
    for (size_t s = 0; status == NYB_OK && s < nyb_stage_count(w->job->model, block); s++) {
        const nyb_stage stage = nyb_stage_at(w->job->model, block, s);
        nyb_store_entry entry;
        if (stage.expert == NYB_ALL_TOKENS)
            continue;
        status = nyb_hessian_store_entry(w->job->hessians,
                                         nyb_linear_at(w->job->model, block, stage.first)->module,
                                         &entry, err);
        w->pass.routed[stage.expert] = entry.routed;
    }
    return status;
}

static nyb_status round_stored(walk *w, size_t block, nyb_err *err)
{
    nyb_status status = read_routed(w, block, err);
    for (size_t s = 0; status == NYB_OK && s < nyb_stage_count(w->job->model, block); s++) {
        status = read_stage(w, block, s, err);
        if (status == NYB_OK)
            status = round_stage(w, block, s, err);
    }
    return status;
}

static nyb_status round_stages(walk *w, size_t block, nyb_err *err)
{
    const size_t stages = nyb_stage_count(w->job->model, block);
    const bool last_block = block + 1 == nyb_block_count(w->job->model);
    nyb_status status = calibrates(w, block, 0) ? pass(w, block, nyb_no_stage, 0, err) : NYB_OK;
    for (size_t s = 0; status == NYB_OK && s < stages; s++) {
        const bool last = s + 1 == stages;
        status = round_stage(w, block, s, err);
        if (status == NYB_OK && w->forward && !(last && last_block)) // nobody reads the last output
            status =
                pass(w, block, s, !last && calibrates(w, block, s + 1) ? s + 1 : nyb_no_stage, err);
    }
    return status;
}

// Rounds what `work` rounds of the block, and commits it.
static nyb_status commit(walk *w, size_t block,
                         nyb_status (*work)(walk *w, size_t block, nyb_err *err), nyb_err *err)
{
    w->records = json_array();
    if (!w->records)
        return nyb_no_memory(err, "records", 1, 1);
    const nyb_status status = work(w, block, err);
    json_t *const line = status == NYB_OK ? json_pack("{s:I, s:O}", "block", (json_int_t) block,
                                                      "layers", w->records)
                                          : NULL;
    json_decref(w->records);
    w->records = NULL;
    return status == NYB_OK ? nyb_output_commit(w->out, line, err) : status;
}

// A layer that needs no inputs, by itself.
static nyb_status round_alone(walk *w, const nyb_job_layer *layer, nyb_err *err)
{
    const nyb_linear *const l = layer->linear;
    if (rounds_stored(layer))
        return round_stored_weight(w, layer, err);
    const nyb_mat weight =
        nyb_mat_of(nyb_alloc_raw(l->rows * l->cols, sizeof(float)), l->rows, l->cols);
    if (!weight.at)
        return nyb_no_memory(err, l->module, l->rows, l->cols * sizeof(float));
    nyb_status status = nyb_linear_read(w->job->model, l, weight, err);
    if (status == NYB_OK)
        status = round_weight(w, layer, weight, err);
    nyb_free(weight.at);
    return status;
}

// Layers of a block without inputs; embedding and head, which make a block behind the last one.
static nyb_status round_each(walk *w, size_t block, nyb_err *err)
{
    size_t count = 0;
    const nyb_job_layer *const layers = nyb_job_block(w->job, block, &count);
    nyb_status status = NYB_OK;
    for (size_t i = 0; status == NYB_OK && i < count; i++) {
        if (layers[i].form != NYB_FORM_CODES)
            continue;
        status = round_alone(w, &layers[i], err);
        nyb_checkpoint_release(nyb_model_checkpoint(w->job->model));
    }
    return status;
}

static nyb_status round_block(walk *w, size_t block, nyb_err *err)
{
    if (!nyb_walk_needs_blocks(w->job))
        return commit(w, block, round_each, err);
    nyb_status status = nyb_block_weights_load(w->ctx, &w->pass.weights, block, err);
    if (status == NYB_OK && w->pass.beside)
        status = nyb_beside_load(&w->beside, block, err);
    if (status != NYB_OK)
        return status;
    return commit(w, block, w->job->hessians ? round_stored : round_stages, err);
}

// Runs the finished blocks with what was written of them.
static nyb_status replay(walk *w, size_t blocks, nyb_err *err)
{
    nyb_model *written = NULL;
    nyb_block_weights_clear(&w->pass.weights); // there is room for those of one model
    nyb_status status = nyb_model_open(&written, w->out->partial, err);
    if (status == NYB_OK)
        status = nyb_block_weights_init(&w->pass.weights, written, err);
    for (size_t b = 0; status == NYB_OK && b < blocks; b++) {
        status = nyb_block_weights_load(w->ctx, &w->pass.weights, b, err);
        if (status == NYB_OK)
            status = nyb_pass_block(&w->pass, err);
        nyb_step(w->ctx, &(nyb_progress){
                             .stage = "replay", .unit = "blocks", .done = b + 1, .total = blocks});
    }
    nyb_block_weights_clear(&w->pass.weights);
    nyb_model_close(written);
    return status == NYB_OK ? nyb_block_weights_init(&w->pass.weights, w->job->model, err) : status;
}

static nyb_status run(walk *w, nyb_err *err)
{
    const size_t blocks = nyb_block_count(w->job->model);
    const size_t finished = json_array_size(w->out->journal.blocks);
    nyb_status status = NYB_OK;
    const char *const imatrix = w->job->params->imatrix;
    if (imatrix && (finished > 0 || !(w->forward || w->job->hessians)))
        return nyb_fail(
            err, NYB_E_ARG, "%s: an importance matrix needs the inputs of every layer: %s", imatrix,
            finished > 0 ? "start over with --force instead of --resume" : "use --method gptq");
    if (finished == nyb_job_blocks(w->job))
        return NYB_OK;
    if (imatrix)
        status = nyb_imatrix_open(&w->imatrix, w->job, err);
    if (status == NYB_OK && w->forward && finished < blocks)
        status = nyb_pass_embed(&w->pass, err);
    if (status == NYB_OK && w->pass.beside && finished < blocks)
        status = nyb_beside_start(&w->beside, finished, err);
    if (status == NYB_OK && w->forward && finished > 0 && finished < blocks)
        status = replay(w, finished, err);
    for (size_t i = 0; i < w->job->count; i++)
        w->solved += w->job->layers[i].block < finished && !w->job->layers[i].settings.skip;
    for (size_t b = finished; status == NYB_OK && b < blocks; b++)
        status = round_block(w, b, err);
    if (status == NYB_OK && nyb_job_blocks(w->job) > blocks) {
        w->pass.beside = NULL;
        nyb_beside_close(&w->beside);
        nyb_activations_close(&w->pass.activations);
        nyb_block_weights_clear(&w->pass.weights);
        status = commit(w, blocks, round_each, err);
    }
    return status == NYB_OK && imatrix ? nyb_imatrix_save(&w->imatrix, err) : status;
}

nyb_status nyb_walk(const nyb_context *ctx, const nyb_job *job, nyb_output *out, nyb_err *err)
{
    walk w = {.ctx = ctx, .job = job, .out = out, .forward = job->forward};
    const nyb_walk_bytes bytes = nyb_walk_memory(ctx, job);
    const nyb_pass_params params = {
        .samples = w.forward ? &job->samples : NULL,
        .chunk_samples = bytes.chunk_samples,
        .operands = bytes.operands,
        .folder = out->partial,
        .all_experts = job->params->experts.calibration == NYB_EXPERTS_ALL,
    };
    nyb_status status =
        nyb_walk_needs_blocks(job) ? nyb_pass_open(&w.pass, ctx, job->model, &params, err) : NYB_OK;
    if (status == NYB_OK && w.forward && job->params->objective == NYB_OBJECTIVE_MODEL)
        status = nyb_beside_open(&w.beside, &w.pass, job, &params, err);
    if (status == NYB_OK)
        status = run(&w, err);
    nyb_beside_close(&w.beside);
    nyb_imatrix_close(&w.imatrix);
    nyb_gptq_factor_clear(&w.factor);
    nyb_hessian_clear(&w.hessian);
    nyb_pass_close(&w.pass);
    return status;
}
