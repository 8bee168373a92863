#include "formats/quantization_rules.h"

#include <string.h>
#include <strings.h>

#include "formats/layout_parts.h"

nyb_status nyb_rules_check_bits(const nyb_quantization *q, size_t bits, const char *where,
                                nyb_err *err)
{
    if (bits == 2 || bits == 3 || bits == 4 || bits == 8)
        return NYB_OK;
    return nyb_fail(err, NYB_E_UNSUPPORTED,
                    "%s: %s has %zu-bit weights; nybble reads 2, 3, 4 and 8", q->name, where, bits);
}

// A key that may be missing or null, with its value.
static const json_t *given(const json_t *config, const char *key)
{
    const json_t *const value = json_object_get(config, key);
    return json_is_null(value) ? NULL : value;
}

// ---- GPTQ -----------------------------------------------------------------------------------

// group_size: -1 is one group per channel.
static nyb_status read_group(size_t *out, const nyb_quantization *q, const json_t *config,
                             nyb_err *err)
{
    const json_t *const value = given(config, "group_size");
    if (!value)
        return NYB_OK;
    const json_int_t size = json_integer_value(value);
    if (!json_is_integer(value) || size < -1 || size == 0 || size > INT32_MAX)
        return nyb_fail(err, NYB_E_FORMAT, "%s: 'group_size' is not -1 or a whole number above 0",
                        q->name);
    *out = size < 0 ? 0 : (size_t) size;
    return NYB_OK;
}

// Overwrites those settings that `config` has.
static nyb_status read_gptq_spec(nyb_layout_spec *spec, const nyb_quantization *q,
                                 const json_t *config, const char *where, nyb_err *err)
{
    size_t bits = spec->bits;
    nyb_status status = nyb_json_size(config, "bits", &bits, q->name, err);
    if (status == NYB_OK)
        status = nyb_rules_check_bits(q, bits, where, err);
    if (status == NYB_OK)
        status = read_group(&spec->group_size, q, config, err);
    if (status == NYB_OK)
        status = nyb_json_bool(config, "sym", &spec->symmetric, q->name, err);
    if (status == NYB_OK)
        status = nyb_json_bool(config, "desc_act", &spec->irregular, q->name, err);
    spec->bits = (unsigned) bits;
    return status;
}

static nyb_status find_version(const nyb_layout **out, const nyb_quantization *q,
                               const json_t *config, nyb_err *err)
{
    const char *format = NULL, *words = "int32";
    nyb_status status = nyb_json_text(config, "format", &format, q->name, err);
    if (status == NYB_OK)
        status = nyb_json_text(config, "checkpoint_format", &format, q->name, err);
    if (status == NYB_OK)
        status = nyb_json_text(config, "pack_dtype", &words, q->name, err);
    if (status != NYB_OK)
        return status;
    if (strcmp(words, "int32") != 0)
        return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: codes are packed into %s; nybble reads int32",
                        q->name, words);
    if (!format || strcmp(format, "gptq") == 0)
        *out = &nyb_layout_gptq;
    else if (strcmp(format, "gptq_v2") == 0)
        *out = &nyb_layout_gptq_v2;
    else
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: checkpoint_format '%s'; nybble reads gptq and gptq_v2", q->name,
                        format);
    return NYB_OK;
}

