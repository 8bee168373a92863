#include "nybble/convert.h"

#include <stdlib.h>
#include <string.h>

#include "calib/keras_convert.h"
#include "calib/output.h"
#include "calib/output_floats.h"
#include "calib/regrid.h"
#include "calib/source_files.h"
#include "core/clock.h"
#include "core/dtype.h"
#include "core/log.h"
#include "core/threads.h"
#include "nybble/version.h"

// What a run holds while it goes on.
typedef struct converting {
    const nyb_context *ctx;
    nyb_job *job;
    nyb_output *out; // while layers are written
    nyb_job_layer **layers;
    size_t count;  // of quantised layers
    bool *centred; // [count] whether every zero point is the middle code
    bool *dropped; // [count] whether the layout cannot say what the input is rounded to
    char (*hashes)[NYB_HASH_TEXT];
    nyb_status *status;
    nyb_err *faults;
} converting;

// ---- One layer ------------------------------------------------------------------------------

static nyb_status read_layer(nyb_qweight *q, const nyb_job *job, const nyb_job_layer *layer,
                             nyb_err *err)
{
    const nyb_linear *const l = layer->linear;
    return nyb_quantization_read(q, nyb_model_quantization(job->model),
                                 nyb_model_checkpoint(job->model), l->module, l->rows, l->cols,
                                 err);
}

// What the layer's input is rounded to goes with it where the layout can say it; else it is
// dropped, and told.
static nyb_status settle_inputs(converting *c, size_t index, const nyb_qweight *q, nyb_err *err)
{
    nyb_job_layer *const layer = c->layers[index];
    nyb_quantized source;
    const nyb_status status = nyb_quantization_of(&source, nyb_model_quantization(c->job->model),
                                                  layer->linear->module, err);
    const nyb_activation_kind kind = source.spec.inputs;
    const bool fixed = kind >= NYB_ACTIVATIONS_INT8_STATIC;
    const bool whole = kind == NYB_ACTIVATIONS_INT8 || kind == NYB_ACTIVATIONS_INT8_PER_TOKEN ||
                       kind == NYB_ACTIVATIONS_INT8_STATIC;
    const bool keeps = kind != NYB_ACTIVATIONS_NONE && layer->layout->inputs &&
                       whole == (q->kind == NYB_CODE_INT) && (!fixed || q->input_scale > 0.0f);
    // Fine-grained FP8 always rounds what comes in, and does not say how.
    const bool same = source.layout == layer->layout && !layer->layout->inputs && !fixed;
    layer->spec.inputs = keeps ? kind : NYB_ACTIVATIONS_NONE;
    layer->spec.input_scale = keeps && fixed;
    c->dropped[index] =
        !keeps && !same &&
        (kind != NYB_ACTIVATIONS_NONE || source.spec.other_inputs || q->input_scale > 0.0f);
    return status;
}

static bool is_centred(const nyb_qweight *q)
{
    for (size_t k = 0; k < q->rows * q->groups; k++) {
        if (q->kind == NYB_CODE_INT && q->zeros[k] != 1u << (q->bits - 1))
            return false;
    }
    return true;
}

static nyb_status check_zeros(const nyb_job *job, const nyb_qweight *q, const char *module,
                              nyb_err *err)
{
    for (size_t k = 0; k < q->rows * q->groups; k++) {
        if (q->kind == NYB_CODE_INT && q->zeros[k] < job->layout->lowest_zero)
            return nyb_fail(err, NYB_E_UNSUPPORTED,
                            "'%s': zero point %u at row %zu, group %zu, and readers of %s agree on "
                            "those from %u on alone; use --format gptq_v2, awq or "
                            "compressed-tensors",
                            module, q->zeros[k], k / q->groups, k % q->groups, job->layout->name,
                            job->layout->lowest_zero);
    }
    return NYB_OK;
}

