#include "calib/recipe.h"

#include <fnmatch.h>
#include <string.h>

// What a mode is: bits that cannot be chosen, and whether it knows groups. Methods that are no modes
// leave all that to the settings.
typedef struct mode {
    unsigned bits; // 0: no mode
    bool groups;
} mode;

static const mode modes[NYB_METHOD_COUNT] = {
    [NYB_METHOD_INT4] = {.bits = 4, .groups = true},
    [NYB_METHOD_INT8] = {.bits = 8},
    [NYB_METHOD_FLOAT8] = {.bits = 8},
};

// A change of method brings the new one's defaults: settings of another kind of method say nothing
// about it. `int4_group` is the group size that int4 begins with.
static void change_method(nyb_settings *s, nyb_method method, size_t int4_group)
{
    const nyb_settings defaults = NYB_SETTINGS_DEFAULTS;
    const unsigned before = modes[s->method].bits, bits = modes[method].bits;
    s->method = method;
    if (before == bits)
        return;
    s->bits = bits ? bits : defaults.bits;
    s->group_size = !bits ? defaults.group_size : method == NYB_METHOD_INT4 ? int4_group : 0;
    s->symmetric = true;
    s->scale_search = false;
}

// Where a setting's errors come from: the recipe's file and key, or the caller.
typedef struct source {
    const json_t *object;
    const char *path;
    size_t int4_group; // nyb_recipe's
} source;

static nyb_status check_mode(const nyb_settings *s, const char *where, nyb_err *err)
{
    const mode *const m = &modes[s->method];
    const char *const name = nyb_method_name(s->method);
    if (m->bits && s->bits != m->bits)
        return nyb_fail(err, NYB_E_ARG, "%s: method %s has %u bits, not %u; use rtn", where, name,
                        m->bits, s->bits);
    if (m->bits && s->group_size && !m->groups)
        return nyb_fail(err, NYB_E_ARG,
                        "%s: method %s has one scale per output channel, not groups of %zu; use "
                        "rtn",
                        where, name, s->group_size);
    if (m->bits && (!s->symmetric || s->scale_search))
        return nyb_fail(err, NYB_E_ARG,
                        "%s: method %s takes its scales from the largest weight, and has zero "
                        "points where it has groups; for another choice use rtn",
                        where, name);
    return NYB_OK;
}

static nyb_status check(const nyb_settings *s, const char *where, nyb_err *err)
{
    if (s->bits != 2 && s->bits != 3 && s->bits != 4 && s->bits != 8)
        return nyb_fail(err, NYB_E_ARG, "%s: weight bits are %u, want 2, 3, 4 or 8", where,
                        s->bits);
    if (s->group_size != 0 && (s->group_size < 16 || s->group_size > 1024))
        return nyb_fail(err, NYB_E_ARG,
                        "%s: group size is %zu, want -1 (one group per channel) or 16 to 1024",
                        where, s->group_size);
    if (!(s->damping > 0.0 && s->damping < 1.0))
        return nyb_fail(err, NYB_E_ARG, "%s: damping is %g, want a fraction between 0 and 1", where,
                        s->damping);
    if (s->refine > NYB_REFINE_MOST)
        return nyb_fail(err, NYB_E_ARG, "%s: %u rounds of refinement, want at most %d", where,
                        s->refine, NYB_REFINE_MOST);
    const double percents[] = {s->range.percentile, s->input_range.percentile};
    for (size_t i = 0; i < 2; i++) {
        if (percents[i] != 0.0 && !(percents[i] > 50.0 && percents[i] <= 100.0))
            return nyb_fail(err, NYB_E_ARG, "%s: percentile is %g, want more than 50, at most 100",
                            where, percents[i]);
    }
    return check_mode(s, where, err);
}

static nyb_status no_value(source from, const char *key, const char *word, nyb_err *err)
{
    return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' has no value '%s'", from.path, key, word);
}

// "none" is the method of a layer that is left alone.
static nyb_status take_method(source from, nyb_settings *s, nyb_err *err)
{
    const char *word = NULL;
    const nyb_status status = nyb_json_text(from.object, "method", &word, from.path, err);
    if (status != NYB_OK || !word)
        return status;
    s->skip = strcmp(word, "none") == 0;
    if (s->skip)
        return NYB_OK;
    nyb_method method = s->method;
    if (!nyb_method_by_name(word, &method))
        return no_value(from, "method", word, err);
    change_method(s, method, from.int4_group);
    return NYB_OK;
}

