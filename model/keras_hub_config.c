#include "model/keras_hub_config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"

// A setting that has another name on each side.
typedef struct pair {
    const char *hub, *folder;
} pair;

static const pair llama_pairs[] = {
    {"vocabulary_size", "vocab_size"},          {"num_layers", "num_hidden_layers"},
    {"num_query_heads", "num_attention_heads"}, {"hidden_dim", "hidden_size"},
    {"intermediate_dim", "intermediate_size"},  {"num_key_value_heads", "num_key_value_heads"},
    {"layer_norm_epsilon", "rms_norm_eps"},     {0},
};

static const pair gemma_pairs[] = {
    {"vocabulary_size", "vocab_size"},
    {"num_layers", "num_hidden_layers"},
    {"num_query_heads", "num_attention_heads"},
    {"num_key_value_heads", "num_key_value_heads"},
    {"hidden_dim", "hidden_size"},
    {"intermediate_dim", "intermediate_size"},
    {"head_dim", "head_dim"},
    {"layer_norm_epsilon", "rms_norm_eps"},
    {"sliding_window_size", "sliding_window"},
    {"attention_logit_soft_cap", "attn_logit_softcapping"},
    {"final_logit_soft_cap", "final_logit_softcapping"},
    {0},
};

static const pair gpt2_pairs[] = {
    {"vocabulary_size", "vocab_size"},
    {"num_layers", "n_layer"},
    {"num_heads", "n_head"},
    {"hidden_dim", "n_embd"},
    {"intermediate_dim", "n_inner"},
    {"max_sequence_length", "n_positions"},
    {0},
};

// What a setting has to be for the two to be the same model; a key that is not there is.
typedef struct demand {
    const char *key;
    enum { IS_FALSE, IS_TRUE, IS_NULL, IS_NUMBER, IS_TEXT } what;
    double number;
    const char *text;
} demand;

static const demand llama_of_hub[] = {
    {.key = "rope_position_scaling_factor", .what = IS_NUMBER, .number = 1.0},
    {0},
};

static const demand gemma_of_hub[] = {
    {.key = "use_query_key_norm", .what = IS_TRUE},
    {.key = "use_post_ffw_norm", .what = IS_TRUE},
    {.key = "use_post_attention_norm", .what = IS_TRUE},
    {.key = "use_bidirectional_attention", .what = IS_FALSE},
    {.key = "is_embedding_model", .what = IS_FALSE},
    {.key = "vision_encoder", .what = IS_NULL},
    {.key = "layer_norm_epsilon", .what = IS_NUMBER, .number = 1e-6}, // blocks know no other
    {.key = "local_rope_scaling_factor", .what = IS_NUMBER, .number = 1.0},
    {0},
};

static const demand none[] = {{0}};

static const demand llama_of_folder[] = {
    {.key = "hidden_act", .what = IS_TEXT, .text = "silu"},
    {.key = "attention_bias", .what = IS_FALSE},
    {.key = "mlp_bias", .what = IS_FALSE},
    {.key = "pretraining_tp", .what = IS_NUMBER, .number = 1.0},
    {0},
};

static const demand gemma_of_folder[] = {
    {.key = "hidden_activation", .what = IS_TEXT, .text = "gelu_pytorch_tanh"},
    {.key = "attention_bias", .what = IS_FALSE},
    {.key = "tie_word_embeddings", .what = IS_TRUE},
    {.key = "use_bidirectional_attention", .what = IS_FALSE},
    {.key = "rms_norm_eps", .what = IS_NUMBER, .number = 1e-6},
    {.key = "rope_local_base_freq", .what = IS_NUMBER, .number = 10000.0},
    {.key = "rope_theta", .what = IS_NUMBER, .number = 1000000.0},
    {0},
};

