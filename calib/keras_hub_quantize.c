#include "calib/keras_hub_quantize.h"

#include <string.h>

#include "calib/keras_report.h"
#include "calib/recipe.h"
#include "calib/report_name.h"
#include "core/file.h"
#include "formats/keras_einsum.h"
#include "formats/keras_hub.h"
#include "formats/keras_save.h"
#include "formats/quantization.h"

// What a run holds; the owner, nyb_hub_gptq(), gives it back.
typedef struct run {
    const nyb_quantize_params *params;
    nyb_arena arena;
    nyb_keras_file *file;
    nyb_keras_layers layers;
    nyb_recipe recipe;
    const nyb_hub_family *family;
    nyb_hub_part *parts;
    size_t count;
    const char *folder; // "<out>.solve"
    nyb_checkpoint *solved;
    nyb_quantization *quantization;
    nyb_quantize_result *result;
    json_t *bytes;        // by module: what the preset has for its matrix
    double bits, weights; // of all of them
} run;

bool nyb_hub_gptq_wanted(const nyb_quantize_params *params)
{
    nyb_keras_file *file = NULL;
    nyb_recipe recipe = {0};
    bool tied = false;
    if (params->format || !nyb_path_is_folder(params->model) || !nyb_keras_is(params->model))
        return false;
    bool wanted = nyb_recipe_open(&recipe, params, NULL) == NYB_OK &&
                  recipe.general.method == NYB_METHOD_GPTQ;
    wanted = wanted && nyb_keras_open(&file, params->model, NULL, NULL) == NYB_OK &&
             nyb_hub_family_of(file, &tied) != NULL;
    nyb_keras_close(file);
    nyb_recipe_close(&recipe);
    return wanted;
}

// ---- Before the solve -----------------------------------------------------------------------

// The module of a part that is a matrix inside a block; NULL: it is none.
static const char *module_of(nyb_arena *arena, const nyb_hub_part *part)
{
    const size_t length = strlen(part->name), end = strlen(".weight");
    const bool inside = strstr(part->name, "layers.") || strstr(part->name, ".h.");
    if (!inside || part->folder_rank != 2 || length <= end)
        return NULL;
    return nyb_arena_text(arena, part->name, length - end);
}

// Whether what Keras takes for the inputs of the kernel are them.
static bool has_form(const nyb_hub_part *part, bool turned)
{
    const size_t inputs = turned ? part->inputs : part->folder_shape[0];
    const unsigned axes = nyb_keras_gptq_inputs(part->rank, part->shape);
    size_t flat = 1;
    for (unsigned i = 0; i < axes; i++)
        flat *= part->shape[i];
    return part->form != NYB_HUB_HEADS && axes > 0 && flat == inputs;
}

static bool is_gpt2(const run *r)
{
    return strcmp(nyb_hub_model_type(r->family), "gpt2") == 0;
}

static nyb_status check_forms(run *r, nyb_err *err)
{
    nyb_status status = NYB_OK;
    for (size_t i = 0; i < r->count && status == NYB_OK; i++) {
        const char *const module = module_of(&r->arena, &r->parts[i]);
        nyb_settings settings;
        if (!module)
            continue;
        status = nyb_recipe_of(&r->recipe, module, &settings, err);
        if (status == NYB_OK && !settings.skip && !has_form(&r->parts[i], !is_gpt2(r)))
            status = nyb_fail(err, NYB_E_UNSUPPORTED,
                              "%s: '%s' has no form in Keras' GPTQ, which takes other axes of its "
                              "kernel for the input: leave it out by a recipe (method 'none' for "
                              "'%s'), or give --format for a folder of the Hugging Face kind",
                              r->params->model, r->parts[i].path, module);
    }
    return status;
}

static nyb_status open_run(run *r, nyb_err *err)
{
    bool tied = false;
    nyb_status status = nyb_recipe_open(&r->recipe, r->params, err);
    if (status == NYB_OK)
        status = nyb_keras_open(&r->file, r->params->model, NULL, err);
    if (status == NYB_OK)
        status = nyb_keras_layers_read(&r->layers, r->file, err);
    if (status != NYB_OK)
        return status;
    r->family = nyb_hub_family_of(r->file, &tied);
    if (!r->params->force && nyb_path_exists(r->params->out))
        return nyb_fail(err, NYB_E_EXISTS, "%s: already exists; use --force to replace it",
                        r->params->out);
    if (r->params->resume)
        return nyb_fail(err, NYB_E_ARG, "%s: such a run cannot be resumed: use --force",
                        r->params->model);
    status = nyb_hub_parts(&r->parts, &r->count, &r->arena, r->family,
                           json_object_get(nyb_keras_config(r->file), "config"), tied,
                           r->params->model, err);
    r->folder = nyb_arena_format(&r->arena, "%s.solve", r->params->out);
    if (status == NYB_OK && !r->folder)
        status = nyb_no_memory(err, "a path", strlen(r->params->out), 1);
    return status == NYB_OK ? check_forms(r, err) : status;
}

// ---- Behind it ------------------------------------------------------------------------------

// The rows of one third.
static nyb_qweight third_of(const nyb_qweight *q, const nyb_hub_part *part)
{
    nyb_qweight some = *q;
    const size_t first = part->third * (q->rows / 3);
    some.rows = q->rows / 3;
    some.codes += first * q->cols;
    some.scales += first * q->groups;
    some.zeros += first * q->groups;
    return some;
}

