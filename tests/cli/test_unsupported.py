"""Configurations that nybble does not run: `inspect` names the family and everything that is missing, and
the commands that would run the model refuse it with the same words."""
import json
import re

import pytest

from test_inspect import LLAMA, inspect, write

QWEN_MOE = {**LLAMA, "model_type": "qwen2_moe", "num_experts": 4, "moe_intermediate_size": 8}
DEEPSEEK = {**LLAMA, "model_type": "deepseek_v2", "n_routed_experts": 4, "moe_intermediate_size": 8,
            "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
V3 = {**DEEPSEEK, "model_type": "deepseek_v3", "num_experts_per_tok": 2}
BERT = {**LLAMA, "model_type": "bert"}
GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 1, "n_head": 2, "vocab_size": 32}
ROPE = "default, linear, llama3, dynamic, yarn and longrope are"
TYPE = "model type '{}' (nybble help families lists those that are)"

# name: configuration, the start of the family's name (None: not known), all that is missing
CASES = {
    "unknown": ({**LLAMA, "model_type": "mamba"}, None, [TYPE.format("mamba")]),
    "unknown with odd words": (
        {**LLAMA, "model_type": "foo", "hidden_act": "xielu", "rope_scaling": {"rope_type": "ntk"},
         "torch_dtype": "int4"}, None,
        [TYPE.format("foo"), "activation 'xielu'", f"rope type 'ntk' ({ROPE})",
         "dtype 'int4' (float32, float16 and bfloat16 are)"]),
    "unknown and multimodal": (
        {"model_type": "qwen2_vl", "vision_config": {"depth": 2}, "text_config": LLAMA}, None,
        [TYPE.format("qwen2_vl"), "'text_config' (a model inside a multimodal one; save its language model alone)",
         "'vision_config' (images)"]),
    "granite": (
        {**LLAMA, "model_type": "granite", "attention_multiplier": 0.5, "embedding_multiplier": 12.0,
         "residual_multiplier": 0.2, "logits_scaling": 8.0}, None,
        [TYPE.format("granite"), "'attention_multiplier' (a multiplier of the scores)",
         "'embedding_multiplier' (a multiplier of the embedding)", "'logits_scaling' (a scale of the logits)",
         "'residual_multiplier' (a multiplier of the residual)"]),
    "rope": ({**LLAMA, "rope_scaling": {"rope_type": "ntk", "factor": 2.0}}, "Llama", [f"rope type 'ntk' ({ROPE})"]),
    "rope in several axes": (
        {**LLAMA, "model_type": "qwen2", "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}, "Qwen",
        ["'mrope_section' of the rope (positions in several axes)", f"rope type 'mrope' ({ROPE})"]),
    "rope of a part": ({**LLAMA, "partial_rotary_factor": 0.5}, "Llama", ["'partial_rotary_factor' 0.5 (1 is)"]),
    "rope for each kind of layer": (
        {**LLAMA, "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1.0}}}, "Llama",
        ["rope settings for layers of type 'full_attention'"]),
    "activation": ({**LLAMA, "hidden_act": "xielu"}, "Llama", ["activation 'xielu'"]),
    "biases": ({**LLAMA, "model_type": "mistral", "num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True, "use_qkv_bias": True},
               "Mistral", ["'use_qkv_bias' (biases of q, k and v)", "'attention_bias' (biases)", "'mlp_bias' (biases)"]),
    "attention": (
        {**LLAMA, "clip_qkv": 8.0, "attn_logit_softcapping": 50.0, "alibi": True, "attention_chunk_size": 64}, "Llama",
        ["'alibi' (linear biases of the scores)", "'attention_chunk_size' (attention in chunks)",
         "'attn_logit_softcapping' (a soft cap of the scores)", "'clip_qkv' (a limit of q, k and v)"]),
    "linear attention": (
        {**LLAMA, "model_type": "qwen3", "layer_types": ["linear_attention"]}, "Qwen 3",
        ["layers of type 'linear_attention' ('layer_types'; full_attention and sliding_attention are)"]),
    "window": ({**LLAMA, "sliding_window": 16}, "Llama", ["'sliding_window' (a window in this family)"]),
    "both ways": ({**LLAMA, "is_causal": False}, "Llama", ["'is_causal' (attention to later tokens)"]),
    "norms": ({**LLAMA, "qk_layernorm": True, "use_qk_norm": True}, "Llama",
              ["'qk_layernorm' (norms of queries and keys)", "'use_qk_norm' (norms of queries and keys)"]),
    "experts": ({**LLAMA, "num_local_experts": 8, "shared_expert_intermediate_size": 8}, "Llama",
                ["'num_local_experts' (experts)", "'shared_expert_intermediate_size' (shared experts)"]),
    "experts' routing": ({**DEEPSEEK, "topk_method": "noaux_tc", "scoring_func": "sigmoid", "moe_layer_freq": 2},
                         "DeepSeek V2", ["'moe_layer_freq' (experts in some layers only)", "'scoring_func' sigmoid",
                                         "'topk_method' noaux_tc (greedy and group_limited_greedy are)"]),
    "experts' scores": ({**V3, "scoring_func": "softmax"}, "DeepSeek V3", ["'scoring_func' softmax"]),
    "relative positions": ({**BERT, "position_embedding_type": "relative_key"}, "BERT",
                           ["'position_embedding_type' relative_key"]),
    "decoder of BERT": ({**BERT, "is_decoder": True, "add_cross_attention": True}, "BERT",
                        ["'add_cross_attention' (cross-attention)", "'is_decoder' (a decoder of this family)"]),
    "head of tokens": ({**BERT, "architectures": ["BertForTokenClassification"]}, "BERT",
                       ["the head of a BertForTokenClassification"]),
    "head of a decoder": ({**LLAMA, "architectures": ["LlamaForSequenceClassification"]}, "Llama",
                          ["the head of a LlamaForSequenceClassification"]),
    "reward": ({**LLAMA, "model_type": "qwen2", "architectures": ["Qwen2ForProcessRewardModel"]}, "Qwen",
               ["the head of a Qwen2ForProcessRewardModel"]),
    "dtype": ({**GPT2, "torch_dtype": "float64"}, "GPT-2", ["dtype 'float64' (float32, float16 and bfloat16 are)"]),
    "multimodal": ({**GPT2, "vision_config": {"a": 1}, "audio_config": {"a": 1}}, "GPT-2",
                   ["'audio_config' (sound)", "'vision_config' (images)"]),
    "inside a wrapper": ({"model_type": "llava", "text_config": {**LLAMA, "hidden_act": "xielu"}}, "Llama",
                         ["activation 'xielu'"]),
    "quantised": ({**LLAMA, "quantization_config": {"quant_method": "aqlm"}}, "Llama",
                  ["weights are quantised by 'aqlm'; nybble reads gptq, awq, fp8 and compressed-tensors"]),
    "quantised and more": (
        {**LLAMA, "hidden_act": "xielu", "quantization_config": {"quant_method": "gptq", "bits": 5, "group_size": 32}},
        "Llama", ["activation 'xielu'", "the checkpoint has 5-bit weights; nybble reads 2, 3, 4 and 8"]),
}


@pytest.mark.parametrize("name", CASES)
def test_everything_that_is_missing_is_named(nybble, tmp_path, name):
    config, family, missing = CASES[name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = inspect(nybble, tmp_path)
    assert found["unsupported"] == missing
    assert found["family"] is None if family is None else found["family"].startswith(family)
    line = f"{tmp_path}/config.json: not supported: {'; '.join(missing)}"
    assert found["model_fault"] == line
    assert {"name": "nybble", "loads": "no", "reasons": [line]} in found["readers"]
    text = nybble("inspect", tmp_path).stdout
    assert all(part in text for part in missing)
    for command in (("quantize", tmp_path, "-o", tmp_path / "out", "-m", "rtn"),
                    ("logits", tmp_path, "--tokens", tmp_path / "ids.npy", "-o", tmp_path / "x.npy"),
                    ("convert", tmp_path, "-o", tmp_path / "out", "--format", "bf16")):
        done = nybble(*command, ok=False)
        assert done.returncode == 1 and done.stderr == f"nybble: {line}\n"
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_a_supported_configuration_lacks_its_tensors_alone(nybble, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    found = inspect(nybble, tmp_path)
    assert found["unsupported"] == [] and found["family"].startswith("Llama") and found["tensor_count"] == 0
    assert found["model_fault"] == f"{tmp_path}: holds no *.safetensors file"
    done = nybble("inspect", tmp_path / "none", ok=False)
    assert done.returncode == 1


def test_what_a_wrapper_leaves_out_is_filled_in(nybble, tmp_path):
    def look(text):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava", "text_config": text}))
        return inspect(nybble, tmp_path)

    for text in ({}, {"model_type": "llama", "vocab_size": 32064, "rms_norm_eps": 1e-5}):
        found = look(text)
        assert found["family"].startswith("Llama") and "no *.safetensors" in found["model_fault"]
    assert "'hidden_size' is missing" in look({"model_type": "qwen2"})["model_fault"]


def test_with_tensors_the_words_are_the_same(nybble, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "hidden_act": "xielu", "alibi": True}))
    bare = inspect(nybble, tmp_path)
    write(tmp_path / "model.safetensors", {"x": ("F32", [2], bytes(8))})
    full = inspect(nybble, tmp_path)
    assert full["unsupported"] == bare["unsupported"] and full["model_fault"] == bare["model_fault"]
    assert full["tensor_count"] == 1


def test_a_fault_does_not_hide_what_is_missing(nybble, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "hidden_size": "wide", "alibi": True}))
    found = inspect(nybble, tmp_path)
    assert found["unsupported"][0] == "'alibi' (linear biases of the scores)"
    assert len(found["unsupported"]) == 2 and "'hidden_size'" in found["unsupported"][1]


def test_long_lists_are_cut_with_their_number(nybble, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({
        **LLAMA, "layer_types": ["full_attention"], "hidden_act": "x" * 500,
        **{key: 3 for key in ("clip_qkv", "alibi", "use_alibi", "qk_norm", "qk_layernorm", "scale_emb", "scale_depth",
                              "logit_scale", "logits_scaling", "mamba_d_state", "laurel_rank", "kv_lora_rank",
                              "q_lora_rank", "num_experts", "n_routed_experts", "n_shared_experts", "use_qkv_bias",
                              "qkv_bias", "add_qkv_bias", "attn_output_gate", "residual_multiplier")}}))
    found = inspect(nybble, tmp_path)
    assert len(found["unsupported"]) == 22
    assert re.search(r"; and \d+ more$", found["model_fault"]) and len(found["model_fault"]) < 1024
