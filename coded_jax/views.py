"""Feature maps to look at: as they are, with losses, of the parity, reconstructed."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax import erasures, splitting
from coded_jax.pipeline import Pipeline, pixels
from coded_jax.stages import coded_features, compute, reconstruct
from coded_jax.types import PyTree


class Views(NamedTuple):
    """Features of the first coded stage, for B images.

    Attributes:
      original: `[B, M*, M'*, D]`, exact.
      received: `[B, M*, M'*, D]`, data results alone, zeros where none arrived.
      parity: `[r, B, M, M', D]`, the parity results.
      reconstructed: `[B, M*, M'*, D]`, what the decoder makes of what arrived.
    """

    original: jax.Array
    received: jax.Array
    parity: jax.Array
    reconstructed: jax.Array


def views(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    images: jax.Array,
    lost: Iterable[int],
) -> Views:
    """What the first coded stage makes of images with some results lost.

    Args:
      pipeline: the coded inference.
      frozen: variables of the base model.
      params: of its codes.
      images: uint8 `[B, H, W, C]`.
      lost: indices of the lost results.

    Raises:
      ValueError: an index is not in `0..n-1`, or stands twice.
    """
    available = jnp.asarray(erasures.available(lost, pipeline.n))
    return _views(pipeline, frozen, params, images, available)


@functools.partial(jax.jit, static_argnums=0)
def _views(pipeline: Pipeline, frozen, params, images, available) -> Views:
    x = pixels(pipeline, images)
    for stage in pipeline.stages:
        if stage.coding:
            break
        x = compute(stage, frozen, x)
    plan, _ = stage.coding
    features = coded_features(stage, frozen, params[0], x)
    original = compute(stage, frozen, x)
    arrived = available[: plan.k, :, None, None, None]
    received = jnp.where(arrived, splitting.shares(plan, original), 0)
    return Views(
        original,
        splitting.merge(plan, received),
        features[plan.k :],
        reconstruct(stage, params[0], features, available),
    )


def picture(views: Views, channels: int = 8) -> np.ndarray:
    """Maps side by side: a row for each image and kind, a column for each channel.

    Args:
      views: of B images.
      channels: how many, the first ones.

    Returns:
      uint8 `[rows, columns]`: for every image its original, received and reconstructed
      maps; 0 is the least value of all, 255 the largest.
    """
    kinds = np.stack([views.original, views.received, views.reconstructed], axis=1)
    kinds = np.asarray(kinds, np.float32)[..., :channels]  # [B, 3, M*, M'*, D]
    low, high = kinds.min(), kinds.max()
    grey = np.uint8(255 * (kinds - low) / max(high - low, 1e-12))
    grey = grey.repeat(4, axis=2).repeat(4, axis=3)  # a map has few pixels
    grey = np.pad(grey, [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)], constant_values=255)
    batch, three, height, width, depth = grey.shape
    rows = grey.transpose(0, 1, 2, 4, 3)
    return rows.reshape(batch * three * height, depth * width)
