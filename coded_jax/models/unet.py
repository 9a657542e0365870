"""A small U-Net (Ronneberger et al. 2015), which classifies each position of an image.

Two levels are pooled and brought up again by transposed convolutions, and skip
connections join them. There is one convolution where the published network has two, so
that a position depends on few others: pieces of images of 64 overlap by a quarter.
"""

from __future__ import annotations

import jax
from flax import linen as nn

from coded_jax.checks import require
from coded_jax.models.modules import scaled
from coded_jax.types import BaseModel, PyTree

MAPS = (16, 32, 64)


class Features(nn.Module):
    """Computes features at each position: `[B, H, W, C] -> [B, H, W, maps[0]]`.

    Attributes:
      maps: of the levels, from the finest one on.
    """

    maps: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        *finer, last = self.maps
        skips = []
        for maps in finer:
            skips.append(nn.relu(nn.Conv(maps, (3, 3))(x)))
            x = nn.max_pool(skips[-1], (2, 2), (2, 2))
        x = nn.relu(nn.Conv(last, (3, 3))(x))
        for maps, skip in zip(finer[::-1], skips[::-1], strict=True):
            x = nn.ConvTranspose(maps, (2, 2), (2, 2))(x)
            x = jax.numpy.concatenate([skip, x], axis=-1)
            x = nn.relu(nn.Conv(maps, (3, 3))(x))
        return x


def unet(width: float = 1.0) -> BaseModel:
    """Makes the network, of one block; rows and columns must be multiples of 4.

    Args:
      width: times the 16, 32 and 64 maps.
    """
    features = Features(tuple(scaled(maps, width) for maps in MAPS))
    step = 2 ** (len(MAPS) - 1)

    def init(key: jax.Array, image_shape: tuple[int, int, int], classes: int) -> PyTree:
        height, columns, _ = image_shape
        fits = height % step == 0 and columns % step == 0
        accepted = f"rows and columns that are multiples of {step}"
        require("image_shape", image_shape, fits, accepted)
        conv_key, head_key = jax.random.split(key)
        image = jax.numpy.zeros((1, *image_shape))
        y, conv = features.init_with_output(conv_key, image)
        return {"f_conv": conv, "head": nn.Conv(classes, (1, 1)).init(head_key, y)}

    def f_conv(variables: PyTree, images: jax.Array) -> jax.Array:
        return features.apply(variables["f_conv"], images)  # type: ignore

    def head(variables: PyTree, x: jax.Array) -> jax.Array:
        classes = variables["head"]["params"]["bias"].shape[0]
        return nn.Conv(classes, (1, 1)).apply(variables["head"], x)  # type: ignore

    return BaseModel(init, (f_conv,), head)
