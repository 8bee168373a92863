"""Tensor files and weight layouts against the safetensors and compressed-tensors packages, and
against a decoder of the GPTQ layouts that was written for this test from their description."""
import json
import pathlib
import struct
import subprocess

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32
from compressed_tensors.quantization import QuantizationConfig, QuantizationStatus
from compressed_tensors.utils import is_match

BITS = [2, 3, 4, 8]
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
          torch.float8_e5m2, torch.float8_e8m0fnu, torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32,
          torch.uint32, torch.int64, torch.uint64, torch.bool]
NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
         torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.float8_e8m0fnu: "F8_E8M0", torch.int8: "I8",
         torch.uint8: "U8", torch.int16: "I16", torch.uint16: "U16", torch.int32: "I32",
         torch.uint32: "U32", torch.int64: "I64", torch.uint64: "U64", torch.bool: "BOOL"}


@pytest.fixture(scope="session")
def driver(program):
    path = pathlib.Path(program).parents[1] / "tests" / "formats" / "layout_driver"

    def run(*args, ok=True):
        done = subprocess.run([path, *map(str, args)], capture_output=True, text=True)
        if ok:
            assert done.returncode == 0, f"{args}: {done.stderr}"
        return done

    return run


def random_tensors(rng, count):
    """Tensors of every type, of rank 0 to 4, some of them empty, in random order."""
    tensors = {}
    for i in rng.permutation(count):
        shape = tuple(int(n) for n in rng.integers(0, 6, size=rng.integers(0, 5)))
        dtype = DTYPES[i % len(DTYPES)]
        if dtype == torch.bool:
            tensor = torch.tensor(rng.integers(0, 2, size=shape)).to(dtype)
        else:
            bytes_ = rng.integers(0, 256, size=int(np.prod(shape)) * dtype.itemsize).astype("u1")
            tensor = torch.frombuffer(bytearray(bytes_.tobytes()) or bytearray(8),
                                      dtype=torch.uint8)[:bytes_.size].view(dtype).reshape(shape)
        tensors[f"part{rng.integers(1000)}.π \"{i}\""] = tensor
    return tensors


def raw(tensor):
    return tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def assert_same(got, want):
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        assert got[name].dtype == tensor.dtype and got[name].shape == tensor.shape, name
        assert raw(got[name].reshape(-1)) == raw(tensor.reshape(-1)), name