static nyb_status take_order(source from, nyb_gptq_order *out, nyb_err *err)
{
    const char *word = NULL;
    const nyb_status status = nyb_json_text(from.object, "activation_order", &word, from.path, err);
    if (status != NYB_OK || !word)
        return status;
    return nyb_gptq_order_by_name(word, out) ? NYB_OK
                                             : no_value(from, "activation_order", word, err);
}

static nyb_status take_floats(source from, nyb_settings *s, nyb_err *err)
{
    const char *type = NULL, *scales = NULL;
    nyb_status status = nyb_json_text(from.object, "float8_type", &type, from.path, err);
    if (status == NYB_OK)
        status = nyb_json_text(from.object, "float8_scales", &scales, from.path, err);
    if (status != NYB_OK)
        return status;
    if (type && (!nyb_code_kind_by_name(type, &s->float8_type) || s->float8_type == NYB_CODE_INT))
        return no_value(from, "float8_type", type, err);
    if (scales && !nyb_scales_by_name(scales, &s->float8_scales))
        return no_value(from, "float8_scales", scales, err);
    return NYB_OK;
}

// Of the weights or of the inputs, by the names of their keys.
static nyb_status take_range(source from, const char *range, const char *percentile,
                             nyb_range_params *out, nyb_err *err)
{
    const char *word = NULL;
    nyb_status status = nyb_json_text(from.object, range, &word, from.path, err);
    if (status == NYB_OK)
        status = nyb_json_real(from.object, percentile, &out->percentile, from.path, err);
    if (status != NYB_OK || !word)
        return status;
    return nyb_range_by_name(word, &out->kind) ? NYB_OK : no_value(from, range, word, err);
}

static nyb_status take_activations(source from, nyb_settings *s, nyb_err *err)
{
    const char *word = NULL;
    const nyb_status status = nyb_json_text(from.object, "activations", &word, from.path, err);
    if (status != NYB_OK)
        return status;
    if (word && !nyb_activations_by_name(word, &s->activations))
        return no_value(from, "activations", word, err);
    return take_range(from, "activation_range", "activation_percentile", &s->input_range, err);
}

static nyb_status take_group_size(source from, size_t *out, nyb_err *err)
{
    const json_t *const value = json_object_get(from.object, "group_size");
    if (!value)
        return NYB_OK;
    if (!json_is_integer(value) || json_integer_value(value) < -1)
        return nyb_fail(err, NYB_E_FORMAT, "%s: 'group_size' is not -1 or a size", from.path);
    *out = json_integer_value(value) < 1 ? 0 : (size_t) json_integer_value(value);
    return NYB_OK;
}

static nyb_status take_bits(source from, unsigned *out, nyb_err *err)
{
    size_t bits = *out;
    const nyb_status status = nyb_json_size(from.object, "weight_bits", &bits, from.path, err);
    *out = bits < 99 ? (unsigned) bits : 99;
    return status;
}

static nyb_status take_refine(source from, unsigned *out, nyb_err *err)
{
    size_t rounds = *out;
    const nyb_status status = nyb_json_size(from.object, "refine", &rounds, from.path, err);
    *out = rounds <= NYB_REFINE_MOST ? (unsigned) rounds : NYB_REFINE_MOST + 1u;
    return status;
}

// What may stand beside settings: in the document, in a list's entry, and in the rest.
static const char *const document_keys[] = {"modules", "embedding", "head", NULL};
static const char *const entry_keys[] = {"pattern", NULL};
static const char *const no_keys[] = {NULL};

// Every key that an object of settings may have, and `also`.
static nyb_status check_keys(source from, const char *const *also, nyb_err *err)
{
    static const char *const keys[] = {"method",
                                       "weight_bits",
                                       "group_size",
                                       "symmetric",
                                       "scale_search",
                                       "activation_order",
                                       "static_groups",
                                       "hessian_damping",
                                       "float8_type",
                                       "float8_scales",
                                       "range",
                                       "percentile",
                                       "refine",
                                       "activations",
                                       "activation_range",
                                       "activation_percentile"};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *) (uintptr_t) from.object, key, value)
    {
        bool known = false;
        for (size_t i = 0; also[i]; i++)
            known |= strcmp(key, also[i]) == 0;
        for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
            known |= strcmp(key, keys[i]) == 0;
        if (!known)
            return nyb_fail(err, NYB_E_FORMAT, "%s: unknown setting '%s'", from.path, key);
    }
    return NYB_OK;
}

