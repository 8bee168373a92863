#include "model/arch.h"

// What most families took over from Llama.
#define LLAMA_NAMES                                                                                \
    .prefix = "model.", .embedding = "embed_tokens", .block = "layers.", .final_norm = "norm",     \
    .head = "lm_head", .ignored = rotary_buffers
#define LLAMA_ATTENTION                                                                            \
    .q = "self_attn.q_proj", .k = "self_attn.k_proj", .v = "self_attn.v_proj",                     \
    .o = "self_attn.o_proj"
#define LLAMA_NORMS                                                                                \
    .attention_norm = "input_layernorm", .mlp_norm = "post_attention_layernorm",                   \
    .pre_norm = {NULL, true}
#define LLAMA_MLP                                                                                  \
    .gate = "mlp.gate_proj", .up = "mlp.up_proj", .down = "mlp.down_proj", .activation = "silu"
#define LLAMA_BIASES                                                                               \
    .qkv_bias = {"attention_bias", false}, .o_bias = {"attention_bias", false},                    \
    .mlp_bias = {"mlp_bias", false}
#define LLAMA LLAMA_NAMES, LLAMA_ATTENTION, LLAMA_NORMS, LLAMA_MLP

#define UNTIED                                                                                     \
    {                                                                                              \
        "tie_word_embeddings", false                                                               \
    }
#define TIED                                                                                       \
    {                                                                                              \
        "tie_word_embeddings", true                                                                \
    }

static const char *const rotary_buffers[] = {".rotary_emb.inv_freq", NULL};
static const char *const mask_buffers[] = {".attn.bias", ".attn.masked_bias", NULL};
static const char *const neox_buffers[] = {".attention.bias", ".attention.masked_bias",
                                           ".rotary_emb.inv_freq", NULL};
static const char *const falcon_buffers[] = {".rotary.inv_freq", ".rotary_emb.inv_freq", NULL};
static const char *const opt_buffers[] = {"decoder.version", NULL};
// What lies behind the last states belongs to heads that are not run.
static const char *const encoder_buffers[] = {"embeddings.position_ids", "pooler.dense.weight",
                                              "pooler.dense.bias", NULL};

#define GEMMA                                                                                      \
    LLAMA_NAMES, LLAMA_ATTENTION,                                                                  \
        .norm = NYB_NORM_RMS_PLUS, .pre_norm = {NULL, true}, .attention_norm = "input_layernorm",  \
        .gate = "mlp.gate_proj", .up = "mlp.up_proj", .down = "mlp.down_proj",                     \
        .activation = "gelu_pytorch_tanh", .scaled_embedding = true, .tied = TIED,                 \
        .qkv_bias = {"attention_bias", false}, .o_bias = {"attention_bias", false}
#define GEMMA_BOTH_NORMS                                                                           \
    .attention_post_norm = "post_attention_layernorm", .mlp_norm = "pre_feedforward_layernorm",    \
    .mlp_post_norm = "post_feedforward_layernorm"

#define FALCON                                                                                     \
    .model_type = "falcon", .prefix = "transformer.", .embedding = "word_embeddings",              \
    .block = "h.", .final_norm = "ln_f", .head = "lm_head", .ignored = falcon_buffers,             \
    .norm = NYB_NORM_LAYER, .pre_norm = {NULL, true}, .qkv = "self_attention.query_key_value",     \
    .o = "self_attention.dense", .up = "mlp.dense_h_to_4h", .down = "mlp.dense_4h_to_h",           \
    .activation = "gelu", .tied = TIED, .alibi = {"alibi", false}, .qkv_bias = {"bias", false},    \
    .o_bias = {"bias", false}, .mlp_bias = {"bias", false}

#define ENCODER                                                                                    \
    .embedding = "embeddings.word_embeddings", .position = "embeddings.position_embeddings",       \
    .embedding_norm = "embeddings.LayerNorm", .norm = NYB_NORM_LAYER, .eps = 1e-12,                \
    .positions = NYB_POSITIONS_LEARNED, .bidirectional = true, .activation = "gelu",               \
    .qkv_bias = {NULL, true}, .o_bias = {NULL, true}, .mlp_bias = {NULL, true},                    \
    .ignored = encoder_buffers
#define BERT                                                                                       \
    ENCODER, .token_type = "embeddings.token_type_embeddings", .block = "encoder.layer.",          \
             .attention_norm = "attention.output.LayerNorm", .q = "attention.self.query",          \
             .k = "attention.self.key", .v = "attention.self.value",                               \
             .o = "attention.output.dense", .mlp_norm = "output.LayerNorm",                        \
             .up = "intermediate.dense", .down = "output.dense"

