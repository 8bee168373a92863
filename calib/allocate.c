#include "nybble/allocate.h"

#include <math.h>
#include <string.h>

#include "calib/divergence.h"
#include "calib/job.h"
#include "calib/knapsack.h"
#include "calib/pass.h"
#include "core/clock.h"
#include "core/file.h"
#include "core/log.h"
#include "nybble/version.h"

enum { OPTIONS = NYB_ALLOCATE_BITS * NYB_ALLOCATE_GROUPS };

// One way to round a layer, or the layers of a stage.
typedef struct option {
    unsigned bits;
    size_t group_size;
    bool held; // by the format, for every layer of the item
} option;

// Layers that get the same bits: those of a stage, or one.
typedef struct item {
    nyb_choice choices[OPTIONS];
    uint8_t options[OPTIONS]; // which option each choice is
    nyb_choices list;
    size_t chosen;
    size_t
        probed[NYB_ALLOCATE_BITS]; // by place in the list of bits: the option that was tried, and
    double kl[NYB_ALLOCATE_BITS];  // what came of it; NaN: not tried
} item;

typedef struct measured {
    const nyb_job_layer *layer;
    size_t item;
    double energy; // tr(W H W^T)
    uint64_t bits[OPTIONS];
    double loss[OPTIONS]; // NaN: not held
    float *rounded;       // [rows, cols] while the stage is measured; NULL: not needed
} measured;

typedef struct allocation {
    const nyb_context *ctx;
    const nyb_allocate_params *params;
    nyb_job job;
    nyb_pass pass; // for the weights
    nyb_arena arena;
    option options[OPTIONS];
    size_t option_count, bit_count;
    nyb_divergence divergence; // .model NULL: not asked for
    measured *layers;          // [count]
    size_t count;
    item *items; // [item_count]
    size_t item_count;
    uint64_t fixed; // bits of the layers that keep their settings
    double weights; // of all rounded layers
    nyb_hessian hessian;
    nyb_gptq_factor factor;
    size_t factor_group;
    nyb_packing packing;
} allocation;

// ---- What there is to choose --------------------------------------------------------------------

static nyb_status set_options(allocation *a, nyb_err *err)
{
    static const unsigned all_bits[] = {2, 3, 4, 8};
    static const size_t all_groups[] = {32, 64, 128, 0};
    const nyb_allocate_params *const p = a->params;
    const unsigned *const bits = p->bit_count ? p->bits : all_bits;
    const size_t *const groups = p->group_count ? p->groups : all_groups;
    const size_t bit_count = p->bit_count ? p->bit_count : 4;
    const size_t group_count = p->group_count ? p->group_count : 4;
    if (!(p->target_bits > 0.0 && p->target_bits <= 16.0))
        return nyb_fail(err, NYB_E_ARG, "target bits are %g, want more than 0, at most 16",
                        p->target_bits);
    if (bit_count > NYB_ALLOCATE_BITS || group_count > NYB_ALLOCATE_GROUPS)
        return nyb_fail(err, NYB_E_ARG, "%zu bits and %zu group sizes, want at most %d and %d",
                        bit_count, group_count, NYB_ALLOCATE_BITS, NYB_ALLOCATE_GROUPS);
    a->bit_count = bit_count;
    for (size_t g = 0; g < group_count; g++) { // one factor serves all bits of a group size
        for (size_t b = 0; b < bit_count; b++) {
            if (bits[b] != 2 && bits[b] != 3 && bits[b] != 4 && bits[b] != 8)
                return nyb_fail(err, NYB_E_ARG, "weight bits are %u, want 2, 3, 4 or 8", bits[b]);
            if (groups[g] != 0 && (groups[g] < 16 || groups[g] > 1024))
                return nyb_fail(err, NYB_E_ARG, "group size is %zu, want 0 (the row) or 16 to 1024",
                                groups[g]);
            a->options[a->option_count++] = (option){.bits = bits[b], .group_size = groups[g]};
        }
    }
    return NYB_OK;
}

// ---- Measuring ------------------------------------------------------------------------------------

