#include "nybble/allocate.h"

#include <math.h>
#include <string.h>

#include "calib/allocation.h"
#include "core/clock.h"
#include "core/file.h"
#include "core/log.h"

// ---- What there is to choose --------------------------------------------------------------------

static nyb_status set_options(nyb_allocation *a, nyb_err *err)
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
            a->options[a->option_count++] =
                (nyb_bits_option){.bits = bits[b], .group_size = groups[g]};
        }
    }
    return NYB_OK;
}

// Samples that divergence is taken on.
static void set_samples(nyb_allocation *a)
{
    const nyb_hessian_store *const store = a->job.hessians;
    const size_t wanted = a->params->samples ? a->params->samples : 1024 / store->length;
    if (a->params->sensitivity == NYB_SENSITIVITY_KL)
        a->samples = wanted < 1 ? 1 : wanted < store->samples ? wanted : store->samples;
}

// Adds a layer to those that are chosen for.
static void add_layer(nyb_allocation *a, const nyb_job_layer *layer)
{
    nyb_bits_layer *const to = &a->layers[a->count++];
    *to = (nyb_bits_layer){.layer = layer, .item = a->item_count};
    for (size_t o = 0; o < NYB_ALLOCATE_OPTIONS; o++)
        to->loss[o] = (double) NAN;
    for (size_t i = 0; i < NYB_ALLOCATE_BITS; i++)
        a->items[a->item_count].kl[i] = (double) NAN;
    a->item_count += a->params->alone;
}

static void add_stage(nyb_allocation *a, size_t block, size_t index)
{
    size_t count = 0;
    const nyb_job_layer *const layers = nyb_job_block(&a->job, block, &count);
    const nyb_stage stage = nyb_stage_at(a->job.model, block, index);
    const size_t before = a->count;
    for (size_t i = stage.first; i < stage.first + stage.count; i++) {
        if (!layers[i].settings.skip)
            a->weights += (double) layers[i].linear->rows * (double) layers[i].linear->cols;
        if (nyb_job_calibrates(&layers[i]))
            add_layer(a, &layers[i]);
    }
    a->item_count += !a->params->alone && a->count > before;
}

static nyb_status list_layers(nyb_allocation *a, nyb_err *err)
{
    const nyb_model *const model = a->job.model;
    a->layers = nyb_arena_alloc(&a->arena, a->job.count, sizeof(*a->layers));
    a->items = nyb_arena_alloc(&a->arena, a->job.count + 1, sizeof(*a->items));
    if (!a->layers || !a->items)
        return nyb_no_memory(err, "layers", a->job.count, sizeof(*a->layers));
    for (size_t b = 0; b < nyb_block_count(model); b++) {
        for (size_t s = 0; s < nyb_stage_count(model, b); s++)
            add_stage(a, b, s);
    }
    return a->count > 0 ? NYB_OK
                        : nyb_fail(err, NYB_E_ARG, "no layer is solved by gptq: nothing to choose");
}

// ---- Choosing -------------------------------------------------------------------------------------

