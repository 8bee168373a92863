"""The simple modes: int8, int4 and float8, against the formulas of the tools that they come from and
against readers of the files."""
import json
import shutil

import ml_dtypes
import numpy as np
import pytest
import torch
import transformers
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationScheme
from safetensors.torch import load_file, save_file

from test_float8 import driver  # noqa: F401 (a fixture)
from test_quantize import fingerprint, padded, report, run_measured  # noqa: F401 (a fixture)

EPSILON = np.float32(1e-7)
FLOAT8 = {"F8_E4M3": (ml_dtypes.float8_e4m3fn, 448.0), "F8_E5M2": (ml_dtypes.float8_e5m2, 57344.0)}


def copied(model, folder, tensors):
    """The model with other tensors."""
    shutil.copytree(model, folder)
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "model.safetensors",
              {"format": "pt"})
    return folder


def widened(model, folder, width):
    """The model with feed-forward parts of another width, by weights that are small."""
    tensors = load_file(model / "model.safetensors")
    config = json.loads((model / "config.json").read_text())
    narrow, rng = config["intermediate_size"], np.random.default_rng(2)
    for name, tensor in tensors.items():
        if "mlp" in name:
            shape = [width if n == narrow else n for n in tensor.shape]
            grown = torch.from_numpy(rng.normal(0, 0.01, shape).astype(np.float32))
            grown[: tensor.shape[0], : tensor.shape[1]] = tensor
            tensors[name] = grown
    config["intermediate_size"] = width
    copied(model, folder, tensors)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def wide(stories, tmp_path_factory):
    """With more than one block of 128, and not a whole one."""
    return widened(stories, tmp_path_factory.mktemp("wide") / "model", 200)


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
    "float8": ["-m", "float8"],
    "float8 of tensors": ["-m", "float8", "--float8-scales", "tensor"],
    "float8 of blocks": ["-m", "float8", "--float8-scales", "block"],
}
FORMATS = {"int8": "int-quantized", "int4": "pack-quantized", "floa": "float-quantized"}


def logits_of(nybble, folder, ids, tmp_path):
    np.save(tmp_path / "ids.npy", ids)
    nybble("logits", folder, "--tokens", tmp_path / "ids.npy", "-o", tmp_path / "l.npy")
    return np.load(tmp_path / "l.npy")


@pytest.mark.parametrize("mode", MODES)
def test_transformers_runs_the_file(nybble, padded, tmp_path, mode):
    tensors, config = quantize(nybble, padded, tmp_path / "out", *MODES[mode])
    assert config["format"] == FORMATS[mode[:4]]
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


# ---- 8-bit floats ---------------------------------------------------------------------------

def want_float8(weight, scales, dtype, largest):
    """Codes and the scale of every weight, by numpy and ml_dtypes."""
    rows, cols = weight.shape
    absmax = np.abs(weight)
    if scales == "tensor":
        most = np.full_like(weight, absmax.max())
    elif scales == "channel":
        most = np.broadcast_to(absmax.max(1, keepdims=True), weight.shape)
    else:
        most = np.empty_like(weight)
        for i in range(0, rows, 128):
            for j in range(0, cols, 128):
                most[i:i + 128, j:j + 128] = absmax[i:i + 128, j:j + 128].max()
    scale = (most.astype(np.float64) / largest).astype(np.float32)
    scale[most == 0] = 1
    return (weight / scale).clip(-largest, largest).astype(dtype), scale


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2"])
def test_codes_are_those_of_ml_dtypes(driver, kind):
    """All bf16 values and a million of f32; what is too large saturates in e4m3."""
    rng = np.random.default_rng(9)
    every = np.concatenate([np.arange(65536, dtype=np.uint32) << 16,
                            rng.integers(0, 2**32, 1_000_000, dtype=np.uint32)]).view(np.float32)
    dtype, largest = FLOAT8[kind]
    got = np.frombuffer(driver("narrow", kind, every), np.uint8)
    with np.errstate(all="ignore"):
        held = every if kind == "F8_E5M2" else np.where(
            np.isnan(every), every, every.clip(-largest, largest))
        want = held.astype(dtype).view(np.uint8)
    same = (got == want) | (np.isnan(every) & np.isnan(got.view(dtype).astype(np.float32)))
    print(f"{kind}: {len(got)} values, {np.sum(~same)} differ (want 0)")
    assert len(got) == len(every) == 1_065_536 and same.all(), every[~same][:5]


