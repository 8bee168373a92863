#include "calib/job.h"

#include <string.h>

#include "calib/gguf_blocks.h"
#include "calib/observe.h"
#include "calib/pass.h"
#include "core/dtype.h"
#include "core/file.h"
#include "ptq/grid.h"

static nyb_status find_layout(nyb_job *job, nyb_err *err)
{
    const char *const name = job->params->format ? job->params->format : "compressed-tensors";
    job->layout = nyb_layout_by_name(name);
    return job->layout ? NYB_OK : nyb_fail(err, NYB_E_ARG, "unknown format '%s'", name);
}

// Folders are written from folders: of their files, most are copied.
static nyb_status check_source(const nyb_job *job, nyb_err *err)
{
    if (!nyb_checkpoint_gguf(nyb_model_checkpoint(job->model)))
        return NYB_OK;
    return nyb_fail(
        err, NYB_E_UNSUPPORTED,
        "%s: a GGUF file cannot be quantised into a folder of format '%s' at once: make "
        "a folder of it with nybble convert --format bf16, f16 or f32, and quantise that",
        nyb_model_folder(job->model), job->layout->name);
}

nyb_status nyb_job_check_layer(const nyb_job *job, const nyb_job_layer *layer, nyb_err *err)
{
    const nyb_linear *const l = layer->linear;
    if (l->transposed && (!l->weight || l->weight->rank == 2) && !job->layout->transposed)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: '%s' is a Conv1D, stored as [in, out]; readers of %s look for linear "
                        "layers alone: use --format gptq",
                        nyb_model_folder(job->model), l->module, job->layout->name);
    if (layer->settings.group_size > l->cols)
        return nyb_fail(err, NYB_E_ARG,
                        "'%s': group size %zu is more than its %zu columns; use --group-size -1 "
                        "or a smaller one",
                        l->module, layer->settings.group_size, l->cols);
    return layer->layout->check(&layer->spec, l->module, err);
}

const nyb_layout *nyb_job_layout_of(const nyb_layout *layout, nyb_code_kind kind)
{
    return kind != NYB_CODE_INT && layout->floats ? layout->floats : layout;
}

// The layout of the job's family that holds what the method makes.
static const nyb_layout *layout_for(const nyb_layout *layout, nyb_method method)
{
    if (method == NYB_METHOD_INT8 && layout->bytes)
        return layout->bytes;
    return nyb_job_layout_of(layout, method == NYB_METHOD_FLOAT8 ? NYB_CODE_E4M3 : NYB_CODE_INT);
}

static void settle_floats(const nyb_job *job, nyb_settings *s)
{
    if (s->method == NYB_METHOD_FLOAT8 && s->float8_scales == NYB_SCALES_DEFAULT)
        s->float8_scales = job->layout->blocks ? NYB_SCALES_BLOCK : NYB_SCALES_CHANNEL;
}

static size_t group_size_of(const nyb_settings *s, size_t cols)
{
    const bool blocks = s->method == NYB_METHOD_FLOAT8 && s->float8_scales == NYB_SCALES_BLOCK;
    const size_t size = blocks ? NYB_FLOAT8_BLOCK : s->group_size;
    return blocks ? size < cols ? size : 0 : size == cols ? 0 : size;
}

static size_t scale_rows_of(const nyb_settings *s)
{
    if (s->method != NYB_METHOD_FLOAT8 || s->float8_scales == NYB_SCALES_CHANNEL)
        return 0;
    return s->float8_scales == NYB_SCALES_TENSOR ? SIZE_MAX : NYB_FLOAT8_BLOCK;
}

// Whole numbers are multiplied with whole numbers, floats with floats.
static nyb_status check_inputs(const nyb_job *job, const nyb_job_layer *layer, nyb_err *err)
{
    const nyb_activation_kind kind = layer->spec.inputs;
    const bool whole = kind == NYB_ACTIVATIONS_INT8 || kind == NYB_ACTIVATIONS_INT8_PER_TOKEN ||
                       kind == NYB_ACTIVATIONS_INT8_STATIC;
    if (kind == NYB_ACTIVATIONS_NONE)
        return NYB_OK;
    if (!layer->layout->inputs)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "'%s': %s cannot say what inputs are rounded to; use --format "
                        "compressed-tensors, or --activations none",
                        layer->linear->module, job->layout->name);
    if (whole != (layer->spec.kind == NYB_CODE_INT))
        return nyb_fail(err, NYB_E_ARG, "'%s': activations %s do not go with weights by %s",
                        layer->linear->module, nyb_activations_name(kind),
                        nyb_method_name(layer->settings.method));
    return NYB_OK;
}