static nyb_status prepare(allocation *a, const nyb_gptq_params *params, nyb_err *err)
{
    if (a->factor.u.at && a->factor_group == params->grid.group_size)
        return NYB_OK;
    nyb_gptq_factor_clear(&a->factor);
    a->factor_group = params->grid.group_size;
    return nyb_gptq_prepare(a->ctx, &a->factor, &a->hessian, params, err);
}

static nyb_status measure_option(allocation *a, measured *m, size_t index, nyb_err *err)
{
    nyb_job_layer layer;
    nyb_qweight q = {0};
    nyb_gptq_report report = {0};
    m->loss[index] = (double) NAN;
    if (nyb_job_regroup(&a->job, m->layer, a->options[index].bits, a->options[index].group_size,
                        &layer, NULL) != NYB_OK)
        return NYB_OK; // the format cannot hold it, or the layer is too narrow
    nyb_solve_params params = nyb_job_solve(&a->job, &layer);
    params.gptq.refine = params.gptq.refine > 1 ? 1 : params.gptq.refine;
    params.gptq.skip_measurements = true;
    nyb_status status = prepare(a, &params.gptq, err);
    const nyb_solve_input input = {.factor = &a->factor, .hessian = &a->hessian};
    if (status == NYB_OK)
        status = nyb_solve_layer(a->ctx, input, a->pass.weights.weights[layer.index], &params, &q,
                                 &report, err);
    if (status != NYB_OK)
        return status;
    m->loss[index] = report.loss > 0.0 ? report.loss : 0.0;
    m->bits[index] = (uint64_t) llround(nyb_qweight_bits(&q) * (double) q.rows * (double) q.cols);
    if (m->rounded)
        nyb_qweight_dequantize(&q, 0, nyb_mat_of(m->rounded, q.rows, q.cols));
    nyb_qweight_clear(&q);
    return NYB_OK;
}

// A layer that keeps its settings takes a part of the budget.
static nyb_status count_fixed(allocation *a, const nyb_job_layer *layer, nyb_err *err)
{
    const nyb_solve_params params = nyb_job_solve(&a->job, layer);
    const nyb_mat weight = a->pass.weights.weights[layer->index];
    nyb_qweight q = {0};
    const nyb_status status =
        nyb_solve_layer(a->ctx, (nyb_solve_input){0}, weight, &params, &q, NULL, err);
    if (status == NYB_OK)
        a->fixed += (uint64_t) llround(nyb_qweight_bits(&q) * (double) q.rows * (double) q.cols);
    nyb_qweight_clear(&q);
    return status;
}

static nyb_status at_layer(const allocation *a, const nyb_job_layer *layer, nyb_status status,
                           const nyb_err *inner, nyb_err *err)
{
    return status == NYB_OK ? NYB_OK
                            : nyb_fail(err, status, "%s: '%s': %s", a->params->quantize.model,
                                       layer->linear->module, inner->text);
}

// ---- Predictions ------------------------------------------------------------------------------------

static void swap_weights(const allocation *a, const measured *m)
{
    const nyb_mat w = a->pass.weights.weights[m->layer->index];
    for (size_t i = 0; i < w.rows; i++) {
        for (size_t j = 0; j < w.cols; j++) {
            const float kept = nyb_row(w, i)[j];
            nyb_row(w, i)[j] = m->rounded[i * w.cols + j];
            m->rounded[i * w.cols + j] = kept;
        }
    }
}

// Whether all layers of an item have the option.
static bool is_held(const measured *layers, size_t count, size_t index)
{
    for (size_t i = 0; i < count; i++) {
        if (isnan(layers[i].loss[index]))
            return false;
    }
    return true;
}

