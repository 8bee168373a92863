// The table of what was measured, nybble.allocation/1 (docs/allocate.md).
#include <math.h>
#include <string.h>

#include "calib/allocation.h"
#include "calib/journal.h"
#include "nybble/version.h"

#define SCHEMA "nybble.allocation/1"

// ---- What was measured, and how -----------------------------------------------------------------

static const char *sensitivity_word(const nyb_allocation *a)
{
    static const char *const words[] = {"kl", "relative", "output"};
    return words[a->params->sensitivity];
}

static json_t *list_bits(const nyb_allocation *a)
{
    json_t *const list = json_array();
    for (size_t i = 0; i < a->bit_count; i++)
        json_array_append_new(list, json_integer((json_int_t) a->options[i].bits));
    return list;
}

static json_t *list_groups(const nyb_allocation *a)
{
    json_t *const list = json_array();
    for (size_t i = 0; i < a->option_count; i += a->bit_count)
        json_array_append_new(list, json_integer(nyb_group_word(a->options[i].group_size)));
    return list;
}

// Everything that the numbers depend on, but the budget. NULL when there is no memory.
static json_t *describe(const nyb_allocation *a)
{
    nyb_settings general = a->job.recipe.general;
    json_t *const modules = json_object_get(a->job.recipe.document, "modules");
    const bool kl = a->samples > 0;
    general.refine = general.refine > 1 ? 1 : general.refine;
    json_t *const settings = nyb_settings_json(&general);
    json_object_del(settings, "weight_bits");
    json_object_del(settings, "group_size");
    json_t *const run =
        json_pack("{s:s, s:s, s:s, s:o, s:O?, s:o, s:o, s:b, s:s}", "nybble", nyb_version(),
                  "hessians", a->job.hessians->digest, "format", a->job.layout->name, "settings",
                  settings, "modules", modules, "bits", list_bits(a), "groups", list_groups(a),
                  "alone", a->params->alone, "sensitivity", kl ? "kl" : "error");
    if (run && kl) {
        const bool bf16 = a->ctx && a->ctx->compute == NYB_COMPUTE_BF16;
        json_object_set_new(run, "samples", json_integer((json_int_t) a->samples));
        json_object_set_new(run, "compute", json_string(bf16 ? "bf16" : "f32"));
    }
    return run;
}

// ---- Writing ------------------------------------------------------------------------------------

static json_t *describe_choices(const nyb_allocation *a, const nyb_bits_item *item)
{
    json_t *const choices = json_array();
    for (size_t c = 0; c < item->list.count; c++) {
        const nyb_bits_option *const o = &a->options[item->options[c]];
        json_array_append_new(choices,
                              json_pack("{s:i, s:I, s:I, s:f}", "weight_bits", (int) o->bits,
                                        "group_size", nyb_group_word(o->group_size), "bits",
                                        (json_int_t) item->choices[c].cost, "sensitivity",
                                        item->choices[c].loss));
    }
    return choices;
}

static json_t *describe_probes(const nyb_allocation *a, const nyb_bits_item *item)
{
    json_t *const probes = json_array();
    for (size_t i = 0; i < a->bit_count; i++) {
        const nyb_bits_option *const o = &a->options[item->probed[i]];
        if (!isnan(item->kl[i]))
            json_array_append_new(probes, json_pack("{s:i, s:I, s:f}", "weight_bits", (int) o->bits,
                                                    "group_size", nyb_group_word(o->group_size),
                                                    "kl", item->kl[i]));
    }
    return probes;
}

static json_t *describe_layer(const nyb_allocation *a, const nyb_bits_layer *l)
{
    json_t *const choices = json_array();
    const size_t chosen = a->items[l->item].chosen;
    for (size_t o = 0; o < a->option_count; o++) {
        if (isnan(l->loss[o]))
            continue;
        json_array_append_new(
            choices, json_pack("{s:i, s:I, s:I, s:f, s:b}", "weight_bits", (int) a->options[o].bits,
                               "group_size", nyb_group_word(a->options[o].group_size), "bits",
                               (json_int_t) l->bits[o], "loss", l->loss[o], "chosen", o == chosen));
    }
    const nyb_linear *const linear = l->layer->linear;
    return json_pack("{s:s, s:I, s:I, s:I, s:f, s:o}", "module", linear->module, "rows",
                     (json_int_t) linear->rows, "cols", (json_int_t) linear->cols, "item",
                     (json_int_t) l->item, "energy", l->energy, "choices", choices);
}

nyb_status nyb_allocation_save(const nyb_allocation *a, nyb_err *err)
{
    json_t *const layers = json_array(), *const items = json_array(), *const probes = json_array();
    for (size_t i = 0; i < a->count; i++)
        json_array_append_new(layers, describe_layer(a, &a->layers[i]));
    for (size_t i = 0; i < a->item_count; i++) {
        json_array_append_new(items, describe_choices(a, &a->items[i]));
        json_array_append_new(probes, describe_probes(a, &a->items[i]));
    }
    json_t *const table =
        json_pack("{s:s, s:s, s:o, s:s, s:f, s:I, s:I, s:I, s:f, s:f, s:o, s:o, s:o}", "schema",
                  SCHEMA, "nybble", nyb_version(), "run", describe(a), "sensitivity",
                  sensitivity_word(a), "target_bits", a->params->target_bits, "weights",
                  (json_int_t) a->weights, "bits", (json_int_t) (a->packing.cost + a->fixed),
                  "fixed_bits", (json_int_t) a->fixed, "loss", a->packing.loss, "bound",
                  a->packing.bound, "layers", layers, "items", items, "probes", probes);
    const nyb_status status =
        table ? nyb_json_save(table, a->params->table, err) : nyb_no_memory(err, "table", 1, 1);
    json_decref(table);
    return status;
}