// The form of a layer whose settings are known, and what its codes are like.
static nyb_status settle_form(nyb_job *job, nyb_job_layer *layer, nyb_err *err)
{
    const nyb_linear *const l = layer->linear;
    const nyb_settings *const s = &layer->settings;
    layer->form = !s->skip ? NYB_FORM_CODES : l->quantized ? NYB_FORM_FLOATS : NYB_FORM_COPY;
    if (s->skip)
        return NYB_OK;

    if (job->rounded++ == 0 && l->weight)
        job->dtype = l->weight->dtype;
    job->calibrated |= nyb_job_calibrates(layer);
    layer->layout = layout_for(job->layout, s->method);
    settle_floats(job, &layer->settings);
    layer->spec = (nyb_layout_spec){
        .rows = l->rows,
        .cols = l->cols,
        .kind = s->method == NYB_METHOD_FLOAT8 ? s->float8_type : NYB_CODE_INT,
        .block = s->block,
        .bits = s->bits,
        .group_size = group_size_of(s, l->cols),
        .scale_rows = scale_rows_of(s),
        .symmetric = s->symmetric,
        .irregular = s->method == NYB_METHOD_GPTQ && s->order == NYB_ORDER_FULL &&
                     !s->static_groups && s->group_size != 0,
        .scale_dtype = layer->layout->scale_dtype(job->dtype),
        .inputs = s->activations,
        .input_scale = s->activations >= NYB_ACTIVATIONS_INT8_STATIC,
        .input_dtype = layer->layout->scale_dtype(job->dtype),
    };
    job->observed |= layer->spec.input_scale;
    const nyb_status checked = check_inputs(job, layer, err);
    return checked == NYB_OK ? nyb_job_check_layer(job, layer, err) : checked;
}

nyb_status nyb_job_regroup(const nyb_job *job, const nyb_job_layer *layer, unsigned bits,
                           size_t group_size, nyb_job_layer *out, nyb_err *err)
{
    *out = *layer;
    out->settings.bits = out->spec.bits = bits;
    out->settings.group_size = group_size;
    out->spec.group_size = group_size_of(&out->settings, layer->linear->cols);
    out->spec.irregular =
        out->settings.order == NYB_ORDER_FULL && !out->settings.static_groups && group_size != 0;
    return nyb_job_check_layer(job, out, err);
}

static nyb_status settle_layer(nyb_job *job, nyb_job_layer *layer, nyb_err *err)
{
    const nyb_linear *const l = layer->linear;
    nyb_status status = nyb_recipe_of(&job->recipe, l->module, &layer->settings, err);
    if (status == NYB_OK && layer->settings.block != NYB_F32 && !layer->settings.skip)
        status = nyb_gguf_settle(&layer->settings, &job->params->settings, l->cols, l->module, err);
    return status == NYB_OK ? settle_form(job, layer, err) : status;
}

// Experts in one tensor are rounded together, or not at all: the tensor is there or it is not.
static nyb_status check_shared(const nyb_job *job, nyb_err *err)
{
    for (size_t i = 1; i < job->count; i++) {
        const nyb_linear *const l = job->layers[i].linear;
        for (size_t k = i; l->weight && l->weight->rank == 3 && k-- > 0;) {
            if (job->layers[k].linear->weight != l->weight)
                continue;
            if (job->layers[k].settings.skip != job->layers[i].settings.skip)
                return nyb_fail(err, NYB_E_UNSUPPORTED,
                                "'%s' would be rounded and '%s' left as it is, but both are in the "
                                "tensor '%s': treat them alike",
                                job->layers[job->layers[k].settings.skip ? i : k].linear->module,
                                job->layers[job->layers[k].settings.skip ? k : i].linear->module,
                                l->weight->name);
            break;
        }
    }
    return NYB_OK;
}

