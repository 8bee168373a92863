"""Files that nybble writes, in llama.cpp: the same token ids, close logits, and the bytes that
llama-quantize makes.

Needs llama-cpp-python, which takes long to build and is therefore not among the requirements of
the other tests: `pip install llama-cpp-python gguf numpy pytest`, then
`pytest tests/nightly/with_llama_cpp.py`.
"""
import ctypes
import json

import gguf
import llama_cpp
import numpy as np
import pytest

# Numbers that llama.cpp gives to files of a type.
FILE_TYPES = {"Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q6_K": 18}
# llama.cpp keeps keys and values in f16; with blocks it also rounds activations, and its first
# token's are huge.
MOST = {"F32": 0.06, "Q8_0": 3.0}

pytestmark = pytest.mark.real


def write(nybble, model, out, kind):
    nybble("quantize", model, "-o", out, "-f", f"gguf:{kind}", "-m", "rtn", "-q", "--force")
    return out


@pytest.mark.parametrize("kind", MOST)
def test_logits_are_close(nybble, smollm2, tmp_path, kind):
    path = write(nybble, smollm2, tmp_path / "m.gguf", kind)
    llama = llama_cpp.Llama(str(path), n_ctx=128, logits_all=True, verbose=False, n_threads=2)
    text = "The capital of France is Paris, and 1234 people\n like it."
    ids = llama.tokenize(text.encode())
    assert json.loads(nybble("tokenize", path, "--json", "--text", text).stdout)["ids"] == ids
    llama.eval(ids)
    want = np.array(llama.scores[:len(ids)], np.float32)
    np.save(tmp_path / "i.npy", np.array([ids], np.int32))
    nybble("logits", path, "--tokens", tmp_path / "i.npy", "-o", tmp_path / "l.npy")
    got = np.load(tmp_path / "l.npy")[0]
    worst = float(np.max(np.abs(got - want)))
    print(f"{kind}: largest difference {worst:.3g}, at most {MOST[kind]}")
    assert worst < MOST[kind] and np.array_equal(got.argmax(1), want.argmax(1))


def test_bytes_are_llama_quantizes(nybble, smollm2, tmp_path):
    source = write(nybble, smollm2, tmp_path / "f32.gguf", "F32")
    for kind, number in FILE_TYPES.items():
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype = number
        theirs = tmp_path / "theirs.gguf"
        assert llama_cpp.llama_model_quantize(str(source).encode(), str(theirs).encode(),
                                              ctypes.byref(params)) == 0
        ours = write(nybble, smollm2, tmp_path / "ours.gguf", kind)
        a, b = ({t.name: (t.tensor_type, t.data.tobytes()) for t in gguf.GGUFReader(p).tensors}
                for p in (theirs, ours))
        assert a.keys() == b.keys() and len(a) == 272
        assert [n for n in a if a[n] != b[n]] == [], kind