// The sum over an item's layers of their error by this option, which they hold.
static double error_of(const nyb_allocation *a, const nyb_bits_layer *layers, size_t count,
                       size_t index)
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
static double sensitivity_of(const nyb_allocation *a, const nyb_bits_layer *layers, size_t count,
                             size_t index)
{
    const nyb_bits_item *const it = &a->items[layers->item];
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
static nyb_status list_choices(nyb_allocation *a, size_t first, size_t count, nyb_err *err)
{
    const nyb_bits_layer *const layers = &a->layers[first];
    nyb_bits_item *const it = &a->items[layers->item];
    for (size_t o = 0; o < a->option_count; o++) {
        if (!nyb_option_held(layers, count, o))
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

static nyb_status choose(nyb_allocation *a, nyb_err *err)
{
    const uint64_t budget = (uint64_t) (a->params->target_bits * a->weights);
    nyb_choices *const lists = nyb_arena_alloc(&a->arena, a->item_count, sizeof(*lists));
    size_t *const chosen = nyb_arena_alloc(&a->arena, a->item_count, sizeof(*chosen));
    nyb_err inner = {0};
    nyb_status status = lists && chosen ? NYB_OK : nyb_no_memory(err, "choices", a->count, 1);
    for (size_t i = 0, end; status == NYB_OK && i < a->count; i = end) {
        end = nyb_item_end(a, i);
        status = list_choices(a, i, end - i, err);
        lists[a->layers[i].item] = a->items[a->layers[i].item].list;
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

// Whether the codes alone are more than the budget, which is known before anything is measured.
static nyb_status check_budget(const nyb_allocation *a, nyb_err *err)
{
    const double budget = a->params->target_bits * a->weights;
    unsigned fewest = a->options[0].bits;
    double weights = 0.0;
    for (size_t i = 1; i < a->bit_count; i++)
        fewest = a->options[i].bits < fewest ? a->options[i].bits : fewest;
    for (size_t i = 0; i < a->count; i++)
        weights +=
            (double) a->layers[i].layer->linear->rows * (double) a->layers[i].layer->linear->cols;
    if (fewest * weights <= budget)
        return NYB_OK;
    return nyb_fail(err, NYB_E_ARG,
                    "%g bits a weight are not enough: the codes of %u bits alone take %.0f bits, "
                    "and the budget is %.0f; raise --target-bits",
                    a->params->target_bits, fewest, fewest * weights, budget);
}

// ---- The run ----------------------------------------------------------------------------------------

// The recipe's own settings and patterns stay; each chosen layer gets an entry behind them.
static nyb_status write_recipe(const nyb_allocation *a, nyb_err *err)
{
    const json_t *const before = json_object_get(a->job.recipe.document, "modules");
    json_t *const recipe = nyb_settings_json(&a->job.recipe.general);
    json_t *const modules = before ? json_copy((json_t *) (uintptr_t) before) : json_array();
    json_object_del(recipe, "weight_bits");
    json_object_del(recipe, "group_size");
    for (size_t i = 0; i < a->count; i++) {
        const nyb_bits_option *const o = &a->options[a->items[a->layers[i].item].chosen];
        json_array_append_new(modules, json_pack("{s:s, s:i, s:I}", "pattern",
                                                 a->layers[i].layer->linear->module, "weight_bits",
                                                 (int) o->bits, "group_size",
                                                 nyb_group_word(o->group_size)));
    }
    nyb_status status = recipe && modules && json_object_set_new(recipe, "modules", modules) == 0
                            ? NYB_OK
                            : nyb_no_memory(err, "recipe", 1, 1);
    if (status == NYB_OK)
        status = nyb_json_save(recipe, a->params->out, err);
    json_decref(recipe);
    return status;
}

// Takes what an earlier run has measured, or measures.
static nyb_status measure(nyb_allocation *a, nyb_err *err)
{
    const nyb_allocate_params *const p = a->params;
    nyb_err inner = {0};
    if (!p->table || !nyb_path_exists(p->table))
        return nyb_allocation_measure(a, err);
    const nyb_status status = nyb_allocation_load(a, &inner);
    if (status != NYB_OK && p->force) {
        nyb_log(a->ctx, NYB_LOG_INFO, "%s", inner.text);
        return nyb_allocation_measure(a, err);
    }
    return status == NYB_OK ? NYB_OK : nyb_fail(err, status, "%s", inner.text);
}

static nyb_status run(nyb_allocation *a, nyb_quantize_params *params, nyb_err *err)
{
    // Every layer has one group for now, which all layers and formats take.
    params->settings.group_size = 0;
    params->given |= NYB_SETTING_GROUP_SIZE;
    nyb_status status = nyb_job_open(a->ctx, &a->job, params, err);
    if (status != NYB_OK)
        return status;
    set_samples(a);
    status = list_layers(a, err);
    if (status == NYB_OK)
        status = check_budget(a, err);
    if (status == NYB_OK)
        status = measure(a, err);
    if (status == NYB_OK)
        status = choose(a, err);
    if (status == NYB_OK && a->params->table)
        status = nyb_allocation_save(a, err);
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
    nyb_allocation a = {.ctx = ctx, .params = params};
    nyb_quantize_params quantize = params->quantize;
    nyb_status status = check_params(params, err);
    if (status == NYB_OK)
        status = nyb_job_inputs_found(&quantize, err);
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
    nyb_job_close(&a.job);
    nyb_arena_clear(&a.arena);
    return status;
}
