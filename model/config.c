#include "model/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/dtype.h"
#include "core/file.h"
#include "model/rope.h"

// No real model comes near these; they keep every product of two extents far from overflow.
enum {
    MOST_WIDTH = 1 << 24,
    MOST_BLOCKS = 1 << 14,
    MOST_HEADS = 1 << 16,
    MOST_HEAD_DIM = 1 << 14,
    MOST_POSITIONS = 1 << 30,
};

// Keys that ask for something which nybble does not compute. They are fine when absent, null,
// false, empty, or equal to the number at which the feature does nothing.
static const struct {
    const char *key;
    double idle;
} features[] = {
    {"alibi", 0},
    {"add_cross_attention", 0},
    {"attention_multiplier", NAN},
    {"attn_logit_softcapping", NAN},
    {"embedding_multiplier", 1},
    {"final_logit_softcapping", NAN},
    {"is_encoder_decoder", 0},
    {"logit_scale", 1},
    {"logits_scaling", 1},
    {"n_routed_experts", 0},
    {"no_rope_layers", NAN},
    {"num_experts", 0},
    {"num_local_experts", 0},
    {"parallel_attn", 0},
    {"qk_layernorm", 0},
    {"qk_norm", 0},
    {"residual_multiplier", 1},
    {"rope_interleaved", 0},
    {"scale_depth", NAN},
    {"scale_emb", 1},
    {"text_config", NAN},
    {"use_parallel_residual", 0},
    {"use_qk_norm", 0},
    {"vision_config", NAN},
};

static bool is_idle(const json_t *value, double idle)
{
    if (!value || json_is_null(value) || json_is_false(value))
        return true;
    if (json_is_array(value))
        return json_array_size(value) == 0;
    if (json_is_object(value))
        return json_object_size(value) == 0;
    return json_is_number(value) && json_number_value(value) == idle;
}

static nyb_status check_features(const json_t *doc, const char *name, nyb_err *err)
{
    for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
        if (!is_idle(json_object_get(doc, features[i].key), features[i].idle))
            return nyb_fail(err, NYB_E_UNSUPPORTED,
                            "%s: '%s' asks for a feature that is not supported", name,
                            features[i].key);
    }
    return NYB_OK;
}

// doc[key] in [low, high]. `absent` stands in for a missing or null key; 0: it has to be there.
static nyb_status read_size(size_t *out, const json_t *doc, const char *key, size_t absent,
                            size_t high, nyb_err *err, const char *name)
{
    size_t value = absent;
    const json_t *const found = json_object_get(doc, key);
    if (absent == 0 && (!found || json_is_null(found)))
        return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' is missing", name, key);
    const nyb_status status = nyb_json_size(doc, key, &value, name, err);
    if (status != NYB_OK)
        return status;
    if (value < 1 || value > high)
        return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' is %zu, want 1 to %zu", name, key, value,
                        high);
    *out = value;
    return NYB_OK;
}

static nyb_status read_arch(const nyb_arch **out, const json_t *doc, const char *name, nyb_err *err)
{
    const char *type = NULL;
    const nyb_status status = nyb_json_text(doc, "model_type", &type, name, err);
    if (status != NYB_OK)
        return status;
    if (!type)
        return nyb_fail(err, NYB_E_FORMAT, "%s: 'model_type' is missing", name);
    *out = nyb_arch_find(type);
    if (*out)
        return NYB_OK;

    char known[256] = "";
    size_t used = 0;
    for (size_t i = 0; nyb_arch_at(i) && used < sizeof(known); i++)
        used += (size_t) snprintf(known + used, sizeof(known) - used, "%s%s", i ? ", " : "",
                                  nyb_arch_at(i)->model_type);
    return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: model type '%s' is not supported, these are: %s",
                    name, type, known);
}

static nyb_status read_extents(nyb_model_config *out, const json_t *doc, const char *name,
                               nyb_err *err)
{
    const struct {
        size_t *to;
        const char *key;
        size_t absent, high;
    } sizes[] = {
        {&out->hidden, "hidden_size", 0, MOST_WIDTH},
        {&out->blocks, "num_hidden_layers", 0, MOST_BLOCKS},
        {&out->heads, "num_attention_heads", 0, MOST_HEADS},
        {&out->intermediate, "intermediate_size", 0, MOST_WIDTH},
        {&out->vocab, "vocab_size", 0, INT32_MAX},
        {&out->positions, "max_position_embeddings", 2048, MOST_POSITIONS},
    };
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const nyb_status status =
            read_size(sizes[i].to, doc, sizes[i].key, sizes[i].absent, sizes[i].high, err, name);
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}

