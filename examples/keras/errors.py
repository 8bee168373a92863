"""Mean squared errors of the quantised models against the original, and of Keras' own quantisation
against nybble's files, on random inputs.

usage: errors.py FOLDER      with int8.keras and int4.keras in it
"""
import os
import pathlib
import sys

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras  # noqa: E402
import numpy as np  # noqa: E402

here, folder = pathlib.Path(__file__).parent, pathlib.Path(sys.argv[1])
inputs = np.random.default_rng(42).random((32, 10)).astype("float32")


def outputs(model):
    return keras.ops.convert_to_numpy(model(inputs))


def error(a, b):
    return float(((a - b) ** 2).mean())


full = outputs(keras.saving.load_model(here / "dense.keras"))
configs = {"int8": keras.quantizers.Int8QuantizationConfig(),
           "int4": keras.quantizers.Int4QuantizationConfig(block_size=None)}
for name, config in configs.items():
    ours = outputs(keras.saving.load_model(folder / f"{name}.keras"))
    own = keras.saving.load_model(here / "dense.keras")
    own.quantize(config=config)
    print(f"{name}: {error(ours, full):.3g} from full precision, {error(ours, outputs(own)):.3g} "
          "from Keras' own")
