"""KerasHub presets: run by nybble, and made of Hugging Face folders and back without a changed bit."""
import json
import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import h5py
import numpy as np
import pytest
import torch
import transformers
from conftest import missing
from safetensors.numpy import load_file, save_file

LENGTH, VOCABULARY = 20, 96


def llama(**more):
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, **more))


def stretched():
    return llama(tie_word_embeddings=True, max_position_embeddings=512, rope_parameters={
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 16})


def gemma3():
    return transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=7,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, query_pre_attn_scalar=16,
        sliding_window=6, final_logit_softcapping=20.0, pad_token_id=0, bos_token_id=1,
        eos_token_id=2))


def gpt2():
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=32, bos_token_id=0,
        eos_token_id=0))


FAMILIES = {"llama": llama, "stretched": stretched, "gemma3": gemma3, "gpt2": gpt2}


def arrays(folder):
    found = {}
    with h5py.File(folder / "model.weights.h5") as file:
        file.visititems(lambda path, item: found.__setitem__(path, np.array(item)) if isinstance(
            item, h5py.Dataset) else None)
    return found


def expected(name, t):
    """What KerasHub's own importers put to these places, written from their description."""
    block = {"gpt2": "layers/transformer_decoder", "gemma3": "layers/gemma3_decoder_block"}.get(
        name, "layers/llama_transformer_decoder")
    out = {}
    for i in range(7 if name == "gemma3" else 2):
        b = block + (f"_{i}" if i else "") + "/"
        if name == "gpt2":
            h = f"transformer.h.{i}."
            fused, bias = t[h + "attn.c_attn.weight"], t[h + "attn.c_attn.bias"]
            for k, part in enumerate(("query", "key", "value")):
                columns = slice(32 * k, 32 * k + 32)
                place = b + f"_self_attention_layer/{part}_dense/vars/"
                out[place + "0"] = fused[:, columns].reshape(32, 4, 8)
                out[place + "1"] = bias[columns].reshape(4, 8)
            out[b + "_self_attention_layer/output_dense/vars/0"] = t[
                h + "attn.c_proj.weight"].reshape(4, 8, 32)
            out[b + "_feedforward_intermediate_dense/vars/0"] = t[h + "mlp.c_fc.weight"]
            continue
        h = f"model.layers.{i}."
        if name == "gemma3":
            q = t[h + "self_attn.q_proj.weight"].reshape(4, 16, 32).transpose(0, 2, 1)
            out[b + "attention/query_dense/vars/0"] = q
            out[b + "attention/output_dense/vars/0"] = t[h + "self_attn.o_proj.weight"].T.reshape(
                4, 16, 32)
            out[b + "gating_ffw/vars/0"] = t[h + "mlp.gate_proj.weight"].T
        else:
            place = b + "_self_attention_layer/"
            out[place + "_key_dense/vars/0"] = t[h + "self_attn.k_proj.weight"].T.reshape(32, 2, 8)
            out[place + "_output_dense/vars/0"] = t[h + "self_attn.o_proj.weight"].T.reshape(
                4, 8, 32)
            out[b + "_feedforward_gate_dense/vars/0"] = t[h + "mlp.gate_proj.weight"].T
    return out


@pytest.fixture(scope="module", params=FAMILIES)
def made(request, nybble, tmp_path_factory):
    """A folder with random numbers everywhere, its logits, and the preset that nybble makes."""
    tmp_path = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(3)
    model = FAMILIES[request.param]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "folder")
    ids = torch.randint(0, VOCABULARY, (3, LENGTH))
    np.save(tmp_path / "ids.npy", ids.numpy())
    with torch.no_grad():
        logits = model(ids).logits.numpy()
    nybble("convert", tmp_path / "folder", "-o", tmp_path / "preset", "-f", "keras")
    return request.param, tmp_path, logits


def close(got, want, tolerance=5e-5):
    worst = np.abs(got - want).max() / np.abs(want).max()
    print(f"largest error {worst:.2e} of the largest logit, tolerance {tolerance:.0e}")
    return worst <= tolerance


