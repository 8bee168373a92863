"""GPTQ of Keras models: what Keras loads, and what it gains over plain rounding."""
import json
import zipfile

import h5py
import keras_graphs
import numpy as np
import pytest

keras = keras_graphs.keras
layers = keras.layers


def arrays(path, place, biased=True):
    """bias, codes [out, in], scales, zeros, g_idx as the file has them."""
    with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as member:
        with h5py.File(member) as file:
            group = file[place]["vars"]
            values = [np.array(group[str(i)]) for i in range(len(group))]
    return values if biased else [None] + values


def dequantized(path, place, bits, outputs, biased=True):
    """The kernel [in, out] that the stored arrays stand for."""
    _, codes, scales, zeros, index = arrays(path, place, biased)
    assert codes.dtype == zeros.dtype == np.uint8
    assert scales.dtype == index.dtype == np.float32
    if bits == 4:
        codes = np.stack([codes & 15, codes >> 4], 1).reshape(-1, codes.shape[1])[:outputs]
    assert codes.shape[0] == outputs and codes.max() < 2**bits and zeros.max() < 2**bits
    group = index.astype(int)
    return ((codes.astype("float32") - zeros[:, group]) * scales[:, group]).T


def quantize(nybble, model, out, *options, calib=(), tmp_path=None):
    args = []
    for i, x in enumerate(calib):
        np.save(tmp_path / f"calib{i}.npy", x)
        args += ["--calib", tmp_path / f"calib{i}.npy"]
    return nybble("quantize", model, "-o", out, "--force", *args, *options)


def kernels(model):
    return {layer.path: np.array(layer.kernel) for layer in model._flatten_layers()
            if isinstance(layer, (layers.Dense, layers.EinsumDense))}


@pytest.mark.parametrize("bits, options", [
    (2, ("-g", "16")), (3, ("-g", "16", "--activation-order", "full")), (4, ("-g", "-1")),
    (4, ("-g", "16", "--asymmetric")), (8, ("-g", "128", "--asymmetric"))])
def test_keras_computes_what_was_written(nybble, tmp_path, bits, options):
    rng = np.random.default_rng(bits)
    x = keras.Input((40,))
    y = layers.Dense(19, activation="relu")(x)
    y = layers.Reshape((1, 19))(y)
    y = layers.EinsumDense("abc,cde->abde", output_shape=(1, 3, 5), bias_axes="de")(y)
    y = layers.EinsumDense("abcd,cde->abe", output_shape=(1, 23))(y)
    model = keras.Model(x, layers.Dense(4)(layers.Flatten()(y)))
    keras_graphs.randomize(model, bits).save(tmp_path / "model.keras")
    mixing = keras_graphs.normal(rng, 40, 40)
    calib = keras_graphs.normal(rng, 500, 40) @ mixing
    out = tmp_path / "out.keras"
    quantize(nybble, tmp_path / "model.keras", out, "--method", "gptq", "-b", bits, *options,
             calib=[calib], tmp_path=tmp_path)
    loaded = keras.models.load_model(out)
    worst, seen = 0.0, 0
    places = {"dense": (19, True), "dense_1": (4, True), "einsum_dense": (15, True),
              "einsum_dense_1": (23, False)}
    numbered = {}
    for layer in loaded.layers:
        if not isinstance(layer, (layers.Dense, layers.EinsumDense)):
            continue
        kind = "dense" if isinstance(layer, layers.Dense) else "einsum_dense"
        numbered[kind] = numbered.get(kind, -1) + 1
        place = kind + (f"_{numbered[kind]}" if numbered[kind] else "")
        outputs, biased = places[place]
        assert layer.quantization_mode == "gptq" and layer.is_gptq_calibrated
        kernel = dequantized(out, f"layers/{place}", bits, outputs, biased)
        shape = tuple(2 if n is None else n for n in layer.input.shape)
        inputs = keras_graphs.normal(rng, *shape)
        want = inputs.reshape(*inputs.shape[: -2 if place == "einsum_dense_1" else -1],
                              kernel.shape[0]) @ kernel
        want = want.reshape(tuple(layer(inputs).shape))
        if biased:
            want = want + np.array(layer.bias)
        if place == "dense":
            want = np.maximum(want, 0)
        got = np.array(layer(inputs).detach())
        worst = max(worst, np.abs(got - want).max() / np.abs(want).max())
        seen += 1
    print(f"largest error {worst:.2e}, tolerance 1e-5")
    assert seen == 4 and worst <= 1e-5


