#include "nybble/merge.h"

#include <math.h>
#include <string.h>

#include "calib/adapter.h"
#include "calib/output.h"
#include "calib/requantize.h"
#include "calib/source_files.h"
#include "core/clock.h"
#include "core/dtype.h"
#include "core/log.h"
#include "core/threads.h"
#include "nybble/version.h"

// A layer and what it gains.
typedef struct gain {
    nyb_job_layer *layer;
    const nyb_lora *lora;
    const nyb_tensor *base; // the adapter's own idea of the base's weight; NULL: none
} gain;

typedef struct merging {
    const nyb_context *ctx;
    nyb_job *job;
    nyb_adapter adapter;
    nyb_output *out;
    gain *gains; // [count]
    size_t count;
    nyb_replaced *replaced;
    json_t *records;
    double error, weight, delta; // sums of squares over all layers
} merging;

// ---- The sum --------------------------------------------------------------------------------

enum { TILE = 16 }; // rows of a task

typedef struct adding {
    nyb_mat w; // in: base; out: sum
    const nyb_lora *lora;
    const float *a; // [rank, cols]
    double *memory; // [threads, cols]
    double *delta;  // [rows] out: sums of squares
} adding;

// One row of B A, in double.
static void product_row(double *out, const adding *d, size_t row)
{
    const nyb_tensor *const b = d->lora->b;
    const size_t size = nyb_dtype_bytes(b->dtype), rank = d->lora->rank, cols = d->w.cols;
    memset(out, 0, cols * sizeof(*out));
    for (size_t k = 0; k < rank; k++) {
        const float *const a = d->a + k * cols;
        float factor;
        nyb_widen(&factor, (const unsigned char *) b->at + (row * rank + k) * size, b->dtype, 1);
        for (size_t j = 0; j < cols; j++)
            out[j] += (double) factor * (double) a[j];
    }
}

static void add_rows(void *arg, size_t index, unsigned worker)
{
    const adding *const d = arg;
    const size_t end = (index + 1) * TILE < d->w.rows ? (index + 1) * TILE : d->w.rows;
    double *const product = d->memory + (size_t) worker * d->w.cols;
    for (size_t i = index * TILE; i < end; i++) {
        float *const at = nyb_row(d->w, i);
        double sum = 0.0;
        product_row(product, d, i);
        for (size_t j = 0; j < d->w.cols; j++) {
            const double part = d->lora->scaling * product[j];
            sum += part * part;
            at[j] = (float) ((double) at[j] + part);
        }
        d->delta[i] = sum;
    }
}

// Adds the adapter's part to w; *delta receives its squared norm.
static nyb_status add_product(const nyb_context *ctx, nyb_mat w, const nyb_lora *lora,
                              double *delta, nyb_err *err)
{
    const size_t n = lora->rank * w.cols, threads = nyb_threads(ctx);
    float *const a = nyb_alloc_raw(n, sizeof(*a));
    double *const memory = nyb_alloc_raw(threads * w.cols, sizeof(*memory));
    double *const sums = nyb_alloc_raw(w.rows, sizeof(*sums));
    nyb_status status = NYB_OK;
    *delta = 0.0;
    if (a && memory && sums) {
        adding d = {.w = w, .lora = lora, .a = a, .memory = memory, .delta = sums};
        nyb_widen(a, lora->a->at, lora->a->dtype, n);
        nyb_parallel(ctx, (w.rows + TILE - 1) / TILE, add_rows, &d);
        for (size_t i = 0; i < w.rows; i++)
            *delta += sums[i];
    } else {
        status = nyb_no_memory(err, lora->module, n + w.rows, sizeof(*memory));
    }
    nyb_free(a);
    nyb_free(memory);
    nyb_free(sums);
    return status;
}

// ---- One layer ------------------------------------------------------------------------------

typedef struct losses {
    double error, weight, delta; // squared norms
} losses;

static void compare_row(losses *sums, const float *want, const float *got, size_t n)
{
    for (size_t j = 0; j < n; j++) {
        const double off = (double) want[j] - (double) got[j];
        sums->error += off * off;
        sums->weight += (double) want[j] * (double) want[j];
    }
}

