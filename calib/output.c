#include "calib/output.h"

#include <math.h>
#include <string.h>

#include "calib/output_files.h"
#include "calib/output_floats.h"
#include "core/dtype.h"
#include "core/file.h"
#include "core/log.h"
#include "core/threads.h"

nyb_status nyb_output_bytes(const nyb_job *job, size_t *bytes, nyb_err *err)
{
    nyb_arena arena = {0};
    nyb_output_plan plan;
    const nyb_status status = nyb_output_plan_make(&plan, job, &arena, err);
    *bytes = 0;
    for (size_t i = 0; status == NYB_OK && i < plan.count; i++)
        *bytes += plan.tensors[i].bytes;
    nyb_arena_clear(&arena);
    return status;
}

static nyb_status check_finite(const nyb_checkpoint *source, const nyb_tensor *tensor, nyb_err *err)
{
    enum { STEP = 4096 };
    float values[STEP];
    const size_t size = nyb_dtype_bytes(tensor->dtype), n = tensor->bytes / size;
    size_t held = 0; // from where on pages may be in memory
    for (size_t i = 0; i < n; i += STEP) {
        if ((i - held) * size >= NYB_MAP_PIECE) {
            nyb_map_release((const char *) tensor->at + held * size, (i - held) * size);
            held = i;
        }
        const size_t some = n - i < STEP ? n - i : STEP;
        nyb_widen(values, (const char *) tensor->at + i * size, tensor->dtype, some);
        for (size_t k = 0; k < some; k++) {
            if (!isfinite(values[k]))
                return nyb_fail(err, NYB_E_NUMERIC, "%s: '%s' holds %g at element %zu",
                                nyb_checkpoint_file_of(source, tensor), tensor->name,
                                (double) values[k], i + k);
        }
    }
    return NYB_OK;
}

// The bytes of an item that is neither copied as it is nor put by the run.
static nyb_status make_bytes(void **bytes, const nyb_job *job, const nyb_output_item *item,
                             nyb_err *err)
{
    return item->source ? nyb_output_cast(bytes, item, err)
                        : nyb_output_dequantized(bytes, job, item, err);
}

// Whether the run puts the item's tensor.
static bool is_put(const nyb_output_item *item)
{
    return item->layer && item->layer->form != NYB_FORM_FLOATS;
}

// Whether the bytes of a file are copied.
static bool is_same(const nyb_output_item *item)
{
    return item->source && !item->in_memory && item->source->dtype == item->tensor->dtype;
}

static nyb_status copy_tensors(nyb_output *out, nyb_err *err)
{
    const nyb_checkpoint *const source = nyb_model_checkpoint(out->job->model);
    nyb_status status = NYB_OK;
    for (size_t i = 0; status == NYB_OK && i < out->plan.count; i++) {
        const nyb_output_item *const item = &out->plan.items[i];
        const nyb_tensor *const from = item->source, *const to = item->tensor;
        void *bytes = NULL;
        if (is_put(item))
            continue;
        if (from && !item->in_memory && nyb_dtype_is_float(from->dtype))
            status = check_finite(source, from, err);
        if (status == NYB_OK && is_same(item)) {
            status = nyb_store_put_mapped(out->store, to->name, from->at, from->bytes, err);
        } else if (status == NYB_OK) {
            status = make_bytes(&bytes, out->job, item, err);
            if (status == NYB_OK)
                status = nyb_store_put(out->store, to->name, bytes, to->bytes, err);
            nyb_free(bytes);
        }
    }
    return status;
}

static size_t shard_bytes(const nyb_job *job)
{
    return job->params->shard_bytes ? job->params->shard_bytes : NYB_STORE_SHARD_BYTES;
}

static nyb_status fill(nyb_output *out, const json_t *run, nyb_err *err)
{
    const nyb_output_plan *const plan = &out->plan;
    nyb_status status = nyb_folder_make(out->partial, err);
    out->made = status == NYB_OK;
    if (status == NYB_OK)
        status = nyb_journal_create(&out->journal, out->partial, run, err);
    if (status == NYB_OK)
        status = nyb_store_create(&out->store, out->partial, plan->tensors, plan->count,
                                  shard_bytes(out->job), err);
    if (status == NYB_OK)
        status = copy_tensors(out, err);
    if (status == NYB_OK)
        status = nyb_output_save_files(out->job, out->partial, &out->arena, err);
    if (status == NYB_OK)
        status = nyb_store_sync(out->store, err);
    if (status == NYB_OK)
        status = nyb_folder_sync(out->partial, err);
    return status == NYB_OK ? nyb_journal_ready(&out->journal, err) : status;
}

