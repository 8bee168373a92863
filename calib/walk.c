#include "calib/walk.h"

#include <math.h>

#include "core/log.h"
#include "core/threads.h"

enum { GATHER_ROWS = 128 }; // tokens of one task when a stage's inputs are gathered

typedef struct walk {
    const nyb_context *ctx;
    const nyb_job *job;
    nyb_output *out;
    bool forward; // activations are carried along
    nyb_batch batch;
    nyb_block_weights weights;
    float *tile;            // [NYB_WALK_TILE, widest input]
    nyb_hessian hessian;    // of the current stage's input
    nyb_gptq_factor factor; // of the hessian, zeroed: none yet
    nyb_gptq_params asked;  // what the factor was made for
    json_t *records;        // of the current block's layers
    size_t solved;
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
    nyb_stage_input(&g->w->batch, &g->w->weights, g->stage, g->token0 + row0,
                    nyb_block(g->into, row0, row1, 0, g->into.cols));
}

static nyb_status accumulate(walk *w, size_t stage, size_t width, nyb_err *err)
{
    nyb_status status = nyb_hessian_init(&w->hessian, width, err);
    for (size_t t = 0; status == NYB_OK && t < w->batch.tokens; t += NYB_WALK_TILE) {
        const size_t left = w->batch.tokens - t;
        const size_t rows = left < NYB_WALK_TILE ? left : NYB_WALK_TILE;
        gather g = {.w = w, .stage = stage, .token0 = t, .into = nyb_mat_of(w->tile, rows, width)};
        nyb_parallel(w->ctx, (rows + GATHER_ROWS - 1) / GATHER_ROWS, gather_rows, &g);
        status = nyb_hessian_add(w->ctx, &w->hessian, g.into, err);
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
    return nyb_solve_layer(w->ctx, input, weight, &params, q, report, err);
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

static nyb_status round_layer(walk *w, const nyb_job_layer *layer, nyb_err *err)
{
    nyb_err inner = {0};
    nyb_qweight q = {0};
    nyb_gptq_report report = {0};
    nyb_status status = solve(w, layer, &q, &report, &inner);
    if (status != NYB_OK)
        return nyb_fail(err, status, "%s: '%s': %s", nyb_model_folder(w->job->model),
                        layer->linear->module, inner.text);
    status = finish_layer(w, layer, &q, &report, err);
    nyb_qweight_clear(&q);
    return status;
}

// ---- Stages and blocks --------------------------------------------------------------------

static nyb_status round_stage(walk *w, const nyb_job_layer *layers, nyb_stage stage,
                              size_t stage_index, nyb_err *err)
{
    bool calibrated = false;
    for (size_t i = stage.first; i < stage.first + stage.count; i++)
        calibrated |= nyb_job_calibrates(&layers[i]);

    nyb_status status = calibrated ? accumulate(w, stage_index, stage.width, err) : NYB_OK;
    for (size_t i = stage.first; status == NYB_OK && i < stage.first + stage.count; i++) {
        if (!layers[i].settings.skip)
            status = round_layer(w, &layers[i], err);
    }
    nyb_gptq_factor_clear(&w->factor);
    nyb_hessian_clear(&w->hessian);
    return status;
}

static nyb_status round_stages(walk *w, size_t block, nyb_err *err)
{
    size_t count = 0;
    const nyb_job_layer *const layers = nyb_job_block(w->job, block, &count);
    const size_t stages = nyb_stage_count(w->job->model, block);
    const bool last_block = block + 1 == nyb_block_count(w->job->model);

    for (size_t s = 0; s < stages; s++) {
        const nyb_stage stage = nyb_stage_at(w->job->model, block, s);
        const nyb_status status = round_stage(w, layers, stage, s, err);
        if (status != NYB_OK)
            return status;
        if (w->forward && !(last_block && s + 1 == stages)) // nobody reads the last output
            nyb_stage_run(w->ctx, &w->weights, s, &w->batch);
    }
    return NYB_OK;
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

// Runs the finished blocks with what was written of them.
static nyb_status replay(walk *w, size_t blocks, nyb_err *err)
{
    nyb_model *written = NULL;
    nyb_block_weights weights = {0};
    nyb_status status = nyb_model_open(&written, w->out->partial, err);
    if (status == NYB_OK)
        status = nyb_block_weights_init(&weights, written, err);
    for (size_t b = 0; status == NYB_OK && b < blocks; b++) {
        status = nyb_block_weights_load(w->ctx, &weights, b, err);
        for (size_t s = 0; status == NYB_OK && s < nyb_stage_count(written, b); s++)
            nyb_stage_run(w->ctx, &weights, s, &w->batch);
        nyb_step(w->ctx, &(nyb_progress){
                             .stage = "replay", .unit = "blocks", .done = b + 1, .total = blocks});
    }
    nyb_block_weights_clear(&weights);
    nyb_model_close(written);
    return status;
}

static nyb_status run(walk *w, nyb_err *err)
{
    const size_t blocks = nyb_block_count(w->job->model);
    const size_t finished = json_array_size(w->out->journal.blocks);
    nyb_status status = NYB_OK;
    if (finished == blocks)
        return NYB_OK;
    if (w->forward)
        status = nyb_embed(w->ctx, &w->batch, w->job->samples.ids, err);
    if (status == NYB_OK && w->forward && finished > 0)
        status = replay(w, finished, err);
    for (size_t i = 0; i < w->job->count; i++)
        w->solved += w->job->layers[i].block < finished && !w->job->layers[i].settings.skip;
    for (size_t b = finished; status == NYB_OK && b < blocks; b++)
        status = round_block(w, b, err);
    return status;
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
    w.tile = nyb_alloc_raw(NYB_WALK_TILE * width, sizeof(float));
    nyb_status status =
        w.tile ? NYB_OK : nyb_no_memory(err, "inputs", NYB_WALK_TILE * width, sizeof(float));
    if (status == NYB_OK)
        status = nyb_block_weights_init(&w.weights, job->model, err);
    if (status == NYB_OK && w.forward)
        status = nyb_batch_init_even(&w.batch, ctx, job->model, job->samples.count,
                                     job->samples.length, err);
    if (status == NYB_OK)
        status = run(&w, err);
    nyb_gptq_factor_clear(&w.factor);
    nyb_hessian_clear(&w.hessian);
    nyb_batch_clear(&w.batch);
    nyb_block_weights_clear(&w.weights);
    nyb_free(w.tile);
    return status;
}

nyb_walk_bytes nyb_walk_memory(const nyb_context *ctx, const nyb_job *job)
{
    const size_t width = widest_input(job);
    const nyb_samples *const s = &job->samples;
    nyb_walk_bytes bytes = {.weights = nyb_block_weights_bytes(job->model)};
    size_t largest = 0;
    for (size_t i = 0; i < job->count; i++) {
        const size_t size = job->layers[i].linear->rows * job->layers[i].linear->cols;
        largest = size > largest ? size : largest;
    }
    // The codes and their packed copy, the solver's working copy of a row tile for each thread.
    bytes.other = 3 * largest + nyb_threads(ctx) * 4 * 64 * width;
    bytes.other += NYB_WALK_TILE * width * sizeof(float) + s->count * s->length * 4;
    if (job->calibrated) {
        bytes.activations =
            nyb_batch_bytes(ctx, job->model, s->count, s->count * s->length, s->length);
        bytes.hessians = 2 * width * width * sizeof(float);
    }
    return bytes;
}
