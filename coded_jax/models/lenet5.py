"""LeNet-5 as in section IV-A of the paper: on 28x28 the head is 256-120-84-10.

Two 5x5 convolutions without padding, 6 and 16 channels, each with ReLU and 2x2 max
pooling, form `f_conv`; three dense layers with ReLU between them form the head. Its
blocks are cut behind each convolution, before the bias is added, where all is linear.
"""

from __future__ import annotations

import jax
from flax import linen as nn

from coded_jax.checks import require
from coded_jax.models.modules import apply, scaled
from coded_jax.types import BaseModel, Block, PyTree

MAPS = (6, 16)


class Features(nn.Module):
    """Convolves and pools twice: `[B, H, W, C] -> [B, M*, M'*, 16]`.

    Attributes:
      maps: of the two layers.
    """

    maps: tuple[int, int] = MAPS

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for channels in self.maps:
            x = nn.relu(nn.Conv(channels, (5, 5), padding="VALID")(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        return x


class Head(nn.Module):
    """Classifies features: `[B, M*, M'*, 16] -> [B, classes]`."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        for width in (120, 84):
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.classes)(x)


def lenet5(width: float = 1.0) -> BaseModel:
    """Makes LeNet-5, of four blocks; images must be at least 16x16.

    Args:
      width: times the 6 and 16 maps; the head stays.
    """
    maps = (scaled(MAPS[0], width), scaled(MAPS[1], width))

    def init(key: jax.Array, image_shape: tuple[int, int, int], classes: int) -> PyTree:
        conv_key, head_key = jax.random.split(key)
        image = jax.numpy.zeros((1, *image_shape))
        features, conv = Features(maps).init_with_output(conv_key, image)
        require("image_shape", image_shape, features.size > 0, "at least 16x16")
        return {"f_conv": conv, "head": Head(classes).init(head_key, features)}

    def head(variables: PyTree, features: jax.Array) -> jax.Array:
        classes = variables["head"]["params"]["Dense_2"]["bias"].shape[0]
        return apply(Head(classes), variables["head"], features)

    def hidden(variables: PyTree, features: jax.Array) -> jax.Array:
        dense = variables["head"]["params"]["Dense_0"]
        return features.reshape(features.shape[0], -1) @ dense["kernel"]

    blocks = tuple(f(layer) for layer in range(2) for f in (_convolve, _activate))
    return BaseModel(init, blocks, head, hidden=hidden)


def _convolve(layer: int) -> Block:
    def block(variables: PyTree, x: jax.Array) -> jax.Array:
        kernel = variables["f_conv"]["params"][f"Conv_{layer}"]["kernel"]
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=layout
        )

    return block


def _activate(layer: int) -> Block:
    def block(variables: PyTree, x: jax.Array) -> jax.Array:
        bias = variables["f_conv"]["params"][f"Conv_{layer}"]["bias"]
        x = nn.relu(x + bias[None, None, None])
        return nn.max_pool(x, (2, 2), (2, 2))

    return block