// Tells the store what the journal knows to be in place.
static nyb_status mark_done(nyb_output *out, nyb_err *err)
{
    const size_t done = json_array_size(out->journal.blocks);
    nyb_status status = NYB_OK;
    for (size_t i = 0; status == NYB_OK && i < out->plan.count; i++) {
        const nyb_output_item *const item = &out->plan.items[i];
        if (!is_put(item) || item->layer->block < done)
            status = nyb_store_mark(out->store, item->tensor->name, err);
    }
    return status;
}

static nyb_status take_up(nyb_output *out, const json_t *run, nyb_err *err)
{
    const nyb_output_plan *const plan = &out->plan;
    nyb_status status = nyb_journal_reopen(&out->journal, out->partial, run, err);
    if (status != NYB_OK || !out->journal.ready)
        return status;
    status = nyb_store_reopen(&out->store, out->partial, plan->tensors, plan->count,
                              shard_bytes(out->job), err);
    return status == NYB_OK ? mark_done(out, err) : status;
}

// What stands at OUT may be replaced only if nybble made it.
static nyb_status check_target(const nyb_output *out, nyb_err *err)
{
    const char *const path = out->job->params->out;
    if (!nyb_path_exists(path))
        return NYB_OK;
    if (!out->job->params->force)
        return nyb_fail(err, NYB_E_EXISTS, "%s: already exists; use --force to replace it", path);
    nyb_arena arena = {0};
    const char *const report = nyb_path_join(&arena, path, NYB_REPORT_NAME);
    const bool ours = report && nyb_path_exists(report);
    nyb_arena_clear(&arena);
    if (!ours)
        return nyb_fail(
            err, NYB_E_EXISTS,
            "%s: exists and is not a folder that nybble made (it has no " NYB_REPORT_NAME
            "); remove it yourself or choose another name",
            path);
    return NYB_OK;
}

static nyb_status open_folder(nyb_output *out, const json_t *run, nyb_err *err)
{
    const nyb_quantize_params *const params = out->job->params;
    if (nyb_path_exists(out->partial)) {
        if (!params->resume && !params->force)
            return nyb_fail(err, NYB_E_EXISTS,
                            "%s: left by an interrupted run; %sstart over with --force",
                            out->partial, out->job->once ? "" : "go on with --resume, or ");
        if (params->resume) {
            const nyb_status status = take_up(out, run, err);
            if (status != NYB_OK || out->journal.ready)
                return status;
            nyb_journal_close(&out->journal); // killed before anything was in place
        }
        const nyb_status status = nyb_folder_remove(out->partial, err);
        if (status != NYB_OK)
            return status;
    }
    return fill(out, run, err);
}

nyb_status nyb_output_open(const nyb_context *ctx, nyb_output *out, const nyb_job *job,
                           const json_t *run, nyb_err *err)
{
    *out = (nyb_output){.job = job};
    size_t length = strlen(job->params->out);
    while (length > 1 && job->params->out[length - 1] == '/')
        length--;
    out->partial = nyb_arena_format(&out->arena, "%.*s.partial", (int) length, job->params->out);
    if (!out->partial)
        return nyb_no_memory(err, "path", length, 1);

    nyb_status status = check_target(out, err);
    if (status == NYB_OK)
        status = nyb_output_plan_make(&out->plan, job, &out->arena, err);
    if (status == NYB_OK)
        status = open_folder(out, run, err);
    if (status != NYB_OK)
        nyb_output_close(out);
    else if (json_array_size(out->journal.blocks) > 0)
        nyb_log(ctx, NYB_LOG_INFO, "%s: going on after %zu finished blocks", out->partial,
                json_array_size(out->journal.blocks));
    return status;
}

nyb_status nyb_output_put(nyb_output *out, const nyb_job_layer *layer, const nyb_qweight *q,
                          nyb_err *err)
{
    return nyb_layout_put(layer->layout, out->store, layer->linear->module, q, err);
}

nyb_status nyb_output_put_floats(nyb_output *out, const nyb_job_layer *layer, nyb_mat w,
                                 char sha256[NYB_HASH_TEXT], nyb_err *err)
{
    const nyb_output_item *item = out->plan.items;
    while (item->layer != layer)
        item++;
    void *bytes = NULL;
    nyb_status status = nyb_output_floats(&bytes, out->job, item, w, err);
    if (status != NYB_OK)
        return status;
    nyb_hash_of(bytes, item->tensor->bytes, sha256);
    status = nyb_store_put(out->store, item->tensor->name, bytes, item->tensor->bytes, err);
    nyb_free(bytes);
    return status;
}

// Whether nobody will have the folder but the process that makes it.
static bool is_fleeting(const nyb_output *out)
{
    return out->job->shared && out->job->shared->fleeting;
}

