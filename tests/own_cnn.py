"""A small CNN of a user's own, untrained, and data for it."""

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.types import Dataset, Split

CLASSES = 3


def make_dataset():
    rng = np.random.default_rng(0)

    def part(size):
        images = rng.integers(0, 256, (size, 12, 12, 1), np.uint8)
        return Split(images, rng.integers(0, CLASSES, size).astype(np.int32))

    return Dataset("own", CLASSES, part(64), part(20), part(20), (0.5,), (0.3,))


DATASET = make_dataset()


def conv(kernel, x, stride=1):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def f_conv(variables, x):
    return jnp.tanh(conv(variables["kernel"], x, 2))


def head(variables, features):
    return features.reshape(len(features), -1) @ variables["dense"]


def make_variables():
    rng = np.random.default_rng(1)
    return {
        "kernel": rng.normal(size=(3, 3, 1, 4)).astype("f"),
        "dense": rng.normal(size=(6 * 6 * 4, CLASSES)).astype("f"),
    }