// Adds the embedding or the head, unless it is copied.
static nyb_status add_outer(nyb_job *job, const nyb_linear *linear, const nyb_settings *settings,
                            bool copied, nyb_err *err)
{
    nyb_job_layer layer = {
        .linear = linear, .block = nyb_block_count(job->model), .settings = *settings};
    const nyb_status status = settle_form(job, &layer, err);
    if (layer.form == NYB_FORM_COPY && !copied)
        layer.form = NYB_FORM_FLOATS;
    if (layer.form != NYB_FORM_COPY)
        job->layers[job->count + job->outer++] = layer;
    return status;
}

static nyb_status settle_outer(nyb_job *job, nyb_err *err)
{
    const nyb_quantize_params *const p = job->params;
    const bool tied = nyb_model_head_tied(job->model);
    nyb_settings embedding, head;
    nyb_status status = nyb_recipe_outer(&job->recipe, "embedding", p->embedding, &embedding, err);
    if (status == NYB_OK)
        status = nyb_recipe_outer(&job->recipe, "head", p->head, &head, err);
    if (status != NYB_OK)
        return status;
    if (tied && !p->head && !json_object_get(job->recipe.document, "head"))
        head = embedding;
    if ((!embedding.skip || !head.skip) && !job->layout->outer)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "readers of %s do not look for quantised embeddings and heads: leave out "
                        "--embedding and --head, or use --format compressed-tensors",
                        job->layout->name);
    const nyb_model_config *const config = nyb_model_config_of(job->model);
    if (!head.skip && (config->labels || config->bare))
        return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: has no output head over the vocabulary",
                        nyb_model_folder(job->model));
    job->unties = tied && (!embedding.skip || !head.skip);
    status = add_outer(job, nyb_model_embedding(job->model), &embedding, true, err);
    if (status == NYB_OK && !config->bare && (!tied || job->unties))
        status = add_outer(job, nyb_model_head(job->model), &head, !tied, err);
    return status;
}

static nyb_status settle_layers(nyb_job *job, nyb_err *err)
{
    const nyb_tensor *const embedding = nyb_model_embedding(job->model)->weight;
    job->dtype = embedding && nyb_dtype_is_float(embedding->dtype) ? embedding->dtype : NYB_F32;
    size_t count = 0;
    for (size_t b = 0; b < nyb_block_count(job->model); b++)
        count += nyb_linear_count(job->model, b);
    job->layers = nyb_arena_alloc(&job->arena, count + 2, sizeof(*job->layers));
    const char **const names = nyb_arena_alloc(&job->arena, count, sizeof(*names));
    if (!job->layers || !names)
        return nyb_no_memory(err, "layers", count, sizeof(*job->layers));

    for (size_t b = 0; b < nyb_block_count(job->model); b++) {
        for (size_t i = 0; i < nyb_linear_count(job->model, b); i++) {
            nyb_job_layer *const layer = &job->layers[job->count];
            *layer =
                (nyb_job_layer){.linear = nyb_linear_at(job->model, b, i), .block = b, .index = i};
            names[job->count++] = layer->linear->module;
            const nyb_status status = settle_layer(job, layer, err);
            if (status != NYB_OK)
                return status;
        }
    }
    const char *const unused = nyb_recipe_unused(&job->recipe, names, count);
    if (unused)
        return nyb_fail(err, NYB_E_ARG, "%s: pattern '%s' matches no layer of the model",
                        job->recipe.path, unused);
    nyb_status status = check_shared(job, err);
    if (status == NYB_OK)
        status = settle_outer(job, err);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; i < job->count + job->outer; i++)
        job->layers[i].dtype = job->dtype;
    if (job->rounded == 0)
        return nyb_fail(err, NYB_E_ARG, "every layer has the method 'none': nothing to do");
    return NYB_OK;
}

static nyb_status read_samples(const nyb_context *ctx, nyb_job *job, nyb_err *err)
{
    const nyb_samples_params *const wanted = &job->params->samples;
    if (job->params->hessians && wanted->path_count > 0 && !job->observed)
        return nyb_fail(
            err, NYB_E_ARG,
            "both calibration data (%s) and a store of Hessians (%s) are given, want one",
            wanted->paths[0], job->params->hessians);
    if (job->params->hessians && wanted->first_weight > 1 && !job->observed)
        return nyb_fail(
            err, NYB_E_ARG,
            "--first-weight is for calibration data; %s has the weight that it was made "
            "with",
            job->params->hessians);
    job->forward = job->calibrated && !job->params->hessians;
    if (!job->forward && !job->observed)
        return NYB_OK;
    if (wanted->path_count == 0 && !job->forward)
        return nyb_fail(err, NYB_E_ARG,
                        "static scales of inputs need calibration data: give --calib FILE (text or "
                        "ids), or use activations that are measured at run time");
    if (wanted->path_count == 0)
        return nyb_fail(err, NYB_E_ARG,
                        "method gptq needs calibration data: give --calib FILE (text or ids) or "
                        "--hessians FILE, or use --method rtn");
    return nyb_samples_open(ctx, &job->samples, job->model, wanted, err);
}

