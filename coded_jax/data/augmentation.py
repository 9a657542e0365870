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


def shift(key: jax.Array, images: jax.Array) -> jax.Array:
    """Shifts each image by up to `SHIFT` pixels along both axes; zeros fill up."""
    _, shift_key = jax.random.split(key)
    return _shift(shift_key, images)


def flip_shift(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors half of the images left to right, then shifts each as `shift` does."""
    flip_key, shift_key = jax.random.split(key)
    return _shift(shift_key, _mirror(flip_key, images))


def flip_crop(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors half of the images, then shifts each by up to an eighth of its size.

    What is usual for CIFAR: crops of images with 4 rows and columns of zeros around.
    """
    flip_key, shift_key = jax.random.split(key)
    most = max(1, max(images.shape[1:3]) // 8)
    return _shift(shift_key, _mirror(flip_key, images), most)


def affine(key: jax.Array, images: jax.Array) -> jax.Array:
    """Turns each image by up to 9 degrees, scales, shears and then shifts it.

    The four coefficients of the map differ from those of the identity by up to
    `AFFINE` each.
    """
    map_key, shift_key = jax.random.split(key)
    identity = jnp.broadcast_to(jnp.eye(2), (len(images), 2, 2))
    changes = jax.random.uniform(map_key, identity.shape, minval=-AFFINE, maxval=AFFINE)
    return _shift(shift_key, jax.vmap(affine_map)(images, identity + changes))


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": lambda key, images: images,
    "shift": shift,
    "flip_shift": flip_shift,
    "flip_crop": flip_crop,
    "affine": affine,
}


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


def _mirror(key: jax.Array, images: jax.Array) -> jax.Array:
    mirrored = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def _shift(key: jax.Array, images: jax.Array, most: int = SHIFT) -> jax.Array:
    batch, height, width, channels = images.shape
    starts = jax.random.randint(key, (2, batch), 0, 2 * most + 1)
    padded = jnp.pad(images, ((0, 0), (most, most), (most, most), (0, 0)))

    def crop(image: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
        start = (row, column, jnp.zeros_like(row))
        return jax.lax.dynamic_slice(image, start, (height, width, channels))

    return jax.vmap(crop)(padded, *starts)
