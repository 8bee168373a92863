"""GGUF files of families whose tensors change on the way: fused q/k/v, transposed weights, experts.

The files are made here tensor by tensor with gguf-py, the way llama.cpp's converter makes them;
nybble has to write the same ones, and to compute from them what transformers computes from the folder.
"""
import json

import families
import gguf
import gguf_made
import numpy as np
import pytest
import torch
from test_gguf_write import TOKENIZER

TOLERANCE = 2e-3
GPT2_PARTS = {"ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output",
              "ln_2": "ffn_norm", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}
FALCON_PARTS = {"self_attention.query_key_value": "attn_qkv", "self_attention.dense": "attn_output",
                "mlp.dense_h_to_4h": "ffn_up", "mlp.dense_4h_to_h": "ffn_down"}
PHI_PARTS = {"self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"}
MIXTRAL_EXPERTS = {"w1": "ffn_gate_exps", "w2": "ffn_down_exps", "w3": "ffn_up_exps"}
QWEN_EXPERTS = {"gate_proj": "ffn_gate_exps", "down_proj": "ffn_down_exps", "up_proj": "ffn_up_exps"}
QWEN_PARTS = {"mlp.gate": "ffn_gate_inp", "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
              "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
              **{f"mlp.shared_expert.{p}_proj": f"ffn_{p}_shexp" for p in ("gate", "up", "down")}}


def stacked(tensors, parts, experts=None):
    """Tensors of a folder of Llama's names, with those of experts stacked."""
    parts = {**gguf_made.PARTS, **parts}
    groups = {}
    for name, x in tensors:
        module, ending = name.rsplit(".", 1)
        if module in gguf_made.NAMES:
            yield f"{gguf_made.NAMES[module]}.{ending}", x
            continue
        _, _, block, part = module.split(".", 3)
        if ".experts." in part:
            _, number, matrix = part.rsplit(".", 2)
            groups.setdefault(f"blk.{block}.{experts[matrix]}.weight", {})[int(number)] = x
        else:
            yield f"blk.{block}.{parts[part]}.{ending}", x
    for name, all_of_it in groups.items():
        yield name, np.stack([all_of_it[i] for i in range(len(all_of_it))])


def renamed(tensors, outer, parts):
    """Tensors by their name in the file, with what they are of a block: "" beside the blocks."""
    for name, x in tensors:
        module, ending = name.rsplit(".", 1)
        if module in outer:
            yield f"{outer[module]}.{ending}", "", x
        else:
            _, _, block, part = module.split(".", 3)
            yield f"blk.{block}.{parts[part]}.{ending}", part, x


def of_gpt2(tensors, config):
    outer = {"transformer.wte": "token_embd", "transformer.wpe": "position_embd",
             "transformer.ln_f": "output_norm", "lm_head": "output"}
    for name, part, x in renamed(tensors, outer, GPT2_PARTS):
        yield name, x.T if part and x.ndim == 2 else x # Conv1D is [in, out]


