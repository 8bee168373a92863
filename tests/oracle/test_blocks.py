"""Block codecs against gguf-py: the same values from the same blocks, and the same blocks from the
same values for the types that gguf-py rounds to."""
import json
import os
import pathlib
import struct
import subprocess

import gguf
import numpy as np
import pytest
from gguf import quants

T = gguf.GGMLQuantizationType
PLAIN = [T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0]
K = [T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K]
READ = PLAIN + K + [T.IQ4_NL, T.MXFP4]
LEVELS = ["portable", "avx2", "avx512"]


@pytest.fixture(scope="module")
def driver(program):
    path = pathlib.Path(program).parents[1] / "tests" / "kernels" / "block_driver"

    def run(verb, kind, data, level=None):
        environment = {**os.environ, **({"NYB_CPU": level} if level else {})}
        return subprocess.run([path, verb, kind.name], input=data.tobytes(), check=True,
                              capture_output=True, env=environment).stdout

    return run


def blocks_of(kind, count, seed):
    """Random bytes with finite f16 scales where they lie."""
    values, size = gguf.GGML_QUANT_SIZES[kind]
    raw = np.random.default_rng(seed).integers(0, 256, (count, size), dtype=np.uint8)
    halves = {T.Q2_K: [80, 82], T.Q3_K: [108], T.Q6_K: [208], T.MXFP4: []}.get(
        kind, [0, 2] if kind in (T.Q4_1, T.Q5_1, T.Q4_K, T.Q5_K) else [0])
    for at in halves:
        scales = np.random.default_rng(seed + 1).normal(0, 1, count).astype(np.float16)
        raw[:, at:at + 2] = scales[:, None].view(np.uint8).reshape(count, 2)
    return raw


@pytest.mark.parametrize("kind", READ, ids=lambda k: k.name)
def test_reads_as_gguf_py(driver, kind):
    raw = blocks_of(kind, 700, 3)
    if kind == T.MXFP4:
        raw[:256, 0] = np.arange(256)
        raw = raw[raw[:, 0] < 254]  # gguf-py overflows where the doubled points exceed f32
    want = quants.dequantize(raw, kind)
    got = np.frombuffer(driver("get", kind, raw), np.float32).reshape(want.shape)
    same = got.view(np.uint32) == want.view(np.uint32)
    # A product with 0 may differ in the sign of 0 and in nothing else.
    assert np.all(same | ((got == 0) & (want == 0))), f"{np.sum(~same)} of {same.size} differ"


def tensors():
    r = np.random.default_rng(7)
    yield "normal", r.normal(0, 0.02, (64, 1024))
    yield "wide", r.normal(0, 1, (64, 1024)) * np.exp(r.normal(0, 4, (64, 1024)))
    yield "tails", r.standard_t(2, (64, 1024))
    yield "ties", np.round(r.normal(0, 3, (64, 1024)))
    yield "halves", np.arange(-32768, 32768).reshape(64, 1024) / 256.0
    yield "positive", r.uniform(0.5, 1.5, (64, 1024))
    yield "zeros", np.zeros((4, 256))
    special = np.zeros((8, 256))
    special[0, 5], special[1, 7], special[2, 9] = 1.0, -1.0, 65000.0
    special[3, :] = np.where(np.arange(256) % 2, 1, -1)
    special[4, :] = 3e-8
    special[5, :] = np.linspace(-1e-6, 1e-6, 256)
    special[6, :] = -7.5
    yield "special", special


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", PLAIN, ids=lambda k: k.name)
def test_rounds_as_gguf_py(driver, kind, level):
    for name, values in tensors():
        x = values.astype(np.float32)
        want = quants.quantize(x, kind)
        got = np.frombuffer(driver("put", kind, x, level), np.uint8).reshape(want.shape)
        assert np.array_equal(got, want), f"{name}: {np.sum(got != want)} bytes differ"


def safetensors_of(path):
    """Each matrix of a bf16 or f32 file, as f32."""
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    for name, entry in json.loads(raw[8:8 + length]).items():
        if name == "__metadata__" or len(entry["shape"]) != 2:
            continue
        begin, end = (8 + length + o for o in entry["data_offsets"])
        if entry["dtype"] == "BF16":
            wide = np.frombuffer(raw[begin:end], np.uint16).astype(np.uint32) << 16
            yield name, wide.view(np.float32).reshape(entry["shape"])
        else:
            yield name, np.frombuffer(raw[begin:end], np.float32).reshape(entry["shape"])


def test_rounds_a_real_model_as_gguf_py(driver, smollm2):
    seen = 0
    for name, x in safetensors_of(smollm2 / "model.safetensors"):
        if ".3." not in name:
            continue
        for kind in PLAIN:
            want = quants.quantize(x, kind)
            got = np.frombuffer(driver("put", kind, x), np.uint8).reshape(want.shape)
            assert np.array_equal(got, want), f"{name} as {kind.name}"
            seen += 1
    assert seen == 7 * len(PLAIN)


# What rounding to the K types leaves of a normal tensor's variance; ggml's own functions give the
# same figures to three digits.
K_ERROR = {T.Q2_K: 0.095, T.Q3_K: 0.032, T.Q4_K: 0.0055, T.Q5_K: 0.0014, T.Q6_K: 0.00045}


@pytest.mark.parametrize("kind", K, ids=lambda k: k.name)
def test_k_types_are_near(driver, kind):
    x = np.random.default_rng(1).normal(0, 0.02, (128, 1024)).astype(np.float32)
    raw = np.frombuffer(driver("put", kind, x), np.uint8)
    values, size = gguf.GGML_QUANT_SIZES[kind]
    got = quants.dequantize(raw.reshape(-1, size), kind).reshape(x.shape)
    error = float(np.mean((got - x) ** 2) / np.mean(x ** 2))
    print(f"{kind.name}: relative squared error {error:.6f}, at most {K_ERROR[kind]}")
    assert 0 < error < K_ERROR[kind]
    zero = np.frombuffer(driver("put", kind, np.zeros((2, 512), np.float32)), np.uint8)
    assert not np.any(quants.dequantize(zero.reshape(-1, size), kind))