static nyb_status put_floats(merging *m, const nyb_job_layer *layer, nyb_mat w, losses *sums,
                             char hash[NYB_HASH_TEXT], nyb_err *err)
{
    for (size_t i = 0; i < w.rows; i++) {
        const float *const row = nyb_row(w, i);
        for (size_t j = 0; j < w.cols; j++) {
            const float near = nyb_round_to(row[j], layer->dtype);
            compare_row(sums, &row[j], &near, 1);
        }
    }
    return nyb_output_put_floats(m->out, layer, w, hash, err);
}

// w as it was before rounding put its columns into another order is needed for the comparison, so
// a copy is rounded.
static nyb_status put_codes(merging *m, const nyb_job_layer *layer, nyb_mat w, losses *sums,
                            char hash[NYB_HASH_TEXT], nyb_err *err)
{
    const nyb_linear *const l = layer->linear;
    nyb_qweight like, q = {0};
    nyb_err inner = {0};
    float *const copy = nyb_alloc_raw(w.rows * w.cols, sizeof(float));
    nyb_status status = nyb_quantization_read(&like, nyb_model_quantization(m->job->model),
                                              nyb_model_checkpoint(m->job->model), l->module,
                                              l->rows, l->cols, err);
    if (status == NYB_OK && !copy)
        status = nyb_no_memory(err, l->module, w.rows, w.cols * sizeof(float));
    if (status == NYB_OK) {
        memcpy(copy, w.at, w.rows * w.cols * sizeof(float));
        status = nyb_requantize(m->ctx, &q, &like, nyb_mat_of(copy, w.rows, w.cols),
                                layer->layout->lowest_zero, &inner);
        if (status != NYB_OK)
            status = nyb_fail(err, status, "'%s': %s", l->module, inner.text);
    }
    for (size_t i = 0; status == NYB_OK && i < w.rows; i++) {
        nyb_qweight_dequantize(&q, i, nyb_mat_of(copy, 1, w.cols));
        compare_row(sums, nyb_row(w, i), copy, w.cols);
    }
    if (status == NYB_OK) {
        q.input_scale = like.input_scale;
        nyb_job_hash(&q, hash);
        status = nyb_output_put(m->out, layer, &q, err);
    }
    nyb_qweight_clear(&q);
    nyb_qweight_clear(&like);
    nyb_free(copy);
    return status;
}

static void set_ratio(json_t *record, const char *key, double part, double whole)
{
    const double ratio = whole > 0.0 ? part / whole : 0.0;
    json_object_set_new(record, key, json_real(isfinite(ratio) ? ratio : 0.0));
}

static nyb_status record(merging *m, const gain *g, const losses *sums, const char *hash,
                         nyb_err *err)
{
    const nyb_linear *const l = g->layer->linear;
    json_t *const r = json_pack("{s:s, s:I, s:I, s:I, s:f, s:b, s:s}", "module", l->module, "rows",
                                (json_int_t) l->rows, "cols", (json_int_t) l->cols, "rank",
                                (json_int_t) g->lora->rank, "scaling", g->lora->scaling,
                                "requantized", g->layer->form == NYB_FORM_CODES, "sha256", hash);
    if (!r || json_array_append(m->records, r) != 0) {
        json_decref(r);
        return nyb_no_memory(err, "record", 1, 1);
    }
    set_ratio(r, "delta", sums->delta, sums->weight);
    set_ratio(r, "weight_error", sums->error, sums->weight);
    set_ratio(r, "delta_error", sums->error, sums->delta);
    json_decref(r);
    m->error += sums->error;
    m->weight += sums->weight;
    m->delta += sums->delta;
    return NYB_OK;
}