@pytest.mark.parametrize("scales", ["tensor", "channel", "block"])
def test_float8_files_hold_the_formula(nybble, wide, tmp_path, scales):
    tensors, config = quantize(nybble, wide, tmp_path / "out", "-m", "float8",
                               "--float8-scales", scales)
    source = load_file(wide / "model.safetensors")
    assert config["format"] == "float-quantized"
    modules = layers_of(tensors, "weight_scale")
    assert len(modules) == 5 * 7
    for module in modules:
        codes = tensors[module + ".weight"]
        assert codes.dtype == torch.float8_e4m3fn
        want, scale = want_float8(source[module + ".weight"].float().numpy(), scales,
                                  *FLOAT8["F8_E4M3"])
        assert np.array_equal(codes.view(torch.uint8).numpy(), want.view(np.uint8)), module
        value = decompress(tensors, config, module)
        assert torch.equal(value, torch.from_numpy(want.astype(np.float32) * scale)), module


def test_fp8_files_hold_the_formula(nybble, wide, tmp_path):
    tensors, config = quantize(nybble, wide, tmp_path / "out", "-m", "float8", "--format", "fp8")
    source = load_file(wide / "model.safetensors")
    assert config["quant_method"] == "fp8" and config["weight_block_size"] == [128, 128]
    for module in layers_of(tensors, "weight_scale_inv"):
        want, scale = want_float8(source[module + ".weight"].float().numpy(), "block",
                                  *FLOAT8["F8_E4M3"])
        got = tensors[module + ".weight_scale_inv"]
        assert got.dtype == torch.float32 and np.array_equal(got.numpy(), scale[::128, ::128])
        assert np.array_equal(tensors[module + ".weight"].view(torch.uint8).numpy(),
                              want.view(np.uint8)), module


@pytest.mark.parametrize("more", [["--float8-scales", "tensor"], ["--float8-scales", "block"], [],
                                  ["--format", "fp8"]])
def test_float8_runs_as_its_weights(nybble, wide, tmp_path, more):
    """Against the same model with every layer's weight written out."""
    tensors, config = quantize(nybble, wide, tmp_path / "out", "-m", "float8", *more)
    source = load_file(wide / "model.safetensors")
    scales = more[1] if "--float8-scales" in more else "block" if more else "channel"
    for name in list(source):
        if ".layers." in name and name.endswith("proj.weight"):
            codes, scale = want_float8(source[name].float().numpy(), scales, *FLOAT8["F8_E4M3"])
            source[name] = torch.from_numpy(codes.astype(np.float32) * scale)
    plain = copied(wide, tmp_path / "plain", source)
    ids = np.random.default_rng(3).integers(3, 512, (4, 64)).astype(np.int64)
    got, want = (logits_of(nybble, f, ids, tmp_path) for f in (tmp_path / "out", plain))
    off = np.abs(got - want).max() / np.abs(want).max()
    print(f"off by {off:.2e} of the largest logit (bound 1e-5)")
    assert off <= 1e-5
    size = (tmp_path / "out" / "model.safetensors").stat().st_size
    assert size < 0.45 * (plain / "model.safetensors").stat().st_size


def test_transformers_reads_fp8(nybble, stories, tmp_path):
    """Whole blocks: of others transformers (5.23) takes the side for smaller than it is."""
    whole = widened(stories, tmp_path / "model", 256)
    quantize(nybble, whole, tmp_path / "out", "-m", "float8", "--format", "fp8")
    ids = np.random.default_rng(3).integers(3, 512, (4, 64)).astype(np.int64)
    got = logits_of(nybble, tmp_path / "out", ids, tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.float32,
        quantization_config=transformers.FineGrainedFP8Config(dequantize=True))
    with torch.no_grad():
        want = model(torch.from_numpy(ids)).logits.float().numpy()
    error = np.abs(got - want).max()
    print(f"max |logit difference| {error:.2e}, tolerance 1e-2 (f32 storage)")
    assert error <= 1e-2


# ---- Ranges ---------------------------------------------------------------------------------