// Overwrites the settings that the object names.
static nyb_status take_settings(source from, nyb_settings *s, nyb_err *err)
{
    const nyb_settings before = *s;
    nyb_status status = take_method(from, s, err);
    if (status == NYB_OK)
        status = take_order(from, &s->order, err);
    if (status == NYB_OK)
        status = take_floats(from, s, err);
    if (status == NYB_OK)
        status = take_range(from, "range", "percentile", &s->range, err);
    if (status == NYB_OK)
        status = take_activations(from, s, err);
    if (status == NYB_OK)
        status = take_bits(from, &s->bits, err);
    if (status == NYB_OK)
        status = take_group_size(from, &s->group_size, err);
    if (status == NYB_OK)
        status = nyb_json_bool(from.object, "symmetric", &s->symmetric, from.path, err);
    if (status == NYB_OK)
        status = nyb_json_bool(from.object, "scale_search", &s->scale_search, from.path, err);
    if (status == NYB_OK)
        status = nyb_json_bool(from.object, "static_groups", &s->static_groups, from.path, err);
    if (status == NYB_OK)
        status = nyb_json_real(from.object, "hessian_damping", &s->damping, from.path, err);
    if (status == NYB_OK)
        status = take_refine(from, &s->refine, err);
    if (status == NYB_OK)
        status = check(s, from.path, err);
    if (status != NYB_OK)
        *s = before;
    return status;
}

nyb_status nyb_settings_take(const json_t *object, const char *const *also, const char *where,
                             nyb_settings *out, unsigned *given, nyb_err *err)
{
    static const struct {
        const char *key;
        unsigned setting;
    } pairs[] = {
        {"method", NYB_SETTING_METHOD},
        {"weight_bits", NYB_SETTING_BITS},
        {"group_size", NYB_SETTING_GROUP_SIZE},
        {"symmetric", NYB_SETTING_SYMMETRIC},
        {"scale_search", NYB_SETTING_SCALE_SEARCH},
        {"activation_order", NYB_SETTING_ORDER},
        {"static_groups", NYB_SETTING_STATIC_GROUPS},
        {"hessian_damping", NYB_SETTING_DAMPING},
        {"float8_type", NYB_SETTING_FLOAT8_TYPE},
        {"float8_scales", NYB_SETTING_FLOAT8_SCALES},
        {"range", NYB_SETTING_RANGE},
        {"percentile", NYB_SETTING_PERCENTILE},
        {"refine", NYB_SETTING_REFINE},
        {"activations", NYB_SETTING_ACTIVATIONS},
        {"activation_range", NYB_SETTING_INPUT_RANGE},
        {"activation_percentile", NYB_SETTING_INPUT_PERCENTILE},
    };
    const source from = {.object = object, .path = where};
    const nyb_status status = check_keys(from, also, err);
    *given = 0;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        *given |= json_object_get(object, pairs[i].key) ? pairs[i].setting : 0;
    return status == NYB_OK ? take_settings(from, out, err) : status;
}

// What a mode does with groups is not for the caller to say: they have zero points.
static nyb_settings settled(nyb_settings s)
{
    if (modes[s.method].bits && s.group_size)
        s.symmetric = false;
    return s;
}

