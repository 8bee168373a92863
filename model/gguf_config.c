#include "model/gguf_config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/gguf_names.h"
#include "model/config.h"

// What is being translated.
typedef struct translation {
    const nyb_gguf *file;
    const nyb_gguf_arch *arch;
    json_t *doc;
    nyb_err *err;
} translation;

typedef struct rule {
    const char *key; // behind the architecture's name and a dot
    const char *to;  // in config.json
    enum { SIZE, REAL } kind;
    bool needed;
} rule;

static const rule rules[] = {
    {"embedding_length", "hidden_size", SIZE, true},
    {"block_count", "num_hidden_layers", SIZE, true},
    {"attention.head_count", "num_attention_heads", SIZE, true},
    {"attention.head_count_kv", "num_key_value_heads", SIZE, false},
    {"attention.key_length", "head_dim", SIZE, false},
    {"attention.sliding_window", "sliding_window", SIZE, false},
    {"feed_forward_length", "intermediate_size", SIZE, true},
    {"context_length", "max_position_embeddings", SIZE, false},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", REAL, false},
    {"attention.layer_norm_epsilon", "layer_norm_eps", REAL, false},
    {"rope.freq_base", "rope_theta", REAL, false},
    {"attn_logit_softcapping", "attn_logit_softcapping", REAL, false},
    {"final_logit_softcapping", "final_logit_softcapping", REAL, false},
    {"expert_count", "num_experts", SIZE, false},
    {"expert_used_count", "num_experts_per_tok", SIZE, false},
    {"expert_feed_forward_length", "moe_intermediate_size", SIZE, false},
    {"expert_shared_feed_forward_length", "shared_expert_intermediate_size", SIZE, false},
};

enum { RULES = sizeof(rules) / sizeof(rules[0]), KEY_ROOM = 128 };

static const char *key_of(char room[KEY_ROOM], const translation *t, const char *key)
{
    (void) snprintf(room, KEY_ROOM, "%s.%s", t->arch->name, key);
    return room;
}

// The shortest decimal that is this f32: what the model's author wrote.
static double plain_real(double value)
{
    char text[40];
    double read = value;
    for (int digits = 6; digits <= 9; digits++) {
        (void) snprintf(text, sizeof(text), "%.*g", digits, value);
        read = strtod(text, NULL);
        if ((float) read == (float) value)
            break;
    }
    return read;
}

static nyb_status set_value(const translation *t, const rule *r)
{
    char room[KEY_ROOM];
    const char *const key = key_of(room, t, r->key);
    const bool there = nyb_gguf_find(t->file, key) != NULL;
    size_t size = 0;
    double real = 0.0;
    if (!there && r->needed)
        return nyb_fail(t->err, NYB_E_FORMAT, "%s: has no '%s'", t->file->path, key);
    if (!there)
        return NYB_OK;
    const nyb_status status = r->kind == SIZE ? nyb_gguf_size(t->file, key, &size, t->err)
                                              : nyb_gguf_real(t->file, key, &real, t->err);
    if (status != NYB_OK)
        return status;
    json_object_set_new(t->doc, r->to,
                        r->kind == SIZE ? json_integer((json_int_t) size)
                                        : json_real(isfinite(real) ? plain_real(real) : -1.0));
    return NYB_OK;
}

static const nyb_tensor *tensor_named(const nyb_gguf *file, const char *name)
{
    for (size_t i = 0; i < file->count; i++) {
        if (strcmp(file->tensors[i].name, name) == 0)
            return &file->tensors[i];
    }
    return NULL;
}