// `dynamic`: patterns with overrides; "-:" leaves a module as it is.
static nyb_status add_dynamic(nyb_quantization *q, const json_t *config, nyb_quantized base,
                              nyb_err *err)
{
    const char *key = NULL;
    json_t *value = NULL;
    json_t *const dynamic = json_object_get(config, "dynamic");

    if (given(config, "dynamic") && !json_is_object(dynamic) && !json_is_false(dynamic))
        return nyb_fail(err, NYB_E_FORMAT, "%s: 'dynamic' is not an object", q->name);
    json_object_foreach(dynamic, key, value)
    {
        const bool minus = strncmp(key, "-:", 2) == 0, plus = strncmp(key, "+:", 2) == 0;
        nyb_quantized answer = {0};
        nyb_status status = NYB_OK;
        if (!json_is_object(value))
            return nyb_fail(err, NYB_E_FORMAT, "%s: 'dynamic' entry '%s' is not an object", q->name,
                            key);
        if (!minus) {
            answer = base;
            status = read_gptq_spec(&answer.spec, q, value, key, err);
        }
        if (status == NYB_OK)
            status = nyb_rules_add(q, NYB_RULE_PATTERN, key + (minus || plus ? 2 : 0), answer, err);
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}

nyb_status nyb_rules_of_gptq(nyb_quantization *q, const json_t *config, nyb_err *err)
{
    nyb_quantized base = {.spec = {.symmetric = true}};
    bool head = false;
    nyb_status status = find_version(&base.layout, q, config, err);
    if (status == NYB_OK)
        status = read_gptq_spec(&base.spec, q, config, "the checkpoint", err);
    if (status == NYB_OK && !given(config, "group_size"))
        status =
            nyb_fail(err, NYB_E_FORMAT, "%s: the quantization config has no 'group_size'", q->name);
    if (status == NYB_OK)
        status = nyb_json_bool(config, "lm_head", &head, q->name, err);
    if (status == NYB_OK)
        status = add_dynamic(q, config, base, err);
    if (status == NYB_OK && !head)
        status = nyb_rules_add(q, NYB_RULE_PART, "lm_head", (nyb_quantized){0}, err);
    if (status == NYB_OK)
        status = nyb_rules_add(q, NYB_RULE_ALL, "", base, err);
    return status;
}

// ---- AWQ ------------------------------------------------------------------------------------

nyb_status nyb_rules_of_awq(nyb_quantization *q, const json_t *config, nyb_err *err)
{
    nyb_quantized base = {.layout = &nyb_layout_awq, .spec = {.bits = 4}};
    const char *version = "gemm";
    size_t bits = 4;
    bool zeros = true;
    nyb_status status = nyb_json_text(config, "format", &version, q->name, err);
    if (status == NYB_OK)
        status = nyb_json_text(config, "version", &version, q->name, err);
    if (status == NYB_OK && strcasecmp(version, "gemm") != 0)
        status = nyb_fail(err, NYB_E_UNSUPPORTED, "%s: AWQ version '%s'; nybble reads gemm",
                          q->name, version);
    if (status == NYB_OK)
        status = nyb_json_size(config, "bits", &bits, q->name, err);
    if (status == NYB_OK && bits != 4)
        status = nyb_fail(err, NYB_E_UNSUPPORTED, "%s: AWQ with %zu-bit weights; nybble reads 4",
                          q->name, bits);
    if (status == NYB_OK && !given(config, "group_size"))
        status =
            nyb_fail(err, NYB_E_FORMAT, "%s: the quantization config has no 'group_size'", q->name);
    if (status == NYB_OK)
        status = read_group(&base.spec.group_size, q, config, err);
    if (status == NYB_OK)
        status = nyb_json_bool(config, "zero_point", &zeros, q->name, err);
    base.spec.symmetric = !zeros;
    if (status == NYB_OK)
        status = nyb_rules_add_plain(q, config, "modules_to_not_convert", err);
    return status == NYB_OK ? nyb_rules_add(q, NYB_RULE_ALL, "", base, err) : status;
}

// ---- compressed-tensors ---------------------------------------------------------------------

static nyb_status refuse(const nyb_quantization *q, const char *what, nyb_err *err)
{
    return nyb_fail(err, NYB_E_UNSUPPORTED,
                    "%s: the quantization config has %s, which nybble does "
                    "not read",
                    q->name, what);
}

// Parts of a configuration that change what weights or activations mean.
static nyb_status check_features(const nyb_quantization *q, const json_t *config, nyb_err *err)
{
    static const char *const parts[] = {"kv_cache_scheme", "moe_sparsity_config",
                                        "transform_config"};
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        const json_t *const value = given(config, parts[i]);
        if (value && !(json_is_object(value) && json_object_size(value) == 0))
            return refuse(q, parts[i], err);
    }
    const json_t *const sparsity = given(config, "sparsity_config");
    const char *const kind = json_string_value(json_object_get(sparsity, "format"));
    if (json_object_size(sparsity) > 0 && (!kind || strcmp(kind, "dense") != 0))
        return refuse(q, "sparsity_config", err);
    return NYB_OK;
}

static const nyb_layout *const formats[] = {&nyb_layout_compressed_tensors,
                                            &nyb_layout_int_quantized, &nyb_layout_float_quantized};