# ---- Containers -------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(8))
def test_files_of_safetensors_are_read_and_written_alike(nybble, driver, tmp_path, seed):
    """What the package wrote is listed exactly, and written again byte for byte."""
    tensors = random_tensors(np.random.default_rng(seed), 1 + 9 * seed)
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.mkdir()
    copy.mkdir()
    safetensors.torch.save_file(tensors, source / "model.safetensors", {"format": "pt"})
    found = json.loads(nybble("inspect", source, "--json", "--tensors").stdout)
    assert {t["name"]: (t["dtype"], t["shape"], t["bytes"]) for t in found["tensors"]} == {
        name: (NAMES[t.dtype], list(t.shape), t.numel() * t.dtype.itemsize)
        for name, t in tensors.items()}
    driver("copy", source, copy, 0)
    assert (copy / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()


@pytest.mark.parametrize("seed", range(4))
def test_shards_are_read_by_safetensors(driver, nybble, tmp_path, seed):
    tensors = random_tensors(np.random.default_rng(100 + seed), 60)
    source, shards, back = tmp_path / "source", tmp_path / "shards", tmp_path / "back"
    for folder in (source, shards, back):
        folder.mkdir()
    safetensors.torch.save_file(tensors, source / "model.safetensors", {"format": "pt"})
    driver("copy", source, shards, 500)
    index = json.loads((shards / "model.safetensors.index.json").read_text())
    files = sorted(shards.glob("*.safetensors"))
    assert len(files) >= 3 and files[0].name == f"model-00001-of-{len(files):05}.safetensors"
    assert index["metadata"]["total_size"] == sum(t.numel() * t.dtype.itemsize
                                                  for t in tensors.values())
    got = {}
    for file in files:
        part = safetensors.torch.load_file(file)
        assert all(index["weight_map"][name] == file.name for name in part)
        got |= part
    assert_same(got, tensors)
    assert len(index["weight_map"]) == len(tensors)
    driver("copy", shards, back, 0)
    assert (back / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()


def mutants(rng, whole, count):
    """Copies of a file with a few bytes changed, bytes cut off, or bytes added."""
    length = struct.unpack("<Q", whole[:8])[0]
    for _ in range(count):
        out = bytearray(whole)
        kind = rng.integers(6)
        if kind == 0:
            out = out[:rng.integers(len(out))]
        elif kind == 1:
            out += bytes(int(rng.integers(1, 9)))
        elif kind == 2:
            out[rng.integers(8)] ^= 1 << rng.integers(8)
        elif kind == 3:  # a digit of an offset or of a shape
            digits = [i for i in range(8, 8 + length) if chr(out[i]).isdigit()]
            out[rng.choice(digits)] = ord("0") + int(rng.integers(10))
        else:
            for _ in range(kind - 2):
                out[8 + rng.integers(length)] = rng.integers(32, 127)
        yield bytes(out)


def test_damaged_files_are_judged_as_safetensors_does(driver, tmp_path):
    """Where both have to say yes or no, they say the same; types that nybble does not hold, and
    what the package lets pass though its text forbids it, are listed here."""
    rng = np.random.default_rng(7)
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.bfloat16),
               "bc": torch.tensor(7, dtype=torch.int16), "d": torch.zeros(0, 5)}
    path, out = tmp_path / "x.safetensors", tmp_path / "out"
    safetensors.torch.save_file(tensors, path, {"format": "pt"})
    whole, counts = path.read_bytes(), {"yes": 0, "no": 0}
    for mutant in mutants(rng, whole, 600):
        path.write_bytes(mutant)
        for old in out.glob("*") if out.exists() else []:
            old.unlink()
        out.mkdir(exist_ok=True)
        done = driver("copy", path, out, 0, ok=False)
        assert done.returncode in (0, 1), (mutant, done.stderr)
        try:
            want = {}
            with safetensors.safe_open(path, "pt") as file:
                keys = list(file.keys())
                want = {k: tuple(file.get_slice(k).get_shape()) for k in keys}
            theirs = True
        except Exception:
            theirs = False
        if done.returncode == 0 and not theirs:
            pytest.fail(f"taken, but safetensors refuses it: {mutant}")
        if done.returncode != 0 and theirs:
            # An entry's unknown key or an extra one is passed over there; nothing else may differ.
            allowed = ("which nybble does not read", "unknown dtype", "no tensor to write",
                       "duplicate", "reserved", "axes")
            assert any(text in done.stderr for text in allowed), (mutant, done.stderr, want)
        counts["yes" if theirs else "no"] += 1
    print(f"600 damaged files, {counts['yes']} still whole, {counts['no']} refused by both")
    assert counts["yes"] > 10 and counts["no"] > 200


# ---- Layouts ----------------------------------------------------------------------------------