#define QWEN_EXPERTS                                                                               \
    .count_key = "num_experts", .router = "mlp.gate", .experts = "mlp.experts.",                   \
    .gate = "gate_proj", .up = "up_proj", .down = "down_proj",                                     \
    .normalize = {"norm_topk_prob", false}
#define DEEPSEEK_EXPERTS                                                                           \
    .count_key = "n_routed_experts", .router = "mlp.gate", .experts = "mlp.experts.",              \
    .gate = "gate_proj", .up = "up_proj", .down = "down_proj", .shared = "mlp.shared_experts."
#define DEEPSEEK                                                                                   \
    LLAMA,                                                                                         \
        .latent = {.q_a = "self_attn.q_a_proj",                                                    \
                   .q_norm = "self_attn.q_a_layernorm",                                            \
                   .q_b = "self_attn.q_b_proj",                                                    \
                   .kv_a = "self_attn.kv_a_proj_with_mqa",                                         \
                   .kv_norm = "self_attn.kv_a_layernorm",                                          \
                   .kv_b = "self_attn.kv_b_proj"},                                                 \
        .qkv_bias = {"attention_bias", false}, .o_bias = {"attention_bias", false}

#define DEEPSEEK_V3                                                                                \
    DEEPSEEK, .interleaved = {"rope_interleave", true}, .tied = UNTIED,                            \
              .experts = {DEEPSEEK_EXPERTS,                                                        \
                          .correction = "mlp.gate.e_score_correction_bias",                        \
                          .routing = NYB_ROUTE_SIGMOID,                                            \
                          .normalize = {"norm_topk_prob", true},                                   \
                          .always_grouped = true,                                                  \
                          .group_by_two = true,                                                    \
                          .default_top_k = 8}