static nyb_status merge_layer(merging *m, const gain *g, nyb_err *err)
{
    const nyb_linear *const l = g->layer->linear;
    char hash[NYB_HASH_TEXT];
    losses sums = {0};
    float *const memory = nyb_alloc_raw(l->rows * l->cols, sizeof(float));
    if (!memory)
        return nyb_no_memory(err, l->module, l->rows, l->cols * sizeof(float));
    const nyb_mat w = nyb_mat_of(memory, l->rows, l->cols);
    nyb_linear from = *l;
    if (g->base)
        from.weight = g->base;
    nyb_status status = nyb_linear_read(m->job->model, &from, w, err);
    if (status == NYB_OK)
        status = add_product(m->ctx, w, g->lora, &sums.delta, err);
    if (status == NYB_OK)
        status = g->layer->form == NYB_FORM_CODES ? put_codes(m, g->layer, w, &sums, hash, err)
                                                  : put_floats(m, g->layer, w, &sums, hash, err);
    if (status == NYB_OK)
        status = record(m, g, &sums, hash, err);
    nyb_free(memory);
    return status;
}

// ---- The job --------------------------------------------------------------------------------

static nyb_status list_layers(merging *m, nyb_err *err)
{
    nyb_job *const job = m->job;
    size_t room = 1; // the head
    for (size_t b = 0; b < nyb_block_count(job->model); b++)
        room += nyb_linear_count(job->model, b);
    job->layers = nyb_arena_alloc(&job->arena, room, sizeof(*job->layers));
    m->gains = nyb_arena_alloc(&job->arena, room, sizeof(*m->gains));
    m->replaced = nyb_arena_alloc(&job->arena, m->adapter.saved_count + 1, sizeof(*m->replaced));
    if (!job->layers || !m->gains || !m->replaced)
        return nyb_no_memory(err, "layers", room, sizeof(*job->layers));
    for (size_t b = 0; b < nyb_block_count(job->model); b++) {
        for (size_t i = 0; i < nyb_linear_count(job->model, b); i++)
            job->layers[job->count++] = (nyb_job_layer){
                .linear = nyb_linear_at(job->model, b, i), .block = b, .settings.skip = true};
    }
    job->layers[job->count] = (nyb_job_layer){.linear = nyb_model_head(job->model),
                                              .block = nyb_block_count(job->model),
                                              .settings.skip = true};
    job->outer = 1;
    return NYB_OK;
}

// The name as the base's files have it: they may leave the family's prefix out.
static const char *short_name(const nyb_job *job, const char *name)
{
    const char *const prefix = nyb_model_config_of(job->model)->arch->prefix;
    const size_t length = strlen(prefix);
    return strncmp(name, prefix, length) == 0 ? name + length : name;
}

static nyb_job_layer *find_layer(nyb_job *job, const char *module)
{
    for (size_t i = 0; i < job->count + job->outer; i++) {
        nyb_job_layer *const layer = &job->layers[i];
        const char *const name = layer->linear->module;
        if (name && (strcmp(name, module) == 0 || strcmp(name, short_name(job, module)) == 0))
            return layer;
    }
    return NULL;
}

// Whether a quantised layer can be written as it is read.
static nyb_status settle_codes(const merging *m, nyb_job_layer *layer, nyb_err *err)
{
    const nyb_linear *const l = layer->linear;
    const nyb_quantization *const quantization = nyb_model_quantization(m->job->model);
    const nyb_checkpoint *const file = nyb_model_checkpoint(m->job->model);
    nyb_arena arena = {0};
    nyb_quantized found;
    nyb_qweight q;
    nyb_status status = nyb_quantization_find(&found, quantization, file, l->module, err);
    if (status == NYB_OK)
        status = nyb_quantization_read(&q, quantization, file, l->module, l->rows, l->cols, err);
    if (status != NYB_OK)
        return status;
    layer->form = NYB_FORM_CODES;
    layer->layout = found.layout;
    layer->spec = nyb_layout_spec_of(&q);
    nyb_qweight_clear(&q);
    const char *const name = nyb_arena_format(&arena, "%s.weight_scale_inv", l->module);
    const nyb_tensor *const scales = name ? nyb_checkpoint_find(file, name) : NULL;
    if (scales && (scales->dtype == NYB_F8_E8M0 || layer->spec.scale_rows == SIZE_MAX))
        status = nyb_fail(err, NYB_E_UNSUPPORTED,
                          "'%s': nybble does not write scales as '%s' has them; use nybble convert "
                          "--format fp8 first",
                          l->module, scales->name);
    nyb_arena_clear(&arena);
    return status == NYB_OK ? layer->layout->check(&layer->spec, l->module, err) : status;
}

