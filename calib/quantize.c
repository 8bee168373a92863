#include "nybble/quantize.h"

#include <stdlib.h>
#include <string.h>

#include "calib/gguf_quantize.h"
#include "calib/keras_hub_quantize.h"
#include "calib/keras_quantize.h"
#include "calib/shared.h"
#include "calib/source_files.h"
#include "calib/walk.h"
#include "core/clock.h"
#include "core/file.h"
#include "core/log.h"
#include "core/threads.h"
#include "formats/keras_file.h"
#include "nybble/version.h"

// ---- What identifies a run ----------------------------------------------------------------

// How often each token counts: how many are there at all, and the most frequent ones.
typedef struct frequency {
    uint32_t id;
    size_t count;
} frequency;

static int by_count(const void *a, const void *b)
{
    const frequency *const x = a, *const y = b;
    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    return x->id < y->id ? -1 : x->id > y->id;
}

enum { MOST_FREQUENT = 20 };

static json_t *describe_tokens(const nyb_job *job)
{
    const nyb_samples *const s = &job->samples;
    const size_t vocabulary = nyb_model_config_of(job->model)->vocab;
    size_t distinct = 0;
    json_t *const most = json_array();
    frequency *const all = nyb_alloc(vocabulary, sizeof(*all));
    for (size_t i = 0; all && i < vocabulary; i++)
        all[i].id = (uint32_t) i;
    for (size_t i = 0; all && i < s->count * s->length; i++)
        if (!s->marks || s->marks[i])
            all[s->ids[i]].count++;
    for (size_t i = 0; all && i < vocabulary; i++)
        distinct += all[i].count > 0;
    if (all)
        qsort(all, vocabulary, sizeof(*all), by_count);
    for (size_t i = 0; all && i < MOST_FREQUENT && i < distinct; i++)
        json_array_append_new(most, json_pack("{s:I, s:I}", "id", (json_int_t) all[i].id, "count",
                                              (json_int_t) all[i].count));
    nyb_free(all);
    return json_pack("{s:I, s:I, s:I, s:o}", "counted", (json_int_t) s->counted, "distinct",
                     (json_int_t) distinct, "vocabulary", (json_int_t) vocabulary, "most_frequent",
                     most);
}

static json_t *describe_files_read(const nyb_samples_params *params)
{
    json_t *const files = json_array();
    for (size_t i = 0; i < params->path_count; i++)
        json_array_append_new(files, json_string(nyb_base_name(params->paths[i])));
    return files;
}

static json_t *describe_store(const nyb_job *job)
{
    return json_pack("{s:s, s:s}", "file", nyb_base_name(job->params->hessians), "sha256",
                     job->hessians->digest);
}

static json_t *describe_hessians(const nyb_job *job)
{
    const nyb_hessian_store *const s = job->hessians;
    return json_pack("{s:o, s:b, s:O, s:I, s:I, s:{s:I}}", "hessians", describe_store(job),
                     "sequential", false, "files", json_object_get(s->calibration, "files"),
                     "samples", (json_int_t) s->samples, "sequence_length", (json_int_t) s->length,
                     "tokens", "counted", (json_int_t) s->counted);
}

static json_t *describe_samples(const nyb_job *job)
{
    const nyb_samples_params *const params = &job->params->samples;
    const nyb_samples *const s = &job->samples;
    char ids[NYB_HASH_TEXT], marks[NYB_HASH_TEXT];
    if (job->hessians && !job->observed)
        return describe_hessians(job);
    if (!job->forward && !job->observed)
        return json_null();
    nyb_hash_of(s->ids, s->count * s->length * sizeof(*s->ids), ids);
    json_t *const made =
        json_pack("{s:o, s:I, s:I, s:b, s:b, s:b, s:s, s:o}", "files", describe_files_read(params),
                  "samples", (json_int_t) s->count, "sequence_length", (json_int_t) s->length,
                  "bos", s->begins, "per_document", params->per_document, "chat", params->chat,
                  "ids_sha256", ids, "tokens", describe_tokens(job));
    if (s->first_weight > 1)
        json_object_set_new(made, "first_weight", json_integer((json_int_t) s->first_weight));
    if (job->hessians)
        json_object_set_new(made, "hessians", describe_store(job));
    if (!s->marks)
        return made;
    nyb_hash_of(s->marks, s->count * s->length, marks);
    json_object_set_new(made, "marks_sha256", json_string(marks));
    json_object_set_new(
        made, "loss_mask",
        json_string(params->loss_mask == NYB_LOSS_MASK_ASSISTANT ? "assistant" : "none"));
    return made;
}

