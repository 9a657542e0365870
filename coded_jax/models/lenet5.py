"""LeNet-5 as in section IV-A of the paper: on 28x28 the head is 256-120-84-10.

Two 5x5 convolutions without padding, 6 and 16 channels, each with ReLU and 2x2 max
pooling, form `f_conv`; three dense layers with ReLU between them form the head. Its
blocks are cut behind each convolution, before the bias is added, where all is linear.
"""

from __future__ import annotations

import jax
from flax import linen as nn

from coded_jax.checks import require
from coded_jax.cpu_kernels.layer import Layer
from coded_jax.models.modules import dense_base_model, scaled
from coded_jax.types import BaseModel, Block, PyTree

MAPS = (6, 16)


class Features(nn.Module):
    """Convolves and pools twice: `[B, H, W, C] -> [B, M*, M'*, 16]`.

    Attributes:
      maps: of the two layers.
    """

    maps: tuple[int, int]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        fits = min(x.shape[1:3]) >= 16
        require("image_shape", x.shape[1:], fits, "at least 16x16")
        for channels in self.maps:
            x = nn.relu(nn.Conv(channels, (5, 5), padding="VALID")(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        return x


def lenet5(width: float = 1.0) -> BaseModel:
    """Makes LeNet-5, of four blocks; images must be at least 16x16.

    Args:
      width: times the 6 and 16 maps; the head stays.
    """
    blocks = tuple(f(layer) for layer in range(2) for f in (_convolve, _activate))
    features = Features((scaled(MAPS[0], width), scaled(MAPS[1], width)))

    def hidden(variables: PyTree, features: jax.Array) -> jax.Array:
        dense = variables["head"]["params"]["Dense_0"]
        return features.reshape(features.shape[0], -1) @ dense["kernel"]

    return dense_base_model(features, blocks, (120, 84))._replace(hidden=hidden)


def _convolve(layer: int) -> Block:
    def block(variables: PyTree, x: jax.Array) -> jax.Array:
        kernel = variables["f_conv"]["params"][f"Conv_{layer}"]["kernel"]
        return Layer(relu=False, padding="VALID").convolve(x, kernel)

    return block


def _activate(layer: int) -> Block:
    def block(variables: PyTree, x: jax.Array) -> jax.Array:
        bias = variables["f_conv"]["params"][f"Conv_{layer}"]["bias"]
        x = nn.relu(x + bias[None, None, None])
        return nn.max_pool(x, (2, 2), (2, 2))

    return block
