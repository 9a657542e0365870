"""Coded inference, end to end: split, encode, `f_conv` on n pieces, decode, head."""

from __future__ import annotations

from typing import NamedTuple

import jax

from coded_jax import splitting
from coded_jax.data import normalise
from coded_jax.splitting import SplitPlan
from coded_jax.types import BaseModel, Code, PyTree


class Pipeline(NamedTuple):
    """All that one coded inference consists of, but for the variables.

    It is hashable, so that it can be a static argument of a jitted function.

    Attributes:
      base: the CNN.
      plan: how images are split.
      code: the erasure code.
      mean, std: of each image channel, in units of the pixel range `[0, 1]`.
      r: parity pieces of the code.
    """

    base: BaseModel
    plan: SplitPlan
    code: Code
    mean: tuple[float, ...]
    std: tuple[float, ...]
    r: int

    @property
    def n(self) -> int:
        """All results, of data and parity pieces."""
        return self.plan.k + self.r


def base_features(pipeline: Pipeline, frozen: PyTree, images: jax.Array) -> jax.Array:
    """Uncoded features `[B, M*, M'*, D]` of uint8 images `[B, H, W, C]`."""
    images = normalise(images, pipeline.mean, pipeline.std)
    return pipeline.base.f_conv(frozen, images)


def coded_features(
    pipeline: Pipeline, frozen: PyTree, params: PyTree, images: jax.Array
) -> jax.Array:
    """What the n devices compute.

    Args:
      pipeline: the functions.
      frozen: variables of the base model.
      params: parameters of the code.
      images: uint8 `[B, H, W, C]`.

    Returns:
      `[n, B, M, M', D]`.
    """
    images = normalise(images, pipeline.mean, pipeline.std)
    pieces = splitting.split(pipeline.plan, images)
    queries = pipeline.code.encode(params, pieces)
    outputs = jax.vmap(pipeline.base.f_conv, in_axes=(None, 0))(frozen, queries)
    return splitting.cut(pipeline.plan, outputs)


def reconstruct(
    pipeline: Pipeline, params: PyTree, features: jax.Array, available: jax.Array
) -> jax.Array:
    """Features of the whole image from the results that arrived.

    Args:
      pipeline: the functions.
      params: parameters of the code.
      features: `[n, B, M, M', D]`; lost slots may hold anything.
      available: bool `[n, B]` or `[n, 1]`.

    Returns:
      `[B, M*, M'*, D]`.
    """
    shares = pipeline.code.decode(params, features, available)
    return splitting.merge(pipeline.plan, shares)


def infer(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    images: jax.Array,
    available: jax.Array,
) -> jax.Array:
    """Logits `[B, classes]` of uint8 images `[B, H, W, C]`; arguments as above."""
    features = coded_features(pipeline, frozen, params, images)
    merged = reconstruct(pipeline, params, features, available)
    return pipeline.base.head(frozen, merged)