static json_t *describe_layers(const nyb_job *job)
{
    json_t *const layers = json_object();
    for (size_t i = 0; i < job->count + job->outer; i++)
        json_object_set_new(layers, job->layers[i].linear->module,
                            nyb_settings_json(&job->layers[i].settings));
    return layers;
}

static const char *compute_word(const nyb_context *ctx, const nyb_job *job)
{
    if (!job->calibrated)
        return "none";
    return ctx->compute == NYB_COMPUTE_BF16 ? "bf16" : "f32";
}

static json_t *describe_experts(const nyb_job *job)
{
    const nyb_expert_params *const p = &job->params->experts;
    if (nyb_model_config_of(job->model)->experts.count == 0)
        return json_null();
    return json_pack("{s:b, s:I, s:b}", "all_tokens", p->calibration == NYB_EXPERTS_ALL,
                     "min_tokens", (json_int_t) p->min_tokens, "rtn_fallback",
                     p->fallback == NYB_EXPERTS_RTN);
}

// Everything that the output's bytes depend on. Kernels are among it: another CPU rounds sums
// otherwise, so a run cannot be taken up there.
static json_t *describe(const nyb_context *ctx, const nyb_job *job)
{
    const nyb_build_info build = nyb_build();
    json_t *const run = json_pack(
        "{s:s, s:s, s:{s:s, s:s, s:s}, s:s, s:s, s:I, s:o, s:o, s:o, s:o}", "schema",
        "nybble.run/1", "nybble", build.version, "machine", "kernels", build.kernel_level, "blas",
        build.blas, "blas_core", build.blas_core, "compute", compute_word(ctx, job), "format",
        job->layout->name, "shard_bytes", (json_int_t) job->params->shard_bytes, "model",
        nyb_shared_files(job->shared, ctx, job->model), "calibration", describe_samples(job),
        "layers", describe_layers(job), "experts", describe_experts(job));
    if (run && job->params->objective == NYB_OBJECTIVE_MODEL)
        json_object_set_new(run, "objective",
                            json_pack("{s:s, s:f, s:I}", "kind", "model", "strength",
                                      job->params->objective_strength, "step",
                                      (json_int_t) job->params->objective_step));
    return run;
}

// ---- The certificate ----------------------------------------------------------------------

static double sum_of(const json_t *blocks, const char *key, size_t *count)
{
    double sum = 0.0;
    size_t b, i;
    json_t *block, *layer;
    json_array_foreach(blocks, b, block)
    {
        json_array_foreach(json_object_get(block, "layers"), i, layer)
        {
            sum += json_number_value(json_object_get(layer, key));
            *count += 1;
        }
    }
    return sum;
}

static double bits_per_weight(const json_t *blocks)
{
    double bits = 0.0, weights = 0.0;
    size_t b, i;
    json_t *block, *layer;
    json_array_foreach(blocks, b, block)
    {
        json_array_foreach(json_object_get(block, "layers"), i, layer)
        {
            const double n = json_number_value(json_object_get(layer, "rows")) *
                             json_number_value(json_object_get(layer, "cols"));
            bits += n * json_number_value(json_object_get(layer, "bits_per_weight"));
            weights += n;
        }
    }
    return weights > 0.0 ? bits / weights : 0.0;
}

