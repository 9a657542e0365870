"""ResNet-18 (He et al. 2016) for images of 224x224, in Flax nnx."""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx


class Block(nnx.Module):
    """Adds two 3x3 convolutions to a shortcut."""

    def __init__(self, maps_in: int, maps: int, stride: int, rngs: nnx.Rngs) -> None:
        strides = (stride, stride)
        conv = lambda a, kernel, s: nnx.Conv(
            a, maps, (kernel, kernel), strides=s, use_bias=False, rngs=rngs
        )
        norm = lambda: nnx.BatchNorm(maps, use_running_average=True, rngs=rngs)
        self.first, self.second = conv(maps_in, 3, strides), conv(maps, 3, (1, 1))
        self.norms = nnx.List([norm(), norm()])
        self.shortcut = conv(maps_in, 1, strides) if stride > 1 else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.norms[0](self.first(x)))
        y = self.norms[1](self.second(y))
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet18(nnx.Module):
    """Classifies images: `[B, 224, 224, 3] -> [B, 1000]`."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, 64, (7, 7), strides=(2, 2), rngs=rngs)
        sizes = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
        sizes += [(128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
        self.blocks = nnx.List([Block(*size, rngs) for size in sizes])
        self.dense = nnx.Linear(512, 1000, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.max_pool(nnx.relu(self.stem(x)), (3, 3), (2, 2), "SAME")
        for block in self.blocks:
            x = block(x)
        return self.dense(x.mean((1, 2)))


def shapes() -> tuple[Any, Any]:
    """Returns the network and the shapes of its variables."""
    abstract = nnx.eval_shape(lambda: ResNet18(nnx.Rngs(0)))
    graph, variables = nnx.split(abstract)
    return lambda variables, images: nnx.merge(graph, variables)(images), variables
