"""The MLP that ParM is published with: 784-200-100-10, for groups of images only.

Its first layer reads all pixels, so that no image can be split for it: pieces of an
image are refused, and groups of images (`--split=group`) have the whole network as the
worker.
"""

from __future__ import annotations

import jax
from flax import linen as nn

from coded_jax.models.modules import apply, scaled
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


class Head(nn.Module):
    """Classifies features: `[B, 1, 1, width] -> [B, classes]`.

    Attributes:
      width: units of the second layer.
      classes: of the data set.
    """

    width: int
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Dense(self.width)(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.classes)(x)


def mlp(width: float = 1.0) -> BaseModel:
    """Makes the network, of one block.

    Args:
      width: times the 200 and 100 units.
    """
    first, second = (scaled(units, width) for units in WIDTHS)

    def init(key: jax.Array, image_shape: tuple[int, int, int], classes: int) -> PyTree:
        first_key, head_key = jax.random.split(key)
        image = jax.numpy.zeros((1, *image_shape))
        features, variables = First(first).init_with_output(first_key, image)
        head = Head(second, classes).init(head_key, features)
        return {"f_conv": variables, "head": head}

    def block(variables: PyTree, x: jax.Array) -> jax.Array:
        return apply(First(first), variables["f_conv"], x)

    def head(variables: PyTree, features: jax.Array) -> jax.Array:
        classes = variables["head"]["params"]["Dense_1"]["bias"].shape[0]
        return apply(Head(second, classes), variables["head"], features)

    return BaseModel(init, (block,), head)