static void count_samples(const nyb_job *job, nyb_quantize_result *r)
{
    const nyb_hessian_store *const store = job->hessians;
    const size_t length = store ? store->length : job->samples.length;
    r->samples = store ? store->samples : job->samples.count;
    r->tokens = r->samples * length;
}

static void summarize(const nyb_job *job, const nyb_output *out, nyb_quantize_result *r)
{
    const json_t *const blocks = out->journal.blocks;
    size_t count = 0;
    r->loss = sum_of(blocks, "loss", &count);
    r->layers = count;
    r->rtn_loss = sum_of(blocks, "rtn_loss", &count);
    r->bits_per_weight = bits_per_weight(blocks);
    count_samples(job, r);
    r->bytes_out = nyb_store_total_bytes(out->store);
    r->bytes_in = nyb_source_bytes(nyb_model_checkpoint(job->model));
}

// The layers that were not rounded as asked, which the parameters allowed.
static json_t *fallbacks(const json_t *layers)
{
    json_t *const list = json_array();
    size_t i;
    json_t *layer;
    json_array_foreach(layers, i, layer)
    {
        if (json_object_get(layer, "fallback"))
            json_array_append_new(list, json_pack("{s:O, s:O, s:O}", "module",
                                                  json_object_get(layer, "module"), "method",
                                                  json_object_get(layer, "method"), "reason",
                                                  json_object_get(layer, "fallback")));
    }
    return list;
}

static json_t *certificate(const nyb_job *job, const json_t *run, const nyb_output *out,
                           const nyb_quantize_result *result)
{
    json_t *const layers = json_array();
    size_t b;
    json_t *block;
    json_array_foreach(out->journal.blocks, b, block)
        json_array_extend(layers, json_object_get(block, "layers"));
    json_t *const totals =
        json_pack("{s:I, s:f, s:I, s:I, s:f, s:f, s:f, s:I}", "layers", (json_int_t) result->layers,
                  "bits_per_weight", result->bits_per_weight, "bytes_in",
                  (json_int_t) result->bytes_in, "bytes_out", (json_int_t) result->bytes_out,
                  "loss", result->loss, "rtn_loss", result->rtn_loss, "seconds", result->seconds,
                  "resumed_blocks", (json_int_t) result->resumed_blocks);
    json_t *const report = nyb_output_report(job, run, totals, layers);
    json_object_set_new(report, "fallbacks", fallbacks(layers));
    json_decref(layers);
    return report;
}

// ---- The run ------------------------------------------------------------------------------

static nyb_status run_into(const nyb_context *ctx, const nyb_job *job, nyb_output *out,
                           const json_t *run, nyb_quantize_result *result, nyb_err *err)
{
    const double start = nyb_seconds();
    result->resumed_blocks = json_array_size(out->journal.blocks);
    nyb_status status = nyb_walk(ctx, job, out, err);
    if (status != NYB_OK)
        return status;
    summarize(job, out, result);
    result->seconds = nyb_seconds() - start;
    json_t *const report = certificate(job, run, out, result);
    status = report ? nyb_output_finish(ctx, out, report, err) : nyb_no_memory(err, "report", 1, 1);
    json_decref(report);
    return status;
}

static size_t count_in(const json_t *totals, const char *key)
{
    return (size_t) json_integer_value(json_object_get(totals, key));
}

static nyb_quantize_result read_totals(const nyb_job *job, const json_t *totals)
{
    nyb_quantize_result r = {
        .layers = count_in(totals, "layers"),
        .bits_per_weight = json_number_value(json_object_get(totals, "bits_per_weight")),
        .bytes_in = count_in(totals, "bytes_in"),
        .bytes_out = count_in(totals, "bytes_out"),
        .loss = json_number_value(json_object_get(totals, "loss")),
        .rtn_loss = json_number_value(json_object_get(totals, "rtn_loss")),
        .resumed_blocks = nyb_job_blocks(job),
    };
    count_samples(job, &r);
    return r;
}