def random_layer(rng, rows, cols, bits, group, symmetric, scale, lowest=0, shuffled=False):
    groups = -(-cols // group) if group else 1
    g_idx = np.arange(cols, dtype="<i4") // (group or cols)
    if shuffled:
        rng.shuffle(g_idx)
    zeros = np.full((rows, groups), 1 << (bits - 1), "u1")
    if not symmetric:
        zeros = rng.integers(lowest, 1 << bits, size=(rows, groups)).astype("u1")
    scales = torch.tensor(rng.uniform(0.01, 1, size=(rows, groups))).to(scale).float().numpy()
    return {"codes": rng.integers(0, 1 << bits, size=(rows, cols)).astype("u1"),
            "scales": scales.astype("<f4"), "zeros": zeros, "g_idx": g_idx}


def dequantize(layer):
    g = layer["g_idx"]
    steps = layer["codes"].astype("f4") - layer["zeros"].astype("f4")[:, g]
    return layer["scales"][:, g] * steps


def write(driver, folder, layout, layer, bits, group, symmetric, scale, ok=True):
    arrays, out = folder / "arrays", folder / "out"
    arrays.mkdir()
    out.mkdir()
    for name, array in layer.items():
        np.save(arrays / f"{name}.npy", array)
    done = driver("write", layout, bits, group, "sym" if symmetric else "asym", NAMES[scale], arrays,
                  out, ok=ok)
    if not ok:
        return done.stderr
    return safetensors.torch.load_file(out / "model.safetensors"), json.loads(
        (out / "config.json").read_text())["quantization_config"]


def read_back(driver, folder, layer):
    back = folder / "back"
    back.mkdir()
    driver("read", folder / "out", "m.q", *layer["codes"].shape, back)
    for name, want in layer.items():
        got = np.load(back / f"{name}.npy")
        assert got.shape == want.shape and (got == want).all(), name


def check_that_the_package_cannot(layer):
    """Its unpacking of a single word of 4-bit zero points per group fails: a fault of its own,
    for which the layout refuses such a layer. When this passes, that refusal can go."""
    zeros = torch.tensor(layer["zeros"].astype("i2") - 8).to(torch.int8)
    with pytest.raises(RuntimeError):
        unpack_from_int32(pack_to_int32(zeros, 4, packed_dim=0), 4, zeros.shape, packed_dim=0)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("rows, cols, group", [(32, 64, 32), (7, 96, 16), (1, 1, 0), (33, 172, 0),
                                               (70, 129, 43), (5, 31, 1), (64, 256, 128)])
def test_compressed_tensors_unpacks_what_we_pack(driver, tmp_path, bits, symmetric, rows, cols,
                                                 group):
    """The library's own unpacking and dequantisation give the codes and the weights exactly."""
    scale = [torch.bfloat16, torch.float16, torch.float32][(rows + bits) % 3]
    rng = np.random.default_rng(rows * cols + bits)
    layer = random_layer(rng, rows, cols, bits, group, symmetric, scale)
    if bits == 4 and rows <= 8 and not symmetric and group:
        check_that_the_package_cannot(layer)
        fault = write(driver, tmp_path, "compressed-tensors", layer, bits, group, symmetric, scale,
                      ok=False)
        assert "4-bit zero points" in fault
        return
    tensors, config = write(driver, tmp_path, "compressed-tensors", layer, bits, group, symmetric,
                            scale)
    parts = {name.removeprefix("m.q."): tensor for name, tensor in tensors.items()}
    assert set(parts) == {"weight_packed", "weight_scale", "weight_shape"} | (
        set() if symmetric else {"weight_zero_point"})
    half = 1 << (bits - 1)

    signed = torch.tensor(layer["codes"].astype("i2") - half).to(torch.int8)
    assert torch.equal(parts["weight_packed"], pack_to_int32(signed, bits))
    assert torch.equal(unpack_from_int32(parts["weight_packed"], bits, torch.Size((rows, cols))),
                       signed)
    if not symmetric:
        zeros = torch.tensor(layer["zeros"].astype("i2") - half).to(torch.int8)
        assert torch.equal(parts["weight_zero_point"], pack_to_int32(zeros, bits, packed_dim=0))
    assert parts["weight_shape"].tolist() == [rows, cols]

    parsed = QuantizationConfig.model_validate(config)
    assert parsed.quantization_status == QuantizationStatus.COMPRESSED
    scheme = parsed.config_groups["group_0"]
    assert (scheme.weights.num_bits, scheme.weights.symmetric) == (bits, symmetric)
    assert config.get("dequantize", False) is not symmetric
    if rows > 1 or cols > 1:
        weight = PackedQuantizationCompressor.decompress(dict(parts), scheme)["weight"]
        want = torch.tensor(dequantize(layer)).to(scale)
        assert weight.dtype == scale
        assert torch.equal(weight, want), (weight - want).abs().max()
    read_back(driver, tmp_path, layer)


def unpack_words(words, bits, count):
    """`count` codes from the little-endian bit stream of each row of 32-bit words."""
    stream = np.unpackbits(words.astype("<u4").view("u1"), axis=1, bitorder="little")
    stream = stream[:, :count * bits].reshape(len(words), count, bits)
    return (stream.astype(np.int64) << np.arange(bits)).sum(-1)


def decode_gptq(tensors, bits, offset):
    """Weights [out, in] from the tensors as their description says, and nothing else."""
    qweight, qzeros = (tensors[f"m.q.{n}"].numpy().astype("<i4").view("<u4")
                       for n in ("qweight", "qzeros"))
    scales, g_idx = tensors["m.q.scales"].float().numpy(), tensors["m.q.g_idx"].numpy()
    codes = unpack_words(np.ascontiguousarray(qweight.T), bits, len(g_idx))
    zeros = unpack_words(np.ascontiguousarray(qzeros), bits, scales.shape[1]) + offset
    return (scales[g_idx] * (codes.T - zeros[g_idx]).astype("f4")).T


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("shuffled", [True, False])
@pytest.mark.parametrize("layout", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("rows, cols, group", [(32, 64, 32), (96, 160, 64), (64, 96, 0)])
def test_gptq_is_decoded_to_the_same_weights(driver, tmp_path, bits, symmetric, shuffled, layout,
                                             rows, cols, group):
    offset = layout == "gptq"
    rng = np.random.default_rng(bits + 10 * rows)
    layer = random_layer(rng, rows, cols, bits, group, symmetric, torch.float16, int(offset),
                         shuffled and group)
    tensors, config = write(driver, tmp_path, layout, layer, bits, group, symmetric, torch.float16)
    assert {n: t.dtype for n, t in tensors.items()} == {
        "m.q.qweight": torch.int32, "m.q.qzeros": torch.int32, "m.q.scales": torch.float16,
        "m.q.g_idx": torch.int32}
    assert np.array_equal(decode_gptq(tensors, bits, int(offset)), dequantize(layer))
    assert (config["quant_method"], config["checkpoint_format"]) == ("gptq", layout)
    assert (config["bits"], config["group_size"]) == (bits, group or -1)
    assert (config["sym"], config["desc_act"]) == (symmetric, bool(shuffled and group))
    if symmetric and offset:
        word = {2: 0x55555555, 4: 0x77777777, 8: 0x7f7f7f7f}.get(bits)
        assert word is None or (tensors["m.q.qzeros"] == word).all()
    read_back(driver, tmp_path, layer)


def test_padded_three_bit_files_are_read(driver, tmp_path):
    """Until 2026 compressed-tensors put ten 3-bit codes into a word and left two bits empty."""
    rows, cols, group = 70, 192, 64
    layer = random_layer(np.random.default_rng(3), rows, cols, 3, group, False, torch.float16)
    tensors, _ = write(driver, tmp_path, "compressed-tensors", layer, 3, group, False, torch.float16)

    def pad(codes):
        """[n, m] codes to [n, ceil(m / 10)] words."""
        codes = np.pad(codes.astype("u4"), ((0, 0), (0, -codes.shape[1] % 10)))
        words = (codes.reshape(len(codes), -1, 10) << (3 * np.arange(10, dtype="u4"))).sum(-1)
        return torch.tensor(words.astype("u4").view("<i4"))

    tensors["m.q.weight_packed"] = pad(layer["codes"])
    tensors["m.q.weight_zero_point"] = pad(layer["zeros"].T).T.contiguous()
    safetensors.torch.save_file(tensors, tmp_path / "out" / "model.safetensors")
    read_back(driver, tmp_path, layer)


# ---- Configurations ---------------------------------------------------------------------------

MODULES = [["model.layers.0.q_proj", 4, 32, True], ["model.layers.0.k_proj", 4, 32, True],
           ["model.layers.0.down_proj", 8, 0, False], ["model.layers.1.q_proj", 3, 64, True],
           ["model.layers.1.k_proj"], ["model.layers.1.down_proj", 4, 32, True], ["lm_head"]]


def test_mixed_settings_are_understood_by_compressed_tensors(driver, tmp_path):
    """The library matches each module to the group that was meant, and leaves the others."""
    path = tmp_path / "modules.json"
    linear = torch.nn.Linear(2, 2)
    for count in range(1, len(MODULES) + 1):
        path.write_text(json.dumps(MODULES[:count]))
        written = json.loads(driver("config", "compressed-tensors", path).stdout)
        assert "dequantize" not in written
        config = QuantizationConfig.model_validate(written)
        for name, *settings in MODULES[:count]:
            schemes = [s for s in config.config_groups.values()
                       if is_match(name, linear, s.targets, config.ignore)]
            assert len(schemes) == bool(settings), name
            if settings:
                weights = schemes[0].weights
                assert [weights.num_bits, weights.group_size or 0, weights.symmetric] == settings
                assert weights.strategy == ("group" if settings[1] else "channel")


def test_mixed_settings_of_gptq_follow_its_rules(driver, tmp_path):
    """`dynamic` as its readers apply it: the first pattern that matches from the start."""
    import re
    path = tmp_path / "modules.json"
    path.write_text(json.dumps(MODULES))
    config = json.loads(driver("config", "gptq", path).stdout)
    assert config["lm_head"] is False

    def settings(name):
        found = {"bits": config["bits"], "group_size": config["group_size"], "sym": config["sym"]}
        for pattern, changes in config["dynamic"].items():
            if pattern.startswith("-:") and re.match(pattern.removeprefix("-:"), name):
                return None
            if re.match(pattern.removeprefix("+:"), name):
                return found | changes
        return found

    for name, *want in MODULES[:-1]:
        got = settings(name)
        assert (got is None) == (not want), name
        if want:
            assert [got["bits"], got["group_size"], got["sym"]] == [want[0], want[1] or -1, want[2]]


def test_gptq_patterns_are_read_as_python_does(driver, tmp_path):
    """Configurations with `dynamic` give the answers that Python's re.match gives."""
    import re
    rng = np.random.default_rng(11)
    parts = ["model", r"\.", "layers", r"\d+", r"(q|k|v)_proj", ".*", "down_proj", "mlp", "^", "$",
             r"[0-3]\.", "self_attn"]
    names = [f"model.layers.{i}.{m}" for i in (0, 2, 13)
             for m in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj", "mlp.up_proj")]
    hits = 0
    for round_ in range(60):
        dynamic = {}
        for k in range(3):
            pattern = "".join(rng.choice(parts, size=rng.integers(1, 5)))
            dynamic[rng.choice(["", "+:", "-:"]) + pattern] = {"bits": int(rng.choice([2, 3, 8]))}
        config = {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128,
                                          "sym": True, "dynamic": dynamic}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        got = driver("ask", tmp_path, *names).stdout.splitlines()
        for name, answer in zip(names, got, strict=True):
            want = "gptq 4 128 1"
            for pattern, changes in dynamic.items():
                if re.match(re.sub(r"^[-+]:", "", pattern), name):
                    hits += 1
                    want = ("none" if pattern.startswith("-:")
                            else f"gptq {changes['bits']} 128 1")
                    break
            assert answer == want, (dynamic, name)
    assert hits > 50


@pytest.mark.parametrize("layout, bits, symmetric, says", [
    ("gptq", 4, True, {"vLLM": "if", "GPTQModel": "yes", "llama.cpp converter": "if"}),
    ("gptq", 3, True, {"vLLM": "no", "GPTQModel": "yes", "llama.cpp converter": "no"}),
    ("gptq", 4, False, {"vLLM": "no", "GPTQModel": "yes", "llama.cpp converter": "if"}),
    ("gptq_v2", 4, True, {"vLLM": "no", "GPTQModel": "yes", "llama.cpp converter": "no"}),
    ("compressed-tensors", 3, False, {"vLLM": "yes", "GPTQModel": "no",
                                      "llama.cpp converter": "no"}),
    ("compressed-tensors", 4, True, {"vLLM": "yes", "GPTQModel": "no",
                                     "llama.cpp converter": "if"}),
])
def test_inspect_says_who_reads_a_layout(nybble, driver, tmp_path, layout, bits, symmetric, says):
    layer = random_layer(np.random.default_rng(1), 64, 96, bits, 32, symmetric, torch.float16, 1)
    tensors, _ = write(driver, tmp_path, layout, layer, bits, 32, symmetric, torch.float16)
    found = json.loads(nybble("inspect", tmp_path / "out", "--json", "--check").stdout)
    assert found["method"] == ("gptq" if layout.startswith("gptq") else layout)
    assert found["faults"] == 0 and len(found["layers"]) == 1
    one = found["layers"][0]
    assert (one["layout"], one["bits"], one["group_size"], one["symmetric"], one["shape"]) == (
        layout, bits, 32, symmetric, [64, 96])
    size = sum(t.numel() * t.dtype.itemsize for name, t in tensors.items() if "_shape" not in name)
    assert one["bytes"] == size and abs(one["bits_per_weight"] - 8 * size / (64 * 96)) < 1e-6
    loads = {r["name"]: r["loads"] for r in found["readers"]}
    assert {name: loads[name] for name in says} == says
    assert loads["transformers"] == "if"
