"""Keras checkpoints against Keras 3.15.1: every array that nybble writes has the bytes that Keras'
own quantize() and save() write, and Keras loads the file and gives the very outputs of the model
that it quantised itself."""
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest

os.environ["KERAS_BACKEND"] = "torch"

import h5py  # noqa: E402
import keras  # noqa: E402

import keras_made  # noqa: E402

L = keras.layers

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


def outputs(model, inputs):
    return model(inputs).detach().float().numpy()


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
CASES = ([(name, "int8") for name in keras_made.MAKERS
          if name not in ("dense", "odd", "trained", "float16", "attention", "shared",
                          "ab,bc->ac")] +
         [("odd", "int4"), ("odd", "int4-channel"), ("embedding", "int4-16"),
          ("reversible", "int4-16"), ("reversible", "int4-channel"), ("reversible-tied", "int4"),
          ("bfloat16", "int4-16"), ("float16", "int4-channel"), ("trained", "int4"),
          ("shared", "int4-channel"), ("attention", "int4-channel"), ("nested", "int4"),
          ("grouped-attention", "int4-16"), ("abcd,cde->abe", "int4-16"),
          ("btd,ndh->btnh", "int4-channel"), ("ab,bc->ac", "int4"), ("embedding", "float8"),
          ("cross-attention", "float8")])


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
    np.testing.assert_array_equal(outputs(loaded, inputs), outputs(own, inputs))


def unpacked(codes, rows):
    """Keras' 4-bit codes of GPTQ: two rows a byte, the first in the low half."""
    both = np.stack([codes & 15, codes >> 4], axis=1).reshape(-1, codes.shape[1])
    return both[:rows]


@pytest.mark.parametrize("bits,group,zeros", [(2, 16, True), (3, 32, False), (4, 64, True),
                                              (8, -1, False)])
def test_keras_loads_codes_in_the_form_of_its_gptq(nybble, made, tmp_path, bits, group, zeros):
    path, inputs = made("odd")
    out = tmp_path / "out.keras"
    nybble("quantize", path, "--method", "rtn", "-b", bits, "-g", group,
           *(["--asymmetric"] if zeros else []), "-o", out)
    with zipfile.ZipFile(out) as archive:
        file = h5py.File(io.BytesIO(archive.read("model.weights.h5")))
    source = keras.saving.load_model(path)
    values = np.asarray(inputs)
    for place, layer in (("dense", 0), ("dense_1", 2), ("dense_2", 3)):
        arrays = file[f"layers/{place}/vars"]
        *bias, codes, scales, zero, index = (arrays[str(i)][()] for i in range(len(arrays)))
        kernel = keras.ops.convert_to_numpy(source.layers[layer].kernel)
        if bits == 4:
            codes = unpacked(codes, kernel.shape[1])
        assert codes.dtype == np.uint8 and codes.max() < 2**bits
        at = index.astype(int)
        weight = ((codes.astype("f4") - zero[:, at]) * scales[:, at]).T
        # The nearest of the grid's points; where the grid is symmetric its top end is cut.
        step = scales[:, at].T
        assert (np.abs(weight - kernel) <= step * (0.501 if zeros else 1.001)).all()
        assert np.abs(weight - kernel).max() > 0
        values = values @ weight + (bias[0] if bias else 0)
        if layer == 2:
            values = np.exp(values - values.max(-1, keepdims=True))
            values /= values.sum(-1, keepdims=True)
    loaded = keras.saving.load_model(out)
    policy = loaded.layers[0].dtype_policy
    assert (policy.weight_bits, policy.group_size) == (bits, group)
    error = np.abs(outputs(loaded, inputs) - values).max()
    print(f"{bits} bits: largest difference of an output {error:.2e}, allowed 1e-5")
    assert error <= 1e-5


def test_attention_in_the_form_of_gptq(nybble, made, tmp_path):
    path, inputs = made("attention")
    nybble("quantize", path, "--method", "rtn", "-b", "8", "-g", "-1", "-o", tmp_path / "o.keras")
    want = outputs(keras.saving.load_model(path), inputs)
    got = outputs(keras.saving.load_model(tmp_path / "o.keras"), inputs)
    assert 0 < np.abs(got - want).max() < 0.05