nyb_status nyb_output_commit(nyb_output *out, json_t *line, nyb_err *err)
{
    const nyb_status status = is_fleeting(out) ? NYB_OK : nyb_store_sync(out->store, err);
    if (status != NYB_OK) {
        json_decref(line);
        return status;
    }
    return nyb_journal_block(&out->journal, line, err);
}

// SHA-256 of a layer as it was written.
static nyb_status hash_written(char text[NYB_HASH_TEXT], const nyb_job_layer *layer,
                               const nyb_model *written, nyb_err *err)
{
    const nyb_linear *const l = layer->linear;
    const nyb_checkpoint *const file = nyb_model_checkpoint(written);
    nyb_arena arena = {0};
    nyb_status status = NYB_OK;
    if (layer->form == NYB_FORM_CODES) {
        nyb_qweight q;
        status = nyb_quantization_read(&q, nyb_model_quantization(written), file, l->module,
                                       l->rows, l->cols, err);
        if (status == NYB_OK)
            nyb_job_hash(&q, text);
        nyb_qweight_clear(&q);
        return status;
    }
    const nyb_tensor *tensor = NULL;
    const char *const name = nyb_arena_format(&arena, "%s.weight", l->module);
    status = name ? nyb_checkpoint_get(&tensor, file, name, err)
                  : nyb_no_memory(err, l->module, strlen(l->module), 1);
    if (status == NYB_OK)
        nyb_hash_of(tensor->at, tensor->bytes, text);
    nyb_arena_clear(&arena);
    return status;
}

static nyb_status check_layer(const nyb_output *out, const nyb_model *written, const json_t *record,
                              nyb_err *err)
{
    const char *const module = json_string_value(json_object_get(record, "module"));
    const char *const want = json_string_value(json_object_get(record, "sha256"));
    const nyb_job_layer *const layer = module ? nyb_output_layer(&out->plan, module) : NULL;
    if (!want || !layer)
        return NYB_OK; // a layer that was copied: compared with its source

    char got[NYB_HASH_TEXT];
    const nyb_status status = hash_written(got, layer, written, err);
    if (status == NYB_OK && strcmp(got, want) != 0)
        return nyb_fail(err, NYB_E_VERIFY, "%s: '%s' reads back as %.12s..., solved was %.12s...",
                        out->partial, module, got, want);
    return status;
}

static bool same_bytes(const nyb_tensor *a, const nyb_tensor *b)
{
    bool same = a->bytes == b->bytes;
    for (size_t i = 0; same && i < a->bytes; i += NYB_MAP_PIECE) {
        const size_t some = a->bytes - i < NYB_MAP_PIECE ? a->bytes - i : NYB_MAP_PIECE;
        const char *const left = (const char *) a->at + i, *const right = (const char *) b->at + i;
        same = memcmp(left, right, some) == 0;
        nyb_map_release(left, some);
        nyb_map_release(right, some);
    }
    return same;
}

// Whether `got` is what the item should have become.
static nyb_status compare(bool *same, const nyb_job *job, const nyb_output_item *item,
                          const nyb_tensor *got, nyb_err *err)
{
    void *bytes = NULL;
    *same = is_same(item) && same_bytes(got, item->source);
    if (is_same(item))
        return NYB_OK;
    const nyb_status status = make_bytes(&bytes, job, item, err);
    *same = status == NYB_OK && got->bytes == item->tensor->bytes &&
            memcmp(got->at, bytes, got->bytes) == 0;
    nyb_free(bytes);
    return status;
}

static nyb_status check_copies(const nyb_output *out, const nyb_model *written, nyb_err *err)
{
    nyb_status status = NYB_OK;
    for (size_t i = 0; status == NYB_OK && i < out->plan.count; i++) {
        const nyb_output_item *const item = &out->plan.items[i];
        const nyb_tensor *got = NULL;
        bool same = true;
        if (is_put(item))
            continue;
        status = nyb_checkpoint_get(&got, nyb_model_checkpoint(written), item->tensor->name, err);
        if (status == NYB_OK)
            status = compare(&same, out->job, item, got, err);
        if (status == NYB_OK && !same)
            status = nyb_fail(err, NYB_E_VERIFY, "%s: '%s' reads back differently from its source",
                              out->partial, item->tensor->name);
    }
    return status;
}

// The layers of a block that are read back, side by side.
typedef struct reading_back {
    const nyb_output *out;
    const nyb_model *written;
    const json_t *layers;
    nyb_status *status; // [layers]
    nyb_err *err;       // [layers]
} reading_back;