static const demand gpt2_of_folder[] = {
    {.key = "activation_function", .what = IS_TEXT, .text = "gelu_new"},
    {.key = "layer_norm_epsilon", .what = IS_NUMBER, .number = 1e-5},
    {.key = "scale_attn_weights", .what = IS_TRUE},
    {.key = "scale_attn_by_inverse_layer_idx", .what = IS_FALSE},
    {.key = "reorder_and_upcast_attn", .what = IS_FALSE},
    {.key = "add_cross_attention", .what = IS_FALSE},
    {.key = "tie_word_embeddings", .what = IS_TRUE},
    {0},
};

typedef struct translation {
    const char *model_type;
    const char *architecture;
    const pair *pairs;
    const demand *of_hub, *of_folder;
} translation;

static const translation translations[] = {
    {"llama", "LlamaForCausalLM", llama_pairs, llama_of_hub, llama_of_folder},
    {"gemma3_text", "Gemma3ForCausalLM", gemma_pairs, gemma_of_hub, gemma_of_folder},
    {"gpt2", "GPT2LMHeadModel", gpt2_pairs, none, gpt2_of_folder},
};

static const translation *translation_of(const char *model_type)
{
    for (size_t i = 0; i < sizeof(translations) / sizeof(translations[0]); i++) {
        if (strcmp(translations[i].model_type, model_type) == 0)
            return &translations[i];
    }
    return NULL;
}

// One side that is read.
typedef struct side {
    const json_t *doc;
    const char *name; // of the checkpoint
    nyb_err *err;
} side;

static nyb_status refuse(const side *from, const char *key, nyb_err *err)
{
    char *const text = json_dumps(json_object_get(from->doc, key), JSON_ENCODE_ANY | JSON_COMPACT);
    const nyb_status status =
        nyb_fail(err, NYB_E_UNSUPPORTED,
                 "%s: '%s' is %.100s in config.json, which the other side cannot say", from->name,
                 key, text ? text : "?");
    free(text);
    return status;
}

static bool holds(const demand *d, const json_t *value)
{
    if (!value || (json_is_null(value) && d->what != IS_TRUE))
        return true;
    switch (d->what) {
    case IS_FALSE:
        return json_is_false(value);
    case IS_TRUE:
        return json_is_true(value);
    case IS_NULL:
        return false;
    case IS_NUMBER:
        return json_is_number(value) &&
               fabs(json_number_value(value) - d->number) <= 1e-7 * fabs(d->number);
    default:
        return json_is_string(value) && strcmp(json_string_value(value), d->text) == 0;
    }
}

static nyb_status check_demands(const side *from, const demand *demands, nyb_err *err)
{
    for (const demand *d = demands; d->key; d++) {
        if (!holds(d, json_object_get(from->doc, d->key)))
            return refuse(from, d->key, err);
    }
    return NYB_OK;
}

static void copy_pairs(json_t *to, const json_t *from, const pair *pairs, bool to_folder)
{
    for (const pair *p = pairs; p->hub; p++) {
        json_t *const value = json_object_get(from, to_folder ? p->hub : p->folder);
        if (value)
            (void) json_object_set(to, to_folder ? p->folder : p->hub, value);
    }
}

// Copies from[key] as to[name] where it is there.
static void copy_as(json_t *to, const char *name, const json_t *from, const char *key)
{
    json_t *const value = json_object_get(from, key);
    if (value)
        (void) json_object_set(to, name, value);
}

// As both sides call a type of floats.
static const char *type_name(nyb_dtype dtype)
{
    return dtype == NYB_BF16 ? "bfloat16" : dtype == NYB_F16 ? "float16" : "float32";
}

// ---- To a folder ----------------------------------------------------------------------------

static const pair llama_rope[] = {
    {"rope_frequency_adjustment_factor", "factor"},
    {"rope_low_freq_factor", "low_freq_factor"},
    {"rope_high_freq_factor", "high_freq_factor"},
    {"rope_pretraining_sequence_length", "original_max_position_embeddings"},
    {0},
};

