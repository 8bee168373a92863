#include "calib/keras_quantize.h"

#include <math.h>
#include <string.h>

#include "calib/keras_edit.h"
#include "calib/keras_report.h"
#include "calib/keras_solve.h"
#include "calib/recipe.h"
#include "calib/source_files.h"
#include "core/clock.h"
#include "core/dtype.h"
#include "core/file.h"
#include "core/log.h"
#include "nybble/version.h"

typedef struct run {
    const nyb_context *ctx;
    const nyb_quantize_params *params;
    nyb_keras_file *file;
    nyb_keras_layers layers;
    nyb_recipe recipe;
    nyb_keras_solution solution; // of a run with samples
    nyb_quantize_result *result;
    json_t *records; // of the rounded layers
    double bits, weights;
    double start;
    size_t seen;
} run;

// What patterns are matched with: the names that the user gave the layers.
static const char *module_of(const nyb_keras_layer *layer)
{
    return *layer->scope ? layer->scope : layer->place;
}

static nyb_status settings_of(const run *r, const nyb_keras_layer *layer, nyb_settings *out,
                              nyb_err *err)
{
    return nyb_recipe_of(&r->recipe, module_of(layer), out, err);
}

// A matrix that may be one of those that Keras quantises, or not.
static nyb_status check_known(const run *r, const nyb_keras_layer *layer, nyb_err *err)
{
    nyb_tensor first = {0};
    if (*layer->class_name || !*layer->place || layer->variables == 0)
        return NYB_OK;
    const nyb_status status = nyb_keras_variable(r->file, layer, 0, &first, err);
    if (status != NYB_OK || first.rank < 2)
        return status;
    return nyb_fail(err, NYB_E_UNSUPPORTED,
                    "%s: what kind of layer '%s' is cannot be told from its place; leave it out by "
                    "a recipe, or quantise a .keras file, which tells",
                    r->params->model, layer->place);
}

// The layer's line in the report, and its part of the sums.
static nyb_status note(run *r, const nyb_keras_layer *layer, const nyb_settings *settings,
                       const nyb_keras_solved *solved, const nyb_keras_edit *made, nyb_err *err)
{
    const double bits = 8.0 * (double) nyb_keras_edit_bytes(made);
    double weights = 0.0;
    nyb_status status = NYB_OK;
    for (size_t i = 0; status == NYB_OK && i < nyb_keras_matrices(layer); i++) {
        nyb_tensor w = {.dtype = NYB_F32};
        status = nyb_keras_variable(r->file, layer, i, &w, err);
        weights += (double) (w.bytes / nyb_dtype_bytes(w.dtype));
    }
    json_t *const line = status == NYB_OK ? nyb_settings_json(settings) : NULL;
    if (status == NYB_OK &&
        (!line || json_object_set_new(line, "module", json_string(module_of(layer))) != 0))
        status = nyb_no_memory(err, "report", 1, 1);
    if (line && weights > 0.0)
        json_object_set_new(line, "bits_per_weight", json_real(bits / weights));
    if (line && solved) {
        json_object_set_new(line, "loss", json_real(solved->report.loss));
        json_object_set_new(line, "rtn_loss", json_real(solved->report.rtn_loss));
    }
    if (status == NYB_OK && json_array_append(r->records, line) != 0)
        status = nyb_no_memory(err, "report", 1, 1);
    json_decref(line);
    r->result->layers++;
    r->bits += bits;
    r->weights += weights;
    return status;
}

static nyb_status edit(void *user, const nyb_keras_layer *layer, nyb_arena *arena,
                       nyb_keras_edit *out, nyb_err *err)
{
    run *const r = user;
    nyb_settings settings;
    nyb_step(r->ctx,
             &(nyb_progress){"quantize", module_of(layer), "layers", ++r->seen, r->layers.count});
    nyb_status status = settings_of(r, layer, &settings, err);
    if (status == NYB_OK && !settings.skip)
        status = check_known(r, layer, err);
    if (status != NYB_OK || settings.skip || !nyb_keras_quantizes(layer, settings.method))
        return status;
    const nyb_keras_solved *const solved = nyb_keras_solved_of(&r->solution, layer);
    if (solved && (settings.method == NYB_METHOD_GPTQ || settings.method == NYB_METHOD_RTN))
        status = nyb_keras_edit_gptq(r->file, layer, &solved->q, arena, out, err);
    else
        status = nyb_keras_edit_layer((nyb_keras_run){r->ctx, r->file}, layer, &settings, arena,
                                      out, err);
    return status == NYB_OK ? note(r, layer, &settings, solved, out, err) : status;
}

