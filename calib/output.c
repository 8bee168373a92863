#include "calib/output.h"

#include <dirent.h>
#include <fnmatch.h>
#include <math.h>
#include <string.h>

#include "core/dtype.h"
#include "core/file.h"
#include "core/log.h"
#include "core/threads.h"

#define REPORT_NAME "nybble_report.json"

// Files that a reader may want beside the tensors.
static const char *const companions[] = {
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "encoder.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.model",
    "*.tiktoken",
    "generation_config.json",
    "chat_template*",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
    "processor_config.json",
    "preprocessor_config.json",
};

static const nyb_job_layer *layer_of(const nyb_job *job, const nyb_tensor *tensor)
{
    for (size_t i = 0; i < job->count; i++) {
        if (job->layers[i].linear->weight == tensor)
            return job->layers[i].settings.skip ? NULL : &job->layers[i];
    }
    return NULL;
}

// What a tensor becomes: the packed layers that it holds, several of fused experts.
static nyb_status plan_layers(const nyb_job *job, const nyb_tensor *tensor, nyb_arena *arena,
                              nyb_tensor *tensors, size_t *count, nyb_err *err)
{
    for (size_t i = 0; i < job->count; i++) {
        const nyb_job_layer *const layer = &job->layers[i];
        size_t made = 0;
        if (layer->linear->weight != tensor)
            continue;
        const nyb_status status = layer->layout->tensors(tensors + *count, &made, &layer->spec,
                                                         layer->linear->module, arena, err);
        if (status != NYB_OK)
            return status;
        *count += made;
        if (tensor->rank < 3)
            break;
    }
    return NYB_OK;
}

// The tensors of the output, in the order of the source's names.
static nyb_status plan_tensors(const nyb_job *job, nyb_arena *arena, nyb_tensor **out,
                               size_t *count, nyb_err *err)
{
    const nyb_checkpoint *const source = nyb_model_checkpoint(job->model);
    const size_t room = nyb_checkpoint_count(source) + job->rounded * NYB_LAYOUT_TENSORS;
    nyb_tensor *const tensors = nyb_arena_alloc(arena, room, sizeof(*tensors));
    if (!tensors)
        return nyb_no_memory(err, "output tensors", room, sizeof(*tensors));

    *count = 0;
    for (size_t i = 0; i < nyb_checkpoint_count(source); i++) {
        const nyb_tensor *const tensor = nyb_checkpoint_at(source, i);
        const nyb_job_layer *const layer = layer_of(job, tensor);
        if (!layer) {
            tensors[(*count)++] = *tensor;
            continue;
        }
        const nyb_status status = plan_layers(job, tensor, arena, tensors, count, err);
        if (status != NYB_OK)
            return status;
    }
    *out = tensors;
    return NYB_OK;
}