// ---- Reading ------------------------------------------------------------------------------------

static nyb_status damaged(const nyb_allocation *a, const char *what, nyb_err *err)
{
    return nyb_fail(err, NYB_E_FORMAT,
                    "%s: %s is damaged; use --force to measure anew, or another name for the table",
                    a->params->table, what);
}

// A finite number that is not negative.
static bool take_real(const json_t *object, const char *key, double *out)
{
    const json_t *const value = json_object_get(object, key);
    *out = json_number_value(value);
    return json_is_number(value) && isfinite(*out) && *out >= 0.0;
}

static bool take_size(const json_t *object, const char *key, uint64_t *out)
{
    const json_t *const value = json_object_get(object, key);
    *out = json_is_integer(value) ? (uint64_t) json_integer_value(value) : 0;
    return json_is_integer(value) && json_integer_value(value) >= 0 &&
           json_integer_value(value) < (json_int_t) 1 << 48;
}

// The option that an entry of a list is of; option_count: none.
static size_t option_of(const nyb_allocation *a, const json_t *entry)
{
    const json_t *const bits = json_object_get(entry, "weight_bits");
    const json_t *const group = json_object_get(entry, "group_size");
    size_t o = 0;
    while (o < a->option_count &&
           (json_integer_value(bits) != (json_int_t) a->options[o].bits ||
            json_integer_value(group) != nyb_group_word(a->options[o].group_size)))
        o++;
    return o;
}

static bool take_layer(const nyb_allocation *a, const json_t *entry, nyb_bits_layer *to)
{
    const char *const module = json_string_value(json_object_get(entry, "module"));
    size_t i;
    json_t *choice;
    bool good = module && strcmp(module, to->layer->linear->module) == 0 &&
                take_real(entry, "energy", &to->energy);
    json_array_foreach(json_object_get(entry, "choices"), i, choice)
    {
        const size_t o = option_of(a, choice);
        good = good && o < a->option_count && take_size(choice, "bits", &to->bits[o]) &&
               to->bits[o] > 0 && take_real(choice, "loss", &to->loss[o]);
    }
    return good;
}

static bool take_probes(const nyb_allocation *a, const json_t *list, nyb_bits_item *to)
{
    size_t i;
    json_t *entry;
    bool good = json_is_array(list);
    json_array_foreach(list, i, entry)
    {
        const size_t o = option_of(a, entry);
        const size_t place = o % a->bit_count;
        good = good && o < a->option_count && take_real(entry, "kl", &to->kl[place]);
        to->probed[place] = good ? o : 0;
    }
    return good;
}

static nyb_status take_all(nyb_allocation *a, const json_t *table, nyb_err *err)
{
    const json_t *const layers = json_object_get(table, "layers");
    const json_t *const probes = json_object_get(table, "probes");
    if (json_array_size(layers) != a->count || json_array_size(probes) != a->item_count ||
        !take_size(table, "fixed_bits", &a->fixed))
        return damaged(a, "what it says of all layers", err);
    for (size_t i = 0; i < a->count; i++) {
        if (!take_layer(a, json_array_get(layers, i), &a->layers[i]))
            return damaged(a, a->layers[i].layer->linear->module, err);
    }
    for (size_t i = 0; i < a->count; i = nyb_item_end(a, i)) {
        const size_t item = a->layers[i].item;
        if (!take_probes(a, json_array_get(probes, item), &a->items[item]))
            return damaged(a, a->layers[i].layer->linear->module, err);
    }
    return NYB_OK;
}

static nyb_status check_run(const nyb_allocation *a, const json_t *table, nyb_err *err)
{
    char difference[512];
    const char *const schema = json_string_value(json_object_get(table, "schema"));
    if (!schema || strcmp(schema, SCHEMA) != 0)
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: is no table of an allocation: its schema is '%s', not '" SCHEMA "'",
                        a->params->table, schema ? schema : "missing");
    json_t *const run = describe(a);
    const bool differs = run && nyb_json_difference(run, json_object_get(table, "run"), difference,
                                                    sizeof(difference));
    json_decref(run);
    if (!run)
        return nyb_no_memory(err, "table", 1, 1);
    if (differs)
        return nyb_fail(err, NYB_E_ARG,
                        "%s: was measured otherwise: %s; use --force to measure anew, or another "
                        "name for the table",
                        a->params->table, difference);
    return NYB_OK;
}

nyb_status nyb_allocation_load(nyb_allocation *a, nyb_err *err)
{
    json_t *table = NULL;
    nyb_status status = nyb_json_load(&table, a->params->table, err);
    if (status == NYB_OK)
        status = check_run(a, table, err);
    if (status == NYB_OK)
        status = take_all(a, table, err);
    json_decref(table);
    return status;
}