// Tries the option on the layers of one item, which have just been rounded by it, if none with
// these bits has been tried. More than 4 bits move the predictions too little to be told apart.
static nyb_status probe(allocation *a, const measured *layers, size_t count, size_t index,
                        nyb_err *err)
{
    item *const it = &a->items[layers->item];
    const size_t place = index % a->bit_count;
    if (!isnan(it->kl[place]) || a->options[index].bits > 4 || !is_held(layers, count, index))
        return NYB_OK;
    for (size_t i = 0; i < count; i++)
        swap_weights(a, &layers[i]);
    const nyb_status status =
        nyb_divergence_of(&a->divergence, &a->pass.weights, &it->kl[place], err);
    for (size_t i = 0; i < count; i++)
        swap_weights(a, &layers[i]);
    it->kl[place] = it->kl[place] > 0.0 ? it->kl[place] : 0.0;
    it->probed[place] = index;
    return status;
}

static nyb_status probe_items(allocation *a, size_t first, size_t index, nyb_err *err)
{
    nyb_status status = NYB_OK;
    for (size_t i = first; status == NYB_OK && a->divergence.model && i < a->count;) {
        size_t end = i + 1;
        while (end < a->count && a->layers[end].item == a->layers[i].item)
            end++;
        status = probe(a, &a->layers[i], end - i, index, err);
        i = end;
    }
    return status;
}

static nyb_status open_divergence(allocation *a, nyb_err *err)
{
    nyb_hessian_store *const store = a->job.hessians;
    const size_t wanted = a->params->samples ? a->params->samples : 1024 / store->length;
    const size_t samples = wanted < 1 ? 1 : wanted < store->samples ? wanted : store->samples;
    uint32_t *ids = NULL;
    unsigned char *marks = NULL;
    if (a->params->sensitivity != NYB_SENSITIVITY_KL)
        return NYB_OK;
    const nyb_status status = nyb_hessian_store_tokens(store, &a->arena, &ids, &marks, err);
    return status == NYB_OK ? nyb_divergence_open(&a->divergence, a->ctx, a->job.model, ids,
                                                  samples, store->length, err)
                            : status;
}

// ---- Stages -----------------------------------------------------------------------------------------

// Adds a layer to those that are measured, or counts what it takes.
static nyb_status add_layer(allocation *a, const nyb_job_layer *layer, nyb_err *err)
{
    const nyb_mat weight = a->pass.weights.weights[layer->index];
    if (layer->settings.skip)
        return NYB_OK;
    a->weights += (double) weight.rows * (double) weight.cols;
    if (!nyb_job_calibrates(layer))
        return count_fixed(a, layer, err);
    measured *const m = &a->layers[a->count++];
    item *const it = &a->items[a->item_count];
    *m = (measured){.layer = layer, .item = a->item_count};
    for (size_t i = 0; i < NYB_ALLOCATE_BITS; i++)
        it->kl[i] = (double) NAN;
    a->item_count += a->params->alone;
    if (a->divergence.model) {
        m->rounded = nyb_alloc_raw(weight.rows, weight.cols * sizeof(float));
        if (!m->rounded)
            return nyb_no_memory(err, "weights", weight.rows, weight.cols * sizeof(float));
    }
    return nyb_hessian_loss(a->ctx, &a->hessian, weight, NULL, &m->energy, err);
}

// Options turn group by group, so that all layers and all bits share a group size's factor.
static nyb_status measure_options(allocation *a, size_t first, nyb_err *err)
{
    nyb_status status = NYB_OK;
    for (size_t o = 0; status == NYB_OK && o < a->option_count; o++) {
        for (size_t i = first; status == NYB_OK && i < a->count; i++) {
            nyb_err inner = {0};
            status = measure_option(a, &a->layers[i], o, &inner);
            status = at_layer(a, a->layers[i].layer, status, &inner, err);
        }
        if (status == NYB_OK)
            status = probe_items(a, first, o, err);
    }
    return status;
}