def test_weights_alone(nybble, made, tmp_path):
    """A .weights.h5 has no configuration: the places in it tell the classes."""
    path, inputs = made("odd")
    model = keras.saving.load_model(path)
    model.save_weights(tmp_path / "in.weights.h5")
    out = tmp_path / "out.weights.h5"
    nybble("quantize", tmp_path / "in.weights.h5", "--method", "int8", "-o", out)
    model.quantize("int8")
    model.save_weights(tmp_path / "own.weights.h5")
    check_same(weights_of(out), weights_of(tmp_path / "own.weights.h5"),
               weights_of(tmp_path / "in.weights.h5"))
    other = keras.saving.load_model(path)
    other.quantize("int8")
    other.load_weights(out)
    np.testing.assert_array_equal(outputs(other, inputs), outputs(model, inputs))


def test_a_folder_with_shards_and_assets(nybble, made, tmp_path):
    path, inputs = made("nested")
    model = keras.saving.load_model(path)
    source = tmp_path / "preset"
    (source / "assets" / "tokenizer").mkdir(parents=True)
    (source / "assets" / "tokenizer" / "vocabulary.txt").write_text("a b c")
    with zipfile.ZipFile(path) as archive:
        (source / "config.json").write_bytes(archive.read("config.json"))
        (source / "metadata.json").write_bytes(archive.read("metadata.json"))
    model.save_weights(source / "model.weights.json", max_shard_size=3e-6)
    assert len(list(source.glob("model_*.weights.h5"))) > 1
    out = tmp_path / "out"
    nybble("quantize", source, "--method", "int8", "-o", out)
    assert (out / "assets" / "tokenizer" / "vocabulary.txt").read_text() == "a b c"
    assert json.loads((out / "model.weights.json").read_text())["metadata"]["total_size"] > 0
    nybble("quantize", path, "--method", "int8", "-o", tmp_path / "whole.keras")
    want = keras.saving.load_model(tmp_path / "whole.keras")
    got = keras.saving.load_model(tmp_path / "whole.keras")
    for variable in got.variables:
        variable.assign(np.zeros(variable.shape, dtype=variable.dtype))
    got.load_weights(out / "model.weights.json")
    np.testing.assert_array_equal(outputs(got, inputs), outputs(want, inputs))


def test_weights_with_a_configuration(nybble, made, tmp_path):
    path, _ = made("abc,cde->abed")
    keras.saving.load_model(path).save_weights(tmp_path / "in.weights.h5")
    with zipfile.ZipFile(path) as archive:
        (tmp_path / "config.json").write_bytes(archive.read("config.json"))
    out, whole = tmp_path / "out.weights.h5", tmp_path / "whole.keras"
    nybble("quantize", tmp_path / "in.weights.h5", "--config", tmp_path / "config.json",
           "--method", "int8", "-o", out)
    nybble("quantize", path, "--method", "int8", "-o", whole)
    assert weights_of(out) == weights_of(whole)
    refused(nybble, tmp_path / "in.weights.h5", "its equation is not known")


@pytest.mark.parametrize("method", ["int4-16"])
def test_a_preset_whose_configuration_lists_no_layers(nybble, tmp_path, method):
    """The places in the file tell the layers, and a map of policies by their paths goes into the
    model's configuration, as KerasHub writes and reads it."""
    keras.utils.set_random_seed(3)
    model = keras_made.Backbone()
    ids = np.arange(12).reshape(2, 6)
    source, out = tmp_path / "preset", tmp_path / "out"
    source.mkdir()
    (source / "config.json").write_text(json.dumps({
        "module": "keras_hub.src.models.made.made_backbone", "class_name": "MadeBackbone",
        "config": {"name": "made", "dtype": {"module": "keras", "class_name": "DTypePolicy",
                                             "config": {"name": "float32"}}}}))
    model.save_weights(source / "model.weights.h5")
    options, arguments = METHODS[method]
    nybble("quantize", source, *options, "-o", out)
    model.quantize(**arguments())
    model.save_weights(tmp_path / "own.weights.h5")
    check_same(weights_of(out / "model.weights.h5"), weights_of(tmp_path / "own.weights.h5"),
               weights_of(source / "model.weights.h5"))
    policy = json.loads((out / "config.json").read_text())["config"]["dtype"]
    want = {layer.path: keras.dtype_policies.serialize(layer.dtype_policy)["config"]
            for layer in model._flatten_layers() if layer.quantization_mode}
    assert len(want) == 13
    assert {path: p["config"] for path, p in policy["config"]["policy_map"].items()} == want
    loaded = keras_made.Backbone(dtype=keras.dtype_policies.deserialize(policy))
    loaded.load_weights(out / "model.weights.h5")
    np.testing.assert_array_equal(outputs(loaded, ids), outputs(model, ids))