static void set_llama(json_t *to, const json_t *from, bool tied)
{
    copy_as(to, "rope_theta", from, "rope_max_wavelength");
    json_object_set_new(to, "hidden_act", json_string("silu"));
    json_object_set_new(to, "attention_bias", json_false());
    json_object_set_new(to, "mlp_bias", json_false());
    json_object_set_new(to, "tie_word_embeddings", json_boolean(tied));
    const json_t *const factor = json_object_get(from, "rope_frequency_adjustment_factor");
    if (!factor || json_is_null(factor))
        return;
    json_t *const scaling = json_pack("{s:s}", "rope_type", "llama3");
    copy_pairs(scaling, from, llama_rope, true);
    json_object_set_new(to, "rope_scaling", scaling);
    // What was stretched reaches that much further.
    const double length =
        json_number_value(json_object_get(from, "rope_pretraining_sequence_length")) *
        json_number_value(factor);
    if (length >= 1.0 && length < 1e12)
        json_object_set_new(to, "max_position_embeddings", json_integer((json_int_t) length));
}

// Every sixth block sees all of the text.
static void set_gemma(json_t *to, const json_t *from)
{
    const bool window = json_is_true(json_object_get(from, "use_sliding_window_attention"));
    const json_int_t blocks = json_integer_value(json_object_get(from, "num_layers"));
    const double factor = json_number_value(json_object_get(from, "global_rope_scaling_factor"));
    json_t *const types = json_array();
    for (json_int_t i = 0; i < blocks && i < 10000; i++)
        json_array_append_new(
            types, json_string(window && i % 6 < 5 ? "sliding_attention" : "full_attention"));
    json_object_set_new(to, "layer_types", types);
    json_object_set_new(to, "hidden_activation", json_string("gelu_pytorch_tanh"));
    json_object_set_new(to, "attention_bias", json_false());
    json_object_set_new(to, "tie_word_embeddings", json_true());
    json_object_set_new(to, "rope_theta", json_real(1000000.0));
    json_object_set_new(to, "rope_local_base_freq", json_real(10000.0));
    copy_as(to, "query_pre_attn_scalar", from, "head_dim"); // whatever query_head_dim_normalize is
    if (factor != 0.0 && factor != 1.0)
        json_object_set_new(to, "rope_scaling",
                            json_pack("{s:s, s:f}", "rope_type", "linear", "factor", factor));
}

static void set_gpt2(json_t *to)
{
    json_object_set_new(to, "activation_function", json_string("gelu_new"));
    json_object_set_new(to, "layer_norm_epsilon", json_real(1e-5));
    json_object_set_new(to, "tie_word_embeddings", json_true());
}

// A setting of numbers that is null says nothing.
static void drop_nulls(json_t *doc)
{
    void *next = NULL;
    const char *key = NULL;
    json_t *value = NULL;
    json_object_foreach_safe(doc, next, key, value)
    {
        if (json_is_null(value))
            (void) json_object_del(doc, key);
    }
}

nyb_status nyb_hub_config(json_t **out, const nyb_keras_file *file, nyb_err *err)
{
    bool tied = false;
    const nyb_hub_family *const family = nyb_hub_family_of(file, &tied);
    *out = NULL;
    if (!family)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: a Keras model, but no KerasHub preset of Llama, Gemma 3 or GPT-2",
                        nyb_keras_path(file));
    const translation *const t = translation_of(nyb_hub_model_type(family));
    const side from = {.doc = json_object_get(nyb_keras_config(file), "config"),
                       .name = nyb_keras_path(file)};
    const nyb_status status = check_demands(&from, t->of_hub, err);
    if (status != NYB_OK)
        return status;
    json_t *const to =
        json_pack("{s:[s], s:s}", "architectures", t->architecture, "model_type", t->model_type);
    if (!to)
        return nyb_no_memory(err, "config.json", 1, 1);
    copy_pairs(to, from.doc, t->pairs, true);
    if (strcmp(t->model_type, "llama") == 0)
        set_llama(to, from.doc, tied);
    else if (strcmp(t->model_type, "gpt2") == 0)
        set_gpt2(to);
    else
        set_gemma(to, from.doc);
    drop_nulls(to);
    const nyb_hdf5_item *const table = nyb_keras_find(file, "layers/reversible_embedding/vars/0");
    if (table && nyb_dtype_is_float(table->tensor.dtype))
        json_object_set_new(to, "dtype", json_string(type_name(table->tensor.dtype)));
    *out = to;
    return NYB_OK;
}