def test_arrays_are_where_kerashub_has_them(made):
    name, tmp_path, _ = made
    tensors, got = load_file(tmp_path / "folder" / "model.safetensors"), arrays(tmp_path / "preset")
    want = expected(name, tensors)
    assert len(want) >= 6
    for path, array in want.items():
        assert got[path].shape == array.shape and np.array_equal(got[path], array), path
    assert sum(a.size for a in got.values()) == sum(a.size for a in tensors.values())


def test_presets_run(nybble, made, tmp_path):
    _, folder, logits = made
    nybble("logits", folder / "preset", "--tokens", folder / "ids.npy", "-o", tmp_path / "l.npy")
    assert close(np.load(tmp_path / "l.npy"), logits)


def test_there_and_back_nothing_changes(nybble, made, tmp_path):
    _, folder, logits = made
    nybble("convert", folder / "preset", "-o", tmp_path / "back", "-f", "f32")
    want = load_file(folder / "folder" / "model.safetensors")
    got = load_file(tmp_path / "back" / "model.safetensors")
    assert got.keys() == want.keys()
    assert all(np.array_equal(got[k], want[k]) for k in want)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back",
                                                              dtype=torch.float32).eval()
    with torch.no_grad():
        assert close(model(torch.tensor(np.load(folder / "ids.npy"))).logits.numpy(), logits)


def test_kerashub_itself_computes_the_same(made):
    try:
        import keras_hub
    except ImportError:
        missing("keras-hub is not installed")
    _, folder, logits = made
    model = keras_hub.models.Backbone.from_preset(str(folder / "preset"))
    ids = np.load(folder / "ids.npy").astype("int32")
    states = model({"token_ids": ids, "padding_mask": np.ones_like(ids)})
    assert close(np.array(model.token_embedding(states, reverse=True).detach()), logits)


def test_presets_are_quantised_into_folders(nybble, made, tmp_path):
    """The same codes as from the folder: both hold the same numbers."""
    name, folder, _ = made
    options = ["--format", "gptq_v2" if name == "gpt2" else "compressed-tensors", "-g", "16",
               "--calib", folder / "ids.npy"]
    nybble("quantize", folder / "preset", "-o", tmp_path / "a", *options)
    nybble("quantize", folder / "folder", "-o", tmp_path / "b", *options)
    a, b = (load_file(tmp_path / x / "model.safetensors") for x in "ab")
    assert a.keys() == b.keys() and any(
        k.endswith(("weight_packed", "qweight")) for k in a)
    assert all(np.array_equal(a[k], b[k]) for k in b)


def test_what_kerashub_does_not_have_is_refused(nybble, tmp_path):
    def said(model, change=None):
        folder = tmp_path / "folder"
        model.save_pretrained(folder)
        if change:
            change(folder)
        done = nybble("convert", folder, "-o", tmp_path / "out", "-f", "keras", ok=False)
        assert done.returncode == 1 and not (tmp_path / "out").exists()
        return done.stderr

    assert "attention_bias" in said(llama(attention_bias=True))
    assert "rope" in said(llama(rope_parameters={"rope_type": "linear", "rope_theta": 10000.0,
                                                 "factor": 2.0}))

    def mix(folder):
        tensors = load_file(folder / "model.safetensors")
        tensors["model.norm.weight"] = tensors["model.norm.weight"].astype("float16")
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    assert "one type" in said(llama(), mix)
    qwen = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2))
    assert "qwen2" in said(qwen)


def test_a_preset_that_computes_more_is_refused(nybble, made, tmp_path):
    name, folder, _ = made
    preset = tmp_path / "preset"
    preset.mkdir()
    for file in ("model.weights.h5", "metadata.json"):
        (preset / file).symlink_to(folder / "preset" / file)
    config = json.loads((folder / "preset" / "config.json").read_text())
    if name == "gemma3":
        config["config"]["use_bidirectional_attention"], word = True, "use_bidirectional_attention"
    else:
        config["class_name"], word = "MistralBackbone", "KerasHub"
    (preset / "config.json").write_text(json.dumps(config))
    done = nybble("logits", preset, "--tokens", folder / "ids.npy", "-o", tmp_path / "l.npy",
                  ok=False)
    assert done.returncode == 1 and word in done.stderr