static nyb_status read_heads(nyb_model_config *out, const json_t *doc, const char *name,
                             nyb_err *err)
{
    const json_t *const given = json_object_get(doc, "num_key_value_heads");
    const bool silent = !given && out->arch->default_kv_heads;
    nyb_status status =
        read_size(&out->kv_heads, doc, "num_key_value_heads",
                  silent ? out->arch->default_kv_heads : out->heads, MOST_HEADS, err, name);
    if (status != NYB_OK)
        return status;
    if (out->heads % out->kv_heads != 0)
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: 'num_attention_heads' is %zu, which is no multiple of the %zu "
                        "'num_key_value_heads'",
                        name, out->heads, out->kv_heads);

    const json_t *const dim = json_object_get(doc, "head_dim");
    if ((!dim || json_is_null(dim)) && out->hidden % out->heads != 0)
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: 'hidden_size' is %zu, which is no multiple of the %zu "
                        "'num_attention_heads', and there is no 'head_dim'",
                        name, out->hidden, out->heads);
    const size_t derived = out->hidden / out->heads;
    status =
        read_size(&out->head_dim, doc, "head_dim", derived ? derived : 1, MOST_HEAD_DIM, err, name);
    if (status != NYB_OK)
        return status;
    if (out->head_dim % 2 != 0)
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: the head size is %zu, rotary positions want it even", name,
                        out->head_dim);
    return NYB_OK;
}

// Every layer has to be of the kind that the rest of the configuration describes.
static nyb_status check_layer_types(const nyb_model_config *config, const json_t *doc,
                                    const char *name, nyb_err *err)
{
    const json_t *const types = json_object_get(doc, "layer_types");
    const char *const want = config->window ? "sliding_attention" : "full_attention";
    size_t index = 0;
    const json_t *type = NULL;
    if (types && !json_is_null(types) && !json_is_array(types))
        return nyb_fail(err, NYB_E_FORMAT, "%s: 'layer_types' is not a list", name);
    json_array_foreach(types, index, type)
    {
        const char *const text = json_string_value(type);
        if (!text || strcmp(text, want) != 0)
            return nyb_fail(err, NYB_E_UNSUPPORTED,
                            "%s: 'layer_types' has '%s' at %zu, only '%s' in every layer is "
                            "supported here",
                            name, text ? text : "no text", index, want);
    }
    return NYB_OK;
}

static nyb_status read_window(nyb_model_config *out, const json_t *doc, const char *name,
                              nyb_err *err)
{
    const json_t *const given = json_object_get(doc, "sliding_window");
    bool used = true;
    nyb_status status = nyb_json_bool(doc, "use_sliding_window", &used, name, err);
    if (status != NYB_OK)
        return status;

    size_t window = 0;
    if (!given)
        window = out->arch->default_window;
    else if (!json_is_null(given))
        status = read_size(&window, doc, "sliding_window", 0, MOST_POSITIONS, err, name);
    if (status != NYB_OK)
        return status;
    if (window && used && !out->arch->window)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: 'sliding_window' is %zu, which a model of type '%s' does not have",
                        name, window, out->arch->model_type);
    out->window = used ? window : 0;
    return check_layer_types(out, doc, name, err);
}

static nyb_status read_switches(nyb_model_config *out, const json_t *doc, const char *name,
                                nyb_err *err)
{
    const struct {
        bool *to;
        const char *key;
    } switches[] = {
        {&out->tied, "tie_word_embeddings"},
        {&out->attention_bias, "attention_bias"},
        {&out->mlp_bias, "mlp_bias"},
    };
    for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]); i++) {
        const nyb_status status = nyb_json_bool(doc, switches[i].key, switches[i].to, name, err);
        if (status != NYB_OK)
            return status;
    }
    if (!out->arch->biases && (out->attention_bias || out->mlp_bias))
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: a model of type '%s' has no biases, but '%s' "
                        "is true",
                        name, out->arch->model_type,
                        out->attention_bias ? "attention_bias" : "mlp_bias");
    return NYB_OK;
}

static nyb_status read_activation(const json_t *doc, const char *name, nyb_err *err)
{
    const char *act = "silu";
    const nyb_status status = nyb_json_text(doc, "hidden_act", &act, name, err);
    if (status != NYB_OK)
        return status;
    if (strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0)
        return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: activation '%s' is not supported, 'silu' is",
                        name, act);
    return NYB_OK;
}

static nyb_status read_norm(nyb_model_config *out, const json_t *doc, const char *name,
                            nyb_err *err)
{
    out->norm_eps = 1e-6;
    const nyb_status status = nyb_json_real(doc, "rms_norm_eps", &out->norm_eps, name, err);
    if (status != NYB_OK)
        return status;
    if (!(out->norm_eps >= 0.0 && out->norm_eps <= 1.0))
        return nyb_fail(err, NYB_E_FORMAT, "%s: 'rms_norm_eps' is %g, want 0 to 1", name,
                        out->norm_eps);
    return NYB_OK;
}