static const nyb_arch archs[] = {
    {.model_type = "llama",
     .about = "Llama 1 to 3, TinyLlama, SmolLM 1 and 2",
     LLAMA,
     LLAMA_BIASES,
     .tied = UNTIED},
    {.model_type = "mistral",
     .about = "Mistral",
     LLAMA,
     .tied = UNTIED,
     .window = NYB_WINDOW_ALL,
     .default_window = 4096,
     .default_kv_heads = 8},
    {.model_type = "mixtral",
     .about = "Mixtral",
     LLAMA_NAMES,
     LLAMA_ATTENTION,
     LLAMA_NORMS,
     .activation = "silu",
     .eps = 1e-5,
     .theta = 1e6,
     .tied = UNTIED,
     .window = NYB_WINDOW_ALL,
     .default_kv_heads = 8,
     .experts = {.count_key = "num_local_experts",
                 .router = "block_sparse_moe.gate",
                 .experts = "block_sparse_moe.experts.",
                 .gate = "w1",
                 .up = "w3",
                 .down = "w2",
                 .normalize = {NULL, true},
                 .default_top_k = 2}},
    {.model_type = "qwen2",
     .about = "Qwen 1.5, 2 and 2.5",
     LLAMA,
     .qkv_bias = {NULL, true},
     .tied = UNTIED,
     .window_asked = true,
     .window = NYB_WINDOW_LATE},
    {.model_type = "qwen3",
     .about = "Qwen 3",
     LLAMA,
     .qkv_bias = {"attention_bias", false},
     .o_bias = {"attention_bias", false},
     .q_norm = "self_attn.q_norm",
     .k_norm = "self_attn.k_norm",
     .qk_norm = NYB_QK_HEAD,
     .tied = UNTIED,
     .window_asked = true,
     .window = NYB_WINDOW_LATE},
    {.model_type = "qwen2_moe",
     .about = "Qwen 1.5 and 2 with experts",
     LLAMA,
     .qkv_bias = {"qkv_bias", true},
     .tied = UNTIED,
     .window_asked = true,
     .window = NYB_WINDOW_EARLY_EVEN,
     .experts = {QWEN_EXPERTS, .shared = "mlp.shared_expert.",
                 .shared_gate = "mlp.shared_expert_gate", .default_top_k = 4}},
    {.model_type = "qwen3_moe",
     .about = "Qwen 3 with experts",
     LLAMA,
     .qkv_bias = {"attention_bias", false},
     .o_bias = {"attention_bias", false},
     .q_norm = "self_attn.q_norm",
     .k_norm = "self_attn.k_norm",
     .qk_norm = NYB_QK_HEAD,
     .tied = UNTIED,
     .window_asked = true,
     .window = NYB_WINDOW_ALL,
     .experts = {QWEN_EXPERTS, .default_top_k = 8}},
    {.model_type = "phi3",
     .about = "Phi 3 and 4",
     LLAMA_NAMES,
     LLAMA_NORMS,
     .qkv = "self_attn.qkv_proj",
     .o = "self_attn.o_proj",
     .gate_up = "mlp.gate_up_proj",
     .down = "mlp.down_proj",
     .activation = "silu",
     .eps = 1e-5,
     .rotary = 1.0,
     .tied = UNTIED,
     .window = NYB_WINDOW_ALL},
    {.model_type = "gemma", .about = "Gemma 1", GEMMA, .mlp_norm = "post_attention_layernorm"},
    {.model_type = "gemma2",
     .about = "Gemma 2",
     GEMMA,
     GEMMA_BOTH_NORMS,
     .query_scalar = true,
     .window = NYB_WINDOW_PATTERN,
     .pattern = 2,
     .default_window = 4096},
    {.model_type = "gemma3_text",
     .about = "Gemma 3, text only",
     GEMMA,
     GEMMA_BOTH_NORMS,
     .query_scalar = true,
     .q_norm = "self_attn.q_norm",
     .k_norm = "self_attn.k_norm",
     .qk_norm = NYB_QK_HEAD,
     .theta = 1e6,
     .two_ropes = true,
     .window = NYB_WINDOW_PATTERN,
     .pattern = 6,
     .default_window = 4096},
    {.model_type = "smollm3",
     .about = "SmolLM 3",
     LLAMA,
     LLAMA_BIASES,
     .tied = TIED,
     .theta = 2e6,
     .skips_rope = true,
     .window_asked = true,
     .window = NYB_WINDOW_UNTURNED,
     .default_kv_heads = 4},
    {.model_type = "olmo2",
     .about = "OLMo 2",
     LLAMA_NAMES,
     LLAMA_ATTENTION,
     LLAMA_MLP,
     .attention_post_norm = "post_attention_layernorm",
     .mlp_post_norm = "post_feedforward_layernorm",
     .post_only = true,
     .pre_norm = {NULL, true},
     .qkv_bias = {"attention_bias", false},
     .o_bias = {"attention_bias", false},
     .q_norm = "self_attn.q_norm",
     .k_norm = "self_attn.k_norm",
     .qk_norm = NYB_QK_ALL,
     .eps = 1e-5,
     .tied = UNTIED},
    {.model_type = "gpt_neox",
     .about = "GPT-NeoX, Pythia",
     .prefix = "gpt_neox.",
     .embedding = "embed_in",
     .block = "layers.",
     .final_norm = "final_layer_norm",
     .head = "embed_out",
     .ignored = neox_buffers,
     .norm = NYB_NORM_LAYER,
     .pre_norm = {NULL, true},
     .attention_norm = "input_layernorm",
     .mlp_norm = "post_attention_layernorm",
     .parallel = {"use_parallel_residual", true},
     .qkv = "attention.query_key_value",
     .o = "attention.dense",
     .qkv_order = NYB_QKV_GROUPED,
     .up = "mlp.dense_h_to_4h",
     .down = "mlp.dense_4h_to_h",
     .activation = "gelu",
     .rotary = 0.25,
     .tied = UNTIED,
     .qkv_bias = {"attention_bias", true},
     .o_bias = {"attention_bias", true},
     .mlp_bias = {NULL, true}},
    {.model_type = "gpt2",
     .about = "GPT-2",
     .prefix = "transformer.",
     .embedding = "wte",
     .position = "wpe",
     .block = "h.",
     .final_norm = "ln_f",
     .head = "lm_head",
     .ignored = mask_buffers,
     .norm = NYB_NORM_LAYER,
     .pre_norm = {NULL, true},
     .attention_norm = "ln_1",
     .mlp_norm = "ln_2",
     .qkv = "attn.c_attn",
     .o = "attn.c_proj",
     .up = "mlp.c_fc",
     .down = "mlp.c_proj",
     .conv1d = true,
     .activation = "gelu_new",
     .positions = NYB_POSITIONS_LEARNED,
     .scale_by_block = true,
     .tied = TIED,
     .qkv_bias = {NULL, true},
     .o_bias = {NULL, true},
     .mlp_bias = {NULL, true}},
    {.model_type = "opt",
     .about = "OPT",
     .prefix = "model.decoder.",
     .embedding = "embed_tokens",
     .position = "embed_positions",
     .project_in = "project_in",
     .project_out = "project_out",
     .block = "layers.",
     .final_norm = "final_layer_norm",
     .head = "lm_head",
     .ignored = opt_buffers,
     .norm = NYB_NORM_LAYER,
     .pre_norm = {"do_layer_norm_before", true},
     .attention_norm = "self_attn_layer_norm",
     .mlp_norm = "final_layer_norm",
     .q = "self_attn.q_proj",
     .k = "self_attn.k_proj",
     .v = "self_attn.v_proj",
     .o = "self_attn.out_proj",
     .up = "fc1",
     .down = "fc2",
     .activation = "relu",
     .positions = NYB_POSITIONS_LEARNED,
     .position_offset = 2,
     .tied = TIED,
     .qkv_bias = {"enable_bias", true},
     .o_bias = {"enable_bias", true},
     .mlp_bias = {"enable_bias", true}},
    {FALCON, .about = "Falcon 2, one norm for attention and MLP",
     .when = {{"new_decoder_architecture", 1, 0}, {"num_ln_in_parallel_attn", 1, 2}},
     .parallel = {NULL, true}, .attention_norm = "input_layernorm", .qkv_order = NYB_QKV_GROUPED},
    {FALCON, .about = "Falcon 40B and 180B", .when = {{"new_decoder_architecture", 1, 0}},
     .parallel = {NULL, true}, .attention_norm = "ln_attn", .mlp_norm = "ln_mlp",
     .qkv_order = NYB_QKV_GROUPED},
    {FALCON, .about = "Falcon 7B", .when = {{"parallel_attn", 1, 1}}, .parallel = {NULL, true},
     .multi_query = true, .attention_norm = "input_layernorm", .qkv_order = NYB_QKV_GROUPED},
    {FALCON, .about = "Falcon RW 1B", .multi_query = true, .attention_norm = "input_layernorm",
     .mlp_norm = "post_attention_layernorm", .qkv_order = NYB_QKV_GROUPED},
    {.model_type = "deepseek_v2",
     .about = "DeepSeek V2",
     DEEPSEEK,
     .mlp_bias = {"mlp_bias", false},
     .interleaved = {NULL, true},
     .tied = UNTIED,
     .experts = {DEEPSEEK_EXPERTS, .normalize = {NULL, false}, .default_top_k = 1}},
    {.model_type = "deepseek_v3", .about = "DeepSeek V3 and R1", DEEPSEEK_V3},
    {.model_type = "kimi_k2", .about = "Kimi K2", DEEPSEEK_V3},
    {.model_type = "llama4_text",
     .about = "Llama 4, text only",
     LLAMA_NAMES,
     LLAMA_ATTENTION,
     LLAMA_NORMS,
     .gate = "feed_forward.gate_proj",
     .up = "feed_forward.up_proj",
     .down = "feed_forward.down_proj",
     .activation = "silu",
     .qkv_bias = {"attention_bias", false},
     .o_bias = {"attention_bias", false},
     .eps = 1e-5,
     .theta = 5e5,
     .tied = UNTIED,
     .interleaved = {NULL, true},
     .qk_norm = NYB_QK_UNIT,
     .skips_rope = true,
     .window = NYB_WINDOW_CHUNKS,
     .default_window = 8192,
     .tuned = true,
     .default_kv_heads = 8,
     .experts = {.count_key = "num_local_experts",
                 .router = "feed_forward.router",
                 .experts = "feed_forward.experts.",
                 .gate = "gate_proj",
                 .up = "up_proj",
                 .down = "down_proj",
                 .fused_gate_up = "feed_forward.experts.gate_up_proj",
                 .fused_down = "feed_forward.experts.down_proj",
                 .shared = "feed_forward.shared_expert.",
                 .routing = NYB_ROUTE_INPUT,
                 .default_top_k = 1}},
    {.model_type = "bert",
     .about = "BERT sequence classifiers",
     .prefix = "bert.",
     BERT,
     .classifier = {.dense = "bert.pooler.dense", .out = "classifier", .activation = "tanh"}},
    {.model_type = "roberta",
     .about = "RoBERTa sequence classifiers",
     .prefix = "roberta.",
     BERT,
     .positions_after_pad = true,
     .classifier = {.dense = "classifier.dense",
                    .out = "classifier.out_proj",
                    .activation = "tanh"}},
    {.model_type = "distilbert",
     .about = "DistilBERT sequence classifiers",
     .prefix = "distilbert.",
     ENCODER,
     .block = "transformer.layer.",
     .attention_norm = "sa_layer_norm",
     .q = "attention.q_lin",
     .k = "attention.k_lin",
     .v = "attention.v_lin",
     .o = "attention.out_lin",
     .mlp_norm = "output_layer_norm",
     .up = "ffn.lin1",
     .down = "ffn.lin2",
     .classifier = {.dense = "pre_classifier", .out = "classifier", .activation = "relu"}},
};

const nyb_arch *nyb_arch_at(size_t index)
{
    return index < sizeof(archs) / sizeof(archs[0]) ? &archs[index] : NULL;
}
