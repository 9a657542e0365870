"""ResNets (He et al. 2016).

ResNet-18 has the 3x3 stem that is usual for images of 28 to 32. ResNet-50 is for images
of 224, with the stride in the 3x3 convolution: version 1.5, which most implementations
have. All its padding is `SAME`.
"""

from __future__ import annotations

import jax
from flax import linen as nn

from coded_jax.models.modules import ConvNorm, base_model, scaled
from coded_jax.types import BaseModel

MAPS = (64, 128, 256, 512)
REPEATS = (3, 4, 6, 3)  # of bottlenecks: Table 1
EXPANSION = 4


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


class Stem(nn.Module):
    """Convolves 7x7 and pools 3x3, each in steps of 2: to a quarter of `h` and `w`.

    `[B, h, w, C] -> [B, h / 4, w / 4, maps]`.

    Attributes:
      maps: output maps.
    """

    maps: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = ConvNorm(self.maps, 7, 2)(x, train)
        return nn.max_pool(x, (3, 3), (2, 2), "SAME")


class Bottleneck(nn.Module):
    """Convolves 1x1 to few maps, 3x3, and 1x1 to four times as many.

    `[B, h, w, C] -> [B, h', w', 4 maps]`.

    Attributes:
      maps: of the inner convolutions.
      stride: of the 3x3 convolution, and of the 1x1 one in the shortcut, which is there
        where the shape changes.
    """

    maps: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = ConvNorm(self.maps, 1)(x, train)
        y = ConvNorm(self.maps, stride=self.stride)(y, train)
        y = ConvNorm(EXPANSION * self.maps, 1, relu=False)(y, train)
        if x.shape != y.shape:
            x = ConvNorm(EXPANSION * self.maps, 1, self.stride, relu=False)(x, train)
        return nn.relu(x + y)


def resnet50(width: float = 1.0) -> BaseModel:
    """Makes ResNet-50 of seventeen blocks: the stem, then 3, 4, 6 and 3 bottlenecks.

    Args:
      width: times the published maps.
    """
    bottlenecks = [
        Bottleneck(scaled(maps, width), stride=2 if group and not i else 1)
        for group, (maps, repeats) in enumerate(zip(MAPS, REPEATS, strict=True))
        for i in range(repeats)
    ]
    return base_model([Stem(scaled(MAPS[0], width)), *bottlenecks])