@pytest.mark.parametrize("percent", [60, 90])
def test_percentiles_clip_each_channel(nybble, wide, tmp_path, percent):
    tensors, _ = quantize(nybble, wide, tmp_path / "out", "-m", "int8", "--range", "percentile",
                          "--percentile", percent)
    source = load_file(wide / "model.safetensors")
    for module in layers_of(tensors, "weight_scale"):
        absolute = np.sort(np.abs(source[module + ".weight"].float().numpy()), axis=1)
        want = absolute[:, int(np.ceil(percent / 100 * absolute.shape[1])) - 1]
        got = 127 * tensors[module + ".weight_scale"].float().numpy()[:, 0]
        bins = absolute[:, -1] / 512  # of 2,048 up to a power of two; and 1e-7 above
        assert np.all(np.abs(got - want) <= bins + 1e-6), module


def test_a_range_lowers_the_error_that_it_is_for(nybble, wide, tmp_path):
    """Of int4, where mse has the least squared error of the four."""
    errors = {}
    for kind in ("absmax", "percentile", "mse", "entropy"):
        for mode in (["int4"], ["float8", "--float8-scales", "block"]):
            out = tmp_path / (kind + mode[0])
            quantize(nybble, wide, out, "-m", *mode, "--range", kind, "--percentile", 99)
            layers = report(out)["layers"]
            errors[mode[0], kind] = np.mean([layer["weight_error"] for layer in layers])
    print({k: float(v) for k, v in errors.items()})
    assert errors["int4", "mse"] < 0.95 * errors["int4", "absmax"]
    assert errors["int4", "mse"] <= min(e for (m, _), e in errors.items() if m == "int4")
    assert errors["float8", "mse"] <= 1.001 * errors["float8", "absmax"]


# ---- Inputs that are rounded too ------------------------------------------------------------

def rounded(x, kind, whole):
    """What nybble/activations.h says a layer's input [tokens, cols] becomes, in f32."""
    dims = None if whole else 1
    most = x.abs().amax(dims, keepdim=True) if dims else x.abs().amax()
    if kind == "int8":
        return (x * (127 / (most + 1e-7))).clamp(-127, 127).round() * ((most + 1e-7) / 127)
    step = torch.where(most > 0, most / 448, 1.0)
    return (x / step).to(torch.float8_e4m3fn).float() * step


def weights_of(folder):
    """Every quantised layer's weight in f32, by compressed-tensors."""
    tensors = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    marks = {n.rsplit(".", 1)[0] for n in tensors if n.endswith(".weight_scale")}
    return {m: decompress(tensors, config, m).float() for m in sorted(marks)}


@pytest.mark.parametrize("mode,activations", [
    ("int8", "int8"), ("int8", "int8-per-token"), ("int4", "int8-per-token"),
    ("int4 in groups", "int8"), ("float8", "float8"), ("float8 of blocks", "float8-per-token"),
    ("int8", "float8"), ("int8", "none")])