// ---- To a preset ----------------------------------------------------------------------------

// Llama's positions: as they are, or stretched as Llama 3.1 does it.
static nyb_status take_llama_rope(json_t *to, const side *from, nyb_err *err)
{
    const json_t *const modern = json_object_get(from->doc, "rope_parameters");
    const bool old = !json_is_object(modern);
    const char *const key = old ? "rope_scaling" : "rope_parameters";
    const json_t *const scaling = json_object_get(from->doc, key);
    copy_as(to, "rope_max_wavelength", old ? from->doc : modern, "rope_theta");
    if (!json_is_object(scaling))
        return NYB_OK;
    const json_t *type = json_object_get(scaling, "rope_type");
    type = type ? type : json_object_get(scaling, "type");
    const char *const word = json_string_value(type);
    if (!word || strcmp(word, "default") == 0)
        return NYB_OK;
    if (strcmp(word, "llama3") != 0)
        return refuse(from, key, err);
    copy_pairs(to, scaling, llama_rope, false);
    return NYB_OK;
}

static nyb_status take_llama(json_t *to, const side *from, bool *tied, nyb_err *err)
{
    const json_int_t hidden = json_integer_value(json_object_get(from->doc, "hidden_size"));
    const json_int_t heads = json_integer_value(json_object_get(from->doc, "num_attention_heads"));
    const json_t *const dim = json_object_get(from->doc, "head_dim");
    *tied = json_is_true(json_object_get(from->doc, "tie_word_embeddings"));
    if (json_is_integer(dim) && heads > 0 && json_integer_value(dim) != hidden / heads)
        return refuse(from, "head_dim", err);
    if (!json_object_get(to, "num_key_value_heads"))
        json_object_set_new(to, "num_key_value_heads", json_integer(heads));
    json_object_set_new(to, "tie_word_embeddings", json_boolean(*tied));
    return take_llama_rope(to, from, err);
}

// Which blocks have a window, of which KerasHub knows two ways alone.
static nyb_status take_windows(json_t *to, const side *from, nyb_err *err)
{
    const json_t *const types = json_object_get(from->doc, "layer_types");
    const json_t *const pattern = json_object_get(from->doc, "sliding_window_pattern");
    const json_t *const window = json_object_get(from->doc, "sliding_window");
    bool sixth = true, full = true;
    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *const word = json_string_value(json_array_get(types, i));
        const bool slides = word && strcmp(word, "sliding_attention") == 0;
        sixth = sixth && slides == (i % 6 < 5);
        full = full && !slides;
    }
    if (!json_is_array(types) && json_is_integer(pattern) && json_integer_value(pattern) != 6)
        return refuse(from, "sliding_window_pattern", err);
    if (json_is_array(types) && !sixth && !full)
        return refuse(from, "layer_types", err);
    const bool slides = json_is_integer(window) && (json_is_array(types) ? sixth : true);
    json_object_set_new(to, "use_sliding_window_attention", json_boolean(slides));
    if (!json_is_integer(window))
        (void) json_object_del(to, "sliding_window_size");
    return NYB_OK;
}

static nyb_status check_rope(const side *from, const json_t *rope, double theta, bool scales,
                             nyb_err *err)
{
    const char *const word = json_string_value(json_object_get(rope, "rope_type"));
    const json_t *const base = json_object_get(rope, "rope_theta");
    const bool plain = !word || strcmp(word, "default") == 0;
    if ((!plain && !(scales && strcmp(word, "linear") == 0)) ||
        (base && json_number_value(base) != theta))
        return refuse(from, "rope_parameters", err);
    return NYB_OK;
}

