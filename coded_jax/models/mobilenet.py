"""MobileNetV2 (Sandler et al. 2018) for images of 224, and a part of it for small ones.

With ReLU in the place of ReLU6. The small one has the first 13 of 17 inverted
residuals, with strides for images of 28 to 32.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
from flax import linen as nn

from coded_jax.models.modules import ConvNorm, base_model, scaled
from coded_jax.types import BaseModel

STEM = 32  # maps
LAST = 1280
# expansion, maps, repeats, stride of the first: Table 2 of the paper
GROUPS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
SMALL = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))


class InvertedResidual(nn.Module):
    """Convolves 1x1 to more maps, 3x3 in each of them, and 1x1 to few.

    `[B, h, w, C] -> [B, h', w', maps]`.

    Attributes:
      maps: output maps.
      expansion: times as many maps in between.
      stride: of the 3x3 convolution; there is a shortcut where the shape stays.
    """

    maps: int
    expansion: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        inner = self.expansion * x.shape[-1]
        y = ConvNorm(inner, 1)(x, train) if self.expansion > 1 else x
        y = ConvNorm(inner, stride=self.stride, depthwise=True)(y, train)
        y = ConvNorm(self.maps, 1, relu=False)(y, train)
        return x + y if x.shape == y.shape else y


def mobilenet(width: float = 1.0) -> BaseModel:
    """Makes the small network of fourteen blocks: the stem and 13 inverted residuals.

    Args:
      width: times the published 16 to 96 maps, and the stem's 32.
    """
    stem = ConvNorm(scaled(STEM, width))
    return base_model([stem, *_inverted_residuals(SMALL, width)])


def mobilenet_v2(width: float = 1.0) -> BaseModel:
    """Makes MobileNetV2 of nineteen blocks: stem, 17 inverted residuals, 1x1.

    Args:
      width: times the published maps, also of the last convolution.
    """
    stem = ConvNorm(scaled(STEM, width), stride=2)
    last = ConvNorm(scaled(LAST, width), 1)
    return base_model([stem, *_inverted_residuals(GROUPS, width), last])


def _inverted_residuals(
    groups: Sequence[tuple[int, int, int, int]], width: float
) -> list[InvertedResidual]:
    """Returns the blocks of some rows of the paper's Table 2."""
    return [
        InvertedResidual(scaled(maps, width), expansion, 1 if i else stride)
        for expansion, maps, repeats, stride in groups
        for i in range(repeats)
    ]
