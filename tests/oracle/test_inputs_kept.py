"""What inputs are rounded to, on the way of a checkpoint through `convert` and `merge`; scales of 0; runs that
are killed."""
import json
import os
import signal
import subprocess
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_convert import float8_config, float8_model, modules_of, tiny
from test_merge import bases, make_adapter

assert tiny and bases # fixtures


def scheme(**more):
    return {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "tensor", "dynamic": False,
            "observer": "minmax", **more}


def edited(folder, inputs=None, scales=None, **config):
    """The folder with a scheme for inputs, and a scale for that of each layer."""
    path = folder / "config.json"
    whole = json.loads(path.read_text())
    whole["quantization_config"].update(config)
    if inputs:
        whole["quantization_config"]["config_groups"]["group_0"]["input_activations"] = inputs
    path.write_text(json.dumps(whole))
    tensors = load_file(folder / "model.safetensors")
    for i, module in enumerate(modules_of([n for n in tensors if n.endswith(".weight")])):
        if scales:
            tensors[f"{module}.input_scale"] = torch.tensor([scales(i)])
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return tensors


def convert(nybble, folder, out, layout):
    said = nybble("convert", folder, "-o", out, "-f", layout).stderr
    report = json.loads((out / "nybble_report.json").read_text())
    config = json.loads((out / "config.json").read_text())["quantization_config"]
    return said, report["layers"], config, load_file(out / "model.safetensors")


def odd(i):
    return 0.0123456789 + 0.001 * i # no value of bf16


@pytest.mark.parametrize("kind", ["ct tensor", "ct channel"])
def test_static_scales_stay_as_they_are(nybble, tiny, tmp_path, kind):
    folder, _ = float8_model(tiny, tmp_path / "in", kind)
    before = edited(folder, scheme(), odd)
    said, layers, config, after = convert(nybble, folder, tmp_path / "out", "compressed-tensors")
    assert said == "" or "left out" not in said
    assert all(layer["activations"] == "float8-static" and not layer["activations_left_out"] for layer in layers)
    groups = list(config["config_groups"].values())
    assert [(g["input_activations"]["strategy"], g["input_activations"]["dynamic"]) for g in groups] == [("tensor", False)]
    names = [n for n in before if n.endswith(".input_scale")]
    assert len(names) == 14
    for name in names:
        assert torch.equal(after[name].float(), before[name].float()), name
    again = convert(nybble, tmp_path / "out", tmp_path / "again", "compressed-tensors")
    assert again[3].keys() == after.keys() and all(torch.equal(again[3][n].view(torch.uint8), after[n].view(torch.uint8))
                                                   for n in after)


def test_dynamic_schemes_stay(nybble, tiny, tmp_path):
    folder, _ = float8_model(tiny, tmp_path / "in", "ct dynamic")
    said, layers, config, _ = convert(nybble, folder, tmp_path / "out", "compressed-tensors")
    assert "left out" not in said and all(layer["activations"] == "float8-per-token" for layer in layers)
    assert {g["input_activations"]["strategy"] for g in config["config_groups"].values()} == {"token"}


@pytest.mark.parametrize("inputs", [scheme(strategy="group", group_size=128, dynamic=True), scheme(symmetric=False),
                                    scheme(num_bits=4, dynamic=True), scheme(dynamic="local")])
def test_schemes_that_cannot_be_said_are_told(nybble, tiny, tmp_path, inputs):
    folder, _ = float8_model(tiny, tmp_path / "in", "ct channel")
    edited(folder, inputs)
    said, layers, config, after = convert(nybble, folder, tmp_path / "out", "compressed-tensors")
    assert "what the inputs of 14 layers are rounded to is left out" in said and said.count("\n") == 1
    assert all(layer["activations"] == "none" and layer["activations_left_out"] for layer in layers)
    assert all(g["input_activations"] is None for g in config["config_groups"].values())
    assert not [n for n in after if n.endswith(".input_scale")]


def test_layouts_without_a_word_for_it_tell_so(nybble, tiny, tmp_path):
    nybble("convert", tiny, "-o", tmp_path / "f16", "-f", "f16") # scales that gptq holds
    nybble("quantize", tmp_path / "f16", "-o", tmp_path / "int8", "-m", "int8", "--activations", "int8-per-token")
    said, layers, _, _ = convert(nybble, tmp_path / "int8", tmp_path / "gptq", "gptq")
    assert "14 layers" in said and "--format gptq" in said
    assert all(layer["activations_left_out"] for layer in layers)
    said, layers, config, _ = convert(nybble, tmp_path / "int8", tmp_path / "same", "compressed-tensors")
    assert "left out" not in said and all(layer["activations"] == "int8-per-token" for layer in layers)