static void apply_given(const nyb_recipe *r, nyb_settings *to, const nyb_quantize_params *params)
{
    const nyb_settings *const s = &params->settings;
    const unsigned given = params->given;
    if (given & NYB_SETTING_METHOD)
        change_method(to, s->method, r->int4_group);
    to->skip = to->skip && !(given & NYB_SETTING_METHOD);
    to->bits = given & NYB_SETTING_BITS ? s->bits : to->bits;
    to->group_size = given & NYB_SETTING_GROUP_SIZE ? s->group_size : to->group_size;
    to->symmetric = given & NYB_SETTING_SYMMETRIC ? s->symmetric : to->symmetric;
    to->scale_search = given & NYB_SETTING_SCALE_SEARCH ? s->scale_search : to->scale_search;
    to->order = given & NYB_SETTING_ORDER ? s->order : to->order;
    to->static_groups = given & NYB_SETTING_STATIC_GROUPS ? s->static_groups : to->static_groups;
    to->damping = given & NYB_SETTING_DAMPING ? s->damping : to->damping;
    to->refine = given & NYB_SETTING_REFINE ? s->refine : to->refine;
    to->activations = given & NYB_SETTING_ACTIVATIONS ? s->activations : to->activations;
    to->input_range.kind =
        given & NYB_SETTING_INPUT_RANGE ? s->input_range.kind : to->input_range.kind;
    to->input_range.percentile = given & NYB_SETTING_INPUT_PERCENTILE ? s->input_range.percentile
                                                                      : to->input_range.percentile;
    to->range.kind = given & NYB_SETTING_RANGE ? s->range.kind : to->range.kind;
    to->range.percentile =
        given & NYB_SETTING_PERCENTILE ? s->range.percentile : to->range.percentile;
    to->float8_type = given & NYB_SETTING_FLOAT8_TYPE ? s->float8_type : to->float8_type;
    to->float8_scales = given & NYB_SETTING_FLOAT8_SCALES ? s->float8_scales : to->float8_scales;
}

// What `object`, a part of the recipe, says.
static source part_of(const nyb_recipe *r, const json_t *object)
{
    return (source){.object = object, .path = r->path, .int4_group = r->int4_group};
}

static nyb_status check_modules(const nyb_recipe *r, nyb_err *err)
{
    const json_t *const modules = json_object_get(r->document, "modules");
    if (modules && !json_is_array(modules))
        return nyb_fail(err, NYB_E_FORMAT, "%s: 'modules' is not a list", r->path);

    size_t index;
    json_t *entry;
    json_array_foreach(modules, index, entry)
    {
        const source from = part_of(r, entry);
        nyb_settings trial = r->general;
        if (!json_is_string(json_object_get(entry, "pattern")))
            return nyb_fail(err, NYB_E_FORMAT, "%s: entry %zu of 'modules' has no 'pattern'",
                            r->path, index);
        nyb_status status = check_keys(from, entry_keys, err);
        if (status == NYB_OK)
            status = take_settings(from, &trial, err);
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}

static nyb_status merge(nyb_recipe *r, const nyb_quantize_params *params, nyb_err *err)
{
    if (r->document) {
        const source from = part_of(r, r->document);
        if (!json_is_object(r->document))
            return nyb_fail(err, NYB_E_FORMAT, "%s: a recipe is a JSON object", r->path);
        nyb_status status = check_keys(from, document_keys, err);
        if (status == NYB_OK)
            status = take_settings(from, &r->general, err);
        if (status != NYB_OK)
            return status;
    }
    apply_given(r, &r->general, params);
    r->general.block = params->settings.block;
    const nyb_status status = check(&r->general, "settings", err);
    return status == NYB_OK ? check_modules(r, err) : status;
}

static nyb_status open_recipe(nyb_recipe *out, const nyb_quantize_params *params, size_t int4_group,
                              nyb_err *err)
{
    *out = (nyb_recipe){
        .general = NYB_SETTINGS_DEFAULTS, .path = params->recipe, .int4_group = int4_group};
    if (params->recipe) {
        const nyb_status status = nyb_json_load(&out->document, params->recipe, err);
        if (status != NYB_OK)
            return status;
    }
    const nyb_status status = merge(out, params, err);
    if (status != NYB_OK)
        nyb_recipe_close(out);
    return status;
}

nyb_status nyb_recipe_open(nyb_recipe *out, const nyb_quantize_params *params, nyb_err *err)
{
    return open_recipe(out, params, 0, err);
}

nyb_status nyb_recipe_open_keras(nyb_recipe *out, const nyb_quantize_params *params, nyb_err *err)
{
    return open_recipe(out, params, 128, err); // the block_size of Keras' Int4QuantizationConfig
}

void nyb_recipe_close(nyb_recipe *recipe)
{
    json_decref(recipe->document);
    *recipe = (nyb_recipe){0};
}

nyb_status nyb_recipe_of(const nyb_recipe *recipe, const char *module, nyb_settings *out,
                         nyb_err *err)
{
    nyb_settings settings = recipe->general;
    size_t index;
    json_t *entry;
    json_array_foreach(json_object_get(recipe->document, "modules"), index, entry)
    {
        const char *const pattern = json_string_value(json_object_get(entry, "pattern"));
        const source from = part_of(recipe, entry);
        const nyb_status status =
            fnmatch(pattern, module, 0) == 0 ? take_settings(from, &settings, err) : NYB_OK;
        if (status != NYB_OK)
            return status;
    }
    *out = settled(settings);
    return NYB_OK;
}

nyb_status nyb_recipe_outer(const nyb_recipe *recipe, const char *key, const char *method,
                            nyb_settings *out, nyb_err *err)
{
    json_t *const entry = json_object_get(recipe->document, key);
    const source from = part_of(recipe, entry);
    nyb_settings s = recipe->general;
    nyb_status status = NYB_OK;
    s.skip = !entry;
    s.activations = NYB_ACTIVATIONS_NONE;
    if (entry && !json_is_object(entry))
        return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' is not an object of settings", recipe->path,
                        key);
    if (entry)
        status = check_keys(from, no_keys, err);
    if (status == NYB_OK && entry)
        status = take_settings(from, &s, err);
    if (status != NYB_OK)
        return status;
    if (method) {
        nyb_method wanted = s.method;
        s.skip = strcmp(method, "none") == 0;
        if (!s.skip && !nyb_method_by_name(method, &wanted))
            return nyb_fail(err, NYB_E_ARG, "the %s has no method '%s'", key, method);
        if (!s.skip)
            change_method(&s, wanted, recipe->int4_group);
    }
    if (!s.skip && s.method == NYB_METHOD_GPTQ)
        return nyb_fail(
            err, NYB_E_UNSUPPORTED,
            "the %s is rounded to nearest: give it the method rtn, int4, int8 or float8", key);
    if (!s.skip && s.activations != NYB_ACTIVATIONS_NONE)
        return nyb_fail(err, NYB_E_UNSUPPORTED, "the input of the %s is not rounded", key);
    *out = settled(s);
    return NYB_OK;
}