// Whether OUT is already the complete result of this very run, which is then told from its report.
static bool is_done(const nyb_job *job, const json_t *run, nyb_quantize_result *result)
{
    nyb_arena arena = {0};
    json_t *report = NULL;
    const char *const path = nyb_path_join(&arena, job->params->out, NYB_REPORT_NAME);
    const bool same = path && nyb_path_exists(path) &&
                      nyb_json_load(&report, path, NULL) == NYB_OK &&
                      json_equal(json_object_get(report, "run"), run);
    if (same)
        *result = read_totals(job, json_object_get(report, "totals"));
    json_decref(report);
    nyb_arena_clear(&arena);
    return same;
}

// Factors are kept in what a ceiling leaves of memory.
static void allow_factors(const nyb_context *ctx, const nyb_job *job)
{
    enum { UNLESS_TOLD = 1 << 30 };
    const nyb_walk_bytes bytes = nyb_walk_memory(ctx, job);
    if (job->shared)
        job->shared->factors.limit = ctx->memory_bytes
                                         ? ctx->memory_bytes - nyb_room_total(&bytes.room)
                                         : (size_t) UNLESS_TOLD;
}

static nyb_status run_job(const nyb_context *ctx, const nyb_job *job, nyb_quantize_result *result,
                          nyb_err *err)
{
    nyb_output out;
    json_t *const run = describe(ctx, job);
    if (!run)
        return nyb_no_memory(err, "run", 1, 1);
    nyb_status status = NYB_OK;
    if (job->params->resume && is_done(job, run, result)) {
        nyb_log(ctx, NYB_LOG_INFO, "%s: complete already", job->params->out);
    } else {
        status = nyb_output_open(ctx, &out, job, run, err);
        if (status == NYB_OK) {
            status = run_into(ctx, job, &out, run, result, err);
            nyb_output_close(&out);
        }
    }
    json_decref(run);
    return status;
}

nyb_status nyb_quantize(const nyb_context *ctx, const nyb_quantize_params *params,
                        nyb_quantize_result *result, nyb_err *err)
{
    return nyb_quantize_shared(ctx, params, NULL, result, err);
}

nyb_status nyb_quantize_shared(const nyb_context *ctx, const nyb_quantize_params *params,
                               nyb_shared *shared, nyb_quantize_result *result, nyb_err *err)
{
    nyb_quantize_result local = {0};
    nyb_job job;
    nyb_status status = nyb_job_inputs_found(params, err);
    if (status != NYB_OK)
        return status;
    if (nyb_hub_gptq_wanted(params))
        return nyb_hub_gptq(ctx, params, result, err);
    // With a format a preset becomes a folder of that.
    if (nyb_keras_is(params->model) && !(params->format && nyb_path_is_folder(params->model)))
        return nyb_keras_quantize(ctx, params, result, err);
    if (params->keras_config)
        return nyb_fail(err, NYB_E_ARG, "%s: not a Keras checkpoint: leave out --config",
                        params->model);
    if (nyb_gguf_wanted(params))
        return nyb_gguf_quantize(ctx, params, result, err);
    if (params->imatrix_in)
        return nyb_fail(err, NYB_E_ARG,
                        "%s: --imatrix-in rounds GGUF files alone: use --format gguf:TYPE and "
                        "--method rtn",
                        params->imatrix_in);
    status = nyb_job_open_shared(ctx, &job, params, shared, err);
    if (status != NYB_OK)
        return status;
    nyb_context settled = ctx ? *ctx : (nyb_context){0};
    settled.compute = nyb_job_compute(ctx, &job);
    const nyb_walk_bytes bytes = nyb_walk_memory(&settled, &job);
    status = nyb_room_check(&settled, &bytes.room, err);
    if (status == NYB_OK)
        status = nyb_job_observe(&settled, &job, err);
    if (status == NYB_OK) {
        allow_factors(&settled, &job);
        status = run_job(&settled, &job, &local, err);
    }
    nyb_job_close(&job);
    if (status == NYB_OK && result)
        *result = local;
    return status;
}
