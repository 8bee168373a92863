#include "calib/keras_convert.h"

#include <string.h>

#include "calib/keras_report.h"
#include "calib/source_files.h"
#include "core/clock.h"
#include "core/dtype.h"
#include "core/file.h"
#include "core/log.h"
#include "formats/hdf5.h"
#include "model/keras_hub_config.h"
#include "model/model.h"
#include "nybble/version.h"

// What a run holds; the owner, nyb_keras_convert(), gives it back.
typedef struct converting {
    const nyb_context *ctx;
    const nyb_convert_params *params;
    nyb_arena arena;
    nyb_model *model;
    json_t *source, *config; // config.json of both sides
    nyb_dtype dtype;         // of all tensors
    nyb_hub_part *parts;
    size_t count;
    const nyb_tensor **tensors; // [count] of the folder
    const char *partial;
    nyb_hdf5_writer *writer;
    nyb_checkpoint *made;
} converting;

// ---- The source -----------------------------------------------------------------------------

// A preset has one type.
static nyb_status find_dtype(converting *c, nyb_err *err)
{
    for (size_t i = 0; i < c->count; i++) {
        const nyb_tensor *const t = c->tensors[i], *const first = c->tensors[0];
        if (!nyb_dtype_is_float(t->dtype) || t->dtype != first->dtype)
            return nyb_fail(
                err, NYB_E_UNSUPPORTED,
                "%s: tensor '%s' is %s and '%s' is %s, and a preset has one type: convert "
                "it with --format f32 first",
                c->params->model, t->name, nyb_dtype_name(t->dtype), first->name,
                nyb_dtype_name(first->dtype));
    }
    c->dtype = c->tensors[0]->dtype;
    return NYB_OK;
}

// Files without a head leave out the start of the names.
static nyb_status find_tensor(const nyb_tensor **out, const converting *c, const nyb_hub_part *part,
                              nyb_err *err)
{
    const nyb_checkpoint *const from = nyb_model_checkpoint(c->model);
    const char *const dot = strchr(part->name, '.');
    *out = nyb_checkpoint_find(from, part->name);
    if (!*out && dot)
        *out = nyb_checkpoint_find(from, dot + 1);
    if (!*out)
        return nyb_fail(err, NYB_E_FORMAT, "%s: has no tensor '%s'", c->params->model, part->name);
    const nyb_tensor *const t = *out;
    bool fits = t->rank == part->folder_rank;
    for (unsigned i = 0; fits && i < t->rank; i++)
        fits = t->shape[i] == part->folder_shape[i];
    return fits ? NYB_OK
                : nyb_fail(err, NYB_E_UNSUPPORTED,
                           "%s: tensor '%s' has a shape that KerasHub's model does not have",
                           c->params->model, t->name);
}

static nyb_status list_parts(converting *c, nyb_err *err)
{
    const char *const type = json_string_value(json_object_get(c->source, "model_type"));
    const nyb_hub_family *const family = type ? nyb_hub_family_of_model(type) : NULL;
    bool tied = true;
    nyb_status status =
        nyb_hub_config_make(&c->config, &tied, c->source, NYB_F32, c->params->model, err);
    if (status == NYB_OK)
        status = nyb_hub_parts(&c->parts, &c->count, &c->arena, family,
                               json_object_get(c->config, "config"), tied, c->params->model, err);
    if (status != NYB_OK)
        return status;
    c->tensors = nyb_arena_alloc(&c->arena, c->count, sizeof(nyb_tensor *));
    if (!c->tensors)
        return nyb_no_memory(err, "tensors", c->count, sizeof(nyb_tensor *));
    for (size_t i = 0; i < c->count && status == NYB_OK; i++)
        status = find_tensor(&c->tensors[i], c, &c->parts[i], err);
    if (status == NYB_OK)
        status = find_dtype(c, err);
    json_decref(c->config); // which is made again with the type
    c->config = NULL;
    return status == NYB_OK
               ? nyb_hub_config_make(&c->config, &tied, c->source, c->dtype, c->params->model, err)
               : status;
}

static nyb_status open_source(converting *c, nyb_err *err)
{
    const char *const path = nyb_path_join(&c->arena, c->params->model, "config.json");
    nyb_status status = nyb_model_open(&c->model, c->params->model, err);
    if (status != NYB_OK)
        return status;
    if (nyb_checkpoint_keras(nyb_model_checkpoint(c->model)))
        return nyb_fail(err, NYB_E_ARG, "%s: a KerasHub preset already", c->params->model);
    if (nyb_checkpoint_gguf(nyb_model_checkpoint(c->model)) || nyb_model_quantization(c->model))
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: a preset is made of floats: convert it with --format bf16, f16 or f32 "
                        "first",
                        c->params->model);
    status = path ? nyb_json_load(&c->source, path, err) : nyb_no_memory(err, "a path", 1, 1);
    return status == NYB_OK ? list_parts(c, err) : status;
}

// ---- The preset -----------------------------------------------------------------------------