static nyb_status measure_stage(allocation *a, size_t block, size_t index, nyb_err *err)
{
    size_t count = 0;
    const nyb_job_layer *const layers = nyb_job_block(&a->job, block, &count);
    const nyb_stage stage = nyb_stage_at(a->job.model, block, index);
    const size_t before = a->count;
    nyb_status status = nyb_hessian_store_read(a->job.hessians, layers[stage.first].linear->module,
                                               stage.width, &a->hessian, err);
    for (size_t i = stage.first; status == NYB_OK && i < stage.first + stage.count; i++) {
        nyb_err inner = {0};
        status = at_layer(a, &layers[i], add_layer(a, &layers[i], &inner), &inner, err);
    }
    if (status == NYB_OK)
        status = measure_options(a, before, err);
    nyb_gptq_factor_clear(&a->factor);
    nyb_hessian_clear(&a->hessian);
    for (size_t i = before; i < a->count; i++) {
        nyb_free(a->layers[i].rounded);
        a->layers[i].rounded = NULL;
    }
    a->item_count += !a->params->alone && a->count > before;
    return status;
}

static nyb_status measure_all(allocation *a, nyb_err *err)
{
    nyb_status status = NYB_OK;
    a->layers = nyb_arena_alloc(&a->arena, a->job.count, sizeof(*a->layers));
    a->items = nyb_arena_alloc(&a->arena, a->job.count + 1, sizeof(*a->items));
    if (!a->layers || !a->items)
        return nyb_no_memory(err, "layers", a->job.count, sizeof(*a->layers));
    for (size_t b = 0; status == NYB_OK && b < nyb_block_count(a->job.model); b++) {
        status = nyb_block_weights_load(a->ctx, &a->pass.weights, b, err);
        for (size_t s = 0; status == NYB_OK && s < nyb_stage_count(a->job.model, b); s++)
            status = measure_stage(a, b, s, err);
        nyb_step(a->ctx, &(nyb_progress){.stage = "measure",
                                         .unit = "blocks",
                                         .done = b + 1,
                                         .total = nyb_block_count(a->job.model)});
    }
    return status;
}

// ---- Choosing -------------------------------------------------------------------------------------

// The sum over an item's layers of their error by this option, which they hold.
static double error_of(const allocation *a, const measured *layers, size_t count, size_t index)
{
    double sum = 0.0;
    for (size_t i = 0; i < count; i++) {
        const double energy = layers[i].energy, loss = layers[i].loss[index];
        const bool whole = a->params->sensitivity == NYB_SENSITIVITY_OUTPUT;
        sum += whole ? loss : energy > 0.0 ? loss / energy : 0.0;
    }
    return sum;
}

// What the item loses by an option: its error, or the divergence that was measured at these bits, or
// at the most that were tried, in proportion to the error.
static double sensitivity_of(const allocation *a, const measured *layers, size_t count,
                             size_t index)
{
    const item *const it = &a->items[layers->item];
    const double error = error_of(a, layers, count, index);
    size_t place = index % a->bit_count, best = SIZE_MAX;
    if (a->params->sensitivity != NYB_SENSITIVITY_KL)
        return error;
    for (size_t i = 0; i < a->bit_count; i++) {
        const bool better = best == SIZE_MAX || a->options[i].bits > a->options[best].bits;
        best = !isnan(it->kl[i]) && better ? i : best;
    }
    place = isnan(it->kl[place]) ? best : place;
    if (place == SIZE_MAX)
        return error;
    const double tried = error_of(a, layers, count, it->probed[place]);
    return tried > 0.0 ? it->kl[place] * error / tried : 0.0;
}

// An item's choices: the options that every layer of it has.
static nyb_status list_choices(allocation *a, size_t first, size_t count, nyb_err *err)
{
    const measured *const layers = &a->layers[first];
    item *const it = &a->items[layers->item];
    for (size_t o = 0; o < a->option_count; o++) {
        if (!is_held(layers, count, o))
            continue;
        nyb_choice choice = {.loss = sensitivity_of(a, layers, count, o)};
        for (size_t i = 0; i < count; i++)
            choice.cost += layers[i].bits[o];
        it->options[it->list.count] = (uint8_t) o;
        it->choices[it->list.count++] = choice;
    }
    it->list.at = it->choices;
    if (it->list.count > 0)
        return NYB_OK;
    return nyb_fail(err, NYB_E_UNSUPPORTED,
                    "'%s': %s holds none of the bits and group sizes to choose from; give others",
                    layers->layer->linear->module, a->job.layout->name);
}