// What is checked before scales are looked at: what they are to become is not settled yet, and
// blocks may be cut anew.
static nyb_status check_kind(const nyb_job *job, const nyb_job_layer *layer, const nyb_qweight *q,
                             nyb_err *err)
{
    nyb_job_layer first = *layer;
    first.spec = nyb_layout_spec_of(q);
    first.spec.scale_dtype = layer->layout->scale_dtype(q->scale_dtype);
    first.settings.group_size = first.spec.group_size;
    if (q->kind != NYB_CODE_INT && layer->layout->blocks)
        return NYB_OK;
    return nyb_job_check_layer(job, &first, err);
}

// Finds out whether the layout can hold the layer, and as what.
static nyb_status settle(converting *c, size_t index, nyb_err *err)
{
    nyb_job *const job = c->job;
    nyb_job_layer *const layer = c->layers[index];
    nyb_qweight q;
    nyb_status status = read_layer(&q, job, layer, err);
    layer->form = NYB_FORM_CODES;
    if (status == NYB_OK) {
        layer->layout = nyb_job_layout_of(job->layout, q.kind);
        status = check_kind(job, layer, &q, err);
    }
    if (status == NYB_OK && layer->linear == nyb_model_embedding(job->model) &&
        !layer->layout->outer)
        status = nyb_fail(err, NYB_E_UNSUPPORTED,
                          "'%s': readers of %s do not look for a quantised embedding; use --format "
                          "compressed-tensors",
                          layer->linear->module, layer->layout->name);
    if (status == NYB_OK)
        status = nyb_regrid(&q, layer->layout, layer->linear->module, err);
    if (status == NYB_OK)
        status = check_zeros(job, &q, layer->linear->module, err);
    if (status == NYB_OK) {
        c->centred[index] = is_centred(&q);
        layer->spec = nyb_layout_spec_of(&q);
        layer->settings.group_size = layer->spec.group_size;
        status = settle_inputs(c, index, &q, err);
    }
    if (status == NYB_OK)
        status = nyb_job_check_layer(job, layer, err);
    nyb_qweight_clear(&q);
    return status;
}

static nyb_status write(converting *c, size_t index, nyb_err *err)
{
    const nyb_job_layer *const layer = c->layers[index];
    nyb_qweight q;
    nyb_status status = read_layer(&q, c->job, layer, err);
    if (status == NYB_OK)
        status = nyb_regrid(&q, layer->layout, layer->linear->module, err);
    if (status == NYB_OK) {
        q.symmetric = layer->spec.symmetric;
        q.input_scale = layer->spec.input_scale ? q.input_scale : 0.0f;
        nyb_job_hash(&q, c->hashes[index]);
        status = nyb_output_put(c->out, layer, &q, err);
    }
    nyb_qweight_clear(&q);
    return status;
}

static void settle_task(void *arg, size_t index, unsigned worker)
{
    converting *const c = arg;
    (void) worker;
    c->status[index] = settle(c, index, &c->faults[index]);
}

static void write_task(void *arg, size_t index, unsigned worker)
{
    converting *const c = arg;
    (void) worker;
    c->status[index] = write(c, index, &c->faults[index]);
}

// Runs the task for every layer; the first fault in the layers' order is the one that is told.
static nyb_status for_layers(converting *c, void (*task)(void *, size_t, unsigned), nyb_err *err)
{
    nyb_parallel(c->ctx, c->count, task, c);
    for (size_t i = 0; i < c->count; i++) {
        if (c->status[i] != NYB_OK)
            return nyb_fail(err, c->status[i], "%s", c->faults[i].text);
    }
    return NYB_OK;
}

// ---- The job --------------------------------------------------------------------------------

static nyb_status find_format(nyb_job *job, const char *format, nyb_err *err)
{
    job->casts = nyb_output_float_named(format, &job->dtype);
    if (job->casts)
        return NYB_OK;
    job->layout = nyb_layout_by_name(format);
    return job->layout ? NYB_OK : nyb_fail(err, NYB_E_ARG, "unknown format '%s'", format);
}