static nyb_status put_part(converting *c, size_t index, nyb_err *err)
{
    const nyb_hub_part *const part = &c->parts[index];
    nyb_tensor array = {.name = part->path, .dtype = c->dtype, .rank = part->rank};
    void *values = NULL;
    array.bytes = nyb_dtype_bytes(c->dtype);
    for (unsigned i = 0; i < part->rank; i++) {
        array.shape[i] = part->shape[i];
        array.bytes *= part->shape[i];
    }
    nyb_status status = nyb_hub_make(&values, part, c->tensors[index], err);
    array.at = values;
    if (status == NYB_OK)
        status = nyb_hdf5_put(c->writer, &array, NULL, err);
    nyb_free(values);
    nyb_map_release(c->tensors[index]->at, c->tensors[index]->bytes);
    nyb_step(c->ctx, &(nyb_progress){.stage = "convert",
                                     .item = part->path,
                                     .unit = "arrays",
                                     .done = index + 1,
                                     .total = c->count});
    return status;
}

// What KerasHub calls the layer at the end of a place. Policies of quantised layers go by these names.
static const char *layer_name(converting *c, const char *place)
{
    static const char *const others[][2] = {
        {"reversible_embedding", "token_embedding"},
        {"llama_layer_norm", "sequence_output_layernorm"},
        {"rms_normalization", "final_normalization"},
        {"layer_normalization", "layer_norm"},
        {"query_dense", "query"},
        {"key_dense", "key"},
        {"value_dense", "value"},
        {"output_dense", "attention_output"},
        {"self_attention_layer", "self_attention"},
        {"gating_ffw", "ffw_gating"},
        {"gating_ffw_2", "ffw_gating_2"},
    };
    static const char *const blocks[][2] = {
        {"llama_transformer_decoder", "transformer_layer_"},
        {"transformer_decoder", "transformer_layer_"},
        {"gemma3_decoder_block", "decoder_block_"},
    };
    const char *name = strrchr(place, '/') ? strrchr(place, '/') + 1 : place;
    name += *name == '_';
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        if (strcmp(name, others[i][0]) == 0)
            return others[i][1];
    }
    for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++) {
        const size_t length = strlen(blocks[i][0]);
        if (strncmp(name, blocks[i][0], length) == 0 && (!name[length] || name[length] == '_'))
            return nyb_arena_format(&c->arena, "%s%s", blocks[i][1],
                                    name[length] ? name + length + 1 : "0");
    }
    return name;
}

static nyb_status put_name(converting *c, const char *place, nyb_err *err)
{
    const char *const group = nyb_arena_format(&c->arena, "%s/vars", place);
    const char *const name = layer_name(c, place);
    json_t *const text = name ? json_string(name) : NULL;
    nyb_status status = group && text ? nyb_hdf5_put_group(c->writer, group, err)
                                      : nyb_no_memory(err, "a name", strlen(place), 1);
    if (status == NYB_OK)
        status = nyb_hdf5_put_attribute(c->writer, group, "name", text, err);
    json_decref(text);
    return status;
}

// Whether an array of the same block, before this one, lies in the place, too.
static bool was_named(const converting *c, size_t index, const char *place)
{
    enum { MOST_OF_A_BLOCK = 16 };
    const size_t length = strlen(place);
    for (size_t back = 1; back <= index && back <= MOST_OF_A_BLOCK; back++) {
        const char *const path = c->parts[index - back].path;
        if (strncmp(path, place, length) == 0 && path[length] == '/')
            return true;
    }
    return false;
}

// The names of all layers on the way to an array, each once.
static nyb_status put_names(converting *c, size_t index, nyb_err *err)
{
    const char *const path = c->parts[index].path;
    const char *const end = strstr(path, "/vars/");
    nyb_status status = NYB_OK;
    for (const char *at = strchr(path, '/'); at && at < end && status == NYB_OK;) {
        at = strchr(at + 1, '/');
        const size_t length = (size_t) (at - path);
        const char *const place = nyb_arena_text(&c->arena, path, length);
        if (!place)
            return nyb_no_memory(err, "a place", length, 1);
        if (!was_named(c, index, place))
            status = put_name(c, place, err);
    }
    return status;
}

static nyb_status write_weights(converting *c, nyb_err *err)
{
    const char *const path = nyb_path_join(&c->arena, c->partial, "model.weights.h5");
    nyb_status status = path ? nyb_hdf5_create(&c->writer, path, err)
                             : nyb_no_memory(err, "a path", strlen(c->partial), 1);
    for (size_t i = 0; i < c->count && status == NYB_OK; i++)
        status = put_part(c, i, err);
    for (size_t i = 0; i < c->count && status == NYB_OK; i++)
        status = put_names(c, i, err);
    if (status != NYB_OK)
        return status;
    nyb_hdf5_writer *const writer = c->writer;
    c->writer = NULL; // finishing closes it
    return nyb_hdf5_finish(writer, err);
}

