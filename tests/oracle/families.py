"""Tiny random checkpoints of every family that nybble runs, made with transformers.

A family is a list of configurations: small sizes and odd settings, so that every switch of the
family is on in one of them and off in another. Gains and biases of norms are random too, since a
gain of 1 hides whether it is used. make() saves a checkpoint as a Hugging Face folder and gives
the model that it was made from.
"""

import math
import os

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
import transformers

torch.set_num_threads(1) # tiny models: threads cost more than they give

SIZES = dict(vocab_size=97, hidden_size=48, intermediate_size=80, num_hidden_layers=3,
             num_attention_heads=6, max_position_embeddings=64)


def sizes(**more):
    return {**SIZES, **more}


LLAMA3 = dict(rope_type="llama3", rope_theta=5e3, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=24)
YARN = dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=16)
YARN_DEEP = dict(YARN, mscale=0.707, mscale_all_dim=0.9, beta_fast=8.0, beta_slow=2.0)
DYNAMIC = dict(rope_type="dynamic", rope_theta=1e4, factor=2.0)
LINEAR = dict(rope_type="linear", rope_theta=1e4, factor=2.5)


def longrope(pairs, original=16, **more):
    return dict(rope_type="longrope", rope_theta=1e4, original_max_position_embeddings=original,
                short_factor=[1.0 + 0.1 * i for i in range(pairs)],
                long_factor=[1.5 + 0.4 * i for i in range(pairs)], **more)


EXPERTS = dict(num_experts=4, moe_intermediate_size=24, num_experts_per_tok=2)
LATENT = dict(num_key_value_heads=6, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=12, v_head_dim=10)
DEEP = dict(n_routed_experts=8, moe_intermediate_size=24, num_experts_per_tok=3, first_k_dense_replace=1,
            n_shared_experts=2, **LATENT)
GPT2 = dict(vocab_size=97, n_embd=48, n_layer=3, n_head=6, n_positions=64)
OPT = dict(vocab_size=97, hidden_size=48, ffn_dim=80, num_hidden_layers=3, num_attention_heads=6,
           max_position_embeddings=64, word_embed_proj_dim=48)
FALCON = dict(vocab_size=97, hidden_size=48, num_hidden_layers=3, num_attention_heads=6)
DISTIL = dict(vocab_size=97, dim=48, n_layers=3, n_heads=6, hidden_dim=80, max_position_embeddings=64)

