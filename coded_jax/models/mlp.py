"""The MLP that ParM is published with: 784-200-100-10, for groups of images only.

Its first layer reads all pixels, so that no image can be split for it: pieces of an
image are refused, and groups of images (`--split=group`) have the whole network as the
worker.
"""

from __future__ import annotations

import jax
from flax import linen as nn

from coded_jax.models.modules import apply, dense_base_model, scaled
from coded_jax.types import BaseModel, PyTree

WIDTHS = (200, 100)


class First(nn.Module):
    """Reads the whole image: `[B, H, W, C] -> [B, 1, 1, width]`.

    Attributes:
      width: units.
    """

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Dense(self.width)(x.reshape(x.shape[0], -1)))
        return x[:, None, None]


def mlp(width: float = 1.0) -> BaseModel:
    """Makes the network, of one block.

    Args:
      width: times the 200 and 100 units.
    """
    first, second = (scaled(units, width) for units in WIDTHS)
    module = First(first)

    def block(variables: PyTree, x: jax.Array) -> jax.Array:
        return apply(module, variables["f_conv"], x)

    return dense_base_model(module, (block,), (second,))
