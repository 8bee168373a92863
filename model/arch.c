#include "model/arch.h"

#include <string.h>

// The block that Llama made common: RMS norms before attention and MLP, rotary positions, grouped
// queries, a gated MLP.
#define LLAMA_STAGES                                                                               \
    .stage_count = 4,                                                                              \
    .stages =                                                                                      \
        {                                                                                          \
            {.norm = "input_layernorm",                                                            \
             .width = NYB_EXTENT_HIDDEN,                                                           \
             .then = NYB_THEN_ATTENTION,                                                           \
             .linears = {{"self_attn.q_proj", NYB_EXTENT_QUERY, NYB_BIAS_ATTENTION},               \
                         {"self_attn.k_proj", NYB_EXTENT_KEY, NYB_BIAS_ATTENTION},                 \
                         {"self_attn.v_proj", NYB_EXTENT_KEY, NYB_BIAS_ATTENTION}}},               \
            {.width = NYB_EXTENT_QUERY,                                                            \
             .then = NYB_THEN_RESIDUAL,                                                            \
             .linears = {{"self_attn.o_proj", NYB_EXTENT_HIDDEN, NYB_BIAS_ATTENTION}}},            \
            {.norm = "post_attention_layernorm",                                                   \
             .width = NYB_EXTENT_HIDDEN,                                                           \
             .then = NYB_THEN_GATE,                                                                \
             .linears = {{"mlp.gate_proj", NYB_EXTENT_INTERMEDIATE, NYB_BIAS_MLP},                 \
                         {"mlp.up_proj", NYB_EXTENT_INTERMEDIATE, NYB_BIAS_MLP}}},                 \
            {.width = NYB_EXTENT_INTERMEDIATE,                                                     \
             .then = NYB_THEN_RESIDUAL,                                                            \
             .linears = {{"mlp.down_proj", NYB_EXTENT_HIDDEN, NYB_BIAS_MLP}}},                     \
    },                                                                                             \
    .embedding = "model.embed_tokens", .block = "model.layers.", .final_norm = "model.norm",       \
    .head = "lm_head"

static const nyb_arch archs[] = {
    {.model_type = "llama",
     .about = "Llama 1 to 3, TinyLlama, SmolLM",
     .biases = true,
     LLAMA_STAGES},
    {.model_type = "mistral",
     .about = "Mistral",
     .window = true,
     .default_window = 4096,
     .default_kv_heads = 8,
     LLAMA_STAGES},
};

enum { ARCHS = sizeof(archs) / sizeof(archs[0]) };

const nyb_arch *nyb_arch_find(const char *model_type)
{
    for (size_t i = 0; i < ARCHS; i++) {
        if (strcmp(archs[i].model_type, model_type) == 0)
            return &archs[i];
    }
    return NULL;
}

const nyb_arch *nyb_arch_at(size_t index)
{
    return index < ARCHS ? &archs[index] : NULL;
}

size_t nyb_arch_linears(const nyb_arch_stage *stage)
{
    size_t count = 0;
    while (count < NYB_STAGE_LINEARS && stage->linears[count].name)
        count++;
    return count;
}
