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
LEAST_CROP = 0.35  # of an image's area
MOST_STRETCH = 4 / 3  # of the sides of a crop against each other
COLOUR = 0.4  # most change of brightness, contrast and saturation


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


def resized_crop(key: jax.Array, images: jax.Array) -> jax.Array:
    """Cuts a part out of each image and enlarges it to the image's size.

    It has 35 to 100 % of the area, sides that are up to a third longer or shorter
    against each other than the image's, and is anywhere (Szegedy et al. 2015).
    """
    keys, (batch, height, width, _) = jax.random.split(key, 4), images.shape
    uniform = functools.partial(jax.random.uniform, shape=(batch,))
    area, longest = uniform(keys[0], minval=LEAST_CROP), jnp.log(MOST_STRETCH)
    stretch = jnp.exp(uniform(keys[1], minval=-longest, maxval=longest))
    rows = _enlarge(keys[2], jnp.sqrt(area * stretch), height)
    columns = _enlarge(keys[3], jnp.sqrt(area / stretch), width)
    pixels = images.astype(jnp.float32)
    return _as(images, jnp.einsum("bip,bpqc,bjq->bijc", rows, pixels, columns))


def _enlarge(key: jax.Array, part: jax.Array, size: int) -> jax.Array:
    """Returns weights `[B, size, size]` of pixels in those of an enlarged part, which
    is anywhere along the axis, bilinear."""
    part = jnp.minimum(part, 1)
    start = jax.random.uniform(key, part.shape) * (1 - part) * size
    pixels = jnp.arange(size, dtype=jnp.float32)
    places = (pixels[None] + 0.5) * part[:, None] + start[:, None] - 0.5
    places = jnp.clip(places, 0, size - 1)[..., None]
    return jnp.maximum(0, 1 - jnp.abs(places - pixels[None, None]))


def colour(key: jax.Array, images: jax.Array) -> jax.Array:
    """Changes brightness, contrast and saturation of each image by up to 40 %."""
    shape = (3, len(images), 1, 1, 1)
    factors = jax.random.uniform(key, shape, minval=1 - COLOUR, maxval=1 + COLOUR)
    x = images.astype(jnp.float32) * factors[0]
    for factor, axes in zip(factors[1:], ((1, 2, 3), 3), strict=True):
        grey = x.mean(axes, keepdims=True)
        x = grey + (x - grey) * factor
    return _as(images, x)


def _as(images: jax.Array, changed: jax.Array) -> jax.Array:
    """Returns images of the dtype that they had, pixels rounded."""
    if jnp.issubdtype(images.dtype, jnp.integer):
        changed = jnp.clip(jnp.round(changed), 0, 255)
    return changed.astype(images.dtype)


def _in_turn(*changes: Augmentation) -> Augmentation:
    def change(key: jax.Array, images: jax.Array) -> jax.Array:
        keys = jax.random.split(key, len(changes))
        for own, own_key in zip(changes, keys, strict=True):
            images = own(own_key, images)
        return images

    return change


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": lambda key, images: images,
    "shift": shift,
    "flip_shift": functools.partial(shift, after=mirror),
    "flip_crop": functools.partial(shift, after=mirror, most=None),
    "affine": functools.partial(shift, after=distort),
    "resized_crop": resized_crop,
    "photo": _in_turn(mirror, resized_crop, colour),
}
