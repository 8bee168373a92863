"""Bits per weight: every command tells the same, and it is what the file holds."""
import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
UNCOUNTED = ("bias", "weight_shape", "input_scale")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A Llama with biases, whose rows of 3 and 4 bits do not all end with a word, and its ids."""
    folder = tmp_path_factory.mktemp("bits")
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=128, intermediate_size=288, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        tie_word_embeddings=False, attention_bias=True)
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(
        folder / "model")
    np.save(folder / "ids.npy", np.random.default_rng(3).integers(0, 96, 64).astype(np.int32))
    return folder


def bits_of(folder, shapes):
    """Of the modules with these shapes, from the file alone."""
    parts = [(*name.rsplit(".", 1), t)
             for name, t in load_file(folder / "model.safetensors").items()]
    size = sum(t.numel() * t.dtype.itemsize for module, part, t in parts
               if module in shapes and part not in UNCOUNTED)
    return 8 * size / sum(rows * cols for rows, cols in shapes.values())


def linears(folder):
    """Shapes of the linear layers in the blocks, by module."""
    return {name[:-len(".weight")]: tuple(t.shape)
            for name, t in load_file(folder / "model.safetensors").items()
            if name.endswith(tuple(f"{part}.weight" for part in LINEARS))}


OPTIONS = {
    "int4": ["--method", "int4"],
    "int8": ["--method", "int8"],
    "groups": ["--method", "rtn", "-b", "3", "-g", "32", "--asymmetric"],
    "odd": ["--method", "rtn", "-b", "3", "-g", "-1", "--asymmetric"],
    "float8": ["--method", "float8"],
    "fp8": ["--method", "float8", "--format", "fp8"],
    "gptq": ["--method", "rtn", "-g", "32", "--format", "gptq"],
    "awq": ["--method", "rtn", "-g", "32", "--asymmetric", "--format", "awq"],
    "static": ["--method", "int8", "--activations", "int8-static", "-n", "1", "-l", "32"],
}


@pytest.mark.parametrize("name", OPTIONS)
def test_all_commands_tell_what_the_file_holds(nybble, made, tmp_path, name):
    model, ids, out = made / "model", made / "ids.npy", tmp_path / "out"
    options = OPTIONS[name] + (["--calib", ids] if name == "static" else [])
    told = {"plan": json.loads(nybble("plan", model, *options, "--json").stdout),
            "quantize": json.loads(nybble("quantize", model, *options, "-o", out,
                                          "--json").stdout)}
    shapes = linears(model)
    want = bits_of(out, shapes)
    report = json.loads((out / "nybble_report.json").read_text())
    told["report"] = report["totals"]
    told["compare"] = json.loads(nybble("compare", model, out, "--text", ids, "--window", "32",
                                        "--json").stdout)["models"][1]
    got = {command: t["bits_per_weight"] for command, t in told.items()}
    found = json.loads(nybble("inspect", out, "--json").stdout)
    got["inspect"] = found["bits_per_quantized_weight"]
    layers = {layer["module"]: layer["bits_per_weight"] for layer in report["layers"]}
    assert got == {command: pytest.approx(want, rel=1e-8) for command in got}
    each = {m: pytest.approx(bits_of(out, {m: s}), rel=1e-8) for m, s in shapes.items()}
    assert layers == each
    assert {x["name"]: x["bits_per_weight"] for x in found["layers"] if x["layout"]} == each
    assert 3 < want < 9


def test_what_is_left_as_it_is_counts_in_a_comparison(nybble, made, tmp_path):
    """Size stands against accuracy there; the others speak of what was quantised."""
    model, out = made / "model", tmp_path / "out"
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"method": "int4", "head": {"method": "int8"}, "modules": [
        {"pattern": "*.down_proj", "method": "none"}]}))
    told = json.loads(nybble("quantize", model, "--recipe", recipe, "-o", out, "--json").stdout)
    base, compared = json.loads(nybble("compare", model, out, "--text", made / "ids.npy",
                                       "--window", "32", "--json").stdout)["models"]
    shapes = linears(model)
    head = {"lm_head": (96, 128)}
    rounded = {m: s for m, s in shapes.items() if "down_proj" not in m} | head
    assert len(rounded) == 13
    assert told["bits_per_weight"] == pytest.approx(bits_of(out, rounded), rel=1e-9)
    assert compared["bits_per_weight"] == pytest.approx(bits_of(out, shapes | head), rel=1e-9)
    assert base["bits_per_weight"] == 16
    assert told["bits_per_weight"] < 5 < compared["bits_per_weight"]
