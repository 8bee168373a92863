"""Checkpoints that are quantised already: layouts as input, `nybble convert`, and quantised sources
of `nybble quantize`. Every layout is packed and unpacked here anew, from its description."""
import json
import pathlib
import subprocess

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file as load_numpy
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file, save_file

AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


# ---- AWQ, for this test alone ---------------------------------------------------------------

def awq_pack(values):
    """[n, outputs] numbers below 16 to I32 [n, outputs / 8]."""
    words = np.zeros((values.shape[0], values.shape[1] // 8), np.uint32)
    for i, column in enumerate(AWQ_ORDER):
        words |= values[:, column::8].astype(np.uint32) << np.uint32(4 * i)
    return words.view(np.int32)


def awq_unpack(words):
    out = np.zeros((words.shape[0], words.shape[1] * 8), np.uint8)
    for i, column in enumerate(AWQ_ORDER):
        out[:, column::8] = words.view(np.uint32) >> np.uint32(4 * i) & 15
    return out


def awq_tensors(module, codes, zeros, scales):
    """codes [N, K], zeros and scales [N, G]."""
    return {module + ".qweight": awq_pack(codes.T), module + ".qzeros": awq_pack(zeros.T),
            module + ".scales": np.ascontiguousarray(scales.T).astype(np.float16)}


def awq_decode(tensors, module):
    """codes [N, K], zeros and scales [N, G]."""
    return (awq_unpack(tensors[module + ".qweight"]).T, awq_unpack(tensors[module + ".qzeros"]).T,
            tensors[module + ".scales"].T.astype(np.float32))


def dequantized(codes, zeros, scales, group):
    each = np.arange(codes.shape[1]) // (group or codes.shape[1])
    return scales[:, each] * (codes.astype(np.float32) - zeros[:, each].astype(np.float32))


def awq_config(group, skip=("lm_head",), **more):
    return {"quant_method": "awq", "bits": 4, "group_size": group or -1, "zero_point": True,
            "version": "gemm", "modules_to_not_convert": list(skip), **more}


# ---- GPTQ and compressed-tensors ------------------------------------------------------------

def stream_pack(codes, bits):
    """Codes along the last axis as a little-endian stream of 32-bit words."""
    raw = (codes[..., None] >> np.arange(bits, dtype=np.uint8)) & 1
    raw = raw.reshape(*codes.shape[:-1], -1).astype(np.uint8)
    pad = -raw.shape[-1] % 32
    raw = np.concatenate([raw, np.zeros((*raw.shape[:-1], pad), np.uint8)], -1)
    return np.ascontiguousarray(np.packbits(raw, axis=-1, bitorder="little")).view(np.int32)


def stream_unpack(words, bits, count):
    raw = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little")
    raw = raw[..., : count * bits].reshape(*words.shape[:-1], count, bits)
    return (raw.astype(np.uint16) << np.arange(bits)).sum(-1).astype(np.uint8)


def gptq_tensors(module, codes, zeros, scales, group_of, bits, v1):
    return {module + ".qweight": np.ascontiguousarray(stream_pack(codes, bits).T),
            module + ".qzeros": stream_pack(np.ascontiguousarray(zeros.T) - np.uint8(v1), bits),
            module + ".scales": np.ascontiguousarray(scales.T).astype(np.float16),
            module + ".g_idx": group_of.astype(np.int32)}


def gptq_decode(tensors, module, bits, v1):
    """codes [N, K], zeros and scales [N, G], the group of each column."""
    scales, group_of = tensors[module + ".scales"], tensors[module + ".g_idx"]
    codes = stream_unpack(tensors[module + ".qweight"].T, bits, group_of.size)
    zeros = stream_unpack(tensors[module + ".qzeros"], bits, scales.shape[1]) + np.uint8(v1)
    return codes, zeros.T, scales.T.astype(np.float32), group_of


def gptq_config(bits, group, symmetric, v1, order=False, head=False):
    name = "gptq" if v1 else "gptq_v2"
    return {"quant_method": "gptq", "bits": bits, "group_size": group or -1, "sym": symmetric,
            "desc_act": order, "lm_head": head, "checkpoint_format": name, "format": name}


# ---- 8-bit floats ---------------------------------------------------------------------------

def expand(scales, shape, block):
    """A scale for every weight from one for each block."""
    return scales.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)[
        : shape[0], : shape[1]]


FLOAT8 = {
    # name: block of a scale in the weight's shape (rows, columns), configuration, names
    "fp8": lambda shape: (128, 128),
    "fp8 powers": lambda shape: (128, 128),
    "fp8 e5m2": lambda shape: (128, 128),
    "fp8 tensor": lambda shape: shape,
    "fp8 tensor inv": lambda shape: shape,
    "ct tensor": lambda shape: shape,
    "ct channel": lambda shape: (1, shape[1]),
    "ct block": lambda shape: (128, 128),
    "ct dynamic": lambda shape: (1, shape[1]),
}


def float8_config(kind):
    if kind.startswith("fp8"):
        config = {"quant_method": "fp8", "activation_scheme": "dynamic",
                  "modules_to_not_convert": ["lm_head"]}
        if kind == "fp8 e5m2":
            config["fmt"] = "e5m2"
        if "tensor" not in kind:
            config["weight_block_size"] = [128, 128]
        if kind == "fp8 powers":
            config["scale_fmt"] = "ue8m0"
        return config
    strategy = kind.split()[1].replace("dynamic", "channel")
    weights = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": strategy,
               "dynamic": False}
    if strategy == "block":
        weights["block_structure"] = [128, 128]
    inputs = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "token",
              "dynamic": True} if kind == "ct dynamic" else None
    return {"quant_method": "compressed-tensors", "format": "float-quantized",
            "quantization_status": "compressed", "ignore": ["lm_head"],
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights,
                                          "input_activations": inputs}}}