static nyb_status set_vocabulary(const translation *t)
{
    const nyb_tensor *const embedding = tensor_named(t->file, "token_embd.weight");
    static const struct {
        const char *key, *to;
    } ids[] = {{"tokenizer.ggml.bos_token_id", "bos_token_id"},
               {"tokenizer.ggml.eos_token_id", "eos_token_id"}};
    if (!embedding || embedding->rank != 2)
        return nyb_fail(t->err, NYB_E_FORMAT, "%s: has no matrix 'token_embd.weight'",
                        t->file->path);
    json_object_set_new(t->doc, "vocab_size", json_integer((json_int_t) embedding->shape[0]));
    json_object_set_new(t->doc, "tie_word_embeddings",
                        json_boolean(!tensor_named(t->file, "output.weight")));
    for (size_t i = 0; i < 2; i++) {
        size_t id = SIZE_MAX;
        const nyb_status status = nyb_gguf_size(t->file, ids[i].key, &id, t->err);
        if (status != NYB_OK)
            return status;
        json_object_set_new(t->doc, ids[i].to,
                            id <= INT32_MAX ? json_integer((json_int_t) id) : json_null());
    }
    return NYB_OK;
}

static nyb_status set_scaling(const translation *t)
{
    char room[KEY_ROOM];
    nyb_gguf_text type = {"none", 4};
    double factor = 1.0;
    nyb_status status =
        nyb_gguf_string(t->file, key_of(room, t, "rope.scaling.type"), &type, t->err);
    if (status == NYB_OK)
        status = nyb_gguf_real(t->file, key_of(room, t, "rope.scaling.factor"), &factor, t->err);
    if (status != NYB_OK || (type.length == 4 && memcmp(type.at, "none", 4) == 0))
        return status;
    if (type.length != 6 || memcmp(type.at, "linear", 6) != 0)
        return nyb_fail(t->err, NYB_E_UNSUPPORTED,
                        "%s: positions scaled by '%.*s' are not supported in a GGUF file",
                        t->file->path, (int) (type.length < 40 ? type.length : 40), type.at);
    json_object_set_new(t->doc, "rope_scaling",
                        json_pack("{s:s, s:f}", "rope_type", "linear", "factor", factor));
    return NYB_OK;
}

// By how much Llama 3's scaling slows the positions of a pair (transformers,
// _compute_llama3_parameters, with its usual 1, 4 and 8192).
double nyb_gguf_llama3_divisor(double frequency, double factor)
{
    const double low = 1.0, high = 4.0, old = 8192.0;
    const double wavelength = 2.0 * 3.14159265358979323846 / frequency;
    if (wavelength < old / high)
        return 1.0;
    if (wavelength > old / low)
        return factor;
    const double smooth = (old / wavelength - low) / (high - low);
    return 1.0 / ((1.0 - smooth) / factor + smooth);
}

// A table of divisors stands in the file where config.json has Llama 3's rule. It is taken back to
// that rule, which has to give the same table.
static nyb_status set_divisors(const translation *t)
{
    const nyb_tensor *const table = tensor_named(t->file, "rope_freqs.weight");
    if (!table)
        return NYB_OK;
    const double theta = json_number_value(json_object_get(t->doc, "rope_theta"));
    const size_t pairs = table->rank == 1 ? table->shape[0] : 0;
    float largest = 0.0f;
    bool same = table->dtype == NYB_F32 && pairs > 0 && theta > 0.0;
    for (int pass = 0; pass < 2 && same; pass++) {
        for (size_t i = 0; i < pairs; i++) {
            float value;
            memcpy(&value, (const char *) table->at + i * sizeof(value), sizeof(value));
            if (pass == 0)
                largest = value > largest ? value : largest;
            const double frequency = pow(theta, -(double) i / (double) pairs);
            same &= pass == 0 || fabs(nyb_gguf_llama3_divisor(frequency, (double) largest) -
                                      (double) value) < 1e-3 * (double) value;
        }
    }
    if (!same)
        return nyb_fail(t->err, NYB_E_UNSUPPORTED,
                        "%s: 'rope_freqs.weight' is not Llama 3's scaling of positions, others are "
                        "not supported in a GGUF file",
                        t->file->path);
    json_object_set_new(t->doc, "rope_scaling",
                        json_pack("{s:s, s:f, s:f, s:f, s:i}", "rope_type", "llama3", "factor",
                                  (double) largest, "low_freq_factor", 1.0, "high_freq_factor", 4.0,
                                  "original_max_position_embeddings", 8192));
    return NYB_OK;
}