def test_a_recipe_mixes_modes(nybble, made, tmp_path):
    path, _ = made("nested")
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"method": "int8", "modules": [
        {"pattern": "block/attn/*", "method": "int4", "group_size": -1},
        {"pattern": "head", "method": "none"}]}))
    out = tmp_path / "out.keras"
    nybble("quantize", path, "--recipe", recipe, "-o", out)
    model = keras.saving.load_model(out)
    modes = {layer.name: layer.quantization_mode for layer in model._flatten_layers()
             if layer.weights and not layer._layers}
    assert modes == {"key": "int4", "query": "int4", "value": "int4", "attention_output": "int4",
                     "up": "int8", "down": "int8", "head": None}


@pytest.mark.parametrize("name", ["dense", "embedding", "reversible", "reversible-tied",
                                  "attention", "shared", "nested"])
@pytest.mark.parametrize("method", ["int8", "int4", "rtn"])
def test_commands_and_report_tell_the_same_bits(nybble, made, tmp_path, name, method):
    """Of the matrices with scales, zero points and indices; biases do not count."""
    path, _ = made(name)
    out = tmp_path / "o.keras"
    told = json.loads(nybble("quantize", path, "--method", method, "-o", out, "--json").stdout)
    found = json.loads(nybble("inspect", out, "--json").stdout)
    report = json.loads((tmp_path / "o.keras.report.json").read_text())
    layers = {x["name"]: x["bits_per_weight"] for x in found["layers"] if x["layout"]}
    assert told["layers"] == report["totals"]["layers"] == len(report["layers"]) == len(layers) > 0
    assert told["bits_per_weight"] == pytest.approx(found["bits_per_quantized_weight"], rel=1e-9)
    assert report["totals"]["bits_per_weight"] == pytest.approx(told["bits_per_weight"], rel=1e-8)
    assert {x["module"]: x["bits_per_weight"] for x in report["layers"]} == {
        name: pytest.approx(bits, rel=1e-8) for name, bits in layers.items()}
    assert told["bytes_out"] == report["totals"]["bytes_out"] == found["bytes"]
    assert report["command"].split()[:3] == ["nybble", "quantize", str(path)]
    if (name, method) == ("dense", "int8"):  # two kernels, and a scale for each output
        assert told["bits_per_weight"] == 8 * (10 * 32 + 32 + 4 * (32 + 1)) / (10 * 32 + 32)


def test_int4_has_keras_groups_in_a_recipe_too(nybble, made, tmp_path):
    path, _ = made("odd")
    recipe = tmp_path / "recipe.json"
    for text, size in (({"method": "int4"}, 128), ({"method": "int4", "group_size": -1}, -1),
                       ({"method": "int8", "modules": [{"pattern": "dense*", "method": "int4"}]},
                        128)):
        recipe.write_text(json.dumps(text))
        nybble("quantize", path, "--recipe", recipe, "-o", tmp_path / "o.keras", "--force")
        report = json.loads((tmp_path / "o.keras.report.json").read_text())
        assert [layer["group_size"] for layer in report["layers"]] == [size] * 3


@keras.saving.register_keras_serializable("made")
class Stack(L.Layer):
    """Layers in a list, which no configuration names."""

    def __init__(self, **more):
        super().__init__(**more)
        self.stack = [L.Dense(8), L.Dense(8)]

    def build(self, shape):
        for layer in self.stack:
            layer.build((*shape[:-1], 8))
        self.built = True

    def call(self, x):
        for layer in self.stack:
            x = layer(x)
        return x


