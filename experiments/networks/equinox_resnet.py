"""ResNet-18 (He et al. 2016) for images of 224x224, in Equinox, channels first.

Batch norm is folded into scales and biases, as it is for inference.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp


class Layer(eqx.Module):
    """Convolves, scales and shifts: `[C, H, W] -> [D, H', W']`."""

    conv: eqx.nn.Conv2d
    scale: jax.Array
    bias: jax.Array

    def __init__(self, into: int, out: int, kernel: int, stride: int, key: Any) -> None:
        options = {"padding": kernel // 2, "use_bias": False, "key": key}
        self.conv = eqx.nn.Conv2d(into, out, kernel, stride, **options)
        self.scale, self.bias = jnp.ones((out, 1, 1)), jnp.zeros((out, 1, 1))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.conv(x) * self.scale + self.bias


class Block(eqx.Module):
    """Adds two 3x3 convolutions to a shortcut."""

    first: Layer
    second: Layer
    shortcut: Layer | None

    def __init__(self, into: int, out: int, stride: int, key: Any) -> None:
        keys = jax.random.split(key, 3)
        self.first = Layer(into, out, 3, stride, keys[0])
        self.second = Layer(out, out, 3, 1, keys[1])
        self.shortcut = Layer(into, out, 1, stride, keys[2]) if stride > 1 else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.second(jax.nn.relu(self.first(x)))
        return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet18(eqx.Module):
    """Classifies an image: `[3, 224, 224] -> [1000]`."""

    stem: Layer
    blocks: list[Block]
    dense: eqx.nn.Linear

    def __init__(self, key: Any) -> None:
        keys = jax.random.split(key, 10)
        self.stem = Layer(3, 64, 7, 2, keys[0])
        sizes = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
        sizes += [(128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
        self.blocks = [
            Block(*size, k) for size, k in zip(sizes, keys[1:9], strict=True)
        ]
        self.dense = eqx.nn.Linear(512, 1000, key=keys[9])

    def __call__(self, x: jax.Array) -> jax.Array:
        x = eqx.nn.MaxPool2d(3, 2, 1)(jax.nn.relu(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.dense(x.mean((1, 2)))


def shapes() -> tuple[Any, Any]:
    """Returns the network, of images `[B, 224, 224, 3]`, and its variables' shapes."""
    network = eqx.filter_eval_shape(ResNet18, jax.random.key(0))
    is_array = lambda x: isinstance(x, jax.ShapeDtypeStruct)
    variables, static = eqx.partition(network, is_array)

    def model(variables: Any, images: jax.Array) -> jax.Array:
        of_image = eqx.combine(variables, static)
        return jax.vmap(of_image)(images.transpose(0, 3, 1, 2))

    return model, variables