# name: (configuration class, model class, [configurations])
FAMILIES = {
    "llama": ("Llama", "LlamaForCausalLM", [
        sizes(num_key_value_heads=2),
        sizes(num_key_value_heads=1, attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
        sizes(num_key_value_heads=3, head_dim=10, rope_parameters=LLAMA3, hidden_act="gelu"),
        sizes(rope_parameters=YARN), sizes(rope_parameters=dict(YARN, attention_factor=1.3, truncate=False)),
        sizes(rope_parameters=LINEAR), sizes(rope_parameters=DYNAMIC, max_position_embeddings=20),
        sizes(rope_parameters=longrope(4)),
    ]),
    "mistral": ("Mistral", "MistralForCausalLM", [
        sizes(num_key_value_heads=2, sliding_window=7),
        sizes(num_key_value_heads=6, sliding_window=None, head_dim=12),
    ]),
    "qwen2": ("Qwen2", "Qwen2ForCausalLM", [
        sizes(num_key_value_heads=2),
        sizes(num_key_value_heads=2, use_sliding_window=True, sliding_window=5, max_window_layers=1,
              tie_word_embeddings=True),
    ]),
    "qwen3": ("Qwen3", "Qwen3ForCausalLM", [
        sizes(num_key_value_heads=2, head_dim=16),
        sizes(num_key_value_heads=3, head_dim=6, attention_bias=True, tie_word_embeddings=True,
              rope_parameters=YARN, use_sliding_window=True, sliding_window=5, max_window_layers=2),
    ]),
    "phi3": ("Phi3", "Phi3ForCausalLM", [
        sizes(num_key_value_heads=2, pad_token_id=0),
        sizes(num_key_value_heads=6, pad_token_id=0, sliding_window=9, tie_word_embeddings=True,
              hidden_act="gelu_new"),
        sizes(num_key_value_heads=2, pad_token_id=0, original_max_position_embeddings=16,
              rope_parameters=longrope(4)),
        sizes(num_key_value_heads=2, pad_token_id=0, original_max_position_embeddings=48,
              rope_parameters=longrope(3, 48, partial_rotary_factor=0.75)),
    ]),
    "gemma": ("Gemma", "GemmaForCausalLM", [
        sizes(num_key_value_heads=2, head_dim=16),
        sizes(num_key_value_heads=1, head_dim=8, attention_bias=True),
    ]),
    "gemma2": ("Gemma2", "Gemma2ForCausalLM", [
        sizes(num_key_value_heads=2, head_dim=16, sliding_window=6, query_pre_attn_scalar=20,
              attn_logit_softcapping=3.0, final_logit_softcapping=2.0),
        sizes(num_key_value_heads=6, head_dim=8, sliding_window=9, attn_logit_softcapping=None,
              final_logit_softcapping=None),
    ]),
    "gemma3_text": ("Gemma3Text", "Gemma3ForCausalLM", [
        sizes(num_key_value_heads=2, head_dim=16, sliding_window=6, num_hidden_layers=7, query_pre_attn_scalar=16),
        sizes(num_key_value_heads=1, head_dim=8, sliding_window=5,
              layer_types=["full_attention", "sliding_attention", "full_attention"],
              final_logit_softcapping=3.0,
              rope_parameters=dict(full_attention=dict(LINEAR, rope_theta=5e4),
                                   sliding_attention=dict(rope_type="default", rope_theta=500.0))),
    ]),
    "olmo2": ("Olmo2", "Olmo2ForCausalLM", [
        sizes(num_key_value_heads=2), sizes(attention_bias=True, tie_word_embeddings=True),
    ]),
    "smollm3": ("SmolLM3", "SmolLM3ForCausalLM", [
        sizes(num_key_value_heads=2, no_rope_layer_interval=2, pad_token_id=0),
        sizes(num_key_value_heads=3, no_rope_layers=[0, 1, 1], pad_token_id=0, attention_bias=True, mlp_bias=True,
              use_sliding_window=True, sliding_window=5, tie_word_embeddings=False),
    ]),
    "gpt_neox": ("GPTNeoX", "GPTNeoXForCausalLM", [
        sizes(),
        sizes(use_parallel_residual=False, attention_bias=False, hidden_act="gelu_fast", tie_word_embeddings=True,
              rope_parameters=dict(rope_type="default", rope_theta=500.0, partial_rotary_factor=0.5)),
        sizes(rope_parameters=dict(rope_type="linear", rope_theta=1e4, factor=2.0, partial_rotary_factor=1.0)),
    ]),
    "gpt2": ("GPT2", "GPT2LMHeadModel", [
        GPT2, dict(GPT2, n_inner=52, activation_function="relu", scale_attn_by_inverse_layer_idx=True,
                   tie_word_embeddings=False),
        dict(GPT2, scale_attn_weights=False),
    ]),
    "opt": ("OPT", "OPTForCausalLM", [
        OPT, dict(OPT, word_embed_proj_dim=32, do_layer_norm_before=False),
        dict(OPT, enable_bias=False, layer_norm_elementwise_affine=False, activation_function="gelu"),
        dict(OPT, _remove_final_layer_norm=True, tie_word_embeddings=False),
    ]),
    "falcon": ("Falcon", "FalconForCausalLM", [
        FALCON, dict(FALCON, new_decoder_architecture=True, num_kv_heads=2, bias=True),
        dict(FALCON, alibi=True, bias=True, multi_query=False, parallel_attn=False),
        dict(FALCON, alibi=True, multi_query=True, ffn_hidden_size=100),
        dict(FALCON, new_decoder_architecture=True, num_kv_heads=3, num_ln_in_parallel_attn=1),
        dict(FALCON, multi_query=False, tie_word_embeddings=False),
    ]),
    "mixtral": ("Mixtral", "MixtralForCausalLM", [
        sizes(num_key_value_heads=2, num_local_experts=4),
        sizes(num_key_value_heads=3, num_local_experts=5, num_experts_per_tok=3, sliding_window=6),
    ]),
    "qwen2_moe": ("Qwen2Moe", "Qwen2MoeForCausalLM", [
        sizes(num_key_value_heads=2, shared_expert_intermediate_size=40, mlp_only_layers=[1], **EXPERTS),
        sizes(num_key_value_heads=2, shared_expert_intermediate_size=24, norm_topk_prob=True, qkv_bias=False,
              decoder_sparse_step=2, use_sliding_window=True, sliding_window=5, max_window_layers=2, **EXPERTS),
    ]),
    "qwen3_moe": ("Qwen3Moe", "Qwen3MoeForCausalLM", [
        sizes(num_key_value_heads=2, head_dim=16, **EXPERTS),
        sizes(num_key_value_heads=3, head_dim=8, norm_topk_prob=True, attention_bias=True, mlp_only_layers=[0],
              **EXPERTS),
    ]),
    "deepseek_v2": ("DeepseekV2", "DeepseekV2ForCausalLM", [
        sizes(q_lora_rank=20, **DEEP),
        sizes(q_lora_rank=None, n_group=4, topk_group=2, topk_method="group_limited_greedy",
              routed_scaling_factor=1.7, **DEEP),
        sizes(q_lora_rank=20, attention_bias=True, rope_parameters=YARN_DEEP, **DEEP),
    ]),
    "deepseek_v3": ("DeepseekV3", "DeepseekV3ForCausalLM", [
        sizes(q_lora_rank=20, n_group=4, topk_group=2, **DEEP),
        sizes(q_lora_rank=None, n_group=1, topk_group=1, norm_topk_prob=False, rope_interleave=False, **DEEP),
        sizes(q_lora_rank=20, n_group=2, topk_group=1, attention_bias=True, rope_parameters=YARN_DEEP, **DEEP),
    ]),
    "llama4_text": ("Llama4Text", "Llama4ForCausalLM", [
        sizes(num_key_value_heads=2, head_dim=8, num_local_experts=4, intermediate_size_mlp=64,
              interleave_moe_layer_step=2, attention_chunk_size=8),
        sizes(num_key_value_heads=3, head_dim=10, num_local_experts=3, num_experts_per_tok=2, num_hidden_layers=4,
              intermediate_size_mlp=64, use_qk_norm=False, attention_chunk_size=16, no_rope_layers=[1, 0, 1, 0],
              floor_scale=6, attn_scale=0.4),
    ]),
    "bert": ("Bert", "BertForSequenceClassification", [
        sizes(num_labels=3), sizes(num_labels=2, hidden_act="gelu_new", type_vocab_size=1),
    ]),
    "roberta": ("Roberta", "RobertaForSequenceClassification", [
        sizes(num_labels=3, type_vocab_size=1, max_position_embeddings=66), sizes(num_labels=5, pad_token_id=3,
                                                                                  max_position_embeddings=70),
    ]),
    "distilbert": ("DistilBert", "DistilBertForSequenceClassification", [
        dict(DISTIL, num_labels=3), dict(DISTIL, num_labels=2, activation="relu", sinusoidal_pos_embds=True),
    ]),
}

CASES = [(family, i) for family, (_, _, configs) in FAMILIES.items() for i in range(len(configs))]


def randomise(model, seed):
    """Weights whose products neither vanish nor explode, gains and biases that are not 1 and 0."""
    g = torch.Generator().manual_seed(seed)
    named = list(model.named_parameters()) + [
        (n, b) for n, b in model.named_buffers() if n.endswith("e_score_correction_bias")]
    with torch.no_grad():
        for name, p in named:
            noise = torch.randn(p.shape, generator=g, dtype=torch.float32)
            if p.ndim == 1:
                gain = "norm" in name.lower() or ".ln_" in name
                p.copy_(p + 0.3 * noise if gain and name.endswith("weight") else 0.3 * noise)
            elif "embed" in name or "wte" in name or "wpe" in name:
                p.copy_(noise)
            else:
                p.copy_(noise * 1.2 / math.sqrt(p.shape[-1]))


def make(family, index, folder, dtype=torch.float32):
    """Saves configuration `index` of the family into `folder`; gives the model in f32."""
    config_class, model_class, configs = FAMILIES[family]
    config = getattr(transformers, config_class + "Config")(**configs[index])
    torch.manual_seed(0)
    model = getattr(transformers, model_class)(config).eval()
    randomise(model, 1000 * list(FAMILIES).index(family) + index)
    model = model.to(dtype)
    model.save_pretrained(folder)
    return model.float()


VISION = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
              image_size=28, patch_size=14)

