"""Keras models to be quantised, small enough that all of them take seconds."""
import os

os.environ["KERAS_BACKEND"] = "torch"

import keras  # noqa: E402
import numpy as np  # noqa: E402

L = keras.layers

EQUATIONS = {  # equation: (input shape without the batch, output_shape, bias_axes)
    "abc,cd->abd": ((5, 12), (5, 9), "d"),
    "abc,cde->abde": ((5, 12), (5, 3, 4), "de"),
    "abcd,cde->abe": ((5, 3, 4), (5, 7), None),
    "btd,ndh->btnh": ((5, 12), (5, 3, 4), None),
    "abc,cde->abed": ((5, 12), (5, 4, 3), None),
    "ab,bc->ac": ((150,), (37,), "c"),
}


def dense():
    x = keras.Input((10,))
    y = L.Dense(32, activation="relu")(x)
    return keras.Model(x, L.Dense(1)(y)), [np.float32]


def odd():
    """No bias, odd widths, more inputs than a group of 128 has, classes numbered in the file."""
    return keras.Sequential([keras.Input((150,)), L.Dense(37, use_bias=False), L.Dropout(0.5),
                             L.Dense(5, activation="softmax"), L.Dense(3)]), [np.float32]


def half(policy):
    """Weights of another type, in which Keras computes scales and codes."""
    x = keras.Input((6,), dtype="int32")
    y = L.Embedding(50, 40, dtype=policy)(x)
    y = L.EinsumDense("abc,cde->abde", output_shape=(6, 3, 4), bias_axes="e", dtype=policy)(y)
    return keras.Model(x, L.Dense(5, dtype=policy)(L.Reshape((6, 12))(y))), [50]


def trained():
    keras.utils.set_random_seed(5)
    model, kinds = odd()
    model.compile("adam", "mse")
    rng = np.random.default_rng(5)
    x = rng.standard_normal((64, 150)).astype("float32")
    model.fit(x, np.tanh(x[:, :3]), epochs=2, verbose=0)
    return model, kinds


def einsum(equation):
    shape, out, bias = EQUATIONS[equation]
    x = keras.Input(shape)
    y = L.EinsumDense(equation, output_shape=out, bias_axes=bias)(x)
    return keras.Model(x, y), [np.float32]


def embedding():
    x = keras.Input((6,), dtype="int32")
    y = L.LayerNormalization()(L.Embedding(50, 17)(x))
    return keras.Model(x, L.Dense(4)(y)), [50]


def reversible(tie):
    x = keras.Input((6,), dtype="int32")
    table = L.ReversibleEmbedding(50, 140, tie_weights=tie)
    return keras.Model(x, table(L.Dense(140)(table(x)), reverse=True)), [50]


def attention():
    x = keras.Input((6, 16))
    y = L.MultiHeadAttention(2, 5, value_dim=3, name="mha")(x, x)
    return keras.Model(x, L.LayerNormalization()(y + x)), [np.float32]


def cross_attention():
    x, z = keras.Input((6, 16)), keras.Input((4, 24))
    y = L.MultiHeadAttention(2, 4, use_bias=False)(x, z)
    return keras.Model([x, z], y), [np.float32, np.float32]


def grouped_attention():
    x = keras.Input((6, 16))
    y = L.GroupQueryAttention(4, 4, 2)(x, x)
    y = L.GroupQueryAttention(4, 4, 1)(y, y)
    return keras.Model(x, y), [np.float32]


def nested():
    block = keras.Sequential([keras.Input((6, 16)), L.Dense(24, "relu", name="up"),
                              L.Dense(16, name="down")], name="ffn")
    x = keras.Input((6, 16))
    inner = keras.Model(x, L.MultiHeadAttention(2, 4, name="attn")(x, x) + block(x), name="block")
    z = keras.Input((6, 16))
    y = L.GlobalAveragePooling1D()(inner(z))
    return keras.Model(z, L.Dense(2, name="head")(y)), [np.float32]


def shared():
    """A layer that is called twice, and a model that is."""
    twice = L.Dense(8, name="twice")
    one = keras.Sequential([keras.Input((8,)), L.Dense(8), L.Dense(8, "relu")], name="one")
    x = keras.Input((8,))
    y = one(twice(one(x)))
    return keras.Model(x, L.Concatenate()([twice(y), L.Dense(3)(y)])), [np.float32]


MAKERS = {
    "dense": dense, "bfloat16": lambda: half("bfloat16"), "float16": lambda: half("float16"),
    "mixed_bfloat16": lambda: half("mixed_bfloat16"), "odd": odd, "trained": trained, "embedding": embedding,
    "reversible-tied": lambda: reversible(True), "reversible": lambda: reversible(False),
    "attention": attention, "cross-attention": cross_attention,
    "grouped-attention": grouped_attention, "nested": nested, "shared": shared,
    **{equation: (lambda e: lambda: einsum(e))(equation) for equation in EQUATIONS},
}


def make(name):
    keras.utils.set_random_seed(3)
    model, kinds = MAKERS[name]()
    rng = np.random.default_rng(7)
    inputs = []
    for tensor, kind in zip(model.inputs, kinds):
        shape = (3, *tensor.shape[1:])
        inputs.append(rng.integers(0, kind, shape).astype("int32") if isinstance(kind, int)
                      else rng.standard_normal(shape).astype(kind))
    return model, inputs if len(inputs) > 1 else inputs[0]


class Block(L.Layer):
    """A decoder's layer as KerasHub has them: its sublayers are attributes that no configuration
    lists."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._self_attention_layer = L.MultiHeadAttention(2, 4, name="self_attention",
                                                          dtype=self.dtype_policy)
        self._feedforward_gate_dense = L.Dense(24, name="gate", dtype=self.dtype_policy)
        self._feedforward_output_dense = L.Dense(16, name="down", dtype=self.dtype_policy)

    def build(self, shape):
        self._self_attention_layer.build(shape, shape)
        self._feedforward_gate_dense.build(shape)
        self._feedforward_output_dense.build((*shape[:-1], 24))

    def call(self, x):
        x = x + self._self_attention_layer(x, x)
        return x + self._feedforward_output_dense(self._feedforward_gate_dense(x))

    def compute_output_shape(self, shape):
        return shape


class Backbone(keras.Model):
    def __init__(self, dtype=None, **kwargs):
        table = L.ReversibleEmbedding(50, 16, name="token_embedding", dtype=dtype)
        ids = keras.Input((6,), dtype="int32")
        x = table(ids)
        for i in range(2):
            x = Block(name=f"transformer_layer_{i}", dtype=dtype)(x)
        super().__init__(inputs=ids, outputs=x, dtype=dtype, **kwargs)