def float8_model(tiny, out, kind, seed=4):
    """The model with 8-bit floats, and the same with plain f32 weights."""
    rng = torch.Generator().manual_seed(seed)
    plain = load_file(tiny / "model.safetensors")
    packed = dict(plain)
    dtype = torch.float8_e5m2 if kind == "fp8 e5m2" else torch.float8_e4m3fn
    for module in modules_of(plain):
        shape = tuple(plain[module + ".weight"].shape)
        block = FLOAT8[kind](shape)
        grid = [-(-n // b) for n, b in zip(shape, block)]
        codes = (torch.randn(shape, generator=rng) * 60).clamp(-448, 448).to(dtype)
        scales = torch.rand(grid, generator=rng) * 0.002 + 0.0005
        if kind == "fp8 powers":
            scales = 2.0 ** scales.log2().round()
        stored = scales.to(torch.float8_e8m0fnu) if kind == "fp8 powers" else scales
        if kind in ("ct channel", "ct dynamic"):
            scales = scales.to(torch.bfloat16).float()
            stored = scales.to(torch.bfloat16)
        if "tensor" in kind:
            stored = stored.reshape([] if kind == "fp8 tensor inv" else [1])
        inverse = kind in ("fp8", "fp8 powers", "fp8 e5m2", "fp8 tensor inv")
        packed[module + ".weight"] = codes
        packed[module + (".weight_scale_inv" if inverse else ".weight_scale")] = stored
        plain[module + ".weight"] = expand(scales, shape, block) * codes.float()
    return write_model(tiny, out, packed, float8_config(kind)), plain


# ---- Models ---------------------------------------------------------------------------------

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A small random Llama whose widths suit every layout."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=160, hidden_size=128, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
        tie_word_embeddings=False)
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * (0.6 if p.ndim == 1 else 0.12) + (p.ndim == 1))
    model.float().save_pretrained(folder)
    return folder


def modules_of(tensors):
    return [n[: -len(".weight")] for n in tensors if n.split(".")[-2] in LINEARS]


def write_model(source, out, tensors, config):
    """A folder with these tensors and this quantization_config."""
    out.mkdir(parents=True)
    whole = json.loads((source / "config.json").read_text())
    whole["quantization_config"] = config
    (out / "config.json").write_text(json.dumps(whole))
    save_file({n: torch.as_tensor(t).contiguous() for n, t in tensors.items()},
              out / "model.safetensors", {"format": "pt"})
    return out


