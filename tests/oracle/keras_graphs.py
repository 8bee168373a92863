"""Small Keras models with random weights, of every kind that nybble runs."""
import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras  # noqa: E402
import numpy as np  # noqa: E402

layers = keras.layers


def randomize(model, seed):
    """Weights whose every number matters: also biases, gains and slopes."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        shape = tuple(variable.shape)
        scale = 1.0 / max(np.sqrt(np.prod(shape[:-1])), 1.0) if len(shape) > 1 else 0.3
        center = 1.0 if variable.name in ("gamma", "scale") else 0.0
        variable.assign((center + scale * rng.standard_normal(shape)).astype("float32"))
    return model


def normal(rng, *shape):
    return rng.standard_normal(shape).astype("float32")


def dense(rng):
    width = int(rng.integers(3, 40))
    model = keras.Sequential([
        keras.Input((width,)), layers.Dense(int(rng.integers(1, 50)), activation="relu"),
        layers.Dropout(0.5), layers.Dense(7, use_bias=False, activation="gelu"), layers.Dense(3)])
    return model, [normal(rng, 300, width)]


def unbuilt_input(rng):
    """A Sequential model whose list has no InputLayer."""
    model = keras.Sequential([layers.Dense(5, activation="tanh"), layers.Dense(2)])
    model.build((None, 6))
    return model, [normal(rng, 9, 6)]


def activations(rng):
    names = ["elu", "selu", "celu", "softplus", "softsign", "relu6", "leaky_relu", "silu", "gelu",
             "tanh", "sigmoid", "exponential", "hard_sigmoid", "hard_silu", "hard_tanh", "linear",
             "mish", "log_softmax", "softmax", "log_sigmoid", "tanh_shrink", "hard_shrink",
             "soft_shrink", "squareplus", "sparse_plus", "sparse_sigmoid", "relu"]
    x = keras.Input((4, 6))
    ys = [layers.Activation(name)(x) for name in names]
    ys += [layers.ReLU()(x), layers.ReLU(max_value=0.7, negative_slope=0.2, threshold=0.1)(x),
           layers.ReLU(max_value=6.0)(x), layers.LeakyReLU(negative_slope=0.4)(x),
           layers.ELU(alpha=0.6)(x), layers.Softmax()(x), layers.PReLU()(x),
           layers.PReLU(shared_axes=[1])(x)]
    return keras.Model(x, layers.Concatenate(axis=1)(ys)), [2.0 * normal(rng, 8, 4, 6)]


EINSUMS = [("abc,cd->abd", (None, 11), "d"), ("abc,cde->abde", (None, 3, 5), "de"),
           ("abcd,cde->abe", (None, 6), "e"), ("...x,xy->...y", 9, "y"),
           ("abc,bd->adc", (4, None), "d"), ("abc,dc->abd", (None, 5), "d"),
           ("abc,bcd->ad", 5, "d"), ("abc,cd->adb", (6, None), None),
           ("abc,cd->abd", (4, 8), "bd"), ("ab...,bc->ac...", (5,), "c")]


def einsum(equation, output_shape, bias_axes):
    def make(rng):
        rank = 4 if equation.startswith("abcd") else 3
        x = keras.Input((4, 6, 5)[: rank - 1])
        y = layers.EinsumDense(equation, output_shape=output_shape, bias_axes=bias_axes,
                               activation="silu")(x)
        return keras.Model(x, y), [normal(rng, 5, *(4, 6, 5)[: rank - 1])]

    make.__name__ = "einsum " + equation
    return make


def norms(rng):
    x = keras.Input((5, 6))
    a = layers.LayerNormalization()(x)
    b = layers.LayerNormalization(center=False, epsilon=1e-5)(x)
    c = layers.LayerNormalization(scale=False)(x)
    d = layers.LayerNormalization(axis=[1, 2])(x)
    e = layers.RMSNormalization()(x)
    return keras.Model(x, [a, b, c, d, e]), [normal(rng, 6, 5, 6)]


def shapes(rng):
    x = keras.Input((4, 6))
    y = layers.Reshape((3, -1))(x)
    y = layers.Permute((2, 1))(y)
    y = layers.Concatenate(axis=1)([y, layers.Reshape((-1, 3))(x)])
    z = layers.Flatten()(y)
    return keras.Model(x, [y, z, layers.GlobalAveragePooling1D()(y),
                           layers.GlobalMaxPooling1D(keepdims=True)(y)]), [normal(rng, 6, 4, 6)]


def merges(rng):
    x, y = keras.Input((4, 6)), keras.Input((4, 6))
    z = keras.Input((6,))
    outs = [layers.Add()([x, y, x]), layers.Subtract()([x, y]), layers.Multiply()([x, y]),
            layers.Average()([x, y]), layers.Maximum()([x, y]), layers.Minimum()([x, y]),
            layers.Add()([x, z])]
    return keras.Model([x, y, z], outs), [normal(rng, 5, 4, 6), normal(rng, 5, 4, 6),
                                          normal(rng, 5, 6)]


def attention(rng):
    heads, dim = int(rng.integers(1, 4)), int(rng.integers(2, 9))
    x, y = keras.Input((None, 10)), keras.Input((7, 12))
    a = layers.MultiHeadAttention(heads, dim)(x, x)
    b = layers.MultiHeadAttention(heads, dim, value_dim=5, output_shape=6)(a, y)
    c = layers.MultiHeadAttention(heads, dim, use_bias=False)(x, x, use_causal_mask=True)
    d = layers.MultiHeadAttention(heads, dim)(query=x, value=y, key=y)
    e = layers.MultiHeadAttention(heads, dim, use_gate=True, sliding_window=2)(x, x)
    return keras.Model([x, y], [a, b, c, d, e]), [normal(rng, 4, 5, 10), normal(rng, 4, 7, 12)]


def masked(rng):
    x, mask = keras.Input((5, 8)), keras.Input((5, 5))
    y = layers.MultiHeadAttention(2, 4)(x, x, attention_mask=mask)
    allowed = (rng.random((6, 5, 5)) < 0.5) | np.eye(5, dtype=bool)
    return keras.Model([x, mask], y), [normal(rng, 6, 5, 8), allowed.astype("float32")]


def grouped(rng):
    x = keras.Input((6, 12))
    a = layers.GroupQueryAttention(5, 4, 2)(x, x)
    b = layers.GroupQueryAttention(4, 4, 4, use_bias=False)(a, x, use_causal_mask=True)
    return keras.Model(x, [a, b]), [normal(rng, 4, 6, 12)]


def text(rng):
    ids = keras.Input((None,), dtype="int32")
    table = layers.Embedding(50, 16)
    x = table(ids)
    y = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 8)(y, y, use_causal_mask=True)])
    x = layers.Dense(20, activation="gelu")(x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(ids, layers.Dense(3, activation="softmax")(x)), [
        rng.integers(0, 50, (12, 9)).astype("int64")]


def reversible(rng):
    ids = keras.Input((6,), dtype="int32")
    tied = layers.ReversibleEmbedding(30, 8)
    free = layers.ReversibleEmbedding(30, 8, tie_weights=False, logit_soft_cap=2.0)
    x, y = tied(ids), free(ids)
    return keras.Model(ids, [tied(x, reverse=True), free(y, reverse=True)]), [
        rng.integers(0, 30, (4, 6)).astype("int32")]


def shared(rng):
    """A layer with several calls, at different depths, and a model that is called twice."""
    inner_in = keras.Input((8,))
    inner = keras.Model(inner_in, [layers.Dense(8, activation="tanh")(inner_in),
                                   layers.Dense(4)(inner_in)], name="inner")
    x, y = keras.Input((8,)), keras.Input((8,))
    dense_layer = layers.Dense(8, activation="relu")
    a = dense_layer(x)
    b = dense_layer(layers.LayerNormalization()(a))
    c, d = inner(b)
    e, f = inner(y)
    stack = keras.Sequential([layers.Dense(6), layers.ReLU(), layers.Dense(8)], name="stack")
    g = stack(layers.Add()([c, e]))
    return keras.Model([x, y], [dense_layer(g), layers.Concatenate()([d, f]), x]), [
        normal(rng, 40, 8), normal(rng, 40, 8)]


def named_inputs(rng):
    ends = {"second": keras.Input((4,), name="second"), "first": keras.Input((3,), name="first")}
    out = layers.Dense(5)(layers.Concatenate()([ends["second"], ends["first"]]))
    model = keras.Model(ends, {"z": out, "a": layers.ReLU()(out)})
    return model, {"first": normal(rng, 5, 3), "second": normal(rng, 5, 4)}


MODELS = [dense, unbuilt_input, activations, norms, shapes, merges, attention, masked, grouped,
          text, reversible, shared, named_inputs] + [einsum(*e) for e in EINSUMS]