// Every linear layer, with quantised ones as floats for the time being.
static nyb_status list_layers(converting *c, nyb_err *err)
{
    nyb_job *const job = c->job;
    const nyb_linear *const outer[] = {nyb_model_embedding(job->model), nyb_model_head(job->model)};
    size_t room = 2;
    for (size_t b = 0; b < nyb_block_count(job->model); b++)
        room += nyb_linear_count(job->model, b);
    job->layers = nyb_arena_alloc(&job->arena, room, sizeof(*job->layers));
    c->layers = nyb_arena_alloc(&job->arena, room, sizeof(*c->layers));
    c->centred = nyb_arena_alloc(&job->arena, room, sizeof(*c->centred));
    c->dropped = nyb_arena_alloc(&job->arena, room, sizeof(*c->dropped));
    c->hashes = nyb_arena_alloc(&job->arena, room, sizeof(*c->hashes));
    c->status = nyb_arena_alloc(&job->arena, room, sizeof(*c->status));
    c->faults = nyb_arena_alloc(&job->arena, room, sizeof(*c->faults));
    if (!job->layers || !c->layers || !c->centred || !c->dropped || !c->hashes || !c->status ||
        !c->faults)
        return nyb_no_memory(err, "layers", room, sizeof(*job->layers));
    for (size_t b = 0; b < nyb_block_count(job->model); b++) {
        for (size_t i = 0; i < nyb_linear_count(job->model, b); i++)
            job->layers[job->count++] =
                (nyb_job_layer){.linear = nyb_linear_at(job->model, b, i), .block = b, .index = i};
    }
    for (size_t i = 0; i < 2; i++) {
        if (outer[i]->quantized && !(i > 0 && nyb_model_head_tied(job->model)))
            job->layers[job->count + job->outer++] =
                (nyb_job_layer){.linear = outer[i], .block = nyb_block_count(job->model)};
    }
    for (size_t i = 0; i < job->count + job->outer; i++) {
        nyb_job_layer *const layer = &job->layers[i];
        layer->dtype = job->dtype;
        layer->settings.skip = true;
        if (job->unpacks && i < job->count)
            layer->form = NYB_FORM_FLOATS;
        if (layer->linear->quantized) {
            layer->form = NYB_FORM_FLOATS;
            c->layers[c->count++] = layer;
        }
    }
    return NYB_OK;
}

// Layers whose zero points all are the middle code need none, if that holds for all of them: more
// readers take such a checkpoint.
static void settle_symmetry(converting *c)
{
    bool all = true;
    for (size_t i = 0; i < c->count; i++)
        all = all && c->centred[i];
    for (size_t i = 0; i < c->count; i++) {
        c->layers[i]->settings.skip = false;
        c->layers[i]->spec.symmetric |= all;
    }
}

static void tell_dropped(const converting *c)
{
    size_t count = 0;
    for (size_t i = 0; i < c->count; i++)
        count += c->dropped[i];
    if (count > 0)
        nyb_log(
            c->ctx, NYB_LOG_WARNING,
            "what the inputs of %zu layers are rounded to is left out: --format %s cannot say it",
            count, c->job->layout->name);
}

static nyb_status settle_layers(converting *c, nyb_err *err)
{
    nyb_job *const job = c->job;
    if (!job->layout)
        return NYB_OK;
    if (c->count == 0)
        return nyb_fail(err, NYB_E_ARG,
                        "%s: holds no quantised layer to convert; nybble quantize makes them",
                        nyb_model_folder(job->model));
    const nyb_status status = for_layers(c, settle_task, err);
    if (status != NYB_OK)
        return status;
    settle_symmetry(c);
    tell_dropped(c);
    job->rounded = c->count;
    return nyb_job_check_run(job, err);
}

static nyb_status open_model(nyb_job *job, nyb_err *err)
{
    const nyb_status status = nyb_model_open(&job->model, job->params->model, err);
    job->unpacks = status == NYB_OK && nyb_checkpoint_gguf(nyb_model_checkpoint(job->model));
    if (job->unpacks && job->layout)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: no layout of a folder holds the blocks of a GGUF file; convert it "
                        "with --format bf16, f16 or f32, and quantise the folder that this makes",
                        job->params->model);
    return status;
}

// ---- The run --------------------------------------------------------------------------------

static const char *method_of(const nyb_job *job)
{
    return nyb_quantization_method(nyb_model_quantization(job->model));
}

