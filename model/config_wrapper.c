#include "model/config_wrapper.h"

#include <string.h>

#include "core/memory.h"

// The defaults are those that transformers fills in where a file leaves them out.
static const nyb_wrapper wrappers[] = {
    {"gemma3", "gemma3_text",
     "{\"vocab_size\": 262208, \"num_attention_heads\": 8, \"num_key_value_heads\": 4, "
     "\"head_dim\": 256, \"hidden_size\": 2304, \"intermediate_size\": 9216, "
     "\"num_hidden_layers\": 26, \"max_position_embeddings\": 131072, "
     "\"query_pre_attn_scalar\": 256, \"sliding_window\": 4096}"},
    {"mistral3", "mistral", NULL},
    {"llama4", "llama4_text", NULL},
    {"llava", NULL,
     "{\"model_type\": \"llama\", \"vocab_size\": 32000, \"hidden_size\": 4096, "
     "\"intermediate_size\": 11008, \"num_hidden_layers\": 32, \"num_attention_heads\": 32}"},
};

static const struct {
    const char *start, *pattern;
} beside[] = {
    {"vision_tower.", "re:.*vision_tower.*"},
    {"vision_model.", "re:.*vision_model.*"},
    {"multi_modal_projector.", "re:.*multi_modal_projector.*"},
};

static const char *const prefixes[] = {"language_model.", "model.language_model."};

const nyb_wrapper *nyb_wrapper_at(size_t index)
{
    return index < sizeof(wrappers) / sizeof(wrappers[0]) ? &wrappers[index] : NULL;
}

const nyb_wrapper *nyb_wrapper_named(const char *model_type)
{
    for (size_t i = 0; nyb_wrapper_at(i); i++) {
        if (strcmp(wrappers[i].model_type, model_type) == 0)
            return &wrappers[i];
    }
    return NULL;
}

// What both levels of the file may say; the model inside counts first.
static void inherit(json_t *inside, const json_t *doc)
{
    static const char *const keys[] = {"bos_token_id", "eos_token_id", "pad_token_id", "dtype",
                                       "torch_dtype"};
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        json_t *const value = json_object_get(doc, keys[i]);
        const json_t *const own = json_object_get(inside, keys[i]);
        if (value && (!own || json_is_null(own)))
            json_object_set(inside, keys[i], value);
    }
    // It is the outer model that ties its head.
    json_t *const tied = json_object_get(doc, "tie_word_embeddings");
    if (tied)
        json_object_set(inside, "tie_word_embeddings", tied);
}

nyb_status nyb_wrapper_inside(json_t **out, const json_t *doc, const char *name, nyb_err *err)
{
    const char *const type = json_string_value(json_object_get(doc, "model_type"));
    const nyb_wrapper *const wrapper = type ? nyb_wrapper_named(type) : NULL;
    const json_t *const text = json_object_get(doc, "text_config");
    if (!wrapper) {
        *out = json_incref((json_t *) (uintptr_t) doc);
        return NYB_OK;
    }
    *out = NULL;
    if (!json_is_object(text))
        return nyb_fail(err, NYB_E_FORMAT, "%s: 'text_config' is missing", name);
    json_t *const defaults =
        wrapper->defaults ? json_loads(wrapper->defaults, 0, NULL) : json_object();
    json_t *const inside = json_copy((json_t *) (uintptr_t) text);
    const char *const own = json_string_value(json_object_get(inside, "model_type"));
    const char *const usual = json_string_value(json_object_get(defaults, "model_type"));
    if (inside && defaults) {
        if (!own || !usual || strcmp(own, usual) == 0) // they are those of one family
            json_object_update_missing(inside, defaults);
        inherit(inside, doc);
        if (wrapper->text_type)
            json_object_set_new(inside, "model_type", json_string(wrapper->text_type));
    }
    json_decref(defaults);
    *out = inside;
    return inside && defaults ? NYB_OK : nyb_no_memory(err, "a configuration", 1, 1);
}

bool nyb_wrapper_is_beside(const char *tensor)
{
    const char *const at = strncmp(tensor, "model.", 6) == 0 ? tensor + 6 : tensor;
    for (size_t i = 0; nyb_wrapper_pattern(i); i++) {
        if (strncmp(at, beside[i].start, strlen(beside[i].start)) == 0)
            return true;
    }
    return false;
}

const char *nyb_wrapper_pattern(size_t index)
{
    return index < sizeof(beside) / sizeof(beside[0]) ? beside[index].pattern : NULL;
}

const char *nyb_wrapper_prefix(size_t index)
{
    return index < sizeof(prefixes) / sizeof(prefixes[0]) ? prefixes[index] : NULL;
}