static nyb_status check_objective(const nyb_job *job, nyb_err *err)
{
    const nyb_quantize_params *const p = job->params;
    if (p->objective == NYB_OBJECTIVE_LAYER)
        return NYB_OK;
    if (!(p->objective_strength >= 0.0 && p->objective_strength <= 1.0))
        return nyb_fail(err, NYB_E_ARG, "the objective's strength is %g, want 0 to 1",
                        p->objective_strength);
    if (p->objective_step < 1 || p->objective_step > NYB_OBJECTIVE_STEP_MOST)
        return nyb_fail(err, NYB_E_ARG, "the objective's step is %zu, want 1 to %d",
                        p->objective_step, NYB_OBJECTIVE_STEP_MOST);
    if (!job->calibrated || p->hessians)
        return nyb_fail(
            err, NYB_E_ARG,
            "--objective model needs --method gptq and the calibration text: it looks at "
            "the inputs of two models");
    if (nyb_model_config_of(job->model)->experts.count)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: --objective model does not go with experts: both models would have to "
                        "send each token to the same ones",
                        nyb_model_folder(job->model));
    return NYB_OK;
}

// Opens the store of Hessians and makes sure that it is one of this model. What its products were made
// of is only looked at when the caller says what to make them of.
static nyb_status open_hessians(const nyb_context *ctx, nyb_job *job, nyb_err *err)
{
    const char *const path = job->params->hessians;
    const bool all_experts = job->params->experts.calibration == NYB_EXPERTS_ALL;
    if (!path)
        return NYB_OK;
    if (job->shared)
        return nyb_shared_store(job->shared, ctx, job->model, path, all_experts, &job->hessians,
                                err);
    nyb_hessian_store *const store = nyb_arena_alloc(&job->arena, 1, sizeof(*store));
    if (!store)
        return nyb_no_memory(err, "store", 1, sizeof(*store));
    const nyb_status status =
        nyb_hessian_store_open_for(store, ctx, path, job->model, all_experts, err);
    job->hessians = status == NYB_OK ? store : NULL;
    return status;
}

// A row that is one group of the size that wider rows are cut into is called by that size: then
// there is one setting for both.
static void name_groups(nyb_layout_module *modules, size_t count)
{
    enum { SIZES = 16 };
    size_t sizes[SIZES], known = 0;
    for (size_t i = 0; i < count; i++) {
        const size_t size = modules[i].spec.group_size;
        size_t k = 0;
        while (k < known && sizes[k] != size)
            k++;
        if (modules[i].quantized && size && k == known && known < SIZES)
            sizes[known++] = size;
    }
    for (size_t i = 0; i < count; i++) {
        nyb_layout_spec *const spec = &modules[i].spec;
        for (size_t k = 0; k < known && modules[i].quantized && spec->group_size == 0; k++) {
            if (spec->kind == NYB_CODE_INT && spec->cols == sizes[k])
                spec->group_size = sizes[k];
        }
    }
}

// Whether this is the embedding or the head, and becomes codes.
static bool has_codes(const nyb_job *job, const char *module)
{
    for (size_t i = job->count; i < job->count + job->outer; i++) {
        const nyb_job_layer *const layer = &job->layers[i];
        if (layer->form == NYB_FORM_CODES && strcmp(layer->linear->module, module) == 0)
            return true;
    }
    return false;
}

