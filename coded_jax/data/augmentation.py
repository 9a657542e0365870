"""Random changes of training images, made on the device from the bytes."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

AUGMENTATIONS = ("none", "shift", "flip_shift", "affine")
SHIFT = 2  # pixels
AFFINE = 0.15  # most change of a coefficient of the identity map


def augment(key: jax.Array, images: jax.Array, kind: str) -> jax.Array:
    """Changes each image at random.

    Args:
      key: fixes the changes.
      images: uint8 `[B, H, W, C]`.
      kind: `"none"`; `"shift"`, by up to 2 pixels along both axes, with zeros moved in;
        `"flip_shift"`, which also turns half of the images left to right; `"affine"`,
        a shift after a turn by up to 9 degrees, scaling and shearing: a map whose four
        coefficients differ from those of the identity by up to `AFFINE`.

    Returns:
      uint8 `[B, H, W, C]`.
    """
    if kind == "none":
        return images
    change_key, shift_key = jax.random.split(key)
    batch, height, width, _ = images.shape
    if kind == "flip_shift":
        flipped = jax.random.bernoulli(change_key, shape=(batch, 1, 1, 1))
        images = jnp.where(flipped, images[:, :, ::-1], images)
    if kind == "affine":
        identity = jnp.broadcast_to(jnp.eye(2), (batch, 2, 2))
        changes = jax.random.uniform(
            change_key, identity.shape, minval=-AFFINE, maxval=AFFINE
        )
        images = jax.vmap(affine_map)(images, identity + changes)
    starts = jax.random.randint(shift_key, (2, batch), 0, 2 * SHIFT + 1)
    margin = ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0))
    padded = jnp.pad(images, margin)

    def crop(image: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
        sizes = (height, width, image.shape[-1])
        return jax.lax.dynamic_slice(image, (row, column, jnp.zeros_like(row)), sizes)

    return jax.vmap(crop)(padded, *starts)


def affine_map(image: jax.Array, matrix: jax.Array) -> jax.Array:
    """The image `[H, W, C]`, its pixel `p` taken at `matrix (p - centre) + centre`.

    Bilinear between pixels, zero outside; the matrix is `[2, 2]`, of rows and columns.
    """
    height, width, _ = image.shape
    centre = (jnp.array([height, width]) - 1) / 2
    start = centre - matrix @ centre
    rows, columns = jnp.mgrid[:height, :width]
    sources = [
        matrix[i, 0] * rows + matrix[i, 1] * columns + start[i] for i in range(2)
    ]
    sample = functools.partial(map_coordinates, coordinates=sources, order=1)
    channels = jax.vmap(sample, in_axes=-1, out_axes=-1)(image.astype(jnp.float32))
    return jnp.round(channels).astype(image.dtype)
