"""Random changes of training images, made on the device from the bytes."""

from __future__ import annotations

import jax
import jax.numpy as jnp

AUGMENTATIONS = ("none", "shift", "flip_shift")
SHIFT = 2  # pixels


def augment(key: jax.Array, images: jax.Array, kind: str) -> jax.Array:
    """Changes each image at random.

    Args:
      key: fixes the changes.
      images: uint8 `[B, H, W, C]`.
      kind: `"none"`; `"shift"`, by up to 2 pixels along both axes, with zeros moved in;
        `"flip_shift"`, which also turns half of the images left to right.

    Returns:
      uint8 `[B, H, W, C]`.
    """
    if kind == "none":
        return images
    flip_key, shift_key = jax.random.split(key)
    batch, height, width, _ = images.shape
    if kind == "flip_shift":
        flipped = jax.random.bernoulli(flip_key, shape=(batch, 1, 1, 1))
        images = jnp.where(flipped, images[:, :, ::-1], images)
    starts = jax.random.randint(shift_key, (2, batch), 0, 2 * SHIFT + 1)
    margin = ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0))
    padded = jnp.pad(images, margin)

    def crop(image: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
        sizes = (height, width, image.shape[-1])
        return jax.lax.dynamic_slice(image, (row, column, jnp.zeros_like(row)), sizes)

    return jax.vmap(crop)(padded, *starts)