// The layout of the format that `config` names; where it names none, *out stays.
static nyb_status read_format(const nyb_layout **out, const nyb_quantization *q,
                              const json_t *config, const char *where, nyb_err *err)
{
    const char *format = NULL;
    const nyb_status status = nyb_json_text(config, "format", &format, q->name, err);
    if (status != NYB_OK || !format)
        return status;
    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
        if (strcmp(format, formats[i]->format) == 0) {
            *out = formats[i];
            return NYB_OK;
        }
    }
    return nyb_fail(err, NYB_E_UNSUPPORTED,
                    "%s: %s is in format '%s'; nybble reads pack-quantized, "
                    "int-quantized and float-quantized",
                    q->name, where, format);
}

static nyb_status read_strategy(nyb_layout_spec *spec, const nyb_quantization *q,
                                const json_t *weights, const char *where, nyb_err *err)
{
    const char *strategy = NULL;
    size_t group = 0;
    nyb_status status = nyb_json_text(weights, "strategy", &strategy, q->name, err);
    const json_t *const size = given(weights, "group_size");
    // -1 is an older spelling of one group per channel.
    if (status == NYB_OK && !(json_is_integer(size) && json_integer_value(size) == -1))
        status = nyb_json_size(weights, "group_size", &group, q->name, err);
    if (status != NYB_OK)
        return status;
    if (!strategy)
        strategy = group ? "group" : "channel";

    if (strcmp(strategy, "group") == 0 && group > 0 && group <= INT32_MAX)
        spec->group_size = group;
    else if (strcmp(strategy, "channel") == 0)
        spec->group_size = 0;
    else if (strcmp(strategy, "group") == 0)
        return nyb_fail(err, NYB_E_FORMAT, "%s: %s has the strategy 'group' without a group_size",
                        q->name, where);
    else if (strcmp(strategy, "tensor") == 0 && spec->kind != NYB_CODE_INT)
        spec->scale_rows = SIZE_MAX;
    else if (strcmp(strategy, "block") == 0 && spec->kind != NYB_CODE_INT)
        return nyb_rules_read_block(spec, q, json_object_get(weights, "block_structure"),
                                    "block_structure", err);
    else
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: %s has the strategy '%s'; nybble reads 'group' and 'channel', and of "
                        "8-bit floats 'tensor' and 'block'",
                        q->name, where, strategy);
    return NYB_OK;
}

static nyb_status read_weights(nyb_layout_spec *spec, const nyb_quantization *q,
                               const json_t *weights, const char *where, nyb_err *err)
{
    const char *type = "int";
    size_t bits = 8;
    *spec = (nyb_layout_spec){.symmetric = true};
    nyb_status status = nyb_json_text(weights, "type", &type, q->name, err);
    if (status == NYB_OK)
        status = nyb_json_size(weights, "num_bits", &bits, q->name, err);
    if (status == NYB_OK)
        status = nyb_json_bool(weights, "symmetric", &spec->symmetric, q->name, err);
    if (status != NYB_OK)
        return status;
    if (strcmp(type, "float") == 0 && bits == 8 && spec->symmetric)
        spec->kind = NYB_CODE_E4M3;
    else if (strcmp(type, "int") != 0)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: %s has weights of type '%s' of %zu bits; nybble reads int, and "
                        "symmetric float of 8 bits",
                        q->name, where, type, bits);
    status = nyb_rules_check_bits(q, bits, where, err);
    spec->bits = (unsigned) bits;
    return status == NYB_OK ? read_strategy(spec, q, weights, where, err) : status;
}

// Floats are in the format for floats, and nothing else is.
static nyb_status check_kind(const nyb_layout *layout, const nyb_layout_spec *spec,
                             const nyb_quantization *q, const char *where, nyb_err *err)
{
    if ((layout == &nyb_layout_float_quantized) == (spec->kind != NYB_CODE_INT))
        return NYB_OK;
    return nyb_fail(err, NYB_E_FORMAT, "%s: %s has weights of type '%s' in format '%s'", q->name,
                    where, spec->kind == NYB_CODE_INT ? "int" : "float", layout->format);
}