def test_fp8_keeps_its_static_scales(nybble, tiny, tmp_path):
    folder, _ = float8_model(tiny, tmp_path / "in", "fp8 tensor")
    before = edited(folder, None, odd, activation_scheme="static")
    said, layers, _, after = convert(nybble, folder, tmp_path / "out", "compressed-tensors")
    assert "left out" not in said and all(layer["activations"] == "float8-static" for layer in layers)
    assert all(torch.equal(after[n].float(), before[n]) for n in before if n.endswith(".input_scale"))
    folder, _ = float8_model(tiny, tmp_path / "dynamic", "fp8")
    assert "left out" not in convert(nybble, folder, tmp_path / "fp8", "fp8")[0]
    assert "14 layers" in convert(nybble, folder, tmp_path / "ct", "compressed-tensors")[0]


@pytest.mark.parametrize("kind", ["fp8", "ct channel", "fp8 e5m2"])
def test_blocks_of_zeros_may_have_the_scale_0(nybble, tiny, tmp_path, kind):
    folder, plain = float8_model(tiny, tmp_path / "in", kind)
    tensors = load_file(folder / "model.safetensors")
    for module in modules_of(plain):
        name = next(n for n in tensors if n.startswith(module + ".weight_scale"))
        rows = 128 if tensors[name].shape[1] > 1 or "channel" not in kind else 1
        tensors[name][0] = 0
        plain[module + ".weight"][:rows] = 0
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    nybble("convert", folder, "-o", tmp_path / "f32", "-f", "f32")
    got = load_file(tmp_path / "f32" / "model.safetensors")
    zeros = 0
    for module in modules_of(plain):
        assert torch.equal(got[module + ".weight"], plain[module + ".weight"])
        zeros += int((got[module + ".weight"] == 0).sum())
    assert zeros > 1000
    if kind == "fp8 e5m2":
        return
    nybble("convert", folder, "-o", tmp_path / "again", "-f", kind.split()[0].replace("ct", "compressed-tensors"))
    nybble("convert", tmp_path / "again", "-o", tmp_path / "f32b", "-f", "f32")
    again = load_file(tmp_path / "f32b" / "model.safetensors")
    assert all(torch.equal(again[n].view(torch.uint8), got[n].view(torch.uint8)) for n in got)


def test_merge_keeps_odd_scales_of_inputs(nybble, bases, tmp_path):
    nybble("quantize", bases["llama"], "-o", tmp_path / "q", "-m", "float8", "-f", "compressed-tensors")
    tensors = edited(tmp_path / "q", scheme(), odd)
    make_adapter(bases["llama"], tmp_path / "adapter", target_modules=["q_proj", "down_proj"])
    made = json.loads(nybble("merge", tmp_path / "q", tmp_path / "adapter", "-o", tmp_path / "out", "--json").stdout)
    assert made["requantized"] == 4
    after = load_file(tmp_path / "out" / "model.safetensors")
    names = [n for n in tensors if n.endswith(".input_scale")]
    assert after.keys() == tensors.keys() and len(names) == 14
    for name in names:
        assert after[name].dtype == tensors[name].dtype and torch.equal(after[name], tensors[name])


def test_a_merge_that_is_killed_leaves_nothing_half_written(program, bases, tmp_path):
    """Whenever it is killed, OUT is whole or is not there; and the next run goes through."""
    make_adapter(bases["llama"], tmp_path / "adapter")
    line = [program, "merge", bases["llama"], tmp_path / "adapter", "-o", tmp_path / "out", "-q"]
    took = []
    for _ in range(3):  # the quickest: what else runs may hold up any one of them
        start = time.monotonic()
        subprocess.run([*line, "--force"], check=True, capture_output=True)
        took.append(time.monotonic() - start)
    whole = min(took)
    want = (tmp_path / "out" / "model.safetensors").read_bytes()
    killed = 0
    for i in range(12):
        subprocess.run(["rm", "-rf", tmp_path / "out", tmp_path / "out.partial"], check=True)
        child = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(whole * i / 12)
        os.kill(child.pid, signal.SIGKILL)
        killed += child.wait() != 0
        if (tmp_path / "out").exists():
            assert (tmp_path / "out" / "model.safetensors").read_bytes() == want
            assert (tmp_path / "out" / "nybble_report.json").exists()
    assert killed >= 4
    subprocess.run([*line, "--force"], check=True, capture_output=True)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == want
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter", "out"]


def test_configurations_are_as_they_were(tiny):
    """The schemes above are those that the writers use."""
    config = float8_config("ct dynamic")
    compressed = pytest.importorskip("compressed_tensors")
    assert compressed.QuantizationConfig.model_validate(config)