static json_t *factors_json(const nyb_tensor *table)
{
    json_t *const list = json_array();
    const size_t count = table && table->rank == 1 && table->dtype == NYB_F32 ? table->shape[0] : 0;
    for (size_t i = 0; list && i < count && i < 2 * (size_t) NYB_ROPE_FACTORS; i++) {
        float value;
        memcpy(&value, (const char *) table->at + i * sizeof(value), sizeof(value));
        json_array_append_new(list, json_real(isfinite(value) ? plain_real((double) value) : -1.0));
    }
    return list;
}

// Phi 3's two tables of divisors, for texts up to the original length and for longer ones.
static nyb_status set_factors(const translation *t)
{
    char room[KEY_ROOM];
    const nyb_tensor *const far = tensor_named(t->file, "rope_factors_long.weight");
    const nyb_tensor *const near = tensor_named(t->file, "rope_factors_short.weight");
    size_t original = 0;
    double magnitude = 1.0;
    if (!far && !near)
        return NYB_OK;
    nyb_status status = nyb_gguf_size(
        t->file, key_of(room, t, "rope.scaling.original_context_length"), &original, t->err);
    if (status == NYB_OK)
        status =
            nyb_gguf_real(t->file, key_of(room, t, "rope.scaling.attn_factor"), &magnitude, t->err);
    if (status != NYB_OK)
        return status;
    if (original == 0 || !isfinite(magnitude))
        return nyb_fail(t->err, NYB_E_FORMAT, "%s: has no '%s' for its 'rope_factors_long.weight'",
                        t->file->path, key_of(room, t, "rope.scaling.original_context_length"));
    json_object_set_new(t->doc, "original_max_position_embeddings",
                        json_integer((json_int_t) original));
    json_object_set_new(t->doc, "rope_scaling",
                        json_pack("{s:s, s:o, s:o, s:f}", "rope_type", "longrope", "short_factor",
                                  factors_json(near), "long_factor", factors_json(far),
                                  "attention_factor", plain_real(magnitude)));
    return NYB_OK;
}

// Keys that say nothing about the arithmetic, or are read elsewhere.
static const char *const harmless[] = {
    "vocab_size",
    "rope.dimension_count",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
    "rope.scaling.finetuned",
    "rope.freq_base_swa",
    "attention.value_length",
    "tensor_data_layout",
};

// What llama.cpp has built in for an architecture and a config.json says.
static const struct {
    const char *model_type, *json;
} built_in[] = {
    {"qwen3_moe", "{\"norm_topk_prob\": true}"},
    {"falcon", "{\"new_decoder_architecture\": true, \"num_ln_in_parallel_attn\": 1}"},
};

// A key that nobody reads could be a part of the model that is silently left out.
static nyb_status check_keys(const translation *t)
{
    const size_t length = strlen(t->arch->name);
    for (size_t i = 0; i < t->file->value_count; i++) {
        const char *const key = t->file->values[i].key;
        if (strncmp(key, t->arch->name, length) != 0 || key[length] != '.')
            continue;
        bool known = false;
        for (size_t k = 0; k < RULES && !known; k++)
            known = strcmp(key + length + 1, rules[k].key) == 0;
        for (size_t k = 0; k < sizeof(harmless) / sizeof(harmless[0]) && !known; k++)
            known = strcmp(key + length + 1, harmless[k]) == 0;
        if (!known)
            return nyb_fail(t->err, NYB_E_UNSUPPORTED, "%s: '%s' is not supported", t->file->path,
                            key);
    }
    return NYB_OK;
}