static nyb_status settle_gain(merging *m, const nyb_lora *lora, nyb_err *err)
{
    nyb_job_layer *const layer = find_layer(m->job, lora->module);
    const char *const folder = nyb_model_folder(m->job->model);
    if (!layer)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: the adapter changes '%s', which is no linear layer of %s that nybble "
                        "knows; merge it with PEFT",
                        m->adapter.folder, lora->module, folder);
    const nyb_linear *const l = layer->linear;
    if (lora->a->shape[1] != l->cols || lora->b->shape[0] != l->rows)
        return nyb_fail(err, NYB_E_SHAPE,
                        "%s: the adapter's '%s' is %zu x %zu, the base's is %zu x %zu",
                        m->adapter.folder, lora->module, lora->b->shape[0], lora->a->shape[1],
                        l->rows, l->cols);
    m->gains[m->count++] = (gain){.layer = layer, .lora = lora};
    if (l == nyb_model_head(m->job->model) && nyb_model_head_tied(m->job->model))
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: the adapter changes '%s', which shares its tensor with the embedding; "
                        "merge it with PEFT",
                        m->adapter.folder, lora->module);
    if (l->quantized)
        return settle_codes(m, layer, err);
    if (l->weight->rank != 2)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: the adapter changes '%s', which lies in one tensor with other "
                        "experts; merge it with PEFT",
                        m->adapter.folder, lora->module);
    layer->form = NYB_FORM_MADE;
    layer->dtype = l->weight->dtype;
    return NYB_OK;
}

static nyb_status settle_saved(merging *m, const nyb_saved *saved, nyb_err *err)
{
    const nyb_checkpoint *const file = nyb_model_checkpoint(m->job->model);
    const nyb_tensor *const t = saved->tensor, *base = nyb_checkpoint_find(file, saved->name);
    if (!base)
        base = nyb_checkpoint_find(file, short_name(m->job, saved->name));
    if (!base || !nyb_dtype_is_float(base->dtype))
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: the adapter brings '%s', and the base has no such tensor of floats; "
                        "merge it with PEFT",
                        m->adapter.folder, saved->name);
    if (base->rank != t->rank || memcmp(base->shape, t->shape, t->rank * sizeof(t->shape[0])) != 0)
        return nyb_fail(err, NYB_E_SHAPE, "%s: '%s' has another shape than the base's '%s'",
                        m->adapter.folder, t->name, base->name);
    // PEFT saves the base's weight with the adapter of a head or an embedding.
    for (size_t i = 0; i < m->count; i++) {
        if (m->gains[i].layer->linear->weight == base) {
            m->gains[i].base = t;
            return NYB_OK;
        }
    }
    m->replaced[m->job->replaced_count++] = (nyb_replaced){.base = base, .with = t};
    return NYB_OK;
}

static nyb_status settle(merging *m, nyb_err *err)
{
    nyb_status status = list_layers(m, err);
    for (size_t i = 0; status == NYB_OK && i < m->adapter.lora_count; i++)
        status = settle_gain(m, &m->adapter.loras[i], err);
    for (size_t i = 0; status == NYB_OK && i < m->adapter.saved_count; i++)
        status = settle_saved(m, &m->adapter.saved[i], err);
    m->job->replaced = m->replaced;
    return status;
}

// ---- The run --------------------------------------------------------------------------------

static json_t *describe(const merging *m)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:o, s:o}", "schema", "nybble.run/1", "nybble",
                     nyb_version(), "command", "merge", "base",
                     nyb_quantization_method(nyb_model_quantization(m->job->model)), "shard_bytes",
                     (json_int_t) m->job->params->shard_bytes, "model",
                     nyb_source_files(m->ctx, nyb_model_checkpoint(m->job->model)), "adapter",
                     nyb_source_files(m->ctx, m->adapter.file));
}