static nyb_status write_configs(converting *c, nyb_err *err)
{
    const char *const config = nyb_path_join(&c->arena, c->partial, "config.json");
    const char *const metadata = nyb_path_join(&c->arena, c->partial, "metadata.json");
    size_t parameters = 0;
    for (size_t i = 0; i < c->count; i++) {
        size_t n = 1;
        for (unsigned a = 0; a < c->parts[i].rank; a++)
            n *= c->parts[i].shape[a];
        parameters += n;
    }
    // The versions whose places and settings these are.
    json_t *const text =
        json_pack("{s:s, s:s, s:I}", "keras_version", "3.15.1", "keras_hub_version", "0.32.0",
                  "parameter_count", (json_int_t) parameters);
    nyb_status status = config && metadata && text ? nyb_json_save(c->config, config, err)
                                                   : nyb_no_memory(err, "metadata.json", 1, 1);
    if (status == NYB_OK)
        status = nyb_json_save(text, metadata, err);
    json_decref(text);
    return status;
}

// What was written, read as the folder that it came from.
static nyb_status check(converting *c, nyb_err *err)
{
    nyb_status status = nyb_checkpoint_open(&c->made, c->partial, err);
    for (size_t i = 0; i < c->count && status == NYB_OK; i++) {
        const nyb_tensor *made = NULL;
        const nyb_tensor *const t = c->tensors[i];
        status = nyb_checkpoint_get(&made, c->made, c->parts[i].name, err);
        if (status == NYB_OK && (made->dtype != t->dtype || made->bytes != t->bytes ||
                                 memcmp(made->at, t->at, t->bytes) != 0))
            status = nyb_fail(err, NYB_E_VERIFY, "%s: tensor '%s' is not what it was in '%s'",
                              c->params->out, t->name, c->params->model);
    }
    return status;
}

static nyb_status save_report(const converting *c, nyb_err *err)
{
    json_t *const report = json_pack(
        "{s:s, s:s*, s:{s:s, s:s, s:s, s:s, s:o}, s:{s:i, s:b, s:I, s:I}, s:[]}", "schema",
        "nybble.report/1", "command", c->params->command, "run", "schema", "nybble.run/1", "nybble",
        nyb_version(), "command", "convert", "format", c->params->format, "model",
        nyb_source_files(c->ctx, nyb_model_checkpoint(c->model)), "totals", "layers", 0, "exact", 1,
        "bytes_in", (json_int_t) nyb_source_bytes(nyb_model_checkpoint(c->model)), "bytes_out",
        (json_int_t) nyb_source_bytes(c->made), "layers");
    return nyb_keras_report_save(report, c->partial, c->params->out, err);
}

static nyb_status write_preset(converting *c, nyb_err *err)
{
    nyb_status status = nyb_folder_make(c->partial, err);
    if (status != NYB_OK)
        return status;
    status = write_configs(c, err);
    if (status == NYB_OK)
        status = write_weights(c, err);
    if (status == NYB_OK)
        status = check(c, err);
    if (status == NYB_OK)
        status = save_report(c, err);
    if (status == NYB_OK)
        status = nyb_folder_sync(c->partial, err);
    if (status == NYB_OK && c->params->force)
        status = nyb_folder_remove(c->params->out, err);
    return status == NYB_OK ? nyb_rename(c->partial, c->params->out, err) : status;
}

// A folder that is replaced has to be a preset, as this function makes them.
static nyb_status check_output(converting *c, nyb_err *err)
{
    const char *const out = c->params->out;
    const char *const metadata = nyb_path_join(&c->arena, out, "metadata.json");
    c->partial = nyb_arena_format(&c->arena, "%s.partial", out);
    if (!metadata || !c->partial)
        return nyb_no_memory(err, "a path", strlen(out), 1);
    if (nyb_path_exists(out) && !c->params->force)
        return nyb_fail(err, NYB_E_EXISTS, "%s: already exists; use --force to replace it", out);
    if (nyb_path_exists(out) && !nyb_path_exists(metadata))
        return nyb_fail(err, NYB_E_EXISTS, "%s: is no preset, so it is not replaced", out);
    return c->params->force ? nyb_folder_remove(c->partial, err) : NYB_OK;
}

nyb_status nyb_keras_convert(const nyb_context *ctx, const nyb_convert_params *params,
                             nyb_convert_result *result, nyb_err *err)
{
    const double start = nyb_seconds();
    converting c = {.ctx = ctx, .params = params};
    nyb_status status = check_output(&c, err);
    if (status == NYB_OK)
        status = open_source(&c, err);
    if (status == NYB_OK) {
        status = write_preset(&c, err);
        if (status != NYB_OK && status != NYB_E_EXISTS) { // the first error is the one to tell
            const nyb_status removed = nyb_folder_remove(c.partial, NULL);
            (void) removed;
        }
    }
    if (status == NYB_OK && result)
        *result = (nyb_convert_result){.exact = true,
                                       .bytes_in = nyb_source_bytes(nyb_model_checkpoint(c.model)),
                                       .bytes_out = nyb_source_bytes(c.made),
                                       .seconds = nyb_seconds() - start};
    nyb_hdf5_discard(c.writer);
    nyb_checkpoint_close(c.made);
    json_decref(c.source);
    json_decref(c.config);
    nyb_model_close(c.model);
    nyb_arena_clear(&c.arena);
    return status;
}