static nyb_status choose(allocation *a, nyb_err *err)
{
    const uint64_t budget = (uint64_t) (a->params->target_bits * a->weights);
    nyb_choices *const lists = nyb_arena_alloc(&a->arena, a->item_count, sizeof(*lists));
    size_t *const chosen = nyb_arena_alloc(&a->arena, a->item_count, sizeof(*chosen));
    nyb_err inner = {0};
    nyb_status status = lists && chosen ? NYB_OK : nyb_no_memory(err, "choices", a->count, 1);
    for (size_t i = 0; status == NYB_OK && i < a->count;) {
        size_t end = i + 1;
        while (end < a->count && a->layers[end].item == a->layers[i].item)
            end++;
        status = list_choices(a, i, end - i, err);
        lists[a->layers[i].item] = a->items[a->layers[i].item].list;
        i = end;
    }
    if (status != NYB_OK)
        return status;
    status = nyb_knapsack(lists, a->item_count, budget > a->fixed ? budget - a->fixed : 0, 0,
                          chosen, &a->packing, &inner);
    if (status != NYB_OK)
        return nyb_fail(
            err, status,
            "%g bits a weight are not enough: %s bits, and layers with "
            "settings of their own take %llu; raise --target-bits, or allow larger groups",
            a->params->target_bits, inner.text, (unsigned long long) a->fixed);
    for (size_t i = 0; i < a->item_count; i++)
        a->items[i].chosen = a->items[i].options[chosen[i]];
    return NYB_OK;
}

// ---- Writing --------------------------------------------------------------------------------------

static json_int_t group_word(size_t group_size)
{
    return group_size ? (json_int_t) group_size : -1;
}

static const char *sensitivity_word(const allocation *a)
{
    static const char *const words[] = {"kl", "relative", "output"};
    return words[a->params->sensitivity];
}

static json_t *describe_items(const allocation *a)
{
    json_t *const items = json_array();
    for (size_t i = 0; i < a->item_count; i++) {
        const item *const it = &a->items[i];
        json_t *const choices = json_array();
        for (size_t c = 0; c < it->list.count; c++)
            json_array_append_new(choices,
                                  json_pack("{s:i, s:I, s:I, s:f}", "weight_bits",
                                            (int) a->options[it->options[c]].bits, "group_size",
                                            group_word(a->options[it->options[c]].group_size),
                                            "bits", (json_int_t) it->choices[c].cost, "sensitivity",
                                            it->choices[c].loss));
        json_array_append_new(items, choices);
    }
    return items;
}

// The recipe's own settings and patterns stay; each chosen layer gets an entry behind them.
static nyb_status write_recipe(const allocation *a, nyb_err *err)
{
    const json_t *const before = json_object_get(a->job.recipe.document, "modules");
    json_t *const recipe = nyb_settings_json(&a->job.recipe.general);
    json_t *const modules = before ? json_copy((json_t *) (uintptr_t) before) : json_array();
    json_object_del(recipe, "weight_bits");
    json_object_del(recipe, "group_size");
    for (size_t i = 0; i < a->count; i++) {
        const option *const o = &a->options[a->items[a->layers[i].item].chosen];
        json_array_append_new(modules,
                              json_pack("{s:s, s:i, s:I}", "pattern",
                                        a->layers[i].layer->linear->module, "weight_bits",
                                        (int) o->bits, "group_size", group_word(o->group_size)));
    }
    nyb_status status = recipe && modules && json_object_set_new(recipe, "modules", modules) == 0
                            ? NYB_OK
                            : nyb_no_memory(err, "recipe", 1, 1);
    if (status == NYB_OK)
        status = nyb_json_save(recipe, a->params->out, err);
    json_decref(recipe);
    return status;
}

