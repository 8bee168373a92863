// The quantization_config of compressed-tensors, whatever formats its layers have.
#include <stdio.h>
#include <string.h>

#include "formats/layout_parts.h"

static const char *strategy_of(const nyb_layout_spec *spec)
{
    if (spec->scale_rows)
        return spec->scale_rows == SIZE_MAX ? "tensor" : "block";
    return spec->group_size ? "group" : "channel";
}

// What readers do with a layer's input.
static const struct {
    const char *type, *strategy;
    bool dynamic;
} inputs[NYB_ACTIVATIONS_COUNT] = {
    [NYB_ACTIVATIONS_INT8] = {"int", "tensor", true},
    [NYB_ACTIVATIONS_FLOAT8] = {"float", "tensor", true},
    [NYB_ACTIVATIONS_INT8_PER_TOKEN] = {"int", "token", true},
    [NYB_ACTIVATIONS_FLOAT8_PER_TOKEN] = {"float", "token", true},
    [NYB_ACTIVATIONS_INT8_STATIC] = {"int", "tensor", false},
    [NYB_ACTIVATIONS_FLOAT8_STATIC] = {"float", "tensor", false},
};

static json_t *inputs_of(const nyb_layout_spec *spec)
{
    if (!inputs[spec->inputs].type)
        return json_null();
    return json_pack("{s:i, s:s, s:b, s:s, s:n, s:b}", "num_bits", 8, "type",
                     inputs[spec->inputs].type, "symmetric", true, "strategy",
                     inputs[spec->inputs].strategy, "group_size", "dynamic",
                     inputs[spec->inputs].dynamic);
}

static bool is_text(const json_t *object, const char *key, const char *usual, const char *text)
{
    const char *const value = json_string_value(json_object_get(object, key));
    return strcmp(value ? value : usual, text) == 0;
}

void nyb_layout_read_inputs(nyb_layout_spec *out, const json_t *scheme)
{
    const json_t *const bits = json_object_get(scheme, "num_bits");
    const json_t *const dynamic = json_object_get(scheme, "dynamic");
    out->inputs = NYB_ACTIVATIONS_NONE;
    out->other_inputs = scheme && !json_is_null(scheme);
    if (!out->other_inputs || json_is_false(json_object_get(scheme, "symmetric")) ||
        (bits && json_integer_value(bits) != 8) || json_is_string(dynamic))
        return;
    for (int i = 1; i < NYB_ACTIVATIONS_COUNT; i++) {
        if (is_text(scheme, "type", "int", inputs[i].type) &&
            is_text(scheme, "strategy", "tensor", inputs[i].strategy) &&
            json_is_true(dynamic) == inputs[i].dynamic) {
            out->inputs = (nyb_activation_kind) i;
            out->other_inputs = false;
        }
    }
}

// Readers forbid keys that they do not know, so nothing is added here.
static json_t *scheme_of(const nyb_layout_spec *spec)
{
    const bool blocks = spec->scale_rows && spec->scale_rows != SIZE_MAX;
    const bool grouped = spec->group_size != 0 && !blocks;
    json_t *const weights = json_pack(
        "{s:I, s:s, s:b, s:s, s:o, s:b}", "num_bits", (json_int_t) spec->bits, "type",
        spec->kind == NYB_CODE_INT ? "int" : "float", "symmetric", spec->symmetric, "strategy",
        strategy_of(spec), "group_size",
        grouped ? json_integer((json_int_t) spec->group_size) : json_null(), "dynamic", false);
    if (weights && blocks)
        json_object_set_new(
            weights, "block_structure",
            json_pack("[I, I]", (json_int_t) spec->scale_rows,
                      (json_int_t) (spec->group_size ? spec->group_size : spec->scale_rows)));
    return json_pack("{s:[], s:o, s:n, s:o}", "targets", "input_activations", inputs_of(spec),
                     "output_activations", "weights", weights);
}

static const nyb_layout *layout_of(const nyb_layout_module *module)
{
    return module->layout ? module->layout : &nyb_layout_compressed_tensors;
}

static bool alike(const nyb_layout_module *a, const nyb_layout_module *b)
{
    return layout_of(a) == layout_of(b) && nyb_layout_same_settings(&a->spec, &b->spec);
}