static nyb_status check_params(const nyb_quantize_params *p, nyb_err *err)
{
    const nyb_method method = p->settings.method;
    const bool grid = method == NYB_METHOD_RTN || method == NYB_METHOD_GPTQ;
    const unsigned ranges = NYB_SETTING_RANGE | NYB_SETTING_PERCENTILE;
    if (p->given & (NYB_SETTING_FLOAT8_TYPE | NYB_SETTING_FLOAT8_SCALES | NYB_SETTING_ACTIVATIONS |
                    NYB_SETTING_INPUT_RANGE | NYB_SETTING_INPUT_PERCENTILE | (grid ? 0 : ranges)))
        return nyb_fail(err, NYB_E_ARG,
                        "%s: Keras' modes have no choice of activations and of 8-bit floats, and "
                        "int8 and int4 none of ranges: leave out --activations, --float8-type, "
                        "--float8-scales and --range",
                        p->model);
    if (p->format)
        return nyb_fail(err, NYB_E_ARG, "%s: a Keras checkpoint stays one: leave out --format",
                        p->model);
    if (p->imatrix || p->imatrix_in)
        return nyb_fail(err, NYB_E_ARG,
                        "%s: importance matrices are for GGUF files: leave out "
                        "--imatrix and --imatrix-in",
                        p->model);
    if (p->embedding || p->head || p->objective != NYB_OBJECTIVE_LAYER)
        return nyb_fail(
            err, NYB_E_ARG,
            "%s: a recipe says which layers of a Keras checkpoint are rounded, and each "
            "is solved for its own output: leave out --embedding, --head and "
            "--objective",
            p->model);
    if (p->resume)
        return nyb_fail(err, NYB_E_ARG, "%s: such a run cannot be resumed: use --force", p->model);
    return NYB_OK;
}

// A pattern that names no layer is a slip.
static nyb_status check_patterns(const run *r, nyb_err *err)
{
    nyb_arena arena = {0};
    const char **const names = nyb_arena_alloc(&arena, r->layers.count, sizeof(*names));
    if (!names)
        return nyb_no_memory(err, "names of layers", r->layers.count, sizeof(*names));
    for (size_t i = 0; i < r->layers.count; i++)
        names[i] = module_of(r->layers.all[i]);
    const char *const unused = nyb_recipe_unused(&r->recipe, names, r->layers.count);
    nyb_arena_clear(&arena);
    return unused ? nyb_fail(err, NYB_E_ARG, "%s: pattern '%s' matches no layer", r->recipe.path,
                             unused)
                  : NYB_OK;
}

static nyb_status choose(void *user, const nyb_keras_layer *layer, nyb_settings *out, nyb_err *err)
{
    return settings_of(user, layer, out, err);
}

static nyb_status needs_samples(const run *r, bool *needs, nyb_err *err)
{
    nyb_status status = NYB_OK;
    *needs = false;
    for (size_t i = 0; i < r->layers.count && status == NYB_OK; i++) {
        nyb_settings settings;
        const nyb_keras_layer *const layer = r->layers.all[i];
        status = settings_of(r, layer, &settings, err);
        *needs =
            *needs || (status == NYB_OK && !settings.skip && settings.method == NYB_METHOD_GPTQ &&
                       nyb_keras_quantizes(layer, settings.method));
    }
    return status;
}

// Solves the layers that are to be solved.
static nyb_status solve(run *r, nyb_err *err)
{
    nyb_quantize_result *const result = r->result;
    bool needs = false;
    const nyb_keras_choice choice = {.user = r, .settings = choose};
    nyb_status status = needs_samples(r, &needs, err);
    if (status == NYB_OK && !needs && r->params->samples.path_count > 0)
        return nyb_fail(err, NYB_E_ARG, "%s: these methods need no samples: leave out --calib",
                        r->params->model);
    if (status != NYB_OK || !needs)
        return status;
    if (!r->params->force && nyb_path_exists(r->params->out))
        return nyb_fail(err, NYB_E_EXISTS, "%s: already exists; use --force to replace it",
                        r->params->out);
    status = nyb_keras_solve(r->ctx, &r->solution, &r->layers, r->file, &r->params->samples,
                             &choice, err);
    result->samples = result->tokens = r->solution.samples;
    for (size_t i = 0; i < r->solution.count; i++) {
        const nyb_keras_solved *const s = &r->solution.layers[i];
        if (isfinite(s->report.loss) &&
            isfinite(s->report.rtn_loss)) { // int8 and int4 have no other rounding beside them
            result->loss += s->report.loss;
            result->rtn_loss += s->report.rtn_loss;
        }
        nyb_log(r->ctx, NYB_LOG_INFO, "%s: %u bits, loss %.4g, plain rounding's %.4g",
                s->layer->scope, s->q.bits, s->report.loss, s->report.rtn_loss);
    }
    return status;
}

static size_t bytes_of(const nyb_keras_file *file)
{
    size_t bytes = 0;
    for (size_t i = 0; i < nyb_keras_count(file); i++)
        bytes += nyb_keras_item_at(file, i)->tensor.bytes;
    return bytes;
}

