"""ResNets (He et al. 2016).

ResNet-18 has the 3x3 stem that is usual for images of 28 to 32. ResNet-50 is for images
of 224, with the stride in the 3x3 convolution: version 1.5, which most implementations
have. All its padding is `SAME`.
"""

from __future__ import annotations

import jax
from flax import linen as nn

from coded_jax.models.modules import ConvNorm, PooledConvNorm, base_model, scaled
from coded_jax.types import BaseModel

MAPS = (64, 128, 256, 512)
REPEATS = (3, 4, 6, 3)  # of bottlenecks: Table 1
EXPANSION = 4


class Residual(nn.Module):
    """Adds convolutions to a shortcut: `[B, h, w, C] -> [B, h', w', D]`.

    Two 3x3 ones, D = maps; or, as a bottleneck, 1x1 to few maps, 3x3, and 1x1 to four
    times as many, D = 4 maps.

    Attributes:
      maps: output maps, or those of the inner convolutions of a bottleneck.
      stride: of the first 3x3 convolution, and of the 1x1 one in the shortcut, which is
        there where the shape changes.
      bottleneck: whether it is one.
    """

    maps: int
    stride: int = 1
    bottleneck: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = ConvNorm(self.maps, 1)(x, train) if self.bottleneck else x
        y = ConvNorm(self.maps, stride=self.stride)(y, train)
        out, kernel = (EXPANSION * self.maps, 1) if self.bottleneck else (self.maps, 3)
        y = ConvNorm(out, kernel, relu=False)(y, train)
        if x.shape != y.shape:
            x = ConvNorm(out, 1, self.stride, relu=False)(x, train)
        return nn.relu(x + y)


def resnet18(width: float = 1.0) -> BaseModel:
    """Makes ResNet-18 of nine blocks: the stem, then two residual blocks of each width.

    Args:
      width: times the published 64 to 512 maps.
    """
    stem = ConvNorm(scaled(MAPS[0], width))
    return base_model([stem, *_residuals(width, (2, 2, 2, 2))])


def resnet50(width: float = 1.0) -> BaseModel:
    """Makes ResNet-50 of seventeen blocks: the stem, then 3, 4, 6 and 3 bottlenecks.

    Args:
      width: times the published maps.
    """
    # To a quarter of `h` and `w`.
    stem = PooledConvNorm(scaled(MAPS[0], width), pool=3, kernel=7, stride=2)
    return base_model([stem, *_residuals(width, REPEATS, bottleneck=True)])


def _residuals(
    width: float, repeats: tuple[int, ...], bottleneck: bool = False
) -> list[Residual]:
    return [
        Residual(scaled(maps, width), 2 if group and not i else 1, bottleneck)
        for group, maps in enumerate(MAPS)
        for i in range(repeats[group])
    ]