const char *nyb_recipe_unused(const nyb_recipe *recipe, const char *const *modules, size_t count)
{
    size_t index;
    json_t *entry;
    json_array_foreach(json_object_get(recipe->document, "modules"), index, entry)
    {
        const char *const pattern = json_string_value(json_object_get(entry, "pattern"));
        size_t i = 0;
        while (i < count && fnmatch(pattern, modules[i], 0) != 0)
            i++;
        if (i == count)
            return pattern;
    }
    return NULL;
}

json_t *nyb_settings_json(const nyb_settings *s)
{
    const json_int_t group = s->group_size ? (json_int_t) s->group_size : -1;
    json_t *const out =
        json_pack("{s:s, s:i, s:I, s:b, s:b, s:s, s:b, s:f, s:i}", "method",
                  s->skip ? "none" : nyb_method_name(s->method), "weight_bits", (int) s->bits,
                  "group_size", group, "symmetric", s->symmetric, "scale_search", s->scale_search,
                  "activation_order", nyb_gptq_order_name(s->order), "static_groups",
                  s->static_groups, "hessian_damping", s->damping, "refine", (int) s->refine);
    if (out && !s->skip && s->range.kind != NYB_RANGE_ABSMAX)
        json_object_set_new(out, "range", json_string(nyb_range_name(s->range.kind)));
    if (out && !s->skip && s->range.kind == NYB_RANGE_PERCENTILE && s->range.percentile > 0.0)
        json_object_set_new(out, "percentile", json_real(s->range.percentile));
    if (out && !s->skip && s->block != NYB_F32)
        json_object_set_new(out, "type", json_string(nyb_dtype_name(s->block)));
    if (out && !s->skip && s->activations != NYB_ACTIVATIONS_NONE)
        json_object_set_new(out, "activations", json_string(nyb_activations_name(s->activations)));
    if (out && !s->skip && s->activations >= NYB_ACTIVATIONS_INT8_STATIC) {
        json_object_set_new(out, "activation_range",
                            json_string(nyb_range_name(s->input_range.kind)));
        json_object_set_new(out, "activation_percentile", json_real(s->input_range.percentile));
    }
    if (out && !s->skip && s->method == NYB_METHOD_FLOAT8) {
        json_object_set_new(out, "float8_type", json_string(nyb_code_kind_name(s->float8_type)));
        json_object_set_new(out, "float8_scales", json_string(nyb_scales_name(s->float8_scales)));
    }
    return out;
}