def random_grid(rng, shape, group, bits=4, lowest=0):
    """Codes, zeros and f16 scales of a layer."""
    groups = -(-shape[1] // (group or shape[1]))
    codes = rng.integers(0, 1 << bits, shape).astype(np.uint8)
    zeros = rng.integers(lowest, 1 << bits, (shape[0], groups)).astype(np.uint8)
    scales = (rng.uniform(0.004, 0.02, zeros.shape)).astype(np.float16).astype(np.float32)
    return codes, zeros, scales


def awq_model(tiny, out, group, seed=1, symmetric=False):
    """The model in AWQ layout, and the same with plain f32 weights."""
    rng = np.random.default_rng(seed)
    plain = load_file(tiny / "model.safetensors")
    packed = dict(plain)
    for module in modules_of(plain):
        shape = tuple(plain[module + ".weight"].shape)
        codes, zeros, scales = random_grid(rng, shape, group)
        zeros = np.full_like(zeros, 8) if symmetric else zeros
        del packed[module + ".weight"]
        packed |= awq_tensors(module, codes, zeros, scales)
        plain[module + ".weight"] = torch.from_numpy(dequantized(codes, zeros, scales, group))
    return write_model(tiny, out, packed, awq_config(group)), plain


def gptq_model(tiny, out, bits, group, symmetric=False, v1=True, order=False, head=False,
               bias=None, seed=2):
    """The model in GPTQ layout, and the same with plain f32 weights."""
    rng = np.random.default_rng(seed)
    plain = load_file(tiny / "model.safetensors")
    packed = dict(plain)
    for module in modules_of(plain) + (["lm_head"] if head else []):
        shape = tuple(plain[module + ".weight"].shape)
        codes, zeros, scales = random_grid(rng, shape, group, bits, int(v1))
        scales /= 1 << (bits - 4) if bits > 4 else 1
        zeros = np.full_like(zeros, 1 << (bits - 1)) if symmetric else zeros
        group_of = np.arange(shape[1]) // (group or shape[1])
        if order:
            rng.shuffle(group_of)
        del packed[module + ".weight"]
        packed |= gptq_tensors(module, codes, zeros, scales, group_of, bits, v1)
        if bias is not None:
            packed[module + ".bias"] = torch.full((shape[0],), bias, dtype=torch.float16)
        steps = codes.astype(np.float32) - zeros[:, group_of].astype(np.float32)
        plain[module + ".weight"] = torch.from_numpy(
            scales.astype(np.float16).astype(np.float32)[:, group_of] * steps)
    config = gptq_config(bits, group, symmetric, v1, order, head)
    return write_model(tiny, out, packed, config), plain


def plain_model(tiny, out, tensors):
    folder = write_model(tiny, out, tensors, None)
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def logits_of(nybble, folder, tmp_path):
    ids = np.random.default_rng(7).integers(3, 160, (2, 48)).astype(np.int64)
    np.save(tmp_path / "ids.npy", ids)
    nybble("logits", folder, "--tokens", tmp_path / "ids.npy", "-o", tmp_path / "l.npy")
    return ids, np.load(tmp_path / "l.npy")


def assert_runs_as(nybble, folder, source, plain, tmp_path, bound=2e-5):
    """The folder's logits are those of transformers with the plain weights, in f32."""
    ids, got = logits_of(nybble, folder, tmp_path)
    config = transformers.AutoConfig.from_pretrained(source)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    missing = model.load_state_dict({n: torch.as_tensor(t).float() for n, t in plain.items()},
                                    strict=False)
    assert not missing.unexpected_keys and not missing.missing_keys
    with torch.no_grad():
        want = model(torch.from_numpy(ids)).logits.numpy()
    off = np.abs(got - want).max() / np.abs(want).max()
    print(f"logits off by {off:.2e} of the largest (bound {bound:g})")
    assert off <= bound


# ---- Readers --------------------------------------------------------------------------------

@pytest.fixture(scope="session")
def driver(program):
    path = pathlib.Path(program).parents[1] / "tests" / "formats" / "layout_driver"

    def run(*args):
        subprocess.run([path, *map(str, args)], check=True, capture_output=True)

    return run


@pytest.mark.parametrize("seed", range(12))
def test_awq_of_any_shape_is_read(driver, tmp_path, seed):
    rng = np.random.default_rng(seed)
    group = [0, 32, 64, 128][seed % 4]
    shape = (8 * int(rng.integers(1, 40)), (group or 7) * int(rng.integers(1, 6)))
    codes, zeros, scales = random_grid(rng, shape, group)
    (tmp_path / "out").mkdir()
    save_numpy(awq_tensors("m.q", codes, zeros, scales), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": awq_config(group)}))
    driver("read", tmp_path, "m.q", *shape, tmp_path / "out")
    for name, want in (("codes", codes), ("zeros", zeros), ("scales", scales)):
        assert np.array_equal(np.load(tmp_path / "out" / f"{name}.npy"), want), name


@pytest.mark.parametrize("group", [0, 32, 128])
def test_awq_runs_as_its_weights(nybble, tiny, tmp_path, group):
    folder, plain = awq_model(tiny, tmp_path / "awq", group)
    assert_runs_as(nybble, folder, tiny, plain, tmp_path)
    found = json.loads(nybble("inspect", folder, "--check", "--layers",
                              "--json").stdout)
    assert found["method"] == "awq" and found["faults"] == 0
    assert sum(layer.get("layout") == "awq" for layer in found["layers"]) == 14


@pytest.mark.parametrize("symmetric", [True, False])
def test_awq_is_written(nybble, tiny, tmp_path, symmetric):
    more = [] if symmetric else ["--asymmetric"]
    nybble("quantize", tiny, "-o", tmp_path / "out", "-m", "rtn", "-f", "awq", "-g", 64, *more)
    nybble("quantize", tiny, "-o", tmp_path / "v2", "-m", "rtn", "-f", "gptq_v2", "-g", 64, *more)
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert config == awq_config(64)
    tensors = load_numpy(tmp_path / "out" / "model.safetensors")
    plain = {n: t for n, t in tensors.items() if n.endswith((".weight", ".bias"))}
    for module in modules_of(load_file(tiny / "model.safetensors")):
        codes, zeros, scales = awq_decode(tensors, module)
        assert not symmetric or (zeros == 8).all()
        plain[module + ".weight"] = dequantized(codes, zeros, scales, 64)
    assert_runs_as(nybble, tmp_path / "v2", tiny, plain, tmp_path)
    assert_runs_as(nybble, tmp_path / "out", tiny, plain, tmp_path)


# ---- `nybble convert` -----------------------------------------------------------------------

def quantization_of(folder):
    return json.loads((folder / "config.json").read_text())["quantization_config"]


def compressed_decode(tensors, module, bits, symmetric):
    rows, cols = tensors[module + ".weight_shape"]
    scales = tensors[module + ".weight_scale"].astype(np.float32)
    codes = stream_unpack(tensors[module + ".weight_packed"], bits, cols)
    if symmetric:
        zeros = np.full(scales.shape, 1 << (bits - 1), np.uint8)
    else:
        zeros = stream_unpack(tensors[module + ".weight_zero_point"].T, bits, rows).T
    return codes, zeros, scales, np.arange(cols) // -(-cols // scales.shape[1])


def weights_of(folder, modules):
    """Dequantised f32 weights of a folder in any layout of whole numbers, decoded here."""
    config, tensors = quantization_of(folder), load_numpy(folder / "model.safetensors")
    out = {}
    for module in modules:
        if config["quant_method"] == "awq":
            codes, zeros, scales = awq_decode(tensors, module)
            group_of = np.arange(codes.shape[1]) // -(-codes.shape[1] // scales.shape[1])
        elif config["quant_method"] == "gptq":
            v1 = config["checkpoint_format"] == "gptq"
            assert "dynamic" not in config
            codes, zeros, scales, group_of = gptq_decode(tensors, module, config["bits"], v1)
        else:
            (scheme,) = config["config_groups"].values()
            weights = scheme["weights"]
            codes, zeros, scales, group_of = compressed_decode(
                tensors, module, weights["num_bits"], weights["symmetric"])
        out[module] = scales[:, group_of] * (codes.astype(np.float32) -
                                             zeros[:, group_of].astype(np.float32))
    return out


CHAINS = [
    # bits, group, symmetric, head, the layouts in turn
    (4, 64, False, False, ["awq", "gptq", "compressed-tensors", "gptq_v2", "awq"]),
    (4, 128, True, False, ["gptq", "awq", "compressed-tensors", "gptq", "gptq_v2"]),
    (4, 0, False, False, ["gptq_v2", "compressed-tensors", "awq", "gptq_v2"]),
    (3, 32, False, True, ["gptq", "compressed-tensors", "gptq_v2", "gptq"]),
    (8, 32, True, True, ["gptq_v2", "gptq", "compressed-tensors", "gptq"]),
    (2, 64, False, False, ["gptq_v2", "compressed-tensors", "gptq_v2"]),
]


def source_in(tiny, out, bits, group, symmetric, head, layout):
    if layout == "awq":
        rng_zeros = awq_model(tiny, out, group, seed=5, symmetric=symmetric)
        tensors = load_numpy(out / "model.safetensors")
        for name in tensors:  # version 1 of gptq has no zero point 0
            if name.endswith("qzeros"):
                tensors[name] = awq_pack(np.maximum(awq_unpack(tensors[name]), 1))
        save_numpy(tensors, out / "model.safetensors", {"format": "pt"})
        return rng_zeros
    return gptq_model(tiny, out, bits, group, symmetric, layout == "gptq", head=head)


@pytest.mark.parametrize("bits,group,symmetric,head,layouts", CHAINS)
def test_layouts_hold_the_same_weights(nybble, tiny, tmp_path, bits, group, symmetric, head,
                                       layouts):
    """From layout to layout and back, decoded here: equal bit for bit at every step."""
    at = tmp_path / "0"
    _, plain = source_in(tiny, at, bits, group, symmetric, head, layouts[0])
    modules = modules_of(plain) + (["lm_head"] if head else [])
    want = weights_of(at, modules)
    logits = logits_of(nybble, at, tmp_path)[1]
    source = load_numpy(at / "model.safetensors")
    for step, layout in enumerate(layouts[1:], 1):
        made = json.loads(nybble("convert", at, "-o", tmp_path / str(step), "-f", layout,
                                 "--json").stdout)
        assert made["exact"] is True and made["layers"] == len(modules)
        at = tmp_path / str(step)
        got = weights_of(at, modules)
        for module in modules:
            assert np.array_equal(got[module].view(np.uint32), want[module].view(np.uint32))
        assert np.array_equal(logits_of(nybble, at, tmp_path)[1], logits)
        config = quantization_of(at)
        if config["quant_method"] == "gptq":
            assert config["sym"] == symmetric and config["lm_head"] == head
        tensors = load_numpy(at / "model.safetensors")
        rest = [n for n in source if n.rsplit(".", 1)[0] not in modules]
        assert len(rest) > 5 and all(np.array_equal(tensors[n], source[n]) for n in rest)
        report = json.loads((at / "nybble_report.json").read_text())
        assert len(report["layers"]) == len(modules) and report["run"]["command"] == "convert"
        assert not (at / "nybble_journal.jsonl").exists()
    again = [n for n, l in enumerate(layouts[:-1]) if l == layouts[-1]]
    for n in again:  # back where it was: the very tensors
        first = load_numpy(tmp_path / str(n) / "model.safetensors")
        last = load_numpy(at / "model.safetensors")
        for name in first:
            assert name.endswith("g_idx") or np.array_equal(first[name], last[name]), name


def test_activation_order_survives(nybble, tiny, tmp_path):
    _, plain = gptq_model(tiny, tmp_path / "a", 4, 32, v1=True, order=True)
    nybble("convert", tmp_path / "a", "-o", tmp_path / "b", "-f", "gptq_v2")
    assert quantization_of(tmp_path / "b")["desc_act"] is True
    modules = modules_of(plain)
    got, want = (weights_of(tmp_path / n, modules) for n in "ba")
    assert all(np.array_equal(got[m], want[m]) for m in modules)
    for layout in ("awq", "compressed-tensors"):
        done = nybble("convert", tmp_path / "a", "-o", tmp_path / "c", "-f", layout, ok=False)
        assert done.returncode == 1 and "order" in done.stderr and "gptq" in done.stderr
        assert not list(tmp_path.glob("c*"))


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
@pytest.mark.parametrize("source", ["awq", "gptq"])
def test_floats(nybble, tiny, tmp_path, source, dtype):
    """Dequantised weights are those decoded here, rounded once; readers load them as a model."""
    if source == "awq":
        folder, plain = awq_model(tiny, tmp_path / "in", 64)
    else:
        folder, plain = gptq_model(tiny, tmp_path / "in", 3, 32, order=True, head=True, bias=0.0)
    nybble("convert", folder, "-o", tmp_path / "out", "-f", dtype)
    kind = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[dtype]
    got = load_file(tmp_path / "out" / "model.safetensors")
    assert got.keys() == plain.keys()
    for name, tensor in plain.items():
        want = tensor.to(kind) if tensor.ndim > 1 else tensor
        assert got[name].dtype == want.dtype and torch.equal(got[name], want), name
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["dtype"] == str(kind).removeprefix("torch.")
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype="auto", output_loading_info=True)
    assert model.dtype == kind and not any(info.values())


def test_plain_models_change_their_type(nybble, tiny, tmp_path):
    nybble("convert", tiny, "-o", tmp_path / "out", "-f", "bf16")
    got, was = (load_file(f / "model.safetensors") for f in (tmp_path / "out", tiny))
    for name, tensor in was.items():
        want = tensor.to(torch.bfloat16) if tensor.ndim > 1 else tensor
        assert torch.equal(got[name], want), name


def test_conversions_that_would_change_numbers_are_refused(nybble, tiny, tmp_path):
    def refused(folder, layout, *parts):
        done = nybble("convert", folder, "-o", tmp_path / "no", "-f", layout, ok=False)
        assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert all(part in done.stderr for part in parts), done.stderr
        assert not list(tmp_path.glob("no*"))

    awq, plain = awq_model(tiny, tmp_path / "awq", 64)
    refused(awq, "gptq", "zero point 0 at row", "gptq_v2")
    refused(awq, "fp8", "whole numbers")
    refused(tiny, "gptq", "holds no quantised layer", "nybble quantize")
    three, _ = gptq_model(tiny, tmp_path / "three", 3, 32)
    refused(three, "awq", "4 bits", "compressed-tensors")
    # scales that are no f16
    nybble("convert", awq, "-o", tmp_path / "ct", "-f", "compressed-tensors")
    tensors = load_file(tmp_path / "ct" / "model.safetensors")
    name = next(n for n in tensors if n.endswith("up_proj.weight_scale"))
    tensors[name] = tensors[name].to(torch.float32) * 1.0001
    save_file(tensors, tmp_path / "ct" / "model.safetensors", {"format": "pt"})
    refused(tmp_path / "ct", "awq", name.removesuffix(".weight_scale"), "is F32", "stores F16",
            "compressed-tensors")
    # too large for f16
    tensors = load_file(tiny / "model.safetensors")
    tensors["model.embed_tokens.weight"][3, 4] = 70000.0
    folder = plain_model(tiny, tmp_path / "large", tensors)
    refused(folder, "f16", "model.embed_tokens.weight", "70000", "bf16")
    # what stands there
    nybble("convert", awq, "-o", tmp_path / "out", "-f", "f32")
    done = nybble("convert", awq, "-o", tmp_path / "out", "-f", "bf16", ok=False)
    assert done.returncode == 1 and "--force" in done.stderr and "--resume" not in done.stderr
    nybble("convert", awq, "-o", tmp_path / "out", "-f", "bf16", "--force")
    (tmp_path / "two.partial").mkdir()
    done = nybble("convert", awq, "-o", tmp_path / "two", "-f", "bf16", ok=False)
    assert done.returncode == 1 and "--force" in done.stderr and "--resume" not in done.stderr


def test_damaged_sources_leave_nothing(nybble, tiny, tmp_path):
    folder, _ = gptq_model(tiny, tmp_path / "in", 4, 64)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.scales"][0, 5] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    for layout in ("compressed-tensors", "bf16"):
        done = nybble("convert", folder, "-o", tmp_path / "out", "-f", layout, ok=False)
        assert done.returncode == 1 and "up_proj" in done.stderr and "nan" in done.stderr
        assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("kind", FLOAT8)
def test_float8_is_read(nybble, tiny, tmp_path, kind):
    folder, plain = float8_model(tiny, tmp_path / "in", kind)
    assert_runs_as(nybble, folder, tiny, plain, tmp_path)
    nybble("inspect", folder, "--check")
    nybble("convert", folder, "-o", tmp_path / "out", "-f", "f32")
    got = load_file(tmp_path / "out" / "model.safetensors")
    assert got.keys() == plain.keys()
    for name, tensor in plain.items():
        assert torch.equal(got[name], tensor), name


def test_fp8_becomes_what_transformers_makes_of_it(nybble, tiny, tmp_path):
    """On a CPU, transformers dequantises such a folder to bf16 while it loads it."""
    folder, plain = float8_model(tiny, tmp_path / "in", "fp8")
    nybble("convert", folder, "-o", tmp_path / "out", "-f", "bf16")
    got = load_file(tmp_path / "out" / "model.safetensors")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    want = model.state_dict()
    for module in modules_of(plain):
        name = module + ".weight"
        assert want[name].dtype == torch.bfloat16 and torch.equal(got[name], want[name]), name


@pytest.mark.parametrize("kind,layouts", [
    ("fp8", ["compressed-tensors", "fp8"]), ("ct block", ["fp8", "compressed-tensors"]),
    ("ct tensor", ["fp8", "compressed-tensors"]), ("fp8 powers", ["fp8", "compressed-tensors"]),
    ("ct channel", ["compressed-tensors"]), ("fp8 tensor inv", ["compressed-tensors", "fp8"])])
def test_float8_keeps_its_weights(nybble, tiny, tmp_path, kind, layouts):
    at, plain = float8_model(tiny, tmp_path / "0", kind)
    for step, layout in enumerate(layouts, 1):
        nybble("convert", at, "-o", tmp_path / str(step), "-f", layout)
        at = tmp_path / str(step)
        tensors, config = load_file(at / "model.safetensors"), quantization_of(at)
        for module in modules_of(plain):
            weight = tensors[module + ".weight"]
            if layout == "fp8":
                scales, block = tensors[module + ".weight_scale_inv"], (128, 128)
                assert config["weight_block_size"] == [128, 128]
            else:
                scales = tensors[module + ".weight_scale"].float()
                scales = scales.reshape(1, 1) if scales.ndim < 2 else scales
                block = [-(-n // g) if g > 1 or n < 129 else n
                         for n, g in zip(weight.shape, scales.shape)]
            assert weight.dtype == torch.float8_e4m3fn
            got = expand(scales, weight.shape, block) * weight.float()
            assert torch.equal(got, plain[module + ".weight"]), module


def test_float8_that_changes_is_refused(nybble, tiny, tmp_path):
    for kind, layout, part in (("ct channel", "fp8", "one scale for a block of 128 x 128"),
                               ("fp8", "gptq", "whole numbers"), ("fp8", "awq", "8-bit floats"),
                               ("fp8 e5m2", "compressed-tensors", "e5m2")):
        folder = tmp_path / f"{kind} {layout}"
        float8_model(tiny, folder, kind)
        done = nybble("convert", folder, "-o", tmp_path / "no", "-f", layout, ok=False)
        assert done.returncode == 1 and part in done.stderr, done.stderr
        assert not list(tmp_path.glob("no*"))


def test_float8_without_its_scales_is_refused(nybble, tiny, tmp_path):
    folder, _ = float8_model(tiny, tmp_path / "in", "ct channel")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight_scale"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    done = nybble("convert", folder, "-o", tmp_path / "no", "-f", "f32", ok=False)
    assert done.returncode == 1 and "up_proj" in done.stderr and "weight_scale" in done.stderr


# ---- Quantised sources of `nybble quantize` -------------------------------------------------

SOURCES = {
    "awq": lambda tiny, out: awq_model(tiny, out, 32),
    "gptq": lambda tiny, out: gptq_model(tiny, out, 4, 64, head=True, bias=0.0),
    "gptq order": lambda tiny, out: gptq_model(tiny, out, 3, 32, v1=False, order=True),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("more", [["-f", "gptq_v2", "-b", 3, "-g", 64, "--asymmetric"],
                                  ["-f", "compressed-tensors", "-b", 8, "-g", -1]])
def test_quantised_sources_are_dequantised(nybble, tiny, tmp_path, source, more):
    """The result is that of the same weights in a plain checkpoint, byte for byte."""
    folder, plain = SOURCES[source](tiny, tmp_path / "packed")
    plain_model(tiny, tmp_path / "plain", plain)
    for name in ("packed", "plain"):
        nybble("quantize", tmp_path / name, "-o", tmp_path / f"{name}-out", "-m", "rtn", *more)
    got, want = (load_file(tmp_path / f"{name}-out" / "model.safetensors")
                 for name in ("packed", "plain"))
    assert got.keys() == want.keys() and len(got) > 14 * 3
    for name, tensor in want.items():
        assert got[name].dtype == tensor.dtype and torch.equal(got[name], tensor), name
    configs = [json.loads((tmp_path / f"{name}-out" / "config.json").read_text())
               for name in ("packed", "plain")]
    assert configs[0] == configs[1]


def test_layers_left_out_become_floats(nybble, tiny, tmp_path):
    folder, plain = awq_model(tiny, tmp_path / "awq", 64)
    recipe = {"modules": [{"pattern": "*.down_proj", "method": "none"}]}
    (tmp_path / "r.json").write_text(json.dumps(recipe))
    nybble("quantize", folder, "-o", tmp_path / "out", "-m", "rtn", "-g", 32, "--recipe",
           tmp_path / "r.json")
    got = load_file(tmp_path / "out" / "model.safetensors")
    left = [n for n in got if n.endswith("down_proj.weight")]
    assert len(left) == 2 and not any("down_proj" in n for n in got if n not in left)
    for name in left:
        assert torch.equal(got[name], plain[name]), name


def test_quantised_sources_calibrate_and_resume(nybble, tiny, tmp_path):
    folder, plain = awq_model(tiny, tmp_path / "packed", 32)
    plain_model(tiny, tmp_path / "plain", plain)
    np.save(tmp_path / "ids.npy", np.random.default_rng(1).integers(3, 160, (8, 64)))
    for name in ("packed", "plain"):
        nybble("quantize", tmp_path / name, "-o", tmp_path / f"{name}-out", "-g", 32, "-n", 8,
               "-l", 64, "--calib", tmp_path / "ids.npy")
    got, want = (load_file(tmp_path / f"{name}-out" / "model.safetensors")
                 for name in ("packed", "plain"))
    assert got.keys() == want.keys()
    assert all(torch.equal(got[name], want[name]) for name in want)


def test_strange_biases_are_not_lost(nybble, tiny, tmp_path):
    folder, _ = gptq_model(tiny, tmp_path / "packed", 4, 64, bias=0.5)
    recipe = {"modules": [{"pattern": "*.down_proj", "method": "none"}]}
    (tmp_path / "r.json").write_text(json.dumps(recipe))
    done = nybble("quantize", folder, "-o", tmp_path / "out", "-m", "rtn", "-g", 32, "--recipe",
                  tmp_path / "r.json", ok=False)
    assert done.returncode == 1 and "down_proj.bias" in done.stderr
    assert not list(tmp_path.glob("out*"))