def of_falcon(tensors, config):
    outer = {"transformer.word_embeddings": "token_embd", "transformer.ln_f": "output_norm",
             "lm_head": "output"}
    heads = config["num_attention_heads"]
    keys = config["num_kv_heads"] if config["new_decoder_architecture"] else \
        1 if config["multi_query"] else heads
    dim = config["hidden_size"] // heads
    tensors = list(tensors)
    two = any(".ln_attn." in name for name, _ in tensors)
    norms = {"ln_attn": "attn_norm_2", "ln_mlp": "attn_norm"} if two else {"input_layernorm": "attn_norm"}
    for name, part, x in renamed(tensors, outer, {**FALCON_PARTS, **norms}):
        if part.endswith("query_key_value"):
            x = x.reshape(keys, heads // keys + 2, dim, -1)
            q, k, v = x[:, :-2], x[:, -2], x[:, -1]
            x = np.concatenate([p.reshape(-1, x.shape[-1]) for p in (q, k, v)])
        yield name, x


def of_mixtral(tensors, config):
    for name, x in stacked(tensors, {"block_sparse_moe.gate": "ffn_gate_inp"}, MIXTRAL_EXPERTS):
        heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
        part = name.split(".")[2] if name.startswith("blk.") else ""
        yield name, gguf_made.paired(x, heads[part]) if part in heads else x


def of_qwen(tensors, config):
    for name, x in stacked(tensors, QWEN_PARTS, QWEN_EXPERTS):
        yield name, x[0] if "inp_shexp" in name else x


def of_phi3(tensors, config):
    yield from stacked(tensors, PHI_PARTS)
    rope = config["rope_parameters"]
    if rope["rope_type"] == "longrope":
        for length in ("long", "short"):
            yield f"rope_factors_{length}.weight", np.array(rope[f"{length}_factor"], np.float32)


def about_phi3(writer, config):
    rope = config["rope_parameters"]
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(int(rope.get("partial_rotary_factor", 1) *
                                        (config["hidden_size"] // config["num_attention_heads"])))
    writer.add_rope_freq_base(rope["rope_theta"])
    if config.get("sliding_window"):
        writer.add_sliding_window(config["sliding_window"])
    if rope["rope_type"] == "longrope":
        original = config["original_max_position_embeddings"]
        longer = config["max_position_embeddings"] / original
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(float(np.sqrt(1 + np.log(longer) / np.log(original))))


def about_rotary(writer, config):
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    writer.add_rope_dimension_count(dim)
    if dim * config["num_attention_heads"] != config["hidden_size"]:
        writer.add_key_length(dim)
        writer.add_value_length(dim)
    writer.add_expert_count(config.get("num_experts") or config["num_local_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    if "moe_intermediate_size" in config:
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    if config.get("shared_expert_intermediate_size"):
        writer.add_expert_shared_feed_forward_length(config["shared_expert_intermediate_size"])


def about_layer_norms(writer, config):
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])


def about_falcon(writer, config):
    about_layer_norms(writer, config)
    writer.add_tensor_data_layout("jploski")
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])


# family: name in GGUF, its tensors, its metadata, more of the configuration. llama.cpp has experts
# in every block of these families.
MOE = dict(num_experts=4, moe_intermediate_size=24, num_experts_per_tok=2)
MADE = {
    "gpt2": ("gpt2", of_gpt2, about_layer_norms, families.GPT2),
    "gpt2 untied": ("gpt2", of_gpt2, about_layer_norms, dict(families.GPT2, n_inner=52, tie_word_embeddings=False)),
    "falcon 7b": ("falcon", of_falcon, about_falcon, families.FALCON),
    "falcon 40b": ("falcon", of_falcon, about_falcon,
                   dict(families.FALCON, new_decoder_architecture=True, num_kv_heads=2)),
    "falcon 11b": ("falcon", of_falcon, about_falcon, dict(
        families.FALCON, new_decoder_architecture=True, num_kv_heads=3, num_ln_in_parallel_attn=1)),
    "mixtral": ("llama", of_mixtral, about_rotary, families.sizes(num_key_value_heads=2, num_local_experts=4)),
    "qwen2_moe": ("qwen2moe", of_qwen, about_rotary, families.sizes(
        num_key_value_heads=2, shared_expert_intermediate_size=40, **MOE)),
    "qwen3_moe": ("qwen3moe", of_qwen, about_rotary, families.sizes(
        num_key_value_heads=2, head_dim=16, norm_topk_prob=True, **MOE)),
    "phi3": ("phi3", of_phi3, about_phi3, families.sizes(num_key_value_heads=2, pad_token_id=0, sliding_window=9)),
    "phi3 long": ("phi3", of_phi3, about_phi3, families.sizes(
        num_key_value_heads=2, pad_token_id=0, original_max_position_embeddings=16,
        rope_parameters=families.longrope(4))),
}


def number(config, *keys):
    return next(config[key] for key in keys if config.get(key) is not None)


def make(folder, out, arch, tensors, about):
    """The file as the converter makes it; returns its tensors."""
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(out, arch)
    hidden, heads = number(config, "hidden_size", "n_embd"), number(config, "num_attention_heads", "n_head")
    writer.add_embedding_length(hidden)
    writer.add_block_count(number(config, "num_hidden_layers", "n_layer"))
    writer.add_context_length(number(config, "max_position_embeddings", "n_positions"))
    writer.add_feed_forward_length(
        next((config[k] for k in ("intermediate_size", "n_inner", "ffn_hidden_size") if config.get(k)), 4 * hidden))
    writer.add_head_count(heads)
    keys = heads if arch == "gpt2" else number(config, "num_key_value_heads", "num_kv_heads")
    if arch == "falcon" and not config["new_decoder_architecture"]:
        keys = 1 if config["multi_query"] else heads
    writer.add_head_count_kv(keys)
    about(writer, config)
    gguf_made.add_json_tokenizer(writer, folder, {**config, "bos_token_id": 1, "eos_token_id": 2}, "gpt-2")
    made = dict(tensors(gguf_made.tensors_of(folder), config))
    for name, x in made.items():
        writer.add_tensor(name, np.ascontiguousarray(x, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return made


def fields_of(path):
    return {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items()
            if not key.startswith(("tokenizer.", "general.", "GGUF."))}


def folder_of(kind, path, monkeypatch):
    family = kind.split()[0]
    names = families.FAMILIES[family]
    monkeypatch.setitem(families.FAMILIES, family, (*names[:2], [MADE[kind][3]]))
    model = families.make(family, 0, path)
    (path / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    return model


def logits(nybble, model, ids, folder):
    np.save(folder / "ids.npy", ids.numpy().astype(np.int32))
    (folder / "logits.npy").unlink(missing_ok=True)
    nybble("logits", model, "--tokens", folder / "ids.npy", "-o", folder / "logits.npy")
    return np.load(folder / "logits.npy")


@pytest.mark.parametrize("kind", MADE)
def test_files_are_those_of_the_converter(nybble, tmp_path, monkeypatch, kind):
    arch, tensors, about, _ = MADE[kind]
    model = folder_of(kind, tmp_path / "m", monkeypatch)
    made = make(tmp_path / "m", tmp_path / "theirs.gguf", arch, tensors, about)
    nybble("quantize", tmp_path / "m", "-o", tmp_path / "ours.gguf", "-f", "gguf:F32", "-m", "rtn", "-q")
    ours = {t.name: t for t in gguf.GGUFReader(tmp_path / "ours.gguf").tensors}
    assert ours.keys() == made.keys()
    for name, x in made.items():
        assert list(ours[name].shape) == list(x.shape[::-1]), name
        got = np.asarray(ours[name].data).reshape(x.shape)
        if name.startswith("rope_factors"):
            assert np.allclose(got, x, rtol=1e-6)
        else:
            assert np.array_equal(got, x), name
    want, got = fields_of(tmp_path / "theirs.gguf"), fields_of(tmp_path / "ours.gguf")
    assert want.keys() == got.keys()
    for key in want:
        same = want[key] if isinstance(want[key], str) else pytest.approx(want[key], rel=1e-6)
        assert got[key] == same, key

    ids = torch.randint(4, 97, (2, 40), generator=torch.Generator().manual_seed(5))
    right = families.logits(model, ids).numpy()
    for name in ("theirs", "ours"):
        off = np.abs(logits(nybble, tmp_path / f"{name}.gguf", ids, tmp_path) - right).max()
        print(f"{kind}, {name}: largest difference {off:.2e}, tolerance {TOLERANCE}")
        assert off <= TOLERANCE and right.std() > 1e-2


@pytest.mark.parametrize("kind", ["gpt2", "falcon 40b", "mixtral", "qwen3_moe"])
def test_files_are_rounded_and_solved(nybble, tmp_path, monkeypatch, kind):
    """Blocks of the file are those of its matrices; GPTQ's are nearer in logits; a file of a file is it."""
    wide = {"gpt2": dict(n_embd=64, n_head=4), "falcon": dict(hidden_size=64, num_attention_heads=4)}
    more = wide.get(kind.split()[0], dict(hidden_size=64, intermediate_size=64, num_attention_heads=4))
    if "moe" in kind:
        more["moe_intermediate_size"] = 32
    monkeypatch.setitem(MADE, kind, (*MADE[kind][:3], {**MADE[kind][3], **more}))
    arch, tensors, about, _ = MADE[kind]
    model = folder_of(kind, tmp_path / "m", monkeypatch)
    made = make(tmp_path / "m", tmp_path / "theirs.gguf", arch, tensors, about)
    rng = np.random.default_rng(3)
    np.save(tmp_path / "c.npy", rng.integers(0, 97, (32, 32)).astype(np.int32))
    ids = torch.randint(4, 97, (2, 40), generator=torch.Generator().manual_seed(5))
    right = families.logits(model, ids).numpy()
    away = {}
    for method in ("rtn", "gptq"):
        calib = ("--calib", tmp_path / "c.npy", "-n", "32", "-l", "32") if method == "gptq" else ()
        out = tmp_path / f"{method}.gguf"
        nybble("quantize", tmp_path / "m", "-o", out, "-f", "gguf:Q4_0", "-m", method, "-q", *calib)
        away[method] = float(np.sqrt(np.mean((logits(nybble, out, ids, tmp_path) - right)**2)))
    rounded = {t.name: t for t in gguf.GGUFReader(tmp_path / "rtn.gguf").tensors}
    compared = 0
    for name, x in made.items():
        if rounded[name].tensor_type == gguf.GGMLQuantizationType.Q4_0:
            want = gguf.quants.quantize(np.ascontiguousarray(x), gguf.GGMLQuantizationType.Q4_0)
            assert rounded[name].data.tobytes() == want.tobytes(), name
            compared += 1
    assert compared >= 3 * 4
    print(f"{kind}: rtn {away['rtn']:.4f}, gptq {away['gptq']:.4f} away")
    assert 0 < away["gptq"] < away["rtn"]
    nybble("quantize", tmp_path / "theirs.gguf", "-o", tmp_path / "again.gguf", "-f", "gguf:Q4_0", "-m", "rtn", "-q")
    again = {t.name: t.data.tobytes() for t in gguf.GGUFReader(tmp_path / "again.gguf").tensors}
    assert again == {name: t.data.tobytes() for name, t in rounded.items()}


def test_experts_that_llama_cpp_would_compute_otherwise_are_refused(nybble, tmp_path, monkeypatch):
    def line(kind, **more):
        monkeypatch.setitem(MADE, kind, (*MADE[kind][:3], {**MADE[kind][3], **more}))
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder_of(kind, folder, monkeypatch)
        done = nybble("quantize", folder, "-o", folder / "x.gguf", "-f", "gguf:F16", "-m", "rtn", ok=False)
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and not (folder / "x.gguf").exists()
        return done.stderr

    assert "norm_topk_prob" in line("qwen3_moe", norm_topk_prob=False)
    assert "experts in some layers" in line("qwen2_moe", mlp_only_layers=[1])
    assert "alibi" in line("falcon 7b", alibi=True)


@pytest.mark.parametrize("kind", MADE)
def test_files_become_folders_again(nybble, tmp_path, monkeypatch, kind):
    """`convert` gives the folder back that the file was made of: tensors, configuration, tokenizer."""
    import transformers
    from safetensors.numpy import load_file

    model = folder_of(kind, tmp_path / "m", monkeypatch)
    nybble("quantize", tmp_path / "m", "-o", tmp_path / "x.gguf", "-f", "gguf:F32", "-m", "rtn", "-q")
    nybble("convert", tmp_path / "x.gguf", "-o", tmp_path / "back", "--format", "f32")
    ours, theirs = load_file(tmp_path / "back" / "model.safetensors"), load_file(tmp_path / "m" / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    ids = torch.randint(4, 97, (2, 40), generator=torch.Generator().manual_seed(5))
    want = families.logits(model, ids).numpy()
    read = type(model).from_pretrained(tmp_path / "back", dtype=torch.float32).eval()
    off = np.abs(families.logits(read, ids).numpy() - want).max()
    print(f"{kind}: transformers differs by {off:.1e}, tolerance {TOLERANCE}")
    assert off <= TOLERANCE and np.abs(logits(nybble, tmp_path / "back", ids, tmp_path) - want).max() <= TOLERANCE
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    got = json.loads(nybble("tokenize", tmp_path / "x.gguf", "--json", "--text", "abc!XY").stdout)["ids"]
    assert got == tokenizer("abc!XY")["input_ids"] and len(got) == 6


def test_the_language_model_of_a_multimodal_one_is_written(nybble, tmp_path):
    families.make_wrapped("llava", tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    nybble("quantize", tmp_path / "m", "-o", tmp_path / "x.gguf", "-f", "gguf:F32", "-m", "rtn", "-q")
    names = {t.name for t in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
    assert "blk.0.attn_q.weight" in names and len(names) == 3 + 3 * 9
    ids = torch.randint(4, 90, (2, 20), generator=torch.Generator().manual_seed(5))
    want, got = (logits(nybble, tmp_path / model, ids, tmp_path) for model in ("m", "x.gguf"))
    assert np.array_equal(got, want) and want.std() > 1e-2
