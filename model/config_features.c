// Keys that ask for something which nybble does not compute, or computes for some families only.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/config_parts.h"

#define EXPERTS  "qwen2_moe qwen3_moe mixtral llama4_text deepseek_v2 deepseek_v3 kimi_k2 "
#define DEEPSEEK "deepseek_v2 deepseek_v3 kimi_k2 "

// They are fine when absent, null, false, empty, or equal to the number at which the feature does
// nothing.
static const struct {
    const char *key;
    const char *needs; // what is missing
    double idle;
    const char *types; // model types that have it, each between blanks; NULL: none
} features[] = {
    {"add_bias_linear", "biases", 0, NULL},
    {"add_cross_attention", "cross-attention", 0, NULL},
    {"add_qkv_bias", "biases of q, k and v", 0, NULL},
    {"alibi", "linear biases of the scores", 0, " falcon "},
    {"altup_num_inputs", "several residual streams", 1, NULL},
    {"apply_residual_connection_post_layernorm", "a residual from behind the norm", 0, NULL},
    {"attention_chunk_size", "attention in chunks", NAN, " llama4_text "},
    {"attention_multiplier", "a multiplier of the scores", NAN, NULL},
    {"attn_logit_softcapping", "a soft cap of the scores", NAN, " gemma2 "},
    {"attn_output_gate", "a gate of the attention's output", 0, NULL},
    {"audio_config", "sound", NAN, NULL},
    {"clip_qkv", "a limit of q, k and v", NAN, NULL},
    {"cross_attention_layers", "cross-attention", NAN, NULL},
    {"embedding_multiplier", "a multiplier of the embedding", 1, NULL},
    {"final_logit_softcapping", "a soft cap of the logits", NAN, " gemma2 gemma3_text "},
    {"hidden_size_per_layer_input", "embeddings for each layer", 0, NULL},
    {"is_decoder", "a decoder of this family", 0, " gpt_neox "},
    {"is_encoder_decoder", "an encoder beside a decoder", 0, NULL},
    {"kv_lora_rank", "latent attention", 0, " " DEEPSEEK},
    {"laurel_rank", "low-rank residuals", 0, NULL},
    {"linear_attn_config", "linear attention", NAN, NULL},
    {"logit_scale", "a scale of the logits", 1, NULL},
    {"logits_scaling", "a scale of the logits", 1, NULL},
    {"mamba_d_state", "state-space layers", 0, NULL},
    {"moe_layer_freq", "experts in some layers only", 1, NULL},
    {"n_routed_experts", "experts", 0, " " DEEPSEEK},
    {"n_shared_experts", "shared experts", 0, " " DEEPSEEK},
    {"new_decoder_architecture", "Falcon's decoder", 0, " falcon "},
    {"no_rope_layers", "layers without rotary positions", NAN, " smollm3 llama4_text "},
    {"num_experts", "experts", 0, " " EXPERTS},
    {"num_local_experts", "experts", 0, " " EXPERTS},
    {"parallel_attn", "attention and MLP side by side", 0, " falcon "},
    {"pruned_heads", "heads that are left out", NAN, NULL},
    {"q_lora_rank", "latent attention", 0, " " DEEPSEEK},
    {"qk_layernorm", "norms of queries and keys", 0, NULL},
    {"qk_norm", "norms of queries and keys", 0, NULL},
    {"qkv_bias", "biases of q, k and v", 0, " qwen2_moe "},
    {"relative_attention", "relative positions", 0, NULL},
    {"residual_multiplier", "a multiplier of the residual", 1, NULL},
    {"rope_interleaved", "a rope that turns neighbours", 0, NULL},
    {"scale_depth", "a scale of the residual", NAN, NULL},
    {"scale_emb", "a scale of the embedding", 1, NULL},
    {"shared_expert_intermediate_size", "shared experts", 0, " qwen2_moe "},
    {"sinusoidal_pos_embds", "positions that are not in the file", 0, " distilbert "},
    {"text_config", "a model inside a multimodal one; save its language model alone", NAN, NULL},
    {"use_alibi", "linear biases of the scores", 0, NULL},
    {"use_bidirectional_attention", "attention to later tokens", 0, NULL},
    {"use_parallel_residual", "attention and MLP side by side", 0, " gpt_neox "},
    {"use_qk_norm", "norms of queries and keys", 0, " llama4_text "},
    {"use_qkv_bias", "biases of q, k and v", 0, NULL},
    {"vision_config", "images", NAN, NULL},
};

