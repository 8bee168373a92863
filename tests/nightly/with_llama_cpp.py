"""Files that nybble writes, in llama.cpp: the same token ids, close logits, and the bytes that
llama-quantize makes.

Needs llama-cpp-python, which takes long to build and is therefore not among the requirements of
the other tests: `pip install llama-cpp-python gguf numpy pytest`, then
`pytest tests/nightly/with_llama_cpp.py`.
"""
import ctypes
import json
import pathlib
import sys

import gguf
import llama_cpp
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "oracle"))

import gguf_made

# Numbers that llama.cpp gives to files of a type.
FILE_TYPES = {"Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q6_K": 18}
# llama.cpp keeps keys and values in f16; with blocks it also rounds activations, and its first
# token's are huge.
MOST = {"F32": 0.06, "Q8_0": 3.0}

pytestmark = pytest.mark.real


def write(nybble, model, out, kind):
    nybble("quantize", model, "-o", out, "-f", f"gguf:{kind}", "-m", "rtn", "-q", "--force")
    return out


@pytest.fixture(scope="module")
def short(smollm2, tmp_path_factory):
    """The first two blocks of the model: all that rounding has to be compared on."""
    folder = tmp_path_factory.mktemp("short") / "model"
    kept = {name: x for name, x in gguf_made.tensors_of(smollm2)
            if not name.startswith("model.layers.") or int(name.split(".")[2]) < 2}
    gguf_made.write_folder(folder, smollm2, kept)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    return folder


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


@pytest.mark.parametrize("kind", FILE_TYPES)
def test_bytes_are_llama_quantizes(nybble, short, tmp_path, kind):
    source = write(nybble, short, tmp_path / "f32.gguf", "F32")
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = FILE_TYPES[kind]
    theirs = tmp_path / "theirs.gguf"
    assert llama_cpp.llama_model_quantize(str(source).encode(), str(theirs).encode(),
                                          ctypes.byref(params)) == 0
    ours = write(nybble, short, tmp_path / "ours.gguf", kind)
    a, b = ({t.name: (t.tensor_type, t.data.tobytes()) for t in gguf.GGUFReader(p).tensors}
            for p in (theirs, ours))
    assert a.keys() == b.keys() and len(a) == 2 + 2 * 9
    assert [n for n in a if a[n] != b[n]] == []


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
def test_weighted_rounding_is_ggmls(nybble, short, tmp_path, kind):
    """Byte for byte what ggml_quantize_chunk makes of a matrix with these weights."""
    lib = ctypes.CDLL(str(next((pathlib.Path(llama_cpp.__file__).parent / "lib").glob("libggml-base.so"))))
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    rng = np.random.default_rng(4)
    full = {t.name: t for t in gguf.GGUFReader(write(nybble, short, tmp_path / "f.gguf", "F32")).tensors}
    names = [f"blk.{b}.ffn_down.weight" for b in (0, 1)] # rows of 1536: whole K blocks
    writer = gguf.GGUFWriter(tmp_path / "i.gguf", "llama")
    writer.add_type("imatrix")
    weights = {}
    for name in names:
        weights[name] = np.exp(2 * rng.standard_normal(1536)).astype(np.float32)
        writer.add_tensor(f"{name}.in_sum2", weights[name][None])
        writer.add_tensor(f"{name}.counts", np.ones((1, 1), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    nybble("quantize", short, "-o", tmp_path / "q.gguf", "-f", f"gguf:{kind}", "-m", "rtn", "-q",
           "--force", "--imatrix-in", tmp_path / "i.gguf")
    ours = {t.name: t for t in gguf.GGUFReader(tmp_path / "q.gguf").tensors}
    for name in names:
        x = np.ascontiguousarray(full[name].data, np.float32)
        want = np.zeros(ours[name].data.nbytes, np.uint8)
        pointer = lambda a: a.ctypes.data_as(ctypes.c_void_p)
        lib.ggml_quantize_chunk(int(gguf.GGMLQuantizationType[kind]), pointer(x), pointer(want),
                                ctypes.c_int64(0), ctypes.c_int64(x.shape[0]),
                                ctypes.c_int64(x.shape[1]), pointer(weights[name]))
        got = np.frombuffer(ours[name].data.tobytes(), np.uint8)
        size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]
        off = np.any((got != want).reshape(-1, size), 1).mean()
        print(f"{kind} {name}: {off:.2%} of the blocks differ")
        assert off == 0
