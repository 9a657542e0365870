"""Whole networks of several frameworks: `name -> (model, variables, image_shape)`."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from coded_jax.models import make_base_model
from tests.models.published import random_variables

SHAPE = (48, 44, 3)


class Gated(nn.Module):
    """Squeeze-and-excite gates between convolutions, as of EfficientNet."""

    @nn.compact
    def __call__(self, x):
        x = nn.swish(nn.Conv(6, (3, 3), (2, 2))(x))
        for maps in (6, 8):
            y = nn.swish(nn.Conv(12, (1, 1))(x))
            y = nn.swish(nn.Conv(12, (3, 3), feature_group_count=12)(y))
            gate = nn.Dense(12)(nn.relu(nn.Dense(3)(y.mean((1, 2)))))
            y = nn.Conv(maps, (1, 1))(y * nn.sigmoid(gate)[:, None, None])
            x = x + y if x.shape == y.shape else y
        return nn.Dense(5)(x.mean((1, 2)))


def linen(module, shape=SHAPE):
    variables = jax.jit(module.init)(jax.random.key(1), jnp.zeros((1, *shape)))
    return module.apply, drawn(variables), shape


def drawn(variables):
    """Random numbers in the place of biases of 0 and scales of 1."""
    rng = np.random.default_rng(0)
    more = lambda x: 0.1 * np.abs(rng.normal(size=x.shape)).astype(x.dtype)
    real = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    return jax.tree.map(lambda x: x + more(x) if real(x) else x, variables)


def of_resnet18():
    base, shape = make_base_model("resnet18", 1 / 16), (32, 32, 3)
    model = lambda variables, x: base.head(variables, base.f_conv(variables, x))
    return model, random_variables(base, shape), shape


def of_keras():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    from coded_jax.models.keras_networks import from_keras

    layers = keras.layers
    image = layers.Input(SHAPE)
    x = layers.ZeroPadding2D(1)(image)
    x = layers.ReLU(6)(layers.Conv2D(6, 3, 2)(x))
    y = layers.BatchNormalization()(layers.SeparableConv2D(6, 3, padding="same")(x))
    x = layers.Add()([x, y])
    x = layers.AveragePooling2D(3, 2, padding="same")(x)
    x = layers.Conv2D(8, 3, padding="same", activation="gelu")(x)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Multiply()([x, layers.Conv2D(8, 1, activation="sigmoid")(gate)])
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    x = layers.Conv2D(4, 3, 2, padding="same", activation="relu")(x)
    model = keras.Model(image, layers.Dense(5)(layers.Flatten()(x)))
    function, variables = from_keras(model)
    # Keras adds biases to arrays of more axes.
    return jax.numpy_rank_promotion("allow")(function), drawn(variables), SHAPE


def of_equinox():
    import equinox as eqx

    keys = jax.random.split(jax.random.key(0), 4)
    layers = eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(3, 6, 3, 2, 1, key=keys[0]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Conv2d(6, 6, 3, 1, 1, key=keys[1]),
            eqx.nn.MaxPool2d(2, 2),
            eqx.nn.Conv2d(6, 8, 3, 1, 1, key=keys[2]),
            eqx.nn.Lambda(lambda x: x.mean((1, 2))),
            eqx.nn.Linear(8, 5, key=keys[3]),
        ]
    )
    params, static = eqx.partition(layers, eqx.is_array)

    def model(params, images):  # a module of one image, channels first
        return jax.vmap(eqx.combine(params, static))(images.transpose(0, 3, 1, 2))

    return model, drawn(params), SHAPE


@jax.custom_vjp
def halved(x):
    return x / 2


halved.defvjp(lambda x: (x / 2, None), lambda _, g: (g,))


def of_lax():
    """Nested functions of several kinds around `jax.lax`, channels first."""
    rng = np.random.default_rng(0)
    kernels = [
        rng.normal(size=(o, i, 3, 3), scale=0.2).astype(np.float32)
        for i, o in ((3, 6), (6, 6), (6, 8))
    ]

    @functools.partial(jax.jit, static_argnames="stride")
    def layer(kernel, x, stride):
        y = lax.conv_general_dilated(x, kernel, (stride, stride), "SAME")
        return halved(lax.platform_dependent(y, cpu=jax.nn.relu, default=jax.nn.relu))

    def model(kernels, images):
        x = lax.transpose(images, (0, 3, 1, 2))
        x = layer(kernels[0], x, 2)
        x = x + jax.checkpoint(lambda x: layer(kernels[1], x, 1))(x)
        return layer(kernels[2], x, 1).sum((2, 3))

    return model, kernels, SHAPE


def convolved(x, kernel, stride=1):
    y = lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(y)


def attended(x):
    """Attention by `@`, which is other operations for one image than for more."""
    batch, height, width, maps = x.shape
    y = x.reshape(batch, -1, maps)
    weights = jax.nn.softmax(y @ y.transpose(0, 2, 1))
    return (weights @ y).reshape(batch, height, width, maps)


def of_parts(middle, size=64, maps=8):
    """Convolutions before and behind what mixes positions."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape, scale=0.3).astype("f")
    variables = {
        "first": draw(3, 3, 3, maps),
        "middle": draw(3, 3, maps, maps),
        "dense": draw(maps, 5),
    }

    def model(variables, x):
        x = convolved(convolved(x, variables["first"]), variables["middle"], 2)
        x = middle(variables, x)
        x = convolved(convolved(x, variables["middle"]), variables["middle"])
        return x.mean((1, 2)) @ variables["dense"]

    return model, variables, (size, size, 3)


def attention_within(variables, x):
    y = attended(convolved(x, variables["middle"], 2))
    return x + jnp.repeat(jnp.repeat(y, 2, 1), 2, 2)


def gate_by_einsum(variables, x):
    """Of as many maps as rows and columns."""
    return jnp.einsum("bhwc,bc->bhwc", x, jax.nn.sigmoid(x.mean((1, 2))))


def pyramid():
    """Two heads of finer and coarser features of a trunk, over all positions."""
    rng = np.random.default_rng(0)
    variables = [
        rng.normal(size=(3, 3, maps, 8), scale=0.3).astype("f") for maps in (3, 8, 8, 8)
    ]

    def model(variables, x):
        first = convolved(convolved(x, variables[0]), variables[1], 2)
        last = convolved(first, variables[2], 2)
        up = jnp.repeat(jnp.repeat(last, 2, 1), 2, 2)
        outputs = [convolved(last, variables[3]), convolved(first + up, variables[3])]
        return jnp.concatenate([x.reshape(x.shape[0], -1, 8) for x in outputs], 1)

    return model, variables, SHAPE


NETWORKS = {
    "pyramid": pyramid,
    "attention": lambda: of_parts(attention_within),
    "gate by einsum": lambda: of_parts(gate_by_einsum, 32, 16),
    "resnet": of_resnet18,
    "gates": lambda: linen(Gated()),
    "keras": of_keras,
    "equinox": of_equinox,
    "lax": of_lax,
}
