"""Pixels as the first block of a network takes them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def normalise(
    images: np.ndarray | jax.Array, mean: tuple[float, ...], std: tuple[float, ...]
) -> jax.Array:
    """Computes `(images / 255 - mean) / std` on the device, where bytes arrive.

    Args:
      images: uint8 `[..., C]`.
      mean, std: `[C]`, of `images / 255`.

    Returns:
      float32 `[..., C]`.

    Raises:
      ValueError: `images` are not uint8.
    """
    if images.dtype != np.uint8:
        raise ValueError(f"images are {images.dtype}; accepted: uint8, not yet scaled")
    pixels = jnp.asarray(images).astype(jnp.float32) / 255
    shape = (1,) * (pixels.ndim - 1) + (-1,)  # for jax_numpy_rank_promotion="raise"
    centre, scale = (jnp.asarray(x, jnp.float32).reshape(shape) for x in (mean, std))
    return (pixels - centre) / scale