def windows(data, count, length, seed):
    """Pieces of real text as ids, and the letter behind each."""
    text = (data / "text" / "wiki.test.raw").read_bytes() if (
        data / "text" / "wiki.test.raw").is_file() else b"".join(
        p.read_bytes()[:400000] for p in sorted((data / "text").iterdir()) if p.is_file())
    ids = np.frombuffer(text.lower()[:400000], np.uint8) % 64
    starts = np.random.default_rng(seed).integers(0, len(ids) - length - 1, count)
    return (np.stack([ids[s:s + length] for s in starts]).astype("int32"),
            ids[starts + length].astype("int32"))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A model of text: attention and dense layers, trained until it knows something."""
    keras.utils.set_random_seed(7)
    ids = keras.Input((16,), dtype="int32")
    x = layers.Embedding(64, 32)(ids)
    y = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(4, 8, name="attention")(y, y)])
    y = layers.Dense(96, activation="relu", name="up")(layers.LayerNormalization()(x))
    x = layers.Add()([x, layers.Dense(32, name="down")(y)])
    x = layers.Dense(128, activation="gelu", name="wide")(layers.Flatten()(x))
    model = keras.Model(ids, layers.Dense(64, name="head")(x))
    model.compile(keras.optimizers.Adam(4e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    inputs, targets = windows(data, 4000, 16, 1)
    history = model.fit(inputs, targets, batch_size=128, epochs=2, verbose=0)
    print("loss", history.history["loss"])
    assert history.history["loss"][-1] < 3.2  # ln 64 is 4.16
    path = tmp_path_factory.mktemp("trained") / "model.keras"
    model.save(path)
    return model, path


def layer_errors(model, changed, inputs):
    """Squared error of every linear's output, relative, on the inputs of the model as it was."""
    wanted = {layer.path: layer for layer in changed._flatten_layers()}
    seen = {}

    for layer in model._flatten_layers():
        if isinstance(layer, (layers.Dense, layers.EinsumDense)):
            def call(x, *args, layer=layer, plain=layer.call, **more):
                got, want = wanted[layer.path](x), plain(x)
                seen[layer.path] = float(((got - want) ** 2).sum() / (want ** 2).sum())
                return want

            layer.call = call
    model(inputs)
    for layer in model._flatten_layers():
        if isinstance(layer, (layers.Dense, layers.EinsumDense)):
            del layer.call
    return seen


@pytest.mark.parametrize("bits", [4, 3, 2])
def test_layers_err_less_than_by_plain_rounding(nybble, data, tmp_path, trained, bits):
    model, path = trained
    calib, _ = windows(data, 2000, 16, 2)
    held, _ = windows(data, 400, 16, 3)
    errors = {}
    for method in ("gptq", "rtn"):
        out = tmp_path / f"{method}.keras"
        samples = [calib] if method == "gptq" else []
        quantize(nybble, path, out, "--method", method, "-b", bits, "-g", "32", calib=samples,
                 tmp_path=tmp_path)
        errors[method] = layer_errors(model, keras.models.load_model(out), held)
    assert len(errors["gptq"]) == 8 and errors["gptq"].keys() == errors["rtn"].keys()
    for name, error in errors["gptq"].items():
        print(f"{bits} bits, {name}: gptq {error:.3e}, plain rounding {errors['rtn'][name]:.3e}")
        assert 0 < error < errors["rtn"][name]