static void count(run *r, const char *module, const nyb_qweight *q, size_t bytes)
{
    const json_int_t before = json_integer_value(json_object_get(r->bytes, module));
    json_object_set_new(r->bytes, module, json_integer(before + (json_int_t) bytes));
    r->bits += 8.0 * (double) bytes;
    r->weights += (double) q->rows * (double) q->cols;
}

static nyb_status edit(void *user, const nyb_keras_layer *layer, nyb_arena *arena,
                       nyb_keras_edit *out, nyb_err *err)
{
    run *const r = user;
    const nyb_hub_part *part = NULL;
    const char *const path = nyb_arena_format(arena, "%s/vars/0", layer->place);
    for (size_t i = 0; path && i < r->count && !part; i++)
        part = strcmp(r->parts[i].path, path) == 0 ? &r->parts[i] : NULL;
    const char *const module = part ? module_of(arena, part) : NULL;
    nyb_quantized answer = {0};
    nyb_qweight q = {0};
    if (!module)
        return path ? NYB_OK : nyb_no_memory(err, "a path", strlen(layer->place), 1);
    nyb_status status = nyb_quantization_find(&answer, r->quantization, r->solved, module, err);
    if (status != NYB_OK || !answer.layout)
        return status;
    const bool turned = !is_gpt2(r);
    status = nyb_quantization_read(&q, r->quantization, r->solved, module,
                                   part->folder_shape[turned ? 0 : 1],
                                   part->folder_shape[turned ? 1 : 0], err);
    const nyb_qweight some =
        status == NYB_OK && part->form == NYB_HUB_THIRD ? third_of(&q, part) : q;
    if (status == NYB_OK)
        status = nyb_keras_edit_gptq(r->file, layer, &some, arena, out, err);
    if (status == NYB_OK)
        count(r, module, &some, nyb_keras_edit_bytes(out));
    nyb_qweight_clear(&q);
    return status;
}

// The report of the solve, with the sizes that things have in the preset.
static nyb_status save_report(void *user, const char *partial, size_t bytes, nyb_err *err)
{
    run *const r = user;
    json_t *report = NULL, *layer;
    size_t i;
    const char *const path = nyb_path_join(&r->arena, r->folder, NYB_REPORT_NAME);
    const nyb_status status = path ? nyb_json_load(&report, path, err)
                                   : nyb_no_memory(err, "a path", strlen(r->folder), 1);
    if (status != NYB_OK)
        return status;
    json_array_foreach(json_object_get(report, "layers"), i, layer)
    {
        const char *const module = json_string_value(json_object_get(layer, "module"));
        const double weights = json_number_value(json_object_get(layer, "rows")) *
                               json_number_value(json_object_get(layer, "cols"));
        const json_t *const own = module ? json_object_get(r->bytes, module) : NULL;
        if (own && weights > 0.0)
            json_object_set_new(layer, "bits_per_weight",
                                json_real(8.0 * json_number_value(own) / weights));
    }
    r->result->bytes_out = bytes;
    r->result->bits_per_weight = r->weights > 0.0 ? r->bits / r->weights : 0.0;
    json_t *const totals = json_object_get(report, "totals");
    json_object_set_new(totals, "bytes_out", json_integer((json_int_t) bytes));
    json_object_set_new(totals, "bits_per_weight", json_real(r->result->bits_per_weight));
    return nyb_keras_report_save(report, partial, r->params->out, err);
}

static nyb_status write_preset(run *r, nyb_err *err)
{
    const nyb_keras_target target = {.path = r->params->out,
                                     .force = r->params->force,
                                     .edit = edit,
                                     .ready = save_report,
                                     .user = r};
    nyb_status status = nyb_checkpoint_open(&r->solved, r->folder, err);
    if (status == NYB_OK)
        status = nyb_quantization_load(&r->quantization, r->folder, err);
    return status == NYB_OK ? nyb_keras_save(&r->layers, r->file, &target, err) : status;
}

static nyb_status solve(const nyb_context *ctx, run *r, nyb_err *err)
{
    nyb_quantize_params inner = *r->params;
    inner.out = r->folder;
    // GPT-2's matrices are none that the other layout's readers look for.
    inner.format = is_gpt2(r) ? "gptq_v2" : "compressed-tensors";
    nyb_status status = nyb_quantize(ctx, &inner, r->result, err);
    if (status != NYB_OK)
        return status;
    status = write_preset(r, err);
    const nyb_status removed = nyb_folder_remove(r->folder, status == NYB_OK ? err : NULL);
    return status == NYB_OK ? removed : status;
}

nyb_status nyb_hub_gptq(const nyb_context *ctx, const nyb_quantize_params *params,
                        nyb_quantize_result *result, nyb_err *err)
{
    nyb_quantize_result local = {0};
    run r = {.params = params, .result = &local, .bytes = json_object()};
    nyb_status status = r.bytes ? open_run(&r, err) : nyb_no_memory(err, "report", 1, 1);
    if (status == NYB_OK)
        status = solve(ctx, &r, err);
    nyb_quantization_close(r.quantization);
    nyb_checkpoint_close(r.solved);
    nyb_keras_layers_clear(&r.layers);
    nyb_keras_close(r.file);
    nyb_recipe_close(&r.recipe);
    json_decref(r.bytes);
    nyb_arena_clear(&r.arena);
    if (status == NYB_OK && result)
        *result = local;
    return status;
}