// False when there is no memory.
static bool describe_run(nyb_layout_run *out, const nyb_job *job, nyb_arena *arena)
{
    const size_t plain = nyb_model_plain_modules(job->model, NULL);
    const char **const names = nyb_arena_alloc(arena, plain, sizeof(*names));
    nyb_layout_module *const modules =
        nyb_arena_alloc(arena, job->count + job->outer + plain, sizeof(*modules));
    nyb_layout_run run = {.modules = modules};
    if (!names || !modules)
        return false;
    for (size_t i = 0; i < job->count + job->outer; i++) {
        const nyb_job_layer *const layer = &job->layers[i];
        const nyb_settings *const s = &layer->settings;
        if (i >= job->count && layer->form != NYB_FORM_CODES)
            continue;
        modules[run.count++] =
            (nyb_layout_module){.name = layer->linear->module,
                                .outer = i >= job->count,
                                .embedding = layer->linear == nyb_model_embedding(job->model),
                                .quantized = layer->form == NYB_FORM_CODES,
                                .spec = layer->spec,
                                .layout = layer->layout};
        if (nyb_job_calibrates(layer)) {
            run.damp = s->damping;
            run.true_sequential = job->forward;
            run.static_groups |= s->static_groups;
            run.group_aware_order |= s->order == NYB_ORDER_GROUP;
        }
    }
    (void) nyb_model_plain_modules(job->model, names);
    for (size_t i = 0; i < plain; i++) {
        if (!has_codes(job, names[i]))
            modules[run.count++].name = names[i];
    }
    name_groups(modules, run.count);
    *out = run;
    return true;
}

nyb_status nyb_job_check_run(const nyb_job *job, nyb_err *err)
{
    nyb_arena arena = {0};
    nyb_layout_run run;
    nyb_status status = NYB_OK;
    if (job->layout->check_run && describe_run(&run, job, &arena))
        status = job->layout->check_run(&run, err);
    else if (job->layout->check_run)
        status = nyb_no_memory(err, "layers", job->count, sizeof(*run.modules));
    nyb_arena_clear(&arena);
    return status;
}

nyb_status nyb_job_inputs_found(const nyb_quantize_params *params, nyb_err *err)
{
    const char *const paths[] = {params->recipe, params->keras_config, params->hessians,
                                 params->imatrix_in};
    nyb_status status = NYB_OK;
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]) && status == NYB_OK; i++)
        status = paths[i] ? nyb_path_readable(paths[i], err) : NYB_OK;
    return status == NYB_OK ? nyb_samples_found(&params->samples, err) : status;
}

nyb_status nyb_job_open(const nyb_context *ctx, nyb_job *out, const nyb_quantize_params *params,
                        nyb_err *err)
{
    return nyb_job_open_shared(ctx, out, params, NULL, err);
}

nyb_status nyb_job_open_shared(const nyb_context *ctx, nyb_job *out,
                               const nyb_quantize_params *params, nyb_shared *shared, nyb_err *err)
{
    *out = (nyb_job){.params = params, .shared = shared};
    nyb_status status = find_layout(out, err);
    if (status == NYB_OK)
        status = nyb_recipe_open(&out->recipe, params, err);
    if (status == NYB_OK)
        status = nyb_model_open(&out->model, params->model, err);
    if (status == NYB_OK)
        status = check_source(out, err);
    if (status == NYB_OK)
        status = settle_layers(out, err);
    if (status == NYB_OK)
        status = nyb_job_check_run(out, err);
    if (status == NYB_OK)
        status = read_samples(ctx, out, err);
    if (status == NYB_OK)
        status = check_objective(out, err);
    if (status == NYB_OK)
        status = open_hessians(ctx, out, err);
    if (status != NYB_OK)
        nyb_job_close(out);
    return status;
}

nyb_status nyb_job_observe(const nyb_context *ctx, nyb_job *job, nyb_err *err)
{
    nyb_observed observed;
    if (!job->observed)
        return NYB_OK;
    const nyb_status status = nyb_observe(ctx, &observed, job->model, &job->samples, err);
    for (size_t i = 0; status == NYB_OK && i < job->count; i++) {
        nyb_job_layer *const layer = &job->layers[i];
        const nyb_settings *const s = &layer->settings;
        const bool whole = layer->spec.kind == NYB_CODE_INT;
        const nyb_rounding_to points = {.kind = layer->spec.kind, .top = whole ? 127.0f : 448.0f};
        if (layer->form != NYB_FORM_CODES || !layer->spec.input_scale)
            continue;
        const float range = nyb_observer_range(
            nyb_observed_of(&observed, layer->block, layer->index), &s->input_range, points);
        const double step = ((double) range + (whole ? 1e-7 : 0.0)) / (double) points.top;
        layer->input_scale = nyb_grid_storable(step > 0.0 ? step : 1.0, layer->spec.scale_dtype);
    }
    if (status == NYB_OK)
        nyb_observed_clear(&observed);
    return status;
}