static json_t *describe_layer(const allocation *a, const measured *m)
{
    json_t *const choices = json_array();
    const size_t chosen = a->items[m->item].chosen;
    for (size_t o = 0; o < a->option_count; o++) {
        if (isnan(m->loss[o]))
            continue;
        json_array_append_new(
            choices, json_pack("{s:i, s:I, s:I, s:f, s:b}", "weight_bits", (int) a->options[o].bits,
                               "group_size", group_word(a->options[o].group_size), "bits",
                               (json_int_t) m->bits[o], "loss", m->loss[o], "chosen", o == chosen));
    }
    return json_pack("{s:s, s:I, s:I, s:I, s:f, s:o}", "module", m->layer->linear->module, "rows",
                     (json_int_t) m->layer->linear->rows, "cols",
                     (json_int_t) m->layer->linear->cols, "item", (json_int_t) m->item, "energy",
                     m->energy, "choices", choices);
}

static nyb_status write_table(const allocation *a, nyb_err *err)
{
    json_t *const layers = json_array();
    for (size_t i = 0; i < a->count; i++)
        json_array_append_new(layers, describe_layer(a, &a->layers[i]));
    json_t *const table = json_pack(
        "{s:s, s:s, s:s, s:f, s:I, s:I, s:I, s:f, s:f, s:o, s:o}", "schema", "nybble.allocation/1",
        "nybble", nyb_version(), "sensitivity", sensitivity_word(a), "target_bits",
        a->params->target_bits, "weights", (json_int_t) a->weights, "bits",
        (json_int_t) (a->packing.cost + a->fixed), "fixed_bits", (json_int_t) a->fixed, "loss",
        a->packing.loss, "bound", a->packing.bound, "layers", layers, "items", describe_items(a));
    const nyb_status status =
        table ? nyb_json_save(table, a->params->table, err) : nyb_no_memory(err, "table", 1, 1);
    json_decref(table);
    return status;
}

static nyb_status run(allocation *a, nyb_quantize_params *params, nyb_err *err)
{
    // Every layer has one group for now, which all layers and formats take.
    params->settings.group_size = 0;
    params->given |= NYB_SETTING_GROUP_SIZE;
    nyb_status status = nyb_job_open(a->ctx, &a->job, params, err);
    if (status == NYB_OK)
        status = nyb_pass_open(&a->pass, a->ctx, a->job.model, &(nyb_pass_params){0}, err);
    if (status == NYB_OK)
        status = open_divergence(a, err);
    if (status == NYB_OK)
        status = measure_all(a, err);
    if (status == NYB_OK && a->count == 0)
        status = nyb_fail(err, NYB_E_ARG, "no layer is solved by gptq: nothing to choose");
    if (status == NYB_OK)
        status = choose(a, err);
    if (status == NYB_OK && a->params->table)
        status = write_table(a, err);
    return status == NYB_OK ? write_recipe(a, err) : status;
}

static nyb_status check_params(const nyb_allocate_params *p, nyb_err *err)
{
    if (!p->quantize.hessians)
        return nyb_fail(err, NYB_E_ARG,
                        "the losses of layers need a store of Hessians: give --hessians FILE");
    if (nyb_path_exists(p->out) && !p->force)
        return nyb_fail(err, NYB_E_EXISTS, "%s: already exists; use --force to replace it", p->out);
    return NYB_OK;
}

nyb_status nyb_allocate(const nyb_context *ctx, const nyb_allocate_params *params,
                        nyb_allocate_result *result, nyb_err *err)
{
    const double start = nyb_seconds();
    allocation a = {.ctx = ctx, .params = params};
    nyb_quantize_params quantize = params->quantize;
    nyb_status status = check_params(params, err);
    if (status == NYB_OK)
        status = set_options(&a, err);
    if (status == NYB_OK)
        status = run(&a, &quantize, err);
    if (status == NYB_OK && result)
        *result = (nyb_allocate_result){.layers = a.count,
                                        .bits_per_weight =
                                            (double) (a.packing.cost + a.fixed) / a.weights,
                                        .loss = a.packing.loss,
                                        .bound = a.packing.bound,
                                        .seconds = nyb_seconds() - start};
    nyb_gptq_factor_clear(&a.factor);
    nyb_hessian_clear(&a.hessian);
    nyb_divergence_close(&a.divergence);
    nyb_pass_close(&a.pass);
    nyb_job_close(&a.job);
    nyb_arena_clear(&a.arena);
    return status;
}
