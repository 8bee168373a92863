"""Keras models run by nybble: Keras' own predict is the measure."""
import json

import keras_graphs
import numpy as np
import pytest

keras = keras_graphs.keras
layers = keras.layers

TOLERANCE = 2e-5  # of the largest value: both work in f32


def predict(nybble, tmp_path, path, inputs, outputs, *options):
    args = []
    for i, x in enumerate(inputs):
        np.save(tmp_path / f"in{i}.npy", x)
        args += ["--input", tmp_path / f"in{i}.npy"]
    for i in range(outputs):
        args += ["--output", tmp_path / f"out{i}.npy"]
    nybble("predict", path, *args, *options)
    return [np.load(tmp_path / f"out{i}.npy") for i in range(outputs)]


def flat(value):
    if isinstance(value, dict):
        return [value[key] for key in sorted(value)]
    return list(value) if isinstance(value, (list, tuple)) else [value]


@pytest.mark.parametrize("make", keras_graphs.MODELS, ids=lambda make: make.__name__)
def test_outputs_are_those_of_keras(nybble, tmp_path, make):
    seed = 1
    keras.utils.set_random_seed(seed)
    model, inputs = make(np.random.default_rng(seed))
    keras_graphs.randomize(model, seed)
    path = tmp_path / "model.keras"
    model.save(path)
    arrays = flat(inputs)
    want = flat(model.predict(inputs if len(arrays) > 1 else arrays[0], verbose=0))
    got = predict(nybble, tmp_path, path, arrays, len(want))
    worst = 0.0
    for a, b in zip(got, want):
        assert a.dtype == np.float32 and a.shape == b.shape
        assert np.isfinite(b).all() and np.abs(b).max() > 0
        worst = max(worst, np.abs(a - b).max() / np.abs(b).max())
    print(f"largest error {worst:.2e} of the largest value, tolerance {TOLERANCE:.0e}")
    assert worst <= TOLERANCE


def test_threads_do_not_change_a_bit(nybble, tmp_path):
    model, inputs = keras_graphs.text(np.random.default_rng(3))
    keras_graphs.randomize(model, 3).save(tmp_path / "model.keras")
    inputs = [np.tile(inputs[0], (60, 1))]
    results = [predict(nybble, tmp_path, tmp_path / "model.keras", inputs, 1, "--threads", n)[0]
               for n in (1, 2, 5)]
    assert len(results[0]) == 720
    assert all(np.array_equal(results[0], r) for r in results[1:])


def refused(nybble, tmp_path, model, x=None):
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", np.ones((2, 8), "float32") if x is None else x)
    done = nybble("predict", tmp_path / "model.keras", "-i", tmp_path / "x.npy", "-o",
                  tmp_path / "y.npy", ok=False)
    assert done.returncode == 1 and not (tmp_path / "y.npy").exists()
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_what_is_not_known_is_named(nybble, tmp_path):
    x = keras.Input((8,))
    said = refused(nybble, tmp_path, keras.Model(x, layers.UnitNormalization(name="unit")(x)))
    assert "'unit'" in said and "UnitNormalization" in said
    said = refused(nybble, tmp_path, keras.Model(x, layers.Dense(3, name="d")(x) * 2.0))
    assert "Multiply" in said and "operation" in said
    said = refused(nybble, tmp_path, keras.Model(x, layers.Dense(4, activation=keras.activations.glu,
                                                                 name="gated")(x)))
    assert "'gated'" in said and "glu" in said
    ids = keras.Input((8,), dtype="int32")
    said = refused(nybble, tmp_path,
                   keras.Model(ids, layers.Embedding(9, 3, mask_zero=True, name="e")(ids)))
    assert "'e'" in said and "mask_zero" in said


def test_samples_have_to_fit(nybble, tmp_path):
    x = keras.Input((8,), name="features")
    model = keras.Model(x, layers.Dense(3)(x))
    said = refused(nybble, tmp_path, model, np.ones((2, 7), "float32"))
    assert "'features'" in said and "8" in said
    said = refused(nybble, tmp_path, model, np.full((2, 8), np.nan, "float32"))
    assert "nan" in said
    said = refused(nybble, tmp_path, model, np.zeros((0, 8), "float32"))
    assert "no samples" in said
    ids = keras.Input((8,), dtype="int32")
    embedding = keras.Model(ids, layers.Embedding(9, 3, name="table")(ids))
    said = refused(nybble, tmp_path, embedding, np.full((2, 8), 9))
    assert "'table'" in said and "9" in said


def test_several_inputs_are_asked_for(nybble, tmp_path):
    x, y = keras.Input((8,), name="left"), keras.Input((8,))
    said = refused(nybble, tmp_path, keras.Model([x, y], layers.Add()([x, y])))
    assert "'left'" in said and "2 inputs" in said


def test_shapes_are_told(nybble, tmp_path):
    x = keras.Input((8,))
    keras.Model(x, layers.Reshape((2, 4))(x)).save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", np.ones((300, 8)))
    args = ["predict", tmp_path / "model.keras", "-i", tmp_path / "x.npy", "-o", tmp_path / "y.npy"]
    assert nybble(*args).stdout == f"{tmp_path / 'y.npy'}: f32 [300, 2, 4]\n"
    document = json.loads(nybble(*args, "--json").stdout)
    assert document["outputs"] == [{"path": str(tmp_path / "y.npy"), "shape": [300, 2, 4]}]