static json_t *report_of(const merging *m, const json_t *run, const nyb_merge_result *r)
{
    json_t *const replaced = json_array();
    for (size_t i = 0; i < m->job->replaced_count; i++)
        json_array_append_new(replaced, json_string(m->replaced[i].base->name));
    json_t *const totals =
        json_pack("{s:I, s:I, s:f, s:f, s:I, s:I, s:f}", "layers", (json_int_t) r->layers,
                  "requantized", (json_int_t) r->requantized, "weight_error", r->weight_error,
                  "delta_error", r->delta_error, "bytes_in", (json_int_t) r->bytes_in, "bytes_out",
                  (json_int_t) r->bytes_out, "seconds", r->seconds);
    json_t *const report = nyb_output_report(m->job, run, totals, m->records);
    json_object_set_new(report, "replaced", replaced);
    return report;
}

static nyb_status finish(merging *m, const json_t *run, nyb_merge_result *r, double start,
                         nyb_err *err)
{
    r->weight_error = m->weight > 0.0 ? m->error / m->weight : 0.0;
    r->delta_error = m->delta > 0.0 ? m->error / m->delta : 0.0;
    r->bytes_out = nyb_store_total_bytes(m->out->store);
    r->seconds = nyb_seconds() - start;
    return nyb_output_finish_once(m->ctx, m->out, report_of(m, run, r), err);
}

static nyb_status merge(merging *m, nyb_merge_result *r, nyb_err *err)
{
    const double start = nyb_seconds();
    nyb_output out;
    json_t *const run = describe(m);
    m->records = json_array();
    nyb_status status = run && m->records ? NYB_OK : nyb_no_memory(err, "run", 1, 1);
    if (status == NYB_OK)
        status = nyb_output_open(m->ctx, &out, m->job, run, err);
    if (status == NYB_OK) {
        m->out = &out;
        for (size_t i = 0; status == NYB_OK && i < m->count; i++) {
            status = merge_layer(m, &m->gains[i], err);
            nyb_step(m->ctx, &(nyb_progress){.stage = "merge",
                                             .item = m->gains[i].lora->module,
                                             .unit = "layers",
                                             .done = i + 1,
                                             .total = m->count});
        }
        if (status == NYB_OK)
            status = finish(m, run, r, start, err);
        nyb_output_close(&out);
    }
    json_decref(m->records);
    json_decref(run);
    return status;
}

static nyb_status open_all(merging *m, const nyb_merge_params *params, nyb_err *err)
{
    nyb_status status = nyb_adapter_open(&m->adapter, params->adapter, err);
    if (status == NYB_OK)
        status = nyb_model_open(&m->job->model, params->model, err);
    if (status == NYB_OK && nyb_checkpoint_gguf(nyb_model_checkpoint(m->job->model)))
        status = nyb_fail(err, NYB_E_UNSUPPORTED,
                          "%s: adapters are merged into folders; use the Hugging Face folder that "
                          "the GGUF file was made of",
                          params->model);
    return status == NYB_OK ? settle(m, err) : status;
}

nyb_status nyb_merge(const nyb_context *ctx, const nyb_merge_params *params,
                     nyb_merge_result *result, nyb_err *err)
{
    const nyb_quantize_params inner = {.model = params->model,
                                       .out = params->out,
                                       .shard_bytes = params->shard_bytes,
                                       .force = params->force,
                                       .command = params->command};
    nyb_job job = {.params = &inner, .once = true, .keeps_config = true};
    merging m = {.ctx = ctx, .job = &job};
    nyb_merge_result local = {0};
    nyb_status status = open_all(&m, params, err);
    if (status == NYB_OK) {
        local.layers = m.count;
        local.replaced = job.replaced_count;
        local.bytes_in = nyb_source_bytes(nyb_model_checkpoint(job.model));
        for (size_t i = 0; i < m.count; i++)
            local.requantized += m.gains[i].layer->form == NYB_FORM_CODES;
        status = merge(&m, &local, err);
    }
    nyb_job_close(&job);
    nyb_adapter_close(&m.adapter);
    if (status == NYB_OK && result)
        *result = local;
    return status;
}
