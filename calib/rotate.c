#include "nybble/rotate.h"

#include <string.h>

#include "calib/output.h"
#include "calib/output_floats.h"
#include "calib/rotation.h"
#include "calib/source_files.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/threads.h"
#include "formats/safetensors.h"
#include "model/binding.h"
#include "nybble/version.h"

enum { TILE = 16 }; // rows or columns of one task

// What becomes of one matrix.
typedef struct part {
    nyb_job_layer *layer;
    const nyb_tensor *gain; // of the norm whose output it reads, NULL: none
    bool reads, writes;     // the residual stream
} part;

typedef struct rotating {
    const nyb_context *ctx;
    nyb_job *job;
    nyb_rotation rotation;
    part *parts;
    size_t count;
    nyb_replaced *replaced;
    nyb_output *out;
    json_t *records;
} rotating;

// ---- Rows -----------------------------------------------------------------------------------

// Rows of floats in which each is rotated, or columns.
typedef struct turning {
    const nyb_rotation *rotation;
    nyb_mat w;
    const float *gains; // [cols] NULL: none
    bool columns;
    double *scratch;
    size_t scratch_doubles; // of one worker
} turning;

static void turn_tile(void *arg, size_t index, unsigned worker)
{
    const turning *const t = arg;
    double *const line = t->scratch + worker * t->scratch_doubles;
    double *const rest = line + t->rotation->n;
    const size_t lines = t->columns ? t->w.cols : t->w.rows, n = t->rotation->n;
    const size_t first = index * TILE, end = first + TILE < lines ? first + TILE : lines;
    for (size_t i = first; i < end; i++) {
        for (size_t j = 0; j < n; j++) {
            const float value = t->columns ? nyb_row(t->w, j)[i] : nyb_row(t->w, i)[j];
            line[j] = (double) value * (t->gains ? (double) t->gains[j] : 1.0);
        }
        nyb_rotation_apply(t->rotation, line, rest);
        for (size_t j = 0; j < n; j++) {
            float *const to = t->columns ? nyb_row(t->w, j) + i : nyb_row(t->w, i) + j;
            *to = (float) line[j];
        }
    }
}

// w becomes w diag(gains) Q, or, by columns, Q^T w.
static nyb_status turn(const rotating *r, nyb_mat w, const float *gains, bool columns, nyb_err *err)
{
    turning t = {.rotation = &r->rotation,
                 .w = w,
                 .gains = gains,
                 .columns = columns,
                 .scratch_doubles = r->rotation.n + r->rotation.m};
    const size_t lines = columns ? w.cols : w.rows, threads = nyb_threads(r->ctx);
    t.scratch = nyb_alloc_raw(threads, t.scratch_doubles * sizeof(double));
    if (!t.scratch)
        return nyb_no_memory(err, "a rotation", threads, t.scratch_doubles * sizeof(double));
    nyb_parallel(r->ctx, (lines + TILE - 1) / TILE, turn_tile, &t);
    nyb_free(t.scratch);
    return NYB_OK;
}

// What a norm multiplies by. NULL gain: nothing, *out is NULL.
static nyb_status read_gains(const rotating *r, const nyb_tensor *gain, nyb_arena *arena,
                             float **out, nyb_err *err)
{
    const nyb_model_config *const c = nyb_model_config_of(r->job->model);
    *out = NULL;
    if (!gain)
        return NYB_OK;
    const nyb_mat row = nyb_arena_mat(arena, 1, c->hidden);
    if (!row.at)
        return nyb_no_memory(err, gain->name, c->hidden, sizeof(float));
    const nyb_status status = nyb_tensor_widen(gain, 0, row, err);
    for (size_t i = 0; i < c->hidden && c->arch->norm == NYB_NORM_RMS_PLUS; i++)
        row.at[i] += 1.0f;
    *out = row.at;
    return status;
}

// ---- What is to be done ---------------------------------------------------------------------

static nyb_status refuse(const rotating *r, const char *what, nyb_err *err)
{
    return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: cannot be rotated: %s",
                    nyb_model_folder(r->job->model), what);
}

