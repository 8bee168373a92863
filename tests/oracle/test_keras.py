"""Keras checkpoints against Keras 3.15.1: every array that nybble writes has the bytes that Keras'
own quantize() and save() write, and Keras loads the file and gives the very outputs of the model
that it quantised itself."""
import io
import json
import os
import pathlib
import shutil
import warnings
import zipfile

import numpy as np
import pytest

os.environ["KERAS_BACKEND"] = "torch"
h5py = pytest.importorskip("h5py")
keras = pytest.importorskip("keras")

import keras_made  # noqa: E402

METHODS = {  # name: (options of nybble, Keras' arguments of quantize())
    "int8": (["--method", "int8"], lambda: {"mode": "int8"}),
    "int4": (["--method", "int4"], lambda: {"mode": "int4"}),
    "int4-16": (["--method", "int4", "--group-size", "16"],
                lambda: {"config": keras.quantizers.Int4QuantizationConfig(block_size=16)}),
    "int4-channel": (["--method", "int4", "--group-size", "-1"],
                     lambda: {"config": keras.quantizers.Int4QuantizationConfig(block_size=-1)}),
    "float8": (["--method", "float8"], lambda: {"mode": "float8"}),
}


def weights_of(path):
    """Every group and array of a checkpoint's HDF5 file."""
    path = pathlib.Path(path)
    data = path.read_bytes()
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            data = archive.read("model.weights.h5")
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = (item.shape, str(item.dtype), item[()].tobytes(), dict(item.attrs))
        else:
            found[name] = dict(item.attrs)

    with h5py.File(io.BytesIO(data)) as file:
        file.visititems(visit)
    return found


def check_same(got, want, source):
    """The arrays are Keras' own. The names in groups are the source's: Keras makes up new ones for
    sublayers when it loads a model."""
    assert got.keys() == want.keys()
    different = [name for name, item in want.items() if isinstance(item, tuple) and got[name] != item]
    assert not different, [(n, got[n][:2], want[n][:2]) for n in different[:3]]
    assert all(got[name] == item for name, item in source.items() if not isinstance(item, tuple))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Each model once: the file that Keras saved, and inputs."""
    folder = tmp_path_factory.mktemp("keras")
    known = {}

    def get(name):
        if name not in known:
            model, inputs = keras_made.make(name)
            path = folder / f"{len(known)}.keras"
            model.save(path)
            known[name] = (path, inputs)
        return known[name]

    return get


# Each kind of layer by each method, in few enough models.
CASES = ([(name, "int8") for name in keras_made.MAKERS] +
         [(name, method) for name in ("odd", "embedding", "reversible", "reversible-tied", "nested",
                                      "abc,cde->abed", "grouped-attention")
          for method in ("int4", "int4-16", "int4-channel")] +
         [("trained", "int4"), ("shared", "int4"), ("cross-attention", "int4"),
          ("abcd,cde->abe", "int4-16"), ("btd,ndh->btnh", "int4-channel"),
          ("odd", "float8"), ("embedding", "float8"), ("attention", "float8")])


@pytest.mark.parametrize("name,method", CASES)
def test_the_arrays_and_the_outputs_are_keras_own(nybble, made, tmp_path, name, method):
    path, inputs = made(name)
    options, arguments = METHODS[method]
    out = tmp_path / "out.keras"
    nybble("quantize", path, *options, "-o", out)

    own = keras.saving.load_model(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own.quantize(**arguments())
    own.save(tmp_path / "own.keras")
    got, want = weights_of(out), weights_of(tmp_path / "own.keras")
    check_same(got, want, weights_of(path))
    quantised = [n for n, a in got.items() if isinstance(a, tuple) and a[1] == "int8"]
    assert method == "float8" or quantised

    loaded = keras.saving.load_model(out)
    np.testing.assert_array_equal(loaded(inputs).detach().numpy(), own(inputs).detach().numpy())
