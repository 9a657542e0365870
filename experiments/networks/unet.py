"""A U-Net (Ronneberger et al. 2015) with padded convolutions, in Flax linen."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

SHAPE = (256, 256, 3)


class UNet(nn.Module):
    """Segments images: `[B, H, W, C] -> [B, H, W, classes]`.

    Attributes:
      maps: of the first level; every level has twice as many.
      levels: that are pooled.
      classes: of the logits at each position.
    """

    maps: int = 32
    levels: int = 4
    classes: int = 21

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def double(x: jax.Array, maps: int) -> jax.Array:
            for _ in range(2):
                x = nn.Conv(maps, (3, 3), use_bias=False)(x)
                x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
            return x

        skips, maps = [], self.maps
        for _ in range(self.levels):
            skips.append(double(x, maps))
            x, maps = nn.max_pool(skips[-1], (2, 2), (2, 2)), 2 * maps
        x = double(x, maps)
        for skip in reversed(skips):
            maps //= 2
            x = nn.ConvTranspose(maps, (2, 2), (2, 2))(x)
            x = double(jnp.concatenate([skip, x], axis=-1), maps)
        return nn.Conv(self.classes, (1, 1))(x)


def shapes() -> tuple[Any, Any]:
    """Returns the network and the shapes of its variables."""
    network = UNet()
    image = jax.ShapeDtypeStruct((1, *SHAPE), "float32")
    return network.apply, jax.eval_shape(network.init, jax.random.key(0), image)