static nyb_status check_model(const rotating *r, nyb_err *err)
{
    const nyb_model *const m = r->job->model;
    const nyb_model_config *const c = nyb_model_config_of(m);
    const nyb_arch *const arch = c->arch;
    if (nyb_checkpoint_gguf(nyb_model_checkpoint(m)))
        return refuse(r, "it is a GGUF file; rotate the folder that it was made of", err);
    if (nyb_model_quantization(m))
        return refuse(r, "it is quantised; rotate the full-precision checkpoint", err);
    if (arch->norm == NYB_NORM_LAYER)
        return refuse(r, "its norms take the mean away, which a rotation moves", err);
    if (!c->pre_norm || arch->post_only || arch->attention_post_norm || arch->mlp_post_norm)
        return refuse(r, "it has norms of outputs, whose gains cannot be folded", err);
    if (arch->positions == NYB_POSITIONS_LEARNED)
        return refuse(r, "it has learned positions", err);
    if (c->embed_dim != c->hidden)
        return refuse(r, "its embedding has another width than its blocks", err);
    if (c->bare || c->labels)
        return refuse(r, "it has no output head over the vocabulary", err);
    return NYB_OK;
}

// The norm whose output experts and routers read.
static const nyb_tensor *expert_norm(const nyb_model *m, size_t block)
{
    const bool own = nyb_model_config_of(m)->arch->mlp_norm != NULL;
    return nyb_vector_at(m, block, own ? NYB_VECTOR_MLP_NORM : NYB_VECTOR_ATTENTION_NORM);
}

static nyb_status add_part(rotating *r, const nyb_stage *stage, nyb_job_layer *layer, nyb_err *err)
{
    const nyb_model *const m = r->job->model;
    const bool routed = stage->source == NYB_FROM_ROUTED || stage->source == NYB_FROM_SHARED;
    part p = {.layer = layer, .reads = stage->source != NYB_FROM_WIDE};
    p.writes = stage->then == NYB_THEN_RESIDUAL || stage->then == NYB_THEN_COLLECT;
    if (layer->linear->weight->rank != 2)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: cannot be rotated: '%s' lies in one tensor with other experts",
                        nyb_model_folder(m), layer->linear->module);
    if (routed)
        p.gain = expert_norm(m, layer->block);
    else if (stage->norm >= 0)
        p.gain = nyb_vector_at(m, layer->block, (nyb_vector) stage->norm);
    p.gain = p.reads ? p.gain : NULL;
    layer->settings.skip = true;
    layer->dtype = r->job->dtype;
    layer->form = p.reads || p.writes ? NYB_FORM_MADE : NYB_FORM_COPY;
    if (layer->form == NYB_FORM_MADE)
        r->parts[r->count++] = p;
    return NYB_OK;
}

static nyb_status list_block(rotating *r, size_t block, nyb_err *err)
{
    nyb_job *const job = r->job;
    nyb_status status = NYB_OK;
    for (size_t s = 0; s < nyb_stage_count(job->model, block); s++) {
        const nyb_stage stage = nyb_stage_at(job->model, block, s);
        for (size_t i = stage.first; status == NYB_OK && i < stage.first + stage.count; i++) {
            nyb_job_layer *const layer = &job->layers[job->count++];
            *layer = (nyb_job_layer){
                .linear = nyb_linear_at(job->model, block, i), .block = block, .index = i};
            status = add_part(r, &stage, layer, err);
        }
    }
    return status;
}

static void add_outer(rotating *r, const nyb_linear *linear, const nyb_tensor *gain)
{
    nyb_job *const job = r->job;
    nyb_job_layer *const layer = &job->layers[job->count + job->outer++];
    *layer = (nyb_job_layer){.linear = linear,
                             .block = nyb_block_count(job->model),
                             .settings.skip = true,
                             .form = NYB_FORM_MADE,
                             .dtype = job->dtype};
    r->parts[r->count++] = (part){.layer = layer, .gain = gain, .reads = true};
}

static nyb_status list_parts(rotating *r, nyb_err *err)
{
    nyb_job *const job = r->job;
    size_t room = 2;
    for (size_t b = 0; b < nyb_block_count(job->model); b++)
        room += nyb_linear_count(job->model, b);
    // Of each layer its bias, of each block its norms, its router and its gate; the last norm.
    const size_t vectors = room + 4 * nyb_block_count(job->model) + 1;
    job->layers = nyb_arena_alloc(&job->arena, room, sizeof(*job->layers));
    r->parts = nyb_arena_alloc(&job->arena, room, sizeof(*r->parts));
    r->replaced = nyb_arena_alloc(&job->arena, vectors, sizeof(*r->replaced));
    if (!job->layers || !r->parts || !r->replaced)
        return nyb_no_memory(err, "layers", room, sizeof(*job->layers));
    nyb_status status = NYB_OK;
    for (size_t b = 0; status == NYB_OK && b < nyb_block_count(job->model); b++)
        status = list_block(r, b, err);
    if (status != NYB_OK)
        return status;
    add_outer(r, nyb_model_embedding(job->model), NULL);
    add_outer(r, nyb_model_head(job->model), nyb_model_outer(job->model)->final_norm);
    job->unties = nyb_model_head_tied(job->model);
    return NYB_OK;
}