nyb_compute nyb_job_compute(const nyb_context *ctx, const nyb_job *job)
{
    return job->hessians ? nyb_hessian_store_compute(job->hessians)
                         : nyb_calibration_compute(ctx, job->dtype);
}

void nyb_job_close(nyb_job *job)
{
    nyb_samples_close(&job->samples);
    if (job->hessians && !job->shared)
        nyb_hessian_store_close(job->hessians);
    nyb_model_close(job->model);
    nyb_recipe_close(&job->recipe);
    nyb_arena_clear(&job->arena);
    *job = (nyb_job){0};
}

const nyb_job_layer *nyb_job_block(const nyb_job *job, size_t block, size_t *count)
{
    size_t first = 0;
    const size_t all = job->count + job->outer;
    while (first < all && job->layers[first].block < block)
        first++;
    *count = 0;
    while (first + *count < all && job->layers[first + *count].block == block)
        (*count)++;
    return job->layers + first;
}

size_t nyb_job_place(const nyb_job *job, const nyb_job_layer *layer)
{
    size_t count = 0;
    return (size_t) (nyb_job_block(job, layer->block, &count) - job->layers) + layer->index;
}

size_t nyb_job_blocks(const nyb_job *job)
{
    bool codes = false;
    for (size_t i = job->count; i < job->count + job->outer; i++)
        codes |= job->layers[i].form == NYB_FORM_CODES;
    return nyb_block_count(job->model) + codes;
}

bool nyb_job_calibrates(const nyb_job_layer *layer)
{
    return !layer->settings.skip && layer->settings.method == NYB_METHOD_GPTQ;
}

nyb_solve_params nyb_settings_solve(const nyb_settings *s, size_t group_size, nyb_dtype scale_dtype,
                                    unsigned lowest_zero)
{
    nyb_solve_params params = NYB_SOLVE_DEFAULTS;
    params.method = s->method;
    params.gptq.grid = (nyb_grid_params){
        .block = s->block,
        .bits = s->bits,
        .group_size = group_size,
        .symmetric = s->symmetric,
        .scale_search = s->scale_search,
        .scale_dtype = scale_dtype,
        .lowest_zero = lowest_zero,
        .range = s->range,
    };
    params.float8.kind = s->float8_type;
    params.float8.scales = s->float8_scales;
    params.float8.range = s->range;
    params.gptq.order = s->order;
    params.gptq.static_groups = s->static_groups;
    params.gptq.damping = s->damping;
    params.gptq.refine = s->refine;
    return params;
}

nyb_solve_params nyb_job_solve(const nyb_job *job, const nyb_job_layer *layer)
{
    return nyb_settings_solve(&layer->settings, layer->spec.group_size, layer->spec.scale_dtype,
                              job->layout->lowest_zero);
}

json_t *nyb_job_quantization_config(const nyb_job *job)
{
    nyb_arena arena = {0};
    nyb_layout_run run;
    json_t *const config = describe_run(&run, job, &arena) ? job->layout->config(&run) : NULL;
    nyb_arena_clear(&arena);
    return config;
}

void nyb_job_hash(const nyb_qweight *q, char text[NYB_HASH_TEXT])
{
    const uint64_t shape[] = {q->rows, q->cols, q->groups, q->bits | (uint64_t) q->kind << 32};
    nyb_hash hash;
    nyb_hash_init(&hash);
    nyb_hash_add(&hash, shape, sizeof(shape));
    nyb_hash_add(&hash, q->codes, q->rows * q->cols);
    nyb_hash_add(&hash, q->scales, q->rows * q->groups * sizeof(*q->scales));
    nyb_hash_add(&hash, q->zeros, q->rows * q->groups);
    if (q->mins)
        nyb_hash_add(&hash, q->mins, q->rows * q->groups * sizeof(*q->mins));
    nyb_hash_add(&hash, q->group_of, q->cols * sizeof(*q->group_of));
    if (q->input_scale > 0.0f)
        nyb_hash_add(&hash, &q->input_scale, sizeof(q->input_scale));
    nyb_hash_text(&hash, text);
}
