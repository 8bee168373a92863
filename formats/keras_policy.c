#include "formats/keras_policy.h"

#include <string.h>

static const char float32[] = "float32";

// ---- Objects --------------------------------------------------------------------------------

static json_t *object_of(const char *module, const char *class_name, json_t *config)
{
    return json_pack("{s:s, s:s, s:o, s:n}", "module", module, "class_name", class_name, "config",
                     config, "registered_name");
}

static json_t *quantizer(const char *class_name, json_t *config)
{
    return object_of("keras.quantizers", class_name, config);
}

json_t *nyb_keras_int8_config(void)
{
    json_t *const inputs =
        quantizer("AbsMaxQuantizer", json_pack("{s:[i, i], s:f, s:s}", "value_range", -127, 127,
                                               "epsilon", 1e-7, "output_dtype", "int8"));
    return quantizer("Int8QuantizationConfig",
                     json_pack("{s:n, s:o}", "weight_quantizer", "activation_quantizer", inputs));
}

json_t *nyb_keras_int4_config(long long block)
{
    return quantizer("Int4QuantizationConfig",
                     json_pack("{s:n, s:n, s:I}", "weight_quantizer", "activation_quantizer",
                               "block_size", (json_int_t) block));
}

json_t *nyb_keras_float8_config(void)
{
    return quantizer("Float8QuantizationConfig", json_object());
}

json_t *nyb_keras_gptq_config(unsigned bits, long long group, bool symmetric)
{
    // What only the calibration needs has Keras' defaults.
    return quantizer("GPTQConfig",
                     json_pack("{s:n, s:n, s:I, s:i, s:b, s:i, s:f, s:I, s:b, s:b, s:n}", "dataset",
                               "tokenizer", "weight_bits", (json_int_t) bits, "num_samples", 128,
                               "per_channel", true, "sequence_length", 512, "hessian_damping", 0.01,
                               "group_size", (json_int_t) group, "symmetric", symmetric,
                               "activation_order", false, "quantization_layer_structure"));
}

static const char *policy_class(const char *mode)
{
    if (strncmp(mode, "int4/", 5) == 0)
        return "Int4DTypePolicy";
    if (strncmp(mode, "gptq/", 5) == 0)
        return "GPTQDTypePolicy";
    return strcmp(mode, "float8") == 0 ? "QuantizedFloat8DTypePolicy" : "QuantizedDTypePolicy";
}

static json_t *make_policy(const char *mode, const char *source)
{
    json_t *const config = json_pack("{s:s, s:s}", "mode", mode, "source_name", source);
    if (strcmp(mode, "float8") == 0)
        json_object_set_new(config, "amax_history_length", json_integer(1024));
    return object_of("keras.dtype_policies", policy_class(mode), config);
}

// ---- Policies -------------------------------------------------------------------------------

static bool is_map(const json_t *policy)
{
    const char *const kind = json_string_value(json_object_get(policy, "class_name"));
    return kind && strcmp(kind, "DTypePolicyMap") == 0;
}

// Of a word, an object, or nothing.
static const char *name_of(const json_t *policy)
{
    if (json_is_string(policy))
        return json_string_value(policy);
    const json_t *const config = json_object_get(policy, "config");
    if (is_map(policy))
        return name_of(json_object_get(config, "default_policy"));
    if (json_object_get(config, "mode"))
        return NULL;
    const char *const name = json_string_value(json_object_get(config, "name"));
    return name ? name : float32;
}

const char *nyb_keras_source_policy(const nyb_keras_layer *layer)
{
    if (layer->mode)
        return NULL;
    const json_t *const config = layer->config   ? layer->config
                                 : layer->parent ? layer->parent->config
                                                 : NULL;
    return name_of(json_object_get(config, "dtype"));
}

// The map in the configuration of the layer around a sublayer; made where there is none.
static json_t *map_of(json_t *config, const char *source)
{
    json_t *const old = json_object_get(config, "dtype");
    if (is_map(old)) {
        json_t *const inner = json_object_get(old, "config");
        if (!json_is_object(json_object_get(inner, "policy_map")))
            json_object_set_new(inner, "policy_map", json_object());
        return json_object_get(inner, "policy_map");
    }
    json_t *const entries = json_object();
    json_t *const map =
        object_of("keras.dtype_policies", "DTypePolicyMap",
                  json_pack("{s:s, s:O}", "default_policy", source, "policy_map", entries));
    const bool set = json_object_set_new(config, "dtype", map) == 0;
    json_decref(entries);
    return set ? entries : NULL;
}

char *nyb_keras_policy_key(nyb_arena *arena, const nyb_keras_layer *part)
{
    const char *const outer = part->parent->name;
    char *const key = nyb_arena_alloc(arena, 2 * (strlen(outer) + strlen(part->name)) + 16, 1);
    if (!key)
        return NULL;
    size_t n = 6;
    memcpy(key, "(.*/)?", n);
    const char *const names[3] = {outer, "/", part->name};
    for (size_t i = 0; i < 3; i++) {
        for (const char *c = names[i]; *c; c++) {
            if (strchr("\\^$.|?*+()[]{}", *c))
                key[n++] = '\\';
            key[n++] = *c;
        }
    }
    return key;
}

// The sublayer's entry in the map of the layer around it.
static bool set_entry(const nyb_keras_layer *layer, const char *source, json_t *policy)
{
    nyb_arena arena = {0};
    // A model of KerasHub is built by its own class: there the path is known.
    const bool hub = !*layer->parent->place;
    const char *const key = hub ? layer->scope : nyb_keras_policy_key(&arena, layer);
    json_t *const map = key ? map_of(layer->parent->config, source) : NULL;
    const bool set = map && json_object_set(map, key, policy) == 0;
    nyb_arena_clear(&arena);
    return set;
}

nyb_status nyb_keras_set_policy(const nyb_keras_layer *layer, const char *mode,
                                json_t *quantization, nyb_err *err)
{
    const char *const known = nyb_keras_source_policy(layer);
    const char *const source = known ? known : float32;
    json_t *const policy = make_policy(mode, source);
    bool set = policy != NULL;
    if (layer->config)
        set = set && json_object_set(layer->config, "dtype", policy) == 0 &&
              (!quantization ||
               json_object_set(layer->config, "quantization_config", quantization) == 0);
    else if (layer->parent && layer->parent->config)
        set = set && set_entry(layer, source, policy);
    json_decref(policy);
    return set ? NYB_OK : nyb_no_memory(err, layer->place, 1, 1);
}