def dequantized(found, place):
    count = len([path for path in found if path.startswith(place + "/vars/")])  # the bias is first
    codes, scales, zeros, index = (found[f"{place}/vars/{i}"] for i in range(count - 4, count))
    codes = np.stack([codes & 15, codes >> 4], 1).reshape(-1, codes.shape[1])[:len(scales)]
    group = index.astype(int)
    return (codes.astype("float32") - zeros[:, group]) * scales[:, group]  # [out, in]


def test_gptq_of_a_preset_is_a_preset(nybble, made, tmp_path):
    """The codes are those of a folder, in Keras' own arrays; KerasHub computes with them."""
    name, folder, _ = made
    kind = "gptq_v2" if name == "gpt2" else "compressed-tensors"
    options = ["-g", "16", "--calib", folder / "ids.npy"]
    if name == "gemma3":  # kernels [heads, d, values] have no form in Keras' GPTQ
        done = nybble("quantize", folder / "preset", "-o", tmp_path / "a", *options, ok=False)
        assert done.returncode == 1 and "query_dense" in done.stderr
        recipe = {"modules": [{"pattern": f"*.{n}_proj", "method": "none"} for n in "qkv"]}
        (tmp_path / "recipe.json").write_text(json.dumps(recipe))
        options += ["--recipe", tmp_path / "recipe.json"]
    told = json.loads(nybble("quantize", folder / "preset", "-o", tmp_path / "a", *options,
                             "--json").stdout)
    found = json.loads(nybble("inspect", tmp_path / "a", "--json").stdout)
    report = json.loads((tmp_path / "a" / "nybble_report.json").read_text())
    assert report["command"].split()[:2] == ["nybble", "quantize"]
    assert found["bits_per_quantized_weight"] == pytest.approx(told["bits_per_weight"], rel=1e-9)
    assert report["totals"]["bits_per_weight"] == pytest.approx(told["bits_per_weight"], rel=1e-8)
    told_each, found_each = ({round(x["bits_per_weight"], 6) for x in layers if "layout" not in x
                              or x["layout"]} for layers in (report["layers"], found["layers"]))
    assert told_each == found_each
    made_by = json.loads((folder / "preset" / "nybble_report.json").read_text())["command"]
    assert made_by.split()[:2] == ["nybble", "convert"]
    nybble("quantize", folder / "preset", "-o", tmp_path / "b", "--format", kind, *options)
    nybble("convert", tmp_path / "b", "-o", tmp_path / "floats", "-f", "f32")
    assert not (tmp_path / "a.solve").exists()
    found, want = arrays(tmp_path / "a"), load_file(tmp_path / "floats" / "model.safetensors")
    block = {"gpt2": "layers/transformer_decoder_1/", "gemma3": "layers/gemma3_decoder_block_1/"}
    b = block.get(name, "layers/llama_transformer_decoder_1/")
    if name == "gpt2":
        fused = want["transformer.h.1.attn.c_attn.weight"].T
        assert np.array_equal(dequantized(found, b + "_self_attention_layer/value_dense"), fused[64:])
        assert np.array_equal(dequantized(found, b + "_feedforward_output_dense"),
                              want["transformer.h.1.mlp.c_proj.weight"].T)
    else:
        up = "gating_ffw_2" if name == "gemma3" else "_feedforward_intermediate_dense"
        out = "attention/output" if name == "gemma3" else "_self_attention_layer/_output"
        assert np.array_equal(dequantized(found, b + up),
                              want["model.layers.1.mlp.up_proj.weight"])
        assert np.array_equal(dequantized(found, b + out + "_dense"),
                              want["model.layers.1.self_attn.o_proj.weight"])
    try:
        import keras
        import keras_hub  # noqa: F401
    except ImportError:
        missing("keras-hub is not installed")
    nybble("logits", tmp_path / "b", "--tokens", folder / "ids.npy", "-o", tmp_path / "l.npy")
    model = keras.saving.deserialize_keras_object(
        json.loads((tmp_path / "a" / "config.json").read_text()))
    model.load_weights(str(tmp_path / "a" / "model.weights.h5"))
    ids = np.load(folder / "ids.npy").astype("int32")
    states = model({"token_ids": ids, "padding_mask": np.ones_like(ids)})
    assert close(np.array(model.token_embedding(states, reverse=True).detach()),
                 np.load(tmp_path / "l.npy"))