nyb_status nyb_output_bytes(const nyb_job *job, size_t *bytes, nyb_err *err)
{
    nyb_arena arena = {0};
    nyb_tensor *tensors = NULL;
    size_t count = 0;
    const nyb_status status = plan_tensors(job, &arena, &tensors, &count, err);
    *bytes = 0;
    for (size_t i = 0; status == NYB_OK && i < count; i++)
        *bytes += tensors[i].bytes;
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

static nyb_status copy_tensors(nyb_output *out, nyb_err *err)
{
    const nyb_checkpoint *const source = nyb_model_checkpoint(out->job->model);
    for (size_t i = 0; i < nyb_checkpoint_count(source); i++) {
        const nyb_tensor *const tensor = nyb_checkpoint_at(source, i);
        if (layer_of(out->job, tensor))
            continue;
        nyb_status status =
            nyb_dtype_is_float(tensor->dtype) ? check_finite(source, tensor, err) : NYB_OK;
        if (status == NYB_OK)
            status = nyb_store_put_mapped(out->store, tensor->name, tensor->at, tensor->bytes, err);
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}

static nyb_status copy_companions(nyb_output *out, nyb_err *err)
{
    const char *const folder = nyb_model_folder(out->job->model);
    DIR *const list = opendir(folder);
    if (!list)
        return nyb_fail(err, NYB_E_IO, "%s: cannot list the folder", folder);

    nyb_status status = NYB_OK;
    const struct dirent *entry;
    while (status == NYB_OK && (entry = readdir(list))) {
        bool wanted = false;
        for (size_t i = 0; i < sizeof(companions) / sizeof(companions[0]); i++)
            wanted |= fnmatch(companions[i], entry->d_name, FNM_PERIOD) == 0;
        const char *const from = nyb_path_join(&out->arena, folder, entry->d_name);
        const char *const to = nyb_path_join(&out->arena, out->partial, entry->d_name);
        if (!from || !to)
            status = nyb_no_memory(err, folder, 1, 1);
        else if (wanted && !nyb_path_is_folder(from))
            status = nyb_file_copy(from, to, err);
    }
    (void) closedir(list);
    return status;
}

// config.json with the quantization_config put before its last brace: everything else in it stays
// as its author wrote it.
static nyb_status save_config(nyb_output *out, const json_t *quantization, nyb_err *err)
{
    char *text = NULL;
    size_t length = 0;
    const char *const from =
        nyb_path_join(&out->arena, nyb_model_folder(out->job->model), "config.json");
    const char *const to = nyb_path_join(&out->arena, out->partial, "config.json");
    if (!from || !to)
        return nyb_no_memory(err, "config.json", 1, 1);
    nyb_status status = nyb_file_read(&out->arena, from, 64 << 20, &text, &length, err);
    json_t *config = NULL;
    if (status == NYB_OK)
        status = nyb_json_parse(&config, text, length, from, err);
    if (status != NYB_OK)
        return status;

    char *const brace = strrchr(text, '}');
    char *const inner = json_dumps(quantization, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    if (!inner || !brace) {
        status = nyb_no_memory(err, "config.json", length, 1);
    } else if (json_object_get(config, "quantization_config") || json_object_size(config) == 0) {
        json_object_set(config, "quantization_config", (json_t *) (uintptr_t) quantization);
        status = nyb_json_save(config, to, err);
    } else {
        while (brace > text && strchr(" \t\r\n", brace[-1]))
            memmove(brace - 1, brace, strlen(brace) + 1);
        *strrchr(text, '}') = '\0';
        const char *const whole =
            nyb_arena_format(&out->arena, "%s,\n  \"quantization_config\": %s\n}\n", text, inner);
        status = whole ? nyb_file_write(to, whole, strlen(whole), err)
                       : nyb_no_memory(err, "config.json", length, 1);
    }
    free(inner);
    json_decref(config);
    return status;
}

static nyb_status save_configs(nyb_output *out, nyb_err *err)
{
    json_t *const config = nyb_job_quantization_config(out->job);
    if (!config)
        return nyb_no_memory(err, "quantization_config", 1, 1);
    nyb_status status = save_config(out, config, err);
    if (status == NYB_OK && out->job->layout->quantize_config) {
        const char *const path = nyb_path_join(&out->arena, out->partial, "quantize_config.json");
        status = path ? nyb_json_save(config, path, err) : nyb_no_memory(err, "path", 1, 1);
    }
    json_decref(config);
    return status;
}

static size_t shard_bytes(const nyb_job *job)
{
    return job->params->shard_bytes ? job->params->shard_bytes : NYB_STORE_SHARD_BYTES;
}

static nyb_status fill(nyb_output *out, const json_t *run, nyb_err *err)
{
    nyb_tensor *tensors = NULL;
    size_t count = 0;
    nyb_status status = nyb_folder_make(out->partial, err);
    out->made = status == NYB_OK;
    if (status == NYB_OK)
        status = nyb_journal_create(&out->journal, out->partial, run, err);
    if (status == NYB_OK)
        status = plan_tensors(out->job, &out->arena, &tensors, &count, err);
    if (status == NYB_OK)
        status =
            nyb_store_create(&out->store, out->partial, tensors, count, shard_bytes(out->job), err);
    if (status == NYB_OK)
        status = copy_tensors(out, err);
    if (status == NYB_OK)
        status = copy_companions(out, err);
    if (status == NYB_OK)
        status = save_configs(out, err);
    if (status == NYB_OK)
        status = nyb_store_sync(out->store, err);
    if (status == NYB_OK)
        status = nyb_folder_sync(out->partial, err);
    return status == NYB_OK ? nyb_journal_ready(&out->journal, err) : status;
}

// Whether a tensor of the output is one of the source. A layer's may have the name of its source.
static bool is_copied(const nyb_job *job, const char *name)
{
    const nyb_tensor *const source = nyb_checkpoint_find(nyb_model_checkpoint(job->model), name);
    return source && !layer_of(job, source);
}

// Tells the store what the journal knows to be in place.
static nyb_status mark_done(nyb_output *out, const nyb_tensor *tensors, size_t count, nyb_err *err)
{
    const nyb_job *const job = out->job;
    const size_t done = json_array_size(out->journal.blocks);
    for (size_t i = 0; i < count; i++) {
        bool pending = false;
        for (size_t k = 0; k < job->count && !pending; k++) {
            const nyb_job_layer *const layer = &job->layers[k];
            const char *const module = layer->linear->module;
            const size_t length = strlen(module);
            pending = layer->block >= done && !layer->settings.skip &&
                      strncmp(tensors[i].name, module, length) == 0 &&
                      tensors[i].name[length] == '.' && !is_copied(job, tensors[i].name);
        }
        const nyb_status status =
            pending ? NYB_OK : nyb_store_mark(out->store, tensors[i].name, err);
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}

static nyb_status take_up(nyb_output *out, const json_t *run, nyb_err *err)
{
    nyb_tensor *tensors = NULL;
    size_t count = 0;
    nyb_status status = nyb_journal_reopen(&out->journal, out->partial, run, err);
    if (status != NYB_OK || !out->journal.ready)
        return status;
    status = plan_tensors(out->job, &out->arena, &tensors, &count, err);
    if (status == NYB_OK)
        status =
            nyb_store_reopen(&out->store, out->partial, tensors, count, shard_bytes(out->job), err);
    return status == NYB_OK ? mark_done(out, tensors, count, err) : status;
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
    const char *const report = nyb_path_join(&arena, path, REPORT_NAME);
    const bool ours = report && nyb_path_exists(report);
    nyb_arena_clear(&arena);
    if (!ours)
        return nyb_fail(err, NYB_E_EXISTS,
                        "%s: exists and is not a folder that nybble made (it has no " REPORT_NAME
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
                            "%s: left by an interrupted run; go on with --resume, or start over "
                            "with --force",
                            out->partial);
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

nyb_status nyb_output_commit(nyb_output *out, json_t *line, nyb_err *err)
{
    const nyb_status status = nyb_store_sync(out->store, err);
    if (status != NYB_OK) {
        json_decref(line);
        return status;
    }
    return nyb_journal_block(&out->journal, line, err);
}

static nyb_status check_layer(const nyb_output *out, const nyb_model *written, const json_t *record,
                              nyb_err *err)
{
    const char *const module = json_string_value(json_object_get(record, "module"));
    const char *const want = json_string_value(json_object_get(record, "sha256"));
    const nyb_job_layer *layer = out->job->layers;
    while (module && strcmp(layer->linear->module, module) != 0)
        layer++;
    if (!want)
        return NYB_OK; // a layer that was copied: compared with its source

    char got[NYB_HASH_TEXT];
    nyb_qweight q;
    const nyb_status status =
        nyb_quantization_read(&q, nyb_model_quantization(written), nyb_model_checkpoint(written),
                              module, layer->linear->rows, layer->linear->cols, err);
    if (status != NYB_OK)
        return status;
    nyb_job_hash(&q, got);
    nyb_qweight_clear(&q);
    if (strcmp(got, want) != 0)
        return nyb_fail(err, NYB_E_VERIFY, "%s: '%s' reads back as %.12s..., solved was %.12s...",
                        out->partial, module, got, want);
    return NYB_OK;
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

static nyb_status check_copies(const nyb_output *out, const nyb_model *written, nyb_err *err)
{
    const nyb_checkpoint *const source = nyb_model_checkpoint(out->job->model);
    for (size_t i = 0; i < nyb_checkpoint_count(source); i++) {
        const nyb_tensor *const want = nyb_checkpoint_at(source, i);
        if (layer_of(out->job, want))
            continue;
        const nyb_tensor *got = NULL;
        const nyb_status status =
            nyb_checkpoint_get(&got, nyb_model_checkpoint(written), want->name, err);
        if (status != NYB_OK)
            return status;
        if (!same_bytes(got, want))
            return nyb_fail(err, NYB_E_VERIFY, "%s: '%s' reads back differently from its source",
                            out->partial, want->name);
    }
    return NYB_OK;
}

// The pages of a checkpoint that were read so far.
static void release_pages(const nyb_checkpoint *checkpoint)
{
    for (size_t i = 0; i < nyb_checkpoint_files(checkpoint); i++) {
        size_t bytes = 0;
        const void *const at = nyb_checkpoint_file_bytes(checkpoint, i, &bytes);
        nyb_map_release(at, bytes);
    }
}

static nyb_status verify(const nyb_context *ctx, const nyb_output *out, nyb_err *err)
{
    nyb_model *written = NULL;
    nyb_status status = nyb_model_open(&written, out->partial, err);
    const size_t blocks = json_array_size(out->journal.blocks);
    for (size_t b = 0; status == NYB_OK && b < blocks; b++) {
        const json_t *const layers =
            json_object_get(json_array_get(out->journal.blocks, b), "layers");
        for (size_t i = 0; status == NYB_OK && i < json_array_size(layers); i++)
            status = check_layer(out, written, json_array_get(layers, i), err);
        release_pages(nyb_model_checkpoint(written));
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
    const char *const path = nyb_path_join(&out->arena, out->partial, REPORT_NAME);
    if (!path)
        return nyb_no_memory(err, "path", 1, 1);
    nyb_status status = nyb_store_finish(out->store, err);
    if (status == NYB_OK)
        status = verify(ctx, out, err);
    if (status == NYB_OK)
        status = nyb_json_save(report, path, err);
    if (status == NYB_OK)
        status = take_place(out, err);
    return status == NYB_OK ? nyb_journal_remove(&out->journal, out->job->params->out, err)
                            : status;
}

void nyb_output_close(nyb_output *out)
{
    const bool empty = json_array_size(out->journal.blocks) == 0;
    nyb_store_close(out->store);
    nyb_journal_close(&out->journal);
    if (out->made && empty) {
        const nyb_status status = nyb_folder_remove(out->partial, NULL);
        (void) status; // the run's own error is the one to tell
    }
    nyb_arena_clear(&out->arena);
    *out = (nyb_output){0};
}