def test_rounded_inputs_give_torchs_loss(nybble, padded, data, tmp_path, mode, activations):
    """A model of one block: sums in another order move a few values over the boundary between two
    codes, and what reads such a value is off by a step; further blocks would spread that to all."""
    tensors = load_file(padded / "model.safetensors")
    single = copied(padded, tmp_path / "single", {
        n: t for n, t in tensors.items() if ".layers." not in n or ".layers.0." in n})
    config = json.loads((single / "config.json").read_text())
    (single / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    out = tmp_path / "out"
    quantize(nybble, single, out, *MODES[mode])
    nybble("tokenize", padded, data / "text" / "tinystories-sample.txt", "-o",
           tmp_path / "all.npy")
    ids = np.load(tmp_path / "all.npy")[: 3 * 96].astype(np.int64).reshape(3, 96)
    np.save(tmp_path / "ids.npy", ids.reshape(-1))
    done = nybble("eval", out, "--text", tmp_path / "ids.npy", "--window", 96, "--bos", "never",
                  "--activations", activations, "--json")
    got = json.loads(done.stdout)
    assert got["data"]["activations"] == activations and got["data"]["scored"] == 3 * 95

    model = transformers.AutoModelForCausalLM.from_pretrained(single, dtype=torch.float32)
    kind, whole = activations.split("-")[0], not activations.endswith("per-token")
    for module, weight in weights_of(out).items():
        layer = model.get_submodule(module)
        layer.weight.data = weight
        if kind != "none":
            layer.register_forward_pre_hook(lambda _, args: (rounded(
                args[0][0], kind, whole)[None],))
    losses = []
    for row in ids:  # alone: what "all tokens" are
        with torch.no_grad():
            logits = model(torch.from_numpy(row[None])).logits[0, :-1].double()
        losses.append(torch.nn.functional.cross_entropy(logits, torch.from_numpy(row[1:])))
    want = float(torch.stack(losses).mean())
    print(f"{mode}, {activations}: loss {got['loss']:.6f}, torch's {want:.6f} (tolerance 5e-4)")
    assert abs(got["loss"] - want) < (1e-5 if kind == "none" else 5e-4)


def test_rounded_inputs_change_something(nybble, padded, tmp_path):
    quantize(nybble, padded, tmp_path / "out", "-m", "int8")
    np.save(tmp_path / "ids.npy", np.random.default_rng(5).integers(3, 512, 300))
    seen = set()
    for activations in ("none", "int8", "float8", "int8-per-token", "float8-per-token"):
        for threads in (1, 3):
            done = nybble("eval", tmp_path / "out", "--text", tmp_path / "ids.npy", "--window", 100,
                          "--activations", activations, "--threads", threads, "--json")
            seen.add((activations, json.loads(done.stdout)["loss"]))
    assert len(seen) == 5 and len({loss for _, loss in seen}) == 5  # the same for any threads


def test_activations_need_weights_that_fit(nybble, padded, tmp_path):
    np.save(tmp_path / "ids.npy", np.arange(3, 100))
    def refusal(folder):
        done = nybble("eval", folder, "--text", tmp_path / "ids.npy", "--activations", "int8",
                      ok=False)
        assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1
        return done.stderr
    assert "no layer is quantised" in refusal(padded)
    quantize(nybble, padded, tmp_path / "out", "-m", "float8")
    assert "--activations float8" in refusal(tmp_path / "out")


# ---- What inputs are like -------------------------------------------------------------------

def test_recorded_inputs_are_torchs(nybble, stories, data, tmp_path):
    text = data / "text" / "tinystories-sample.txt"
    nybble("tokenize", stories, text, "-o", tmp_path / "all.npy")
    ids = np.load(tmp_path / "all.npy")[: 6 * 64].astype(np.int64).reshape(6, 64)
    np.save(tmp_path / "ids.npy", ids)
    seen = {}
    model = transformers.AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32)
    for name, layer in model.named_modules():
        if name.endswith("proj"):
            layer.register_forward_pre_hook(
                lambda _, args, name=name: seen.setdefault(name, []).append(args[0].flatten(0, 1)))
    with torch.no_grad():
        model(torch.from_numpy(ids))
    written = []
    for threads in (1, 3):
        out = tmp_path / f"{threads}.json"
        nybble("calibrate", stories, "--calib", tmp_path / "ids.npy", "-n", 6, "-l", 64, "--bos",
               "never", "--percentile", 99, "--threads", threads, "-o", out)
        written.append(out.read_text())
    assert written[0] == written[1]
    layers = json.loads(written[0])["layers"]
    assert sorted(layers) == sorted(seen) and len(layers) == 35
    for name, got in layers.items():
        x = torch.cat(seen[name])
        most = float(x.abs().max())
        want = {"tokens": len(x), "min": min(0, float(x.min())), "max": max(0, float(x.max())),
                "absmax": most}
        for key, value in want.items():
            assert abs(got[key] - value) <= 1e-4 * most, (name, key, got, want)
        ranked = np.sort(x.abs().numpy().ravel())
        percentile = ranked[int(np.ceil(0.99 * ranked.size)) - 1]
        assert abs(got["percentile"] - percentile) <= most / 512, (name, got, percentile)
        assert 0 < got["mse"] <= most * 1.0001 and 0 < got["entropy"] <= most * 1.0001