// The format of all quantised modules, or that there are several.
static const char *format_of(const nyb_layout_run *run)
{
    const char *format = NULL;
    for (size_t i = 0; i < run->count; i++) {
        if (!run->modules[i].quantized)
            continue;
        const char *const its = layout_of(&run->modules[i])->format;
        if (format && strcmp(format, its) != 0)
            return "mixed-precision";
        format = its;
    }
    return format ? format : nyb_layout_compressed_tensors.format;
}

// The modules with the settings of modules[first], as one config group. One group alone takes
// the class of all linear layers; several name their modules, because readers that fuse layers
// look at the class before they look at the parts' names.
static json_t *make_group(const nyb_layout_run *run, size_t first, bool alone)
{
    json_t *const group = scheme_of(&run->modules[first].spec);
    json_t *const targets = json_object_get(group, "targets");
    bool good = targets != NULL;

    if (alone && good)
        good = json_array_append_new(targets, json_string("Linear")) == 0;
    for (size_t i = first; i < run->count && good; i++) {
        const nyb_layout_module *const module = &run->modules[i];
        const bool named = !alone || module->outer;
        if (named && module->quantized && alike(module, &run->modules[first]))
            good = json_array_append_new(targets, json_string(module->name)) == 0;
    }
    if (good)
        return group;
    json_decref(group);
    return NULL;
}

// Whether no module before this one has its settings.
static bool is_first(const nyb_layout_run *run, size_t index)
{
    for (size_t i = 0; i < index; i++) {
        if (run->modules[i].quantized && alike(&run->modules[i], &run->modules[index]))
            return false;
    }
    return run->modules[index].quantized;
}

static size_t count_kinds(const nyb_layout_run *run)
{
    size_t kinds = 0;
    for (size_t i = 0; i < run->count; i++)
        kinds += is_first(run, i);
    return kinds;
}

// Whether something is packed that transformers (5.23) loads only when it dequantises while loading:
// zero points, and embeddings.
static bool wants_dequantizing(const nyb_layout_run *run)
{
    for (size_t i = 0; i < run->count; i++) {
        const nyb_layout_module *const m = &run->modules[i];
        if (m->quantized && (!m->spec.symmetric || m->embedding) &&
            layout_of(m) == &nyb_layout_compressed_tensors)
            return true;
    }
    return false;
}

static bool fill(const nyb_layout_run *run, json_t *groups, json_t *ignore)
{
    const size_t kinds = count_kinds(run);
    // Said only where readers would not think of it themselves: older ones do not know the key.
    const bool said = strcmp(format_of(run), nyb_layout_compressed_tensors.format) != 0;
    size_t made = 0;
    for (size_t i = 0; i < run->count; i++) {
        char key[32];
        const nyb_layout_module *const module = &run->modules[i];
        if (!module->quantized && json_array_append_new(ignore, json_string(module->name)) != 0)
            return false;
        if (!is_first(run, i))
            continue;
        (void) snprintf(key, sizeof(key), "group_%zu", made++);
        if (json_object_set_new(groups, key, make_group(run, i, kinds == 1)) != 0)
            return false;
        if (said && json_object_set_new(json_object_get(groups, key), "format",
                                        json_string(layout_of(module)->format)) != 0)
            return false;
    }
    return true;
}

json_t *nyb_layout_compressed_config(const nyb_layout_run *run)
{
    const char *const format = format_of(run);
    json_t *const document =
        json_pack("{s:s, s:s, s:s, s:n, s:n, s:[], s:{}}", "quant_method", "compressed-tensors",
                  "format", format, "quantization_status", "compressed", "global_compression_ratio",
                  "kv_cache_scheme", "ignore", "config_groups");
    bool good = document && fill(run, json_object_get(document, "config_groups"),
                                 json_object_get(document, "ignore"));
    // When it dequantises, transformers takes all layers to have one setting. Others do not look at
    // this key.
    if (good && wants_dequantizing(run) && count_kinds(run) == 1)
        good = json_object_set_new(document, "dequantize", json_true()) == 0;
    if (good)
        return document;
    json_decref(document);
    return NULL;
}