def test_matrices_that_no_configuration_lists_are_told(nybble, tmp_path):
    model = keras.Sequential([keras.Input((8,)), Stack(), L.Dense(3)])
    model.save(tmp_path / "m.keras")
    done = nybble("quantize", tmp_path / "m.keras", "--method", "int8", "-o", tmp_path / "o.keras")
    assert "2 matrices are of layers that its configuration does not list" in done.stderr
    assert "layers/stack/" in done.stderr
    kept, source = weights_of(tmp_path / "o.keras"), weights_of(tmp_path / "m.keras")
    same = [name for name in source if "stack/" in name and name.endswith("vars/0")]
    assert len(same) == 2 and all(kept[name] == source[name] for name in same)
    assert kept["layers/dense/vars/0"][1] == "int8"


def test_the_same_run_gives_the_same_bytes(nybble, made, tmp_path):
    path, _ = made("attention")
    for name in ("a", "b"):
        nybble("quantize", path, "--method", "int4", "-o", tmp_path / f"{name}.keras")
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()


def test_inspect_prints_the_layers(nybble, made, tmp_path):
    path, _ = made("nested")
    nybble("quantize", path, "--method", "int4", "-g", "16", "-o", tmp_path / "o.keras")
    told = json.loads(nybble("inspect", tmp_path / "o.keras", "--check", "--json").stdout)
    layers = {layer["name"]: layer for layer in told["layers"]}
    assert told["faults"] == 0 and told["model_type"] == "Functional"
    assert layers["block/attn/query"]["bits"] == 4
    assert layers["block/ffn/up"]["shape"] == [24, 16]
    assert layers["block/ffn/up"]["group_size"] == 16
    assert layers["head"]["shape"] == [2, 16]


# ---- Refusals --------------------------------------------------------------------------------


def refused(nybble, path, *words, command=("quantize", "--method", "int8")):
    done = nybble(command[0], path, *command[1:], *(["-o", str(path) + ".out.keras"]
                                                    if command[0] == "quantize" else []), ok=False)
    assert done.returncode == 1, done
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("nybble: "), done.stderr
    for word in words:
        assert str(word) in lines[0], lines[0]
    assert not pathlib.Path(str(path) + ".out.keras").exists()


def h5_soft(file):
    file["dense/vars/0"] = np.ones((2, 2), "f4")
    file["link"] = h5py.SoftLink("/dense/vars/0")


def h5_external(file):
    file["far"] = h5py.ExternalLink("/etc/passwd", "/x")


def h5_text(file):
    file["words"] = np.array(["a", "b"], dtype=object)


def h5_compound(file):
    file["pairs"] = np.zeros(3, dtype=[("a", "f4"), ("b", "i4")])


def h5_filter(file):
    file.create_dataset("packed", data=np.zeros((8, 8), "f4"), chunks=(4, 4), scaleoffset=0)


def h5_storage(file):
    file.create_dataset("out", shape=(4,), dtype="f4", external=[("/etc/passwd", 0, 16)])


