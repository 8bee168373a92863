"""The simple modes: int8, int4 and float8, against the formulas of the tools that they come from and
against readers of the files."""
import json

import numpy as np
import pytest
import torch
import transformers
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationScheme
from safetensors.torch import load_file

from test_quantize import fingerprint, padded, report  # noqa: F401 (a fixture)

EPSILON = np.float32(1e-7)


def quantize(nybble, model, out, *more):
    nybble("quantize", model, "-o", out, *more)
    config = json.loads((out / "config.json").read_text())["quantization_config"]
    return load_file(out / "model.safetensors"), config


def layers_of(tensors, suffix):
    found = sorted(n[: -len(suffix) - 1] for n in tensors if n.endswith("." + suffix))
    assert found
    return found


def keras_absmax(weight, low, high):
    """Keras 3.15.1: abs_max_quantize of [out, in] over the input axis, in f32."""
    weight = weight.astype(np.float32)
    scale = np.divide(np.float32(high), np.max(np.abs(weight), 1, keepdims=True) + EPSILON)
    return np.clip(np.round(weight * scale), low, high), scale


def keras_grouped(weight, size):
    """Keras 3.15.1: abs_max_quantize_grouped_with_zero_point of [out, in], to_numpy."""
    out, cols = weight.shape
    padded = np.zeros((out, -(-cols // size) * size), np.float32)
    padded[:, :cols] = weight
    groups = padded.reshape(out, -1, size)
    low, high = groups.min(2, keepdims=True), groups.max(2, keepdims=True)
    scale = (high - low + EPSILON) / np.float32(15)
    zero = np.clip(np.round(-low / scale) - 8, -8, 7)
    codes = np.clip(np.round(groups / scale) + zero, -8, 7)
    return codes.reshape(out, -1)[:, :cols], scale[..., 0], zero[..., 0]


# ---- One matrix -----------------------------------------------------------------------------

def solve(nybble, folder, weight, *more):
    np.save(folder / "w.npy", weight)
    nybble("solve", "--weight", folder / "w.npy", "-o", folder / "layer", "--force", *more)
    return [np.load(folder / "layer" / f"{n}.npy") for n in ("codes", "scales", "zeros")]


def some_weight(shape, seed):
    rng = np.random.default_rng(seed)
    weight = rng.standard_t(4, shape).astype(np.float32)
    weight[3] = 0
    weight[5] = np.abs(weight[5]) + 1  # a range that 0 is not in
    weight[6] = -weight[5]
    return weight


def test_int8_is_keras_formula(nybble, tmp_path):
    weight = some_weight((70, 333), 1)
    codes, scales, zeros = solve(nybble, tmp_path, weight, "--method", "int8")
    want, inverse = keras_absmax(weight, -127, 127)
    assert np.array_equal(codes.astype(int) - 128, want) and np.all(zeros == 128)
    np.testing.assert_allclose(scales, 1 / inverse, rtol=3e-7)


@pytest.mark.parametrize("cols", [256, 333])
def test_grouped_int4_is_keras_formula(nybble, tmp_path, cols):
    weight = some_weight((70, cols), cols)
    codes, scales, zeros = solve(nybble, tmp_path, weight, "--method", "int4", "-g", 128)
    want, scale, zero = keras_grouped(weight, 128)
    assert np.array_equal(scales, scale) and np.array_equal(zeros.astype(int) - 8, zero)
    assert np.array_equal(codes.astype(int) - 8, want)


# ---- Whole checkpoints ----------------------------------------------------------------------

def decompress(tensors, config, module):
    """A layer's weight as compressed-tensors itself decompresses it."""
    groups = config["config_groups"].values()
    group = next(g for g in groups if module in g["targets"] or "Linear" in g["targets"])
    scheme = QuantizationScheme.model_validate(group)
    parts = {n[len(module) + 1:]: t for n, t in tensors.items() if n.startswith(module + ".")}
    compressor = BaseCompressor.get_value_from_registry(group.get("format") or config["format"])
    return compressor.decompress(parts, scheme)["weight"]


MODES = {
    "int8": ["-m", "int8"],
    "int4": ["-m", "int4"],
    "int4 in groups": ["-m", "int4", "-g", 16],
}
FORMATS = {"int8": "int-quantized", "int4": "pack-quantized", "int4 in groups": "pack-quantized"}


def logits_of(nybble, folder, ids, tmp_path):
    np.save(tmp_path / "ids.npy", ids)
    nybble("logits", folder, "--tokens", tmp_path / "ids.npy", "-o", tmp_path / "l.npy")
    return np.load(tmp_path / "l.npy")


@pytest.mark.parametrize("mode", MODES)
def test_transformers_runs_the_file(nybble, padded, tmp_path, mode):
    tensors, config = quantize(nybble, padded, tmp_path / "out", *MODES[mode])
    assert config["format"] == FORMATS[mode]
    ids = np.random.default_rng(3).integers(3, 512, (4, 64)).astype(np.int64)
    got = logits_of(nybble, tmp_path / "out", ids, tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    with torch.no_grad():
        want = model(torch.from_numpy(ids)).logits.float().numpy()
    error = np.abs(got - want).max()
    print(f"{mode}: max |logit difference| {error:.2e}, tolerance 1e-2 (f32 storage)")
    assert error <= 1e-2


def test_int8_files_hold_the_formula(nybble, stories, tmp_path):
    tensors, config = quantize(nybble, stories, tmp_path / "out", "-m", "int8")
    source = load_file(stories / "model.safetensors")
    hashes = {layer["module"]: layer["sha256"] for layer in report(tmp_path / "out")["layers"]}
    assert sorted(hashes) == layers_of(tensors, "weight_scale")
    for module in hashes:
        codes, scale = tensors[module + ".weight"], tensors[module + ".weight_scale"]
        want, inverse = keras_absmax(source[module + ".weight"].float().numpy(), -127, 127)
        assert codes.dtype == torch.int8 and np.array_equal(codes.numpy(), want)
        np.testing.assert_allclose(scale.float().numpy(), 1 / inverse, rtol=3e-7)
        got = decompress(tensors, config, module)
        assert torch.equal(got, codes.float() * scale)
        parts = codes.numpy().astype(int) + 128, scale.numpy(), np.full(scale.shape, 128)
        assert fingerprint(*parts, np.zeros(codes.shape[1]), 8) == hashes[module]