// Lists of layers inside a layer of the user's own stand in no configuration: what is in them stays.
static void tell_unlisted(const run *r)
{
    const char *first = NULL;
    size_t count = 0;
    for (size_t i = 0; i < nyb_keras_count(r->file); i++) {
        const nyb_hdf5_item *const item = nyb_keras_item_at(r->file, i);
        const char *const vars = strstr(item->path, "/vars/");
        const size_t length = vars ? (size_t) (vars - item->path) : 0;
        if (item->is_group || !vars || item->tensor.rank < 2 ||
            !nyb_dtype_is_float(item->tensor.dtype))
            continue;
        bool listed = false;
        for (size_t k = 0; k < r->layers.count && !listed; k++) {
            const char *const place = r->layers.all[k]->place;
            listed = strncmp(place, item->path, length) == 0 && place[length] == '\0';
        }
        first = first || listed ? first : item->path;
        count += !listed;
    }
    if (count > 0)
        nyb_log(r->ctx, NYB_LOG_WARNING,
                "%s: %zu matrices are of layers that its configuration does not list, as those in "
                "layers of your own; they stay as they are: '%s'%s",
                r->params->model, count, first, count > 1 ? ", ..." : "");
}

// The report is the last thing that is written before the output gets its name.
static nyb_status save_report(void *user, const char *partial, size_t bytes, nyb_err *err)
{
    run *const r = user;
    nyb_quantize_result *const result = r->result;
    result->bits_per_weight = r->weights > 0.0 ? r->bits / r->weights : 0.0;
    result->bytes_in = bytes_of(r->file);
    result->bytes_out = bytes;
    result->seconds = nyb_seconds() - r->start;
    json_t *const files = json_array();
    for (size_t i = 0; i < r->params->samples.path_count; i++)
        json_array_append_new(files, json_string(nyb_base_name(r->params->samples.paths[i])));
    json_t *const report = json_pack(
        "{s:s, s:s*, s:{s:s, s:s, s:s, s:{s:o, s:I}}, s:{s:I, s:f, s:I, s:I, s:f, s:f, s:f}, s:O}",
        "schema", "nybble.report/1", "command", r->params->command, "run", "schema", "nybble.run/1",
        "nybble", nyb_version(), "model", nyb_base_name(r->params->model), "calibration", "files",
        files, "samples", (json_int_t) result->samples, "totals", "layers",
        (json_int_t) result->layers, "bits_per_weight", result->bits_per_weight, "bytes_in",
        (json_int_t) result->bytes_in, "bytes_out", (json_int_t) result->bytes_out, "loss",
        result->loss, "rtn_loss", result->rtn_loss, "seconds", result->seconds, "layers",
        r->records);
    return nyb_keras_report_save(report, partial, r->params->out, err);
}

static nyb_status quantize(run *r, nyb_err *err)
{
    const nyb_keras_target target = {.path = r->params->out,
                                     .force = r->params->force,
                                     .edit = edit,
                                     .ready = save_report,
                                     .user = r};
    nyb_status status = check_patterns(r, err);
    if (status == NYB_OK)
        status = solve(r, err);
    tell_unlisted(r);
    return status == NYB_OK ? nyb_keras_save(&r->layers, r->file, &target, err) : status;
}

// That the output can be read.
static nyb_status check_output(const char *path, nyb_err *err)
{
    nyb_keras_file *made;
    const nyb_status status = nyb_keras_open(&made, path, NULL, err);
    nyb_keras_close(made);
    return status;
}

static nyb_status open_run(run *r, nyb_err *err)
{
    nyb_status status = nyb_recipe_open_keras(&r->recipe, r->params, err);
    if (status == NYB_OK)
        status = nyb_keras_open(&r->file, r->params->model, r->params->keras_config, err);
    if (status == NYB_OK)
        status = nyb_keras_layers_read(&r->layers, r->file, err);
    return status;
}

nyb_status nyb_keras_quantize(const nyb_context *ctx, const nyb_quantize_params *params,
                              nyb_quantize_result *result, nyb_err *err)
{
    nyb_quantize_result local = {0};
    run r = {.ctx = ctx,
             .params = params,
             .result = &local,
             .records = json_array(),
             .start = nyb_seconds()};
    nyb_status status = r.records ? check_params(params, err) : nyb_no_memory(err, "report", 1, 1);
    if (status == NYB_OK)
        status = open_run(&r, err);
    if (status == NYB_OK)
        status = quantize(&r, err);
    if (status == NYB_OK && local.layers == 0)
        nyb_log(ctx, NYB_LOG_WARNING, "%s: no layer of it was quantised", params->model);
    nyb_keras_solution_clear(&r.solution);
    nyb_keras_layers_clear(&r.layers);
    nyb_keras_close(r.file);
    nyb_recipe_close(&r.recipe);
    json_decref(r.records);
    if (status == NYB_OK)
        status = check_output(params->out, err);
    if (status == NYB_OK && result)
        *result = local;
    return status;
}
