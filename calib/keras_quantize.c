#include "calib/keras_quantize.h"

#include <string.h>

#include "calib/keras_edit.h"
#include "calib/recipe.h"
#include "core/clock.h"
#include "core/log.h"

typedef struct run {
    const nyb_context *ctx;
    const nyb_quantize_params *params;
    nyb_keras_file *file;
    nyb_keras_layers layers;
    nyb_recipe recipe;
    nyb_keras_sums sums;
    size_t rounded, seen;
} run;

// What patterns are matched with: the names that the user gave the layers.
static const char *module_of(const nyb_keras_layer *layer)
{
    return *layer->scope ? layer->scope : layer->place;
}

static nyb_status settings_of(const run *r, const nyb_keras_layer *layer, nyb_settings *out,
                              nyb_err *err)
{
    const bool wanted = (r->params->given & NYB_SETTING_GROUP_SIZE) != 0;
    const nyb_status status = nyb_recipe_of(&r->recipe, module_of(layer), out, err);
    if (status != NYB_OK || out->skip)
        return status;
    if (out->method == NYB_METHOD_GPTQ)
        return nyb_fail(err, NYB_E_ARG,
                        "%s: '%s': gptq needs sample inputs; without, use int8, int4, float8 or "
                        "rtn",
                        r->params->model, module_of(layer));
    // Keras' default.
    if (out->method == NYB_METHOD_INT4 && !wanted && !r->recipe.document)
        out->group_size = 128;
    return NYB_OK;
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
    status = nyb_keras_edit_layer((nyb_keras_run){r->ctx, r->file}, layer, &settings, arena, out,
                                  &r->sums, err);
    r->rounded += status == NYB_OK;
    return status;
}

static nyb_status check_params(const nyb_quantize_params *p, nyb_err *err)
{
    if (p->format)
        return nyb_fail(err, NYB_E_ARG, "%s: a Keras checkpoint stays one: leave out --format",
                        p->model);
    if (p->samples.path_count > 0 || p->imatrix || p->imatrix_in)
        return nyb_fail(err, NYB_E_ARG,
                        "%s: these methods need no samples: leave out --calib and --imatrix",
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

static size_t bytes_of(const nyb_keras_file *file)
{
    size_t bytes = 0;
    for (size_t i = 0; i < nyb_keras_count(file); i++)
        bytes += nyb_keras_item_at(file, i)->tensor.bytes;
    return bytes;
}

static nyb_status quantize(run *r, nyb_quantize_result *result, nyb_err *err)
{
    const double start = nyb_seconds();
    nyb_status status = check_patterns(r, err);
    if (status == NYB_OK)
        status =
            nyb_keras_save(&r->layers, r->file, r->params->out, r->params->force, edit, r, err);
    if (status != NYB_OK)
        return status;
    *result = (nyb_quantize_result){
        .layers = r->rounded,
        .bits_per_weight = r->sums.weights > 0.0 ? r->sums.bits / r->sums.weights : 0.0,
        .bytes_in = bytes_of(r->file),
        .seconds = nyb_seconds() - start,
    };
    return NYB_OK;
}

// What the output holds, which also shows that it can be read.
static nyb_status check_output(const char *path, nyb_quantize_result *result, nyb_err *err)
{
    nyb_keras_file *made;
    const nyb_status status = nyb_keras_open(&made, path, NULL, err);
    if (status != NYB_OK)
        return status;
    result->bytes_out = bytes_of(made);
    nyb_keras_close(made);
    return NYB_OK;
}

static nyb_status open_run(run *r, nyb_err *err)
{
    nyb_status status = nyb_recipe_open(&r->recipe, r->params, err);
    if (status == NYB_OK)
        status = nyb_keras_open(&r->file, r->params->model, NULL, err);
    if (status == NYB_OK)
        status = nyb_keras_layers_read(&r->layers, r->file, err);
    return status;
}

nyb_status nyb_keras_quantize(const nyb_context *ctx, const nyb_quantize_params *params,
                              nyb_quantize_result *result, nyb_err *err)
{
    nyb_quantize_result local = {0};
    run r = {.ctx = ctx, .params = params};
    nyb_status status = check_params(params, err);
    if (status == NYB_OK)
        status = open_run(&r, err);
    if (status == NYB_OK)
        status = quantize(&r, &local, err);
    if (status == NYB_OK && r.rounded == 0)
        nyb_log(ctx, NYB_LOG_WARNING, "%s: no layer of it was quantised", params->model);
    nyb_keras_layers_clear(&r.layers);
    nyb_keras_close(r.file);
    nyb_recipe_close(&r.recipe);
    if (status == NYB_OK)
        status = check_output(params->out, &local, err);
    if (status == NYB_OK && result)
        *result = local;
    return status;
}