// ---- Small tensors --------------------------------------------------------------------------

// A tensor of floats in base's place; *values is its memory.
static nyb_status replace(rotating *r, const nyb_tensor *base, nyb_mat *values, nyb_err *err)
{
    nyb_arena *const arena = &r->job->arena;
    const size_t cols = base->shape[base->rank - 1], rows = base->rank > 1 ? base->shape[0] : 1;
    nyb_tensor *const with = nyb_arena_alloc(arena, 1, sizeof(*with));
    *values = nyb_arena_mat(arena, rows, cols);
    if (!with || !values->at)
        return nyb_no_memory(err, base->name, rows, cols * sizeof(float));
    const nyb_status status =
        nyb_tensor_describe(with, base->name, NYB_F32, base->rank, base->shape, err);
    with->at = values->at;
    r->replaced[r->job->replaced_count++] =
        (nyb_replaced){.base = base, .with = with, .in_memory = true};
    return status;
}

// The norm's gains become what leaves its output as it is.
static nyb_status drop_gains(rotating *r, const nyb_tensor *gain, nyb_err *err)
{
    const nyb_arch *const arch = nyb_model_config_of(r->job->model)->arch;
    nyb_mat values;
    const nyb_status status = gain ? replace(r, gain, &values, err) : NYB_OK;
    for (size_t i = 0; status == NYB_OK && gain && i < values.cols; i++)
        values.at[i] = arch->norm == NYB_NORM_RMS_PLUS ? 0.0f : 1.0f;
    return status;
}

// A small matrix or vector of which each row meets the residual stream.
static nyb_status turn_small(rotating *r, const nyb_tensor *base, const nyb_tensor *gain,
                             nyb_err *err)
{
    nyb_mat values;
    float *gains = NULL;
    nyb_status status = base ? replace(r, base, &values, err) : NYB_OK;
    if (!base || status != NYB_OK)
        return status;
    status = nyb_tensor_widen(base, 0, values, err);
    if (status == NYB_OK)
        status = read_gains(r, gain, &r->job->arena, &gains, err);
    return status == NYB_OK ? turn(r, values, gains, false, err) : status;
}

static nyb_status make_vectors(rotating *r, nyb_err *err)
{
    const nyb_model *const m = r->job->model;
    nyb_status status = drop_gains(r, nyb_model_outer(m)->final_norm, err);
    for (size_t b = 0; status == NYB_OK && b < nyb_block_count(m); b++) {
        const nyb_tensor *const norm = expert_norm(m, b);
        status = drop_gains(r, nyb_vector_at(m, b, NYB_VECTOR_ATTENTION_NORM), err);
        if (status == NYB_OK)
            status = drop_gains(r, nyb_vector_at(m, b, NYB_VECTOR_MLP_NORM), err);
        if (status == NYB_OK)
            status = turn_small(r, nyb_vector_at(m, b, NYB_VECTOR_ROUTER), norm, err);
        if (status == NYB_OK)
            status = turn_small(r, nyb_vector_at(m, b, NYB_VECTOR_SHARED_GATE), norm, err);
    }
    for (size_t i = 0; status == NYB_OK && i < r->count; i++) {
        if (r->parts[i].writes)
            status = turn_small(r, r->parts[i].layer->linear->bias, NULL, err);
    }
    r->job->replaced = r->replaced;
    return status;
}

// ---- The run --------------------------------------------------------------------------------

static nyb_status rotate_weight(rotating *r, const part *p, nyb_mat w, nyb_err *err)
{
    nyb_arena arena = {0};
    float *gains = NULL;
    char hash[NYB_HASH_TEXT];
    nyb_status status = nyb_linear_read(r->job->model, p->layer->linear, w, err);
    if (status == NYB_OK)
        status = read_gains(r, p->gain, &arena, &gains, err);
    if (status == NYB_OK && p->reads)
        status = turn(r, w, gains, false, err);
    if (status == NYB_OK && p->writes)
        status = turn(r, w, NULL, true, err);
    if (status == NYB_OK)
        status = nyb_output_put_floats(r->out, p->layer, w, hash, err);
    if (status == NYB_OK &&
        json_array_append_new(r->records, json_pack("{s:s, s:s}", "module",
                                                    p->layer->linear->module, "sha256", hash)) != 0)
        status = nyb_no_memory(err, "report", 1, 1);
    nyb_arena_clear(&arena);
    return status;
}

