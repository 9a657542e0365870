"""ResNet-18 (He et al. 2016) with the 3x3 stem that is usual for images of 28 to 32."""

from __future__ import annotations

import jax
from flax import linen as nn

from coded_jax.models.modules import ConvNorm, base_model, scaled
from coded_jax.types import BaseModel

MAPS = (64, 128, 256, 512)


class Residual(nn.Module):
    """Adds two 3x3 convolutions to a shortcut: `[B, h, w, C] -> [B, h', w', maps]`.

    Attributes:
      maps: output maps.
      stride: of the first convolution, and of the 1x1 one in the shortcut, which is
        there where the shape changes.
    """

    maps: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = ConvNorm(self.maps, stride=self.stride)(x, train)
        y = ConvNorm(self.maps, relu=False)(y, train)
        if x.shape != y.shape:
            x = ConvNorm(self.maps, 1, self.stride, relu=False)(x, train)
        return nn.relu(x + y)


def resnet18(width: float = 1.0) -> BaseModel:
    """Makes ResNet-18 of nine blocks: the stem, then two residual blocks of each width.

    Args:
      width: times the published 64 to 512 maps.
    """
    residuals = [
        Residual(scaled(maps, width), stride=2 if group and not i else 1)
        for group, maps in enumerate(MAPS)
        for i in range(2)
    ]
    stem = ConvNorm(scaled(MAPS[0], width))
    return base_model([stem, *residuals])
