"""VGG-16 with batch norm (Simonyan and Zisserman 2015, configuration D), for 28 to 32.

The thirteen 3x3 convolutions are a block each, with the 2x2 max pooling at the end of a
block; images of 32x32 end in 1x1, and so do those of 28x28, since the pooling is
padded where a size is odd. As usual for small images the two hidden dense layers of
4,096 are left out.
"""

from __future__ import annotations

from coded_jax.models.modules import PooledConvNorm, base_model, scaled
from coded_jax.types import BaseModel

GROUPS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg16(width: float = 1.0) -> BaseModel:
    """Makes VGG-16 of thirteen blocks: 1-2, 3-4, 5-7, 8-10, 11-13 between poolings.

    Args:
      width: times the published 64 to 512 maps.
    """
    return base_model(
        [
            PooledConvNorm(scaled(maps, width), pool=2 if i == len(group) - 1 else 0)
            for group in GROUPS
            for i, maps in enumerate(group)
        ],
    )