def test_shared_layers_see_all_their_inputs(nybble, tmp_path):
    """One layer with two calls, whose inputs lie in different directions: a Hessian of the first
    call alone would give up the other directions."""
    rng = np.random.default_rng(5)
    x, y = keras.Input((32,)), keras.Input((32,))
    dense = layers.Dense(24, name="shared")
    model = keras.Model([x, y], layers.Concatenate()([dense(x), dense(y)]))
    keras_graphs.randomize(model, 5).save(tmp_path / "model.keras")
    inputs = [keras_graphs.normal(rng, 400, 6) @ keras_graphs.normal(rng, 6, 32)
              for _ in range(2)]
    out = tmp_path / "out.keras"
    quantize(nybble, tmp_path / "model.keras", out, "--method", "gptq", "-b", "3", "-g", "16",
             calib=inputs, tmp_path=tmp_path)
    done = keras.models.load_model(out).predict(inputs, verbose=0)
    quantize(nybble, tmp_path / "model.keras", out, "--method", "rtn", "-b", "3", "-g", "16")
    plain = keras.models.load_model(out).predict(inputs, verbose=0)
    want = model.predict(inputs, verbose=0)
    for part in (slice(0, 24), slice(24, 48)):
        errors = [((got[:, part] - want[:, part]) ** 2).sum() for got in (done, plain)]
        print(f"gptq {errors[0]:.3f}, plain rounding {errors[1]:.3f}")
        assert errors[0] < 0.3 * errors[1]


def test_threads_do_not_change_a_byte(nybble, tmp_path):
    model, inputs = keras_graphs.shared(np.random.default_rng(6))
    keras_graphs.randomize(model, 6).save(tmp_path / "model.keras")
    inputs = [np.tile(x, (8, 1)) for x in inputs]
    written = []
    for threads in (1, 3):
        out = tmp_path / f"{threads}.keras"
        quantize(nybble, tmp_path / "model.keras", out, "--method", "gptq", "--threads", threads,
                 calib=inputs, tmp_path=tmp_path)
        with zipfile.ZipFile(out) as archive:
            written.append(archive.read("model.weights.h5"))
    assert written[0] == written[1]
    keras.models.load_model(tmp_path / "1.keras")


def test_a_recipe_mixes_methods(nybble, tmp_path):
    rng = np.random.default_rng(8)
    model = keras.Sequential([keras.Input((24,)), layers.Dense(32, name="a"),
                              layers.Dense(32, name="b"), layers.Dense(32, name="c"),
                              layers.Dense(3, name="d")])
    keras_graphs.randomize(model, 8).save(tmp_path / "model.keras")
    recipe = {"method": "gptq", "group_size": 16, "modules": [
        {"pattern": "b", "method": "int8"}, {"pattern": "c", "weight_bits": 2},
        {"pattern": "d", "method": "none"}]}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    out = tmp_path / "out.keras"
    quantize(nybble, tmp_path / "model.keras", out, "--recipe", tmp_path / "recipe.json",
             calib=[keras_graphs.normal(rng, 300, 24)], tmp_path=tmp_path)
    loaded = keras.models.load_model(out)
    assert [layer.quantization_mode for layer in loaded.layers] == ["gptq", "int8", "gptq", None]
    assert [loaded.get_layer(n).dtype_policy.weight_bits for n in "ac"] == [4, 2]
    x = keras_graphs.normal(rng, 50, 24)
    assert np.isfinite(loaded.predict(x, verbose=0)).all()


def test_what_cannot_be_done_is_told(nybble, tmp_path):
    x = keras.Input((4, 6))
    swapped = keras.Model(x, layers.EinsumDense("abc,dc->abd", output_shape=(None, 5),
                                                name="swapped")(x))
    swapped.save(tmp_path / "model.keras")
    samples = np.ones((9, 4, 6), "float32")
    np.save(tmp_path / "x.npy", samples)

    def said(*options):
        done = nybble("quantize", tmp_path / "model.keras", "-o", tmp_path / "out.keras", *options,
                      ok=False)
        assert done.returncode == 1 and not (tmp_path / "out.keras").exists()
        return done.stderr

    assert "'swapped'" in said("--method", "gptq", "-c", tmp_path / "x.npy")
    assert "--calib" in said("--method", "gptq")
    assert "no samples" in said("--method", "rtn", "-c", tmp_path / "x.npy")
    flat = keras.Input((6,))
    keras.Model(flat, layers.UnitNormalization(name="unit")(layers.Dense(3)(flat))).save(
        tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", np.ones((9, 6), "float32"))
    assert "'unit'" in said("--method", "gptq", "-c", tmp_path / "x.npy")