static json_t *describe(const nyb_context *ctx, const nyb_job *job, const char *format)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:o}", "schema", "nybble.run/1", "nybble",
                     nyb_version(), "command", "convert", "from", method_of(job), "format", format,
                     "shard_bytes", (json_int_t) job->params->shard_bytes, "model",
                     nyb_source_files(ctx, nyb_model_checkpoint(job->model)));
}

static json_t *records(const converting *c)
{
    json_t *const list = json_array();
    for (size_t i = 0; list && i < c->count; i++) {
        const nyb_job_layer *const layer = c->layers[i];
        const nyb_linear *const l = layer->linear;
        json_t *const record = json_pack("{s:s, s:I, s:I}", "module", l->module, "rows",
                                         (json_int_t) l->rows, "cols", (json_int_t) l->cols);
        if (layer->form == NYB_FORM_CODES) {
            json_object_set_new(record, "bits", json_integer((json_int_t) layer->spec.bits));
            json_object_set_new(
                record, "group_size",
                json_integer(layer->spec.group_size ? (json_int_t) layer->spec.group_size : -1));
            json_object_set_new(record, "symmetric", json_boolean(layer->spec.symmetric));
            json_object_set_new(record, "activations",
                                json_string(nyb_activations_name(layer->spec.inputs)));
            json_object_set_new(record, "activations_left_out", json_boolean(c->dropped[i]));
            json_object_set_new(record, "sha256", json_string(c->hashes[i]));
        }
        json_array_append_new(list, record);
    }
    return list;
}

static nyb_status finish(converting *c, const json_t *run, nyb_convert_result *r, double start,
                         nyb_err *err)
{
    json_t *const layers = records(c);
    r->bytes_out = nyb_store_total_bytes(c->out->store);
    r->seconds = nyb_seconds() - start;
    json_t *const totals = json_pack("{s:I, s:b, s:I, s:I, s:f}", "layers", (json_int_t) r->layers,
                                     "exact", r->exact, "bytes_in", (json_int_t) r->bytes_in,
                                     "bytes_out", (json_int_t) r->bytes_out, "seconds", r->seconds);
    json_t *const report = nyb_output_report(c->job, run, totals, layers);
    json_decref(layers);
    return nyb_output_finish_once(c->ctx, c->out, report, err);
}

static nyb_status convert(converting *c, const char *format, nyb_convert_result *r, nyb_err *err)
{
    const double start = nyb_seconds();
    nyb_output out;
    json_t *const run = describe(c->ctx, c->job, format);
    if (!run)
        return nyb_no_memory(err, "run", 1, 1);
    nyb_status status = nyb_output_open(c->ctx, &out, c->job, run, err);
    if (status == NYB_OK) {
        c->out = &out;
        if (c->job->layout)
            status = for_layers(c, write_task, err);
        if (status == NYB_OK)
            status = finish(c, run, r, start, err);
        nyb_output_close(&out);
    }
    json_decref(run);
    return status;
}

nyb_status nyb_convert(const nyb_context *ctx, const nyb_convert_params *params,
                       nyb_convert_result *result, nyb_err *err)
{
    const nyb_quantize_params inner = {.model = params->model,
                                       .out = params->out,
                                       .shard_bytes = params->shard_bytes,
                                       .force = params->force,
                                       .command = params->command};
    nyb_job job = {.params = &inner, .once = true};
    converting c = {.ctx = ctx, .job = &job};
    nyb_convert_result local = {0};
    if (strcmp(params->format, "keras") == 0)
        return nyb_keras_convert(ctx, params, result, err);
    nyb_status status = find_format(&job, params->format, err);
    if (status == NYB_OK)
        status = open_model(&job, err);
    if (status == NYB_OK)
        status = list_layers(&c, err);
    if (status == NYB_OK)
        status = settle_layers(&c, err);
    if (status == NYB_OK) {
        local.layers = c.count;
        local.exact = job.layout || job.dtype == NYB_F32;
        local.bytes_in = nyb_source_bytes(nyb_model_checkpoint(job.model));
        status = convert(&c, params->format, &local, err);
    }
    nyb_job_close(&job);
    if (status == NYB_OK && result)
        *result = local;
    return status;
}