static nyb_status rotate_parts(rotating *r, nyb_err *err)
{
    nyb_status status = NYB_OK;
    for (size_t i = 0; status == NYB_OK && i < r->count; i++) {
        const nyb_linear *const l = r->parts[i].layer->linear;
        float *const memory = nyb_alloc_raw(l->rows * l->cols, sizeof(float));
        if (!memory)
            return nyb_no_memory(err, l->module, l->rows, l->cols * sizeof(float));
        status = rotate_weight(r, &r->parts[i], nyb_mat_of(memory, l->rows, l->cols), err);
        nyb_free(memory);
        nyb_step(r->ctx, &(nyb_progress){.stage = "rotate",
                                         .item = l->module,
                                         .unit = "layers",
                                         .done = i + 1,
                                         .total = r->count});
    }
    return status;
}

static nyb_status finish(rotating *r, const json_t *run, nyb_rotate_result *result, double start,
                         nyb_err *err)
{
    result->bytes_out = nyb_store_total_bytes(r->out->store);
    result->seconds = nyb_seconds() - start;
    json_t *const totals =
        json_pack("{s:I, s:b, s:I, s:I, s:f}", "layers", (json_int_t) result->layers, "untied",
                  result->untied, "bytes_in", (json_int_t) result->bytes_in, "bytes_out",
                  (json_int_t) result->bytes_out, "seconds", result->seconds);
    json_t *const report = nyb_output_report(r->job, run, totals, r->records);
    return nyb_output_finish_once(r->ctx, r->out, report, err);
}

static nyb_status run_into(rotating *r, const json_t *run, nyb_rotate_result *result, nyb_err *err)
{
    const double start = nyb_seconds();
    nyb_output out;
    nyb_status status = nyb_output_open(r->ctx, &out, r->job, run, err);
    if (status != NYB_OK)
        return status;
    r->out = &out;
    status = rotate_parts(r, err);
    if (status == NYB_OK)
        status = finish(r, run, result, start, err);
    nyb_output_close(&out);
    return status;
}

static nyb_status settle(rotating *r, const nyb_rotate_params *params, nyb_err *err)
{
    nyb_job *const job = r->job;
    const char *const format = params->format ? params->format : "f32";
    if (!nyb_output_float_named(format, &job->dtype))
        return nyb_fail(err, NYB_E_ARG, "unknown format '%s'", format);
    nyb_status status = nyb_model_open(&job->model, params->model, err);
    if (status == NYB_OK)
        status = check_model(r, err);
    if (status == NYB_OK)
        status = nyb_rotation_make(&r->rotation, nyb_model_config_of(job->model)->hidden,
                                   params->seed, err);
    if (status == NYB_OK)
        status = list_parts(r, err);
    return status == NYB_OK ? make_vectors(r, err) : status;
}

static nyb_status rotate(rotating *r, const nyb_rotate_params *params, nyb_rotate_result *result,
                         nyb_err *err)
{
    nyb_status status = settle(r, params, err);
    if (status != NYB_OK)
        return status;
    json_t *const run = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:o}", "schema", "nybble.run/1",
                                  "nybble", nyb_version(), "command", "rotate", "format",
                                  params->format ? params->format : "f32", "method", "rotate",
                                  "seed", (json_int_t) params->seed, "model",
                                  nyb_source_files(r->ctx, nyb_model_checkpoint(r->job->model)));
    r->records = json_array();
    result->layers = r->count;
    result->untied = r->job->unties;
    result->bytes_in = nyb_source_bytes(nyb_model_checkpoint(r->job->model));
    status = run && r->records ? run_into(r, run, result, err) : nyb_no_memory(err, "run", 1, 1);
    json_decref(r->records);
    json_decref(run);
    return status;
}

nyb_status nyb_rotate(const nyb_context *ctx, const nyb_rotate_params *params,
                      nyb_rotate_result *result, nyb_err *err)
{
    const nyb_quantize_params inner = {.model = params->model,
                                       .out = params->out,
                                       .shard_bytes = params->shard_bytes,
                                       .force = params->force,
                                       .command = params->command};
    nyb_job job = {.params = &inner, .once = true, .casts = true};
    rotating r = {.ctx = ctx, .job = &job};
    nyb_rotate_result local = {0};
    const nyb_status status = rotate(&r, params, &local, err);
    nyb_rotation_clear(&r.rotation);
    nyb_job_close(&job);
    if (status == NYB_OK && result)
        *result = local;
    return status;
}