def h5_virtual(file):
    layout = h5py.VirtualLayout(shape=(4,), dtype="f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(4,))
    file.create_virtual_dataset("view", layout)


def h5_big_endian(file):
    file["big"] = np.zeros(3, ">f4")


def h5_bomb(file):
    file.create_dataset("huge", shape=(1 << 20, 1 << 20), dtype="f8", chunks=(1024, 1024),
                        compression="gzip")


def h5_old(file):
    file.attrs["model_config"] = "{}"


BAD = {  # what makes the file, and words that the refusal has to have
    "soft": (h5_soft, ["'link'", "soft link"]),
    "external": (h5_external, ["'far'", "external link"]),
    "text": (h5_text, ["'words'"]),
    "compound": (h5_compound, ["'pairs'", "compound"]),
    "filter": (h5_filter, ["'packed'", "filter 6"]),
    "storage": (h5_storage, ["'out'", "another file"]),
    "virtual": (h5_virtual, ["'view'", "view of other arrays"]),
    "big-endian": (h5_big_endian, ["'big'", "big-endian"]),
    "bomb": (h5_bomb, ["'huge'", "8796093022208 bytes"]),
    "old": (h5_old, ["Keras 2"]),
}


@pytest.mark.parametrize("name", BAD)
def test_what_could_do_harm_is_refused_by_name(nybble, tmp_path, name):
    maker, words = BAD[name]
    path = tmp_path / "bad.weights.h5"
    with h5py.File(path, "w") as file:
        maker(file)
    refused(nybble, path, path, *words)
    refused(nybble, path, path, *words, command=("inspect",))


def test_what_is_there_is_kept(nybble, made, tmp_path):
    path, _ = made("dense")
    out, partial = tmp_path / "o.keras", tmp_path / "o.keras.partial"
    for taken in (out, partial):
        taken.write_text("mine")
        done = nybble("quantize", path, "--method", "int8", "-o", out, ok=False)
        assert done.returncode == 1 and str(taken) in done.stderr and "--force" in done.stderr
        assert taken.read_text() == "mine"
        taken.unlink()
    out.write_text("old")
    nybble("quantize", path, "--method", "int8", "-o", out, "--force")
    assert weights_of(out)["layers/dense/vars/0"][1] == "int8"
    assert {entry.name for entry in tmp_path.iterdir()} == {"o.keras", "o.keras.report.json"}


def test_damaged_archives_are_refused(nybble, made, tmp_path):
    path, _ = made("dense")
    data = path.read_bytes()
    bad = tmp_path / "bad.keras"
    bad.write_bytes(data[:2000])
    refused(nybble, bad, bad)
    at = data.index(b"\x89HDF") + 3000
    bad.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1:])
    refused(nybble, bad, "model.weights.h5", "CRC")
    with zipfile.ZipFile(bad, "w") as archive:
        archive.writestr("config.json", "{}")
    refused(nybble, bad, "model.weights.h5")
    with zipfile.ZipFile(bad, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", data[data.index(b"\x89HDF"):][:600])
    refused(nybble, bad, f"{bad}:model.weights.h5")


def test_what_keras_does_not_do_is_refused(nybble, made, tmp_path):
    path, _ = made("odd")
    once = tmp_path / "once.keras"
    nybble("quantize", path, "--method", "int8", "-o", once)
    refused(nybble, once, "quantised already")
    refused(nybble, path, "sample inputs", command=("quantize", "--method", "gptq"))
    refused(nybble, path, "--format", command=("quantize", "--method", "int8", "--format", "gptq"))
    refused(nybble, path, "--range", command=("quantize", "--method", "int8", "--range", "mse"))
    x = keras.Input((5, 4))
    dots = keras.Model(x, keras.layers.EinsumDense("...x,xy->...y", output_shape=(5, 3))(x))
    dots.save(tmp_path / "dots.keras")
    refused(nybble, tmp_path / "dots.keras", "...x,xy->...y", "Keras")


# ---- The guides' example -----------------------------------------------------------------------


def test_the_example(nybble, root, tmp_path):
    """Keras' guides print a mean squared error of about 5e-6 for int8 and 2.8e-4 for int4 on a
    10-32-1 model with random weights, and 0 for a model that was saved and loaded."""
    for method, *more in (("int8",), ("int4", "--group-size", "-1")):
        nybble("quantize", root / "examples/keras/dense.keras", "--method", method, *more,
               "-o", tmp_path / f"{method}.keras")
    done = subprocess.run([sys.executable, root / "examples/keras/errors.py", tmp_path],
                          capture_output=True, text=True, check=True)
    print(done.stdout)
    told = dict(re.findall(r"^(int[48]): (.*)$", done.stdout, re.M))
    for method, guide in (("int8", 5e-6), ("int4", 2.8e-4)):
        error, own = re.fullmatch(r"(\S+) from full precision, (\S+) from Keras' own",
                                  told[method]).groups()
        print(f"{method}: {error}, the guide has {guide:.2g}; between nybble's file and Keras {own}")
        assert 0 < float(error) < 10 * guide and float(own) == 0.0
