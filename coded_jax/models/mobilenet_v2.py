"""MobileNetV2 as published (Sandler et al. 2018), for images of 224.

As in `mobilenet`, with ReLU in the place of ReLU6.
"""

from __future__ import annotations

from coded_jax.models.mobilenet import STEM, inverted_residuals
from coded_jax.models.modules import ConvNorm, base_model, scaled
from coded_jax.types import BaseModel

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
LAST = 1280


def mobilenet_v2(width: float = 1.0) -> BaseModel:
    """Makes the network of nineteen blocks: stem, 17 inverted residuals, 1x1.

    Args:
      width: times the published maps, also of the last convolution.
    """
    stem = ConvNorm(scaled(STEM, width), stride=2)
    last = ConvNorm(scaled(LAST, width), 1)
    blocks = [stem, *inverted_residuals(GROUPS, width), last]
    return base_model(blocks)