static nyb_status read_scheme(nyb_quantized *out, const nyb_quantization *q, const json_t *group,
                              const char *where, nyb_err *err)
{
    const json_t *const weights = given(group, "weights");
    const nyb_layout *layout = out->layout;
    *out = (nyb_quantized){0};
    if (!json_is_object(group) || !json_is_array(json_object_get(group, "targets")))
        return nyb_fail(err, NYB_E_FORMAT, "%s: config group '%s' has no list of targets", q->name,
                        where);
    if (given(group, "output_activations"))
        return refuse(q, "quantised output activations", err);
    nyb_status status = read_format(&layout, q, group, where, err);
    if (status != NYB_OK || !weights)
        return status;
    if (!json_is_object(weights))
        return nyb_fail(err, NYB_E_FORMAT, "%s: 'weights' of config group '%s' is not an object",
                        q->name, where);
    status = read_weights(&out->spec, q, weights, where, err);
    nyb_layout_read_inputs(&out->spec, given(group, "input_activations"));
    if (status == NYB_OK)
        status = check_kind(layout, &out->spec, q, where, err);
    if (status == NYB_OK)
        out->layout = layout;
    return status;
}

// One entry of a target or ignore list. Class names other than Linear name no linear layer; they
// are told from module names by having no match, so they need no rule of their own.
static nyb_status add_target(nyb_quantization *q, const json_t *value, bool classes,
                             nyb_quantized answer, nyb_err *err)
{
    const char *const text = json_string_value(value);
    if (!text)
        return nyb_fail(err, NYB_E_FORMAT, "%s: a list of targets holds something not a string",
                        q->name);
    const bool is_class = strcmp(text, "Linear") == 0;
    if (is_class != classes)
        return NYB_OK;
    if (is_class)
        return nyb_rules_add(q, NYB_RULE_ALL, "", answer, err);
    if (strncmp(text, "re:", 3) == 0)
        return nyb_rules_add(q, NYB_RULE_PATTERN, text + 3, answer, err);
    return nyb_rules_add(q, NYB_RULE_NAME, text, answer, err);
}

static nyb_status add_list(nyb_quantization *q, const json_t *list, bool classes,
                           nyb_quantized answer, nyb_err *err)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const nyb_status status = add_target(q, json_array_get(list, i), classes, answer, err);
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}

// Names and patterns of all groups come before the class of any.
static nyb_status add_groups(nyb_quantization *q, json_t *groups, const nyb_layout *layout,
                             bool classes, nyb_err *err)
{
    const char *key = NULL;
    json_t *group = NULL;
    json_object_foreach(groups, key, group)
    {
        nyb_quantized answer = {.layout = layout};
        nyb_status status = read_scheme(&answer, q, group, key, err);
        if (status == NYB_OK)
            status = add_list(q, json_object_get(group, "targets"), classes, answer, err);
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}

nyb_status nyb_rules_of_compressed_tensors(nyb_quantization *q, const json_t *config, nyb_err *err)
{
    json_t *const groups = json_object_get(config, "config_groups");
    const json_t *const ignore = given(config, "ignore");
    const nyb_layout *layout = &nyb_layout_compressed_tensors;
    const char *format = NULL;
    nyb_status status = nyb_json_text(config, "format", &format, q->name, err);
    // With mixed precision each group names its own format.
    if (status == NYB_OK && !(format && strcmp(format, "mixed-precision") == 0))
        status = read_format(&layout, q, config, "the checkpoint", err);
    if (status == NYB_OK)
        status = check_features(q, config, err);
    if (status == NYB_OK && json_object_size(groups) == 0)
        status = nyb_fail(err, NYB_E_FORMAT, "%s: the quantization config has no 'config_groups'",
                          q->name);
    if (status == NYB_OK && ignore && !json_is_array(ignore))
        status = nyb_fail(err, NYB_E_FORMAT, "%s: 'ignore' is not a list", q->name);

    if (status == NYB_OK)
        status = add_list(q, ignore, false, (nyb_quantized){0}, err);
    if (status == NYB_OK)
        status = add_list(q, ignore, true, (nyb_quantized){0}, err);
    if (status == NYB_OK)
        status = add_groups(q, groups, layout, false, err);
    if (status == NYB_OK)
        status = add_groups(q, groups, layout, true, err);
    return status;
}
