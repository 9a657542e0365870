"""A small U-Net (Ronneberger et al. 2015), which answers at each position of an image.

Two levels are pooled and brought up again by transposed convolutions, and skip
connections join them. There is one convolution where the published network has two, so
that a position depends on few others: strips of an image of 64 rows have 48.
Batch norm, which that has not, is here, since without it learning begins late where
most of an image is background.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from coded_jax.checks import require
from coded_jax.models.modules import ConvNorm, PositionHead, base_model, scaled
from coded_jax.types import BaseModel, PyTree

MAPS = (16, 32, 64)


class Features(nn.Module):
    """Computes features at each position: `[B, H, W, C] -> [B, H, W, maps[0]]`.

    Attributes:
      maps: of the levels, from the finest one on.
    """

    maps: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        *finer, last = self.maps
        skips = []
        for maps in finer:
            skips.append(ConvNorm(maps)(x, train))
            x = nn.max_pool(skips[-1], (2, 2), (2, 2))
        x = ConvNorm(last)(x, train)
        for maps, skip in zip(finer[::-1], skips[::-1], strict=True):
            x = nn.ConvTranspose(maps, (2, 2), (2, 2))(x)
            x = jnp.concatenate([skip, x], axis=-1)
            x = ConvNorm(maps)(x, train)
        return x


def unet(width: float = 1.0) -> BaseModel:
    """Makes the network, of one block; rows and columns must be multiples of 4.

    Args:
      width: times the 16, 32 and 64 maps.
    """
    features = Features(tuple(scaled(maps, width) for maps in MAPS))
    base = base_model([features], last=PositionHead)
    step = 2 ** (len(MAPS) - 1)

    def init(key: jax.Array, image_shape: tuple[int, int, int], classes: int) -> PyTree:
        height, columns, _ = image_shape
        fits = height % step == 0 and columns % step == 0
        accepted = f"rows and columns that are multiples of {step}"
        require("image_shape", image_shape, fits, accepted)
        return base.init(key, image_shape, classes)

    return base._replace(init=init)