@pytest.mark.real  # sanitizers take memory of their own
def test_a_ceiling_changes_no_recorded_input(program, nybble, stories, data, tmp_path):
    run = ["calibrate", widened(stories, tmp_path / "wide", 2048), "--calib",
           data / "text" / "tinystories-sample.txt", "-n", 32, "-l", 256, "--threads", 2]
    free = run_measured(program, *run, "-o", tmp_path / "free")
    ceiling = 72 << 20
    kept = run_measured(program, *run, "-o", tmp_path / "kept", "--memory", ceiling)
    print(f"peak without a ceiling {free >> 20} MiB, with one of {ceiling >> 20}: {kept >> 20} MiB")
    assert kept <= ceiling < free
    assert (tmp_path / "kept").read_bytes() == (tmp_path / "free").read_bytes()
    done = nybble(*run, "-o", tmp_path / "less", "--memory", "41M", ok=False)
    assert done.returncode == 1 and "the ceiling is 41 MiB: raise --memory" in done.stderr
    assert not (tmp_path / "less").exists()


# ---- Scales of inputs in the file -----------------------------------------------------------

SCHEMES = {
    "int8": ("int", "tensor", True), "int8-per-token": ("int", "token", True),
    "int8-static": ("int", "tensor", False), "float8": ("float", "tensor", True),
    "float8-per-token": ("float", "token", True), "float8-static": ("float", "tensor", False),
}


@pytest.mark.parametrize("activations", SCHEMES)
def test_files_say_what_inputs_are_rounded_to(nybble, padded, data, tmp_path, activations):
    """And the runtime of compressed-tensors, which rounds them as it is told, gives the loss of eval."""
    text, kind = data / "text" / "tinystories-sample.txt", activations.split("-")[0]
    tensors, config = quantize(nybble, padded, tmp_path / "out", "-m", kind, "--activations",
                               activations, "--calib", text, "-n", 8, "-l", 64)
    group, = config["config_groups"].values()
    got = group["input_activations"]
    assert (got["type"], got["strategy"], got["dynamic"]) == SCHEMES[activations]
    QuantizationScheme.model_validate(group)
    scales = [n for n in tensors if n.endswith(".input_scale")]
    assert len(scales) == (35 if activations.endswith("static") else 0)

    nybble("tokenize", padded, text, "-o", tmp_path / "all.npy")
    ids = np.load(tmp_path / "all.npy")[:480].astype(np.int64)
    np.save(tmp_path / "ids.npy", ids)
    done = nybble("eval", tmp_path / "out", "--text", tmp_path / "ids.npy", "--bos", "never",
                  "--activations", activations.removesuffix("-static"), "--json")
    got = json.loads(done.stdout)["loss"]
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    with torch.no_grad():
        logits = model(torch.from_numpy(ids[None])).logits[0, :-1].double()
    want = float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(ids[1:])))
    # Its own int8 scales are absmax / 127.5, and rounding differences spread from layer to layer.
    print(f"{activations}: loss {got:.5f}, the library's {want:.5f} (tolerance 0.02)")
    assert abs(got - want) < 0.02


def test_static_scales_are_those_that_calibrate_records(nybble, padded, data, tmp_path):
    text = ["--calib", data / "text" / "tinystories-sample.txt", "-n", 8, "-l", 64]
    nybble("calibrate", padded, *text, "-o", tmp_path / "seen.json", "--percentile", 99)
    seen = json.loads((tmp_path / "seen.json").read_text())["layers"]
    for kind in ("absmax", "percentile", "mse", "entropy"):
        tensors, _ = quantize(nybble, padded, tmp_path / kind, "-m", "int8", "-a", "int8-static",
                              "--activation-range", kind, "--activation-percentile", 99, *text)
        for module, layer in seen.items():
            got = float(tensors[module + ".input_scale"].float().item())
            assert abs(127 * got - layer[kind]) <= 1e-5 * layer[kind] + 1e-6, (kind, module)


def test_activations_have_to_fit(nybble, padded, tmp_path):
    def refusal(*more):
        done = nybble("quantize", padded, "-o", tmp_path / "out", *more, ok=False)
        assert done.returncode == 1 and not (tmp_path / "out").exists()
        assert len(done.stderr.strip().splitlines()) == 1
        return done.stderr
    assert "do not go with weights by float8" in refusal("-m", "float8", "-a", "int8")
    assert "do not go with weights by int8" in refusal("-m", "int8", "-a", "float8")
    assert "--calib" in refusal("-m", "int8", "-a", "int8-static")
    assert "cannot say" in refusal("-m", "rtn", "-g", "-1", "--format", "gptq", "-a", "int8")
