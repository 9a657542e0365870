"""Random changes of training images, made on the device."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

Augmentation = Callable[[jax.Array, jax.Array], jax.Array]
"""`(key, images [B, H, W, C]) -> changed images`, of the same shape and dtype, uint8 or
float32. The key alone decides how."""

SHIFT = 2  # pixels
AFFINE = 0.15  # most change of a coefficient of the identity map


def shift(
    key: jax.Array,
    images: jax.Array,
    *,
    most: int | None = SHIFT,
    after: Augmentation = lambda key, images: images,
) -> jax.Array:
    """Shifts each image by up to `most` pixels along both axes; zeros fill up.

    Args:
      key: of the changes.
      images: `[B, H, W, C]`.
      most: pixels; an eighth of the image if None, as is usual for CIFAR.
      after: another change, which is made first.
    """
    change_key, shift_key = jax.random.split(key)
    batch, height, width, channels = images.shape
    if most is None:
        most = max(1, max(height, width) // 8)
    starts = jax.random.randint(shift_key, (2, batch), 0, 2 * most + 1)
    changed = after(change_key, images)
    padded = jnp.pad(changed, ((0, 0), (most, most), (most, most), (0, 0)))

    def crop(image: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
        start = (row, column, jnp.zeros_like(row))
        return jax.lax.dynamic_slice(image, start, (height, width, channels))

    return jax.vmap(crop)(padded, *starts)


def mirror(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors half of the images left to right."""
    mirrored = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def distort(key: jax.Array, images: jax.Array) -> jax.Array:
    """Turns each image by up to 9 degrees, scales and shears it.

    The four coefficients of the map differ from those of the identity by up to
    `AFFINE` each.
    """
    identity = jnp.broadcast_to(jnp.eye(2), (len(images), 2, 2))
    changes = jax.random.uniform(key, identity.shape, minval=-AFFINE, maxval=AFFINE)
    return jax.vmap(affine_map)(images, identity + changes)


def affine_map(image: jax.Array, matrix: jax.Array) -> jax.Array:
    """Maps an image: pixel `p` is taken at `matrix @ (p - centre) + centre`.

    Args:
      image: `[H, W, C]`.
      matrix: `[2, 2]`, of rows and columns.

    Returns:
      `[H, W, C]` of the same dtype, bilinear between pixels, zero outside.
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
    if jnp.issubdtype(image.dtype, jnp.integer):
        channels = jnp.round(channels)
    return channels.astype(image.dtype)


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": lambda key, images: images,
    "shift": shift,
    "flip_shift": functools.partial(shift, after=mirror),
    "flip_crop": functools.partial(shift, after=mirror, most=None),
    "affine": functools.partial(shift, after=distort),
}