// What follows from the sizes of a head, where they are not the usual ones.
static nyb_status set_heads(const translation *t)
{
    char room[KEY_ROOM];
    const json_int_t hidden = json_integer_value(json_object_get(t->doc, "hidden_size"));
    const json_int_t heads = json_integer_value(json_object_get(t->doc, "num_attention_heads"));
    const json_int_t blocks = json_integer_value(json_object_get(t->doc, "num_hidden_layers"));
    const json_int_t given = json_integer_value(json_object_get(t->doc, "head_dim"));
    const size_t dim = (size_t) (given > 0 ? given : heads > 0 ? hidden / heads : 0);
    size_t turned = dim, values = dim;
    nyb_status status =
        nyb_gguf_size(t->file, key_of(room, t, "rope.dimension_count"), &turned, t->err);
    if (status == NYB_OK)
        status = nyb_gguf_size(t->file, key_of(room, t, "attention.value_length"), &values, t->err);
    if (status != NYB_OK)
        return status;
    if (values != dim)
        return nyb_fail(t->err, NYB_E_UNSUPPORTED,
                        "%s: heads of %zu keys and %zu values are not supported in a GGUF file",
                        t->file->path, dim, values);
    if (turned != dim && dim > 0)
        json_object_set_new(t->doc, "partial_rotary_factor",
                            json_real((double) turned / (double) dim));
    // The largest Gemma 2 and 3 scale by the width of the model, which the file does not say.
    const bool largest = (strcmp(t->arch->name, "gemma2") == 0 && blocks == 46) ||
                         (strcmp(t->arch->name, "gemma3") == 0 && blocks == 62);
    if (strcmp(t->arch->name, "gemma2") == 0 || strcmp(t->arch->name, "gemma3") == 0)
        json_object_set_new(t->doc, "query_pre_attn_scalar",
                            json_integer(largest && heads > 0 ? hidden / heads : (json_int_t) dim));
    return NYB_OK;
}

static void set_built_in(const translation *t)
{
    for (size_t i = 0; i < sizeof(built_in) / sizeof(built_in[0]); i++) {
        if (strcmp(built_in[i].model_type, t->arch->model_type) != 0)
            continue;
        json_t *const more = json_loads(built_in[i].json, 0, NULL);
        json_object_update(t->doc, more);
        json_decref(more);
    }
    if (t->arch->flat && t->arch->marker) // a norm of the attention's own
        json_object_set_new(t->doc, "num_ln_in_parallel_attn", json_integer(2));
}

static nyb_status translate(const translation *t)
{
    nyb_status status = check_keys(t);
    json_object_set_new(t->doc, "model_type", json_string(t->arch->model_type));
    for (size_t i = 0; i < RULES && status == NYB_OK; i++)
        status = set_value(t, &rules[i]);
    if (status == NYB_OK)
        status = set_vocabulary(t);
    if (status == NYB_OK)
        status = set_heads(t);
    if (status == NYB_OK && !json_object_get(t->doc, "rope_theta"))
        json_object_set_new(t->doc, "rope_theta", json_real(10000.0));
    if (status == NYB_OK)
        status = set_scaling(t);
    if (status == NYB_OK)
        status = set_divisors(t);
    set_built_in(t);
    return status == NYB_OK ? set_factors(t) : status;
}

nyb_status nyb_gguf_config(json_t **out, const nyb_gguf *file, nyb_err *err)
{
    nyb_gguf_text name = {"", 0};
    *out = NULL;
    nyb_status status = nyb_gguf_string(file, "general.architecture", &name, err);
    if (status != NYB_OK)
        return status;
    const translation t = {
        .file = file, .arch = nyb_gguf_arch_of_file(file, name), .doc = json_object(), .err = err};
    if (!t.doc)
        return nyb_no_memory(err, "a configuration", 1, 1);
    if (!t.arch)
        status = nyb_fail(err, NYB_E_UNSUPPORTED,
                          "%s: architecture '%.*s' is not supported in a GGUF file", file->path,
                          (int) (name.length < 60 ? name.length : 60), name.at);
    else
        status = translate(&t);
    if (status == NYB_OK)
        *out = t.doc;
    else
        json_decref(t.doc);
    return status;
}