static nyb_status take_gemma(json_t *to, const side *from, nyb_err *err)
{
    const json_t *const scalar = json_object_get(from->doc, "query_pre_attn_scalar");
    const json_t *const dim = json_object_get(from->doc, "head_dim");
    const json_t *const ropes = json_object_get(from->doc, "rope_parameters");
    const json_t *const local = json_object_get(ropes, "sliding_attention");
    const json_t *const global = json_is_object(ropes) ? json_object_get(ropes, "full_attention")
                                                       : json_object_get(from->doc, "rope_scaling");
    if (!json_is_integer(dim) || (scalar && json_number_value(scalar) != json_number_value(dim)))
        return refuse(from, json_is_integer(dim) ? "query_pre_attn_scalar" : "head_dim", err);
    nyb_status status = check_rope(from, local, 10000.0, false, err);
    if (status == NYB_OK)
        status = check_rope(from, global, 1000000.0, true, err);
    if (status == NYB_OK)
        status = take_windows(to, from, err);
    copy_as(to, "global_rope_scaling_factor", global, "factor");
    json_object_set_new(to, "query_head_dim_normalize", json_true());
    json_object_set_new(to, "use_query_key_norm", json_true());
    json_object_set_new(to, "use_post_ffw_norm", json_true());
    json_object_set_new(to, "use_post_attention_norm", json_true());
    json_object_set_new(to, "image_size", json_null());
    json_object_set_new(to, "vision_encoder", json_null());
    return status;
}

static nyb_status take_gpt2(json_t *to, const side *from)
{
    const json_t *const inner = json_object_get(from->doc, "n_inner");
    const json_int_t hidden = json_integer_value(json_object_get(from->doc, "n_embd"));
    if (!json_is_integer(inner) && hidden < INT64_MAX / 4)
        json_object_set_new(to, "intermediate_dim", json_integer(4 * hidden));
    return NYB_OK;
}

static json_t *whole(const nyb_hub_family *family, json_t *config, nyb_dtype dtype)
{
    const char *const type = type_name(dtype);
    char registered[64];
    (void) snprintf(registered, sizeof(registered), "keras_hub>%s", nyb_hub_class(family));
    json_object_set_new(config, "trainable", json_true());
    json_object_set_new(config, "dtype",
                        json_pack("{s:s, s:s, s:{s:s}, s:n}", "module", "keras", "class_name",
                                  "DTypePolicy", "config", "name", type, "registered_name"));
    return json_pack("{s:s, s:s, s:o, s:s}", "module", nyb_hub_module(family), "class_name",
                     nyb_hub_class(family), "config", config, "registered_name", registered);
}

nyb_status nyb_hub_config_make(json_t **out, bool *tied, const json_t *folder, nyb_dtype dtype,
                               const char *name, nyb_err *err)
{
    const side from = {.doc = folder, .name = name};
    const char *const model_type = json_string_value(json_object_get(folder, "model_type"));
    const nyb_hub_family *const family = model_type ? nyb_hub_family_of_model(model_type) : NULL;
    *out = NULL;
    *tied = true;
    if (!family)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: a model of type '%s'; presets are written of llama, gemma3_text and "
                        "gpt2",
                        name, model_type ? model_type : "?");
    const translation *const t = translation_of(model_type);
    json_t *const to = json_object();
    nyb_status status =
        to ? check_demands(&from, t->of_folder, err) : nyb_no_memory(err, "config.json", 1, 1);
    if (status == NYB_OK) {
        copy_pairs(to, folder, t->pairs, false);
        if (strcmp(model_type, "llama") == 0)
            status = take_llama(to, &from, tied, err);
        else if (strcmp(model_type, "gpt2") == 0)
            status = take_gpt2(to, &from);
        else
            status = take_gemma(to, &from, err);
    }
    if (status != NYB_OK) {
        json_decref(to);
        return status;
    }
    *out = whole(family, to, dtype);
    return *out ? NYB_OK : nyb_no_memory(err, "config.json", 1, 1);
}