static nyb_status read_dtype(nyb_model_config *out, const json_t *doc, const char *name,
                             nyb_err *err)
{
    static const struct {
        const char *text;
        nyb_dtype dtype;
    } types[] = {{"float32", NYB_F32}, {"float16", NYB_F16}, {"bfloat16", NYB_BF16}};
    const char *text = "float32";
    nyb_status status = nyb_json_text(doc, "torch_dtype", &text, name, err);
    if (status == NYB_OK)
        status = nyb_json_text(doc, "dtype", &text, name, err);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (strcmp(text, types[i].text) == 0) {
            out->dtype = types[i].dtype;
            return NYB_OK;
        }
    }
    return nyb_fail(err, NYB_E_UNSUPPORTED,
                    "%s: dtype '%s' is not supported, float32, float16 and bfloat16 are", name,
                    text);
}

// One token id. -1 says that there is none, as some configurations have it.
static nyb_status read_id(size_t *out, bool *there, const json_t *value, const char *key,
                          const char *name, nyb_err *err)
{
    const json_int_t id = json_integer_value(value);
    if (!json_is_integer(value) || id < -1 || id > INT32_MAX)
        return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' holds no token id", name, key);
    *there = id >= 0;
    if (*there)
        *out = (size_t) id;
    return NYB_OK;
}

nyb_status nyb_eos_read(nyb_model_config *out, const json_t *value, const char *name, nyb_err *err)
{
    const size_t count = json_is_array(value) ? json_array_size(value) : 1;
    if (count > NYB_EOS_MAX)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: 'eos_token_id' has %zu ids, at most %d are "
                        "supported",
                        name, count, NYB_EOS_MAX);
    out->eos_count = 0;
    for (size_t i = 0; i < count; i++) {
        const json_t *const item = json_is_array(value) ? json_array_get(value, i) : value;
        bool there = false;
        const nyb_status status =
            read_id(&out->eos[out->eos_count], &there, item, "eos_token_id", name, err);
        if (status != NYB_OK)
            return status;
        out->eos_count += there;
    }
    return NYB_OK;
}

static nyb_status read_ids(nyb_model_config *out, const json_t *doc, const char *name, nyb_err *err)
{
    // What the families have when config.json does not mention them; null means none.
    const json_t *const bos = json_object_get(doc, "bos_token_id");
    const json_t *const eos = json_object_get(doc, "eos_token_id");
    nyb_status status = NYB_OK;
    out->has_bos = !bos;
    out->bos = 1;
    out->eos_count = !eos;
    out->eos[0] = 2;
    // Llama 3 lists its ids in some files even for bos; the first one counts.
    const json_t *const first = json_is_array(bos) ? json_array_get(bos, 0) : bos;
    if (first && !json_is_null(first))
        status = read_id(&out->bos, &out->has_bos, first, "bos_token_id", name, err);
    if (status == NYB_OK && eos && !json_is_null(eos))
        status = nyb_eos_read(out, eos, name, err);
    return status;
}

nyb_status nyb_model_config_read(nyb_model_config *out, const json_t *doc, const char *name,
                                 nyb_err *err)
{
    static nyb_status (*const readers[])(nyb_model_config *, const json_t *, const char *,
                                         nyb_err *) = {
        read_extents, read_heads, read_window,          read_switches,
        read_norm,    read_dtype, nyb_rope_config_read, read_ids,
    };
    *out = (nyb_model_config){0};
    if (!json_is_object(doc))
        return nyb_fail(err, NYB_E_FORMAT, "%s: not a JSON object", name);
    nyb_status status = read_arch(&out->arch, doc, name, err);
    if (status == NYB_OK)
        status = check_features(doc, name, err);
    if (status == NYB_OK)
        status = read_activation(doc, name, err);
    for (size_t i = 0; status == NYB_OK && i < sizeof(readers) / sizeof(readers[0]); i++)
        status = readers[i](out, doc, name, err);
    return status;
}

nyb_status nyb_model_config_load(nyb_model_config *out, const char *folder, nyb_err *err)
{
    nyb_arena arena = {0};
    json_t *doc = NULL;
    nyb_status status = NYB_OK;
    const char *const path = nyb_path_join(&arena, folder, "config.json");
    if (!path)
        status = nyb_no_memory(err, "a path", strlen(folder), 1);
    if (status == NYB_OK)
        status = nyb_json_load(&doc, path, err);
    if (status == NYB_OK)
        status = nyb_model_config_read(out, doc, path, err);
    json_decref(doc);
    nyb_arena_clear(&arena);
    return status;
}

size_t nyb_extent_of(const nyb_model_config *config, nyb_extent extent)
{
    switch (extent) {
    case NYB_EXTENT_QUERY:
        return config->heads * config->head_dim;
    case NYB_EXTENT_KEY:
        return config->kv_heads * config->head_dim;
    case NYB_EXTENT_INTERMEDIATE:
        return config->intermediate;
    case NYB_EXTENT_HIDDEN:
        break;
    }
    return config->hidden;
}
