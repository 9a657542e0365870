"""Coded inference, end to end: split, encode, `f_conv` on n pieces, decode, head."""

from __future__ import annotations

from typing import NamedTuple

import jax

from coded_jax import splitting
from coded_jax.splitting import SplitPlan
from coded_jax.types import BaseModel, Code, PyTree


class Pipeline(NamedTuple):
    """The functions of one coded inference; hashable, so a static jit argument."""

    base: BaseModel
    plan: SplitPlan
    code: Code


def coded_features(
    pipeline: Pipeline, frozen: PyTree, params: PyTree, images: jax.Array
) -> jax.Array:
    """What the n devices compute.

    Args:
      pipeline: the functions.
      frozen: variables of the base model.
      params: parameters of the code.
      images: float `[B, H, W, C]`, normalised.

    Returns:
      `[n, B, M, M', D]`.
    """
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
    """Logits `[B, classes]` of float `[B, H, W, C]` images; arguments as above."""
    features = coded_features(pipeline, frozen, params, images)
    merged = reconstruct(pipeline, params, features, available)
    return pipeline.base.head(frozen, merged)