static void check_task(void *arg, size_t index, unsigned worker)
{
    const reading_back *const r = arg;
    (void) worker;
    r->status[index] =
        check_layer(r->out, r->written, json_array_get(r->layers, index), &r->err[index]);
}

static nyb_status check_block(const nyb_context *ctx, reading_back *r, nyb_err *err)
{
    const size_t count = json_array_size(r->layers);
    nyb_arena arena = {0};
    nyb_status status = NYB_OK;
    r->status = nyb_arena_alloc(&arena, count, sizeof(*r->status));
    r->err = nyb_arena_alloc(&arena, count, sizeof(*r->err));
    if (r->status && r->err)
        nyb_parallel(ctx, count, check_task, r);
    else
        status = nyb_no_memory(err, "layers", count, sizeof(*r->err));
    for (size_t i = 0; status == NYB_OK && i < count; i++) {
        if (r->status[i] != NYB_OK)
            status = nyb_fail(err, r->status[i], "%s", r->err[i].text);
    }
    nyb_arena_clear(&arena);
    nyb_checkpoint_release(nyb_model_checkpoint(r->written));
    return status;
}

static nyb_status verify(const nyb_context *ctx, const nyb_output *out, nyb_err *err)
{
    nyb_model *written = NULL;
    nyb_status status = nyb_model_open(&written, out->partial, err);
    const size_t blocks = json_array_size(out->journal.blocks);
    for (size_t b = 0; status == NYB_OK && b < blocks; b++) {
        reading_back r = {.out = out,
                          .written = written,
                          .layers =
                              json_object_get(json_array_get(out->journal.blocks, b), "layers")};
        status = check_block(ctx, &r, err);
        nyb_step(ctx, &(nyb_progress){
                          .stage = "verify", .unit = "blocks", .done = b + 1, .total = blocks});
    }
    if (status == NYB_OK)
        status = check_copies(out, written, err);
    nyb_model_close(written);
    return status;
}

// The new folder takes OUT's place; an old one goes when the new one is there.
static nyb_status take_place(nyb_output *out, nyb_err *err)
{
    const char *const target = out->job->params->out;
    const char *const old = nyb_arena_format(&out->arena, "%s.old", out->partial);
    const bool replace = nyb_path_exists(target);
    if (!old)
        return nyb_no_memory(err, "path", 1, 1);
    nyb_status status = replace ? nyb_rename(target, old, err) : NYB_OK;
    if (status == NYB_OK)
        status = nyb_rename(out->partial, target, err);
    if (status == NYB_OK)
        out->made = false;
    return status == NYB_OK && replace ? nyb_folder_remove(old, err) : status;
}

nyb_status nyb_output_finish(const nyb_context *ctx, nyb_output *out, const json_t *report,
                             nyb_err *err)
{
    const char *const path = nyb_path_join(&out->arena, out->partial, NYB_REPORT_NAME);
    if (!path)
        return nyb_no_memory(err, "path", 1, 1);
    nyb_status status = nyb_store_finish(out->store, err);
    if (status == NYB_OK && !is_fleeting(out))
        status = verify(ctx, out, err);
    if (status == NYB_OK)
        status = nyb_json_save(report, path, err);
    if (status == NYB_OK)
        status = take_place(out, err);
    return status == NYB_OK ? nyb_journal_remove(&out->journal, out->job->params->out, err)
                            : status;
}

json_t *nyb_output_report(const nyb_job *job, const json_t *run, json_t *totals,
                          const json_t *layers)
{
    return json_pack("{s:s, s:s*, s:O, s:o, s:O}", "schema", "nybble.report/1", "command",
                     job->params->command, "run", run, "totals", totals, "layers", layers);
}

nyb_status nyb_output_finish_once(const nyb_context *ctx, nyb_output *out, json_t *report,
                                  nyb_err *err)
{
    json_t *const line =
        report ? json_pack("{s:i, s:O}", "block", 0, "layers", json_object_get(report, "layers"))
               : NULL;
    nyb_status status =
        line ? nyb_output_commit(out, line, err) : nyb_no_memory(err, "report", 1, 1);
    if (status == NYB_OK)
        status = nyb_output_finish(ctx, out, report, err);
    json_decref(report);
    return status;
}

void nyb_output_close(nyb_output *out)
{
    const bool kept = json_array_size(out->journal.blocks) > 0 && !(out->job && out->job->once);
    nyb_store_close(out->store);
    nyb_journal_close(&out->journal);
    if (out->made && !kept) {
        const nyb_status status = nyb_folder_remove(out->partial, NULL);
        (void) status; // the run's own error is the one to tell
    }
    nyb_arena_clear(&out->arena);
    *out = (nyb_output){0};
}