# Multimodal models: class, the family inside and which of its configurations, the rest.
WRAPPERS = {
    "gemma3": ("Gemma3", "gemma3_text", 0, dict(
        vision_config=VISION, mm_tokens_per_image=4, image_token_index=96, boi_token_index=95,
        eoi_token_index=94)),
    "mistral3": ("Mistral3", "mistral", 0, dict(
        vision_config=dict(VISION, model_type="pixtral"), image_token_index=96)),
    "llava": ("Llava", "llama", 0, dict(
        vision_config=dict(VISION, model_type="clip_vision_model"), image_token_index=96)),
    "llama4": ("Llama4", "llama4_text", 0, dict(vision_config=dict(
        VISION, vision_output_dim=32, projector_input_dim=32, projector_output_dim=32))),
}


def make_wrapped(name, folder):
    """Saves a multimodal model; gives it in f32."""
    prefix, family, index, rest = WRAPPERS[name]
    text = dict(FAMILIES[family][2][index], model_type=family)
    config = getattr(transformers, prefix + "Config")(text_config=text, **rest)
    torch.manual_seed(0)
    model = getattr(transformers, prefix + "ForConditionalGeneration")(config).eval()
    randomise(model, 77)
    model.save_pretrained(folder)
    return model.float()


def logits(model, ids):
    """f32 logits of ids [samples, length], a sample at a time."""
    with torch.no_grad():
        return torch.cat([model(input_ids=row[None], use_cache=False).logits for row in ids]).float()