// Keys whose words say how something is computed: only these words are.
static const struct {
    const char *key;
    const char *words; // each between blanks, lower case
    const char *types; // model types of which this holds; NULL: of all
} words[] = {
    {"position_embedding_type", " absolute ", " bert roberta distilbert gpt2 opt "},
    {"position_embedding_type", " absolute rope rotary ", NULL},
    {"scoring_func", " softmax ", " deepseek_v2 "},
    {"scoring_func", " sigmoid ", " deepseek_v3 kimi_k2 "},
    {"topk_method", " noaux_tc ", " deepseek_v3 kimi_k2 "},
};

// Keys that are a part of what is computed unless they say otherwise.
static const struct {
    const char *key, *needs;
} always[] = {
    {"is_causal", "attention to later tokens"},
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

static bool is_among(const char *list, const char *word)
{
    char spaced[64];
    (void) snprintf(spaced, sizeof(spaced), " %s ", word);
    for (size_t i = 0; spaced[i]; i++)
        spaced[i] = (char) (spaced[i] >= 'A' && spaced[i] <= 'Z' ? spaced[i] + 32 : spaced[i]);
    return list && strstr(list, spaced);
}

static void check_words(const nyb_config_reader *r, const char *type)
{
    const char *done = "";
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        const char *const word = json_string_value(json_object_get(r->doc, words[i].key));
        if (!word || strcmp(done, words[i].key) == 0 ||
            (words[i].types && !is_among(words[i].types, type)))
            continue;
        done = words[i].key;
        if (!is_among(words[i].words, word))
            nyb_misses_add(r->misses, "'%s' %.60s", words[i].key, word);
    }
}

// The class that the file was saved from tells which head it has.
static void check_head(const nyb_config_reader *r)
{
    static const char *const heads[] = {
        "ForTokenClassification",
        "ForQuestionAnswering",
        "ForMultipleChoice",
        "RewardModel",
        "ForMaskedLM",
        "ForPreTraining",
        "DoubleHeadsModel",
        "ForSequenceLabeling",
        "ForNextSentence",
        "ForRetrieval",
    };
    const nyb_arch *const arch = r->out->arch;
    const char *const class =
        json_string_value(json_array_get(json_object_get(r->doc, "architectures"), 0));
    bool strange = class && strstr(class, "ForSequenceClassification") && !arch->classifier.out;
    for (size_t i = 0; class && i < sizeof(heads) / sizeof(heads[0]); i++)
        strange |= strstr(class, heads[i]) != NULL;
    if (strange)
        nyb_misses_add(r->misses, "the head of a %.80s", class);
}

nyb_status nyb_config_features(const nyb_config_reader *r, nyb_err *err)
{
    const char *type = "";
    const nyb_status status = nyb_json_text(r->doc, "model_type", &type, r->name, err);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
        if (!is_idle(json_object_get(r->doc, features[i].key), features[i].idle) &&
            !is_among(features[i].types, type))
            nyb_misses_add(r->misses, "'%s' (%s)", features[i].key, features[i].needs);
    }
    for (size_t i = 0; i < sizeof(always) / sizeof(always[0]); i++) {
        if (json_is_false(json_object_get(r->doc, always[i].key)) &&
            !(r->out->arch && r->out->arch->bidirectional))
            nyb_misses_add(r->misses, "'%s' (%s)", always[i].key, always[i].needs);
    }
    check_words(r, type);
    if (r->out->arch)
        check_head(r);
    return NYB_OK;
}
