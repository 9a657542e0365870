"""Coded inference, end to end: split, encode, `f_conv` on n pieces, decode, head."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from coded_jax import placement, splitting
from coded_jax.data import normalise
from coded_jax.placement import Spread, here
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
      mesh: the devices, see `placement`; None: the default one.
      dtype: that encoder, `f_conv` and decoder compute in; their parameters and the
        head stay float32.
    """

    base: BaseModel
    plan: SplitPlan
    code: Code
    mean: tuple[float, ...]
    std: tuple[float, ...]
    r: int
    mesh: Mesh | None = None
    dtype: str = "float32"

    @property
    def n(self) -> int:
        """All results, of data and parity pieces."""
        return self.plan.k + self.r


def base_features(pipeline: Pipeline, frozen: PyTree, images: jax.Array) -> jax.Array:
    """Uncoded features `[B, M*, M'*, D]` of uint8 images `[B, H, W, C]`."""
    return _f_conv(pipeline, frozen, _pixels(pipeline, images))


def data_features(
    pipeline: Pipeline, frozen: PyTree, images: jax.Array, spread: Spread = here
) -> jax.Array:
    """What the k devices with data pieces compute; see `coded_features`.

    It has no parameters that are trained, and `merge` of it are the base features.

    Returns:
      `[k, B, M, M', D]`.
    """
    pieces = splitting.split(pipeline.plan, _pixels(pipeline, images))
    return splitting.cut(pipeline.plan, _on_devices(pipeline, frozen, pieces, spread))


def parity_features(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    images: jax.Array,
    spread: Spread = here,
) -> jax.Array:
    """What the r devices with parity pieces compute; see `coded_features`.

    Returns:
      `[r, B, M, M', D]`.
    """
    parity = _encode(pipeline, params, images)[pipeline.plan.k :]
    outputs = _on_devices(pipeline, frozen, parity, spread)
    return splitting.cut(pipeline.plan, outputs, first=pipeline.plan.k)


def coded_features(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    images: jax.Array,
    spread: Spread = here,
) -> jax.Array:
    """What the n devices compute.

    Args:
      pipeline: the functions.
      frozen: variables of the base model.
      params: parameters of the code.
      images: uint8 `[B, H, W, C]`.
      spread: how the pieces come to their devices.

    Returns:
      `[n, B, M, M', D]`, of the pipeline's dtype.
    """
    queries = _encode(pipeline, params, images)
    return splitting.cut(pipeline.plan, _on_devices(pipeline, frozen, queries, spread))


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
      float32 `[B, M*, M'*, D]`.
    """
    params = _cast(params, pipeline.dtype)
    shares = pipeline.code.decode(params, features, available)
    return splitting.merge(pipeline.plan, shares).astype(jnp.float32)


def recover(
    pipeline: Pipeline, params: PyTree, features: jax.Array, available: jax.Array
) -> jax.Array:
    """`reconstruct`, but nothing is decoded where a systematic code has lost nothing.

    Not for training: XLA's CPU backend compiles gradients of its convolutions in a
    conditional to a naive loop.
    """
    if not pipeline.code.systematic:
        return reconstruct(pipeline, params, features, available)
    k = pipeline.plan.k

    def merge(features: jax.Array) -> jax.Array:
        return splitting.merge(pipeline.plan, features[:k]).astype(jnp.float32)

    def decode(features: jax.Array) -> jax.Array:
        return reconstruct(pipeline, params, features, available)

    return jax.lax.cond(jnp.all(available[:k]), merge, decode, features)


def infer(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    images: jax.Array,
    available: jax.Array,
) -> jax.Array:
    """Logits float32 `[B, classes]` of uint8 images `[B, H, W, C]`, on every device.

    Other arguments as above.
    """

    def local(spread: Spread, frozen, params, images, available) -> jax.Array:
        features = coded_features(pipeline, frozen, params, images, spread)
        merged = recover(pipeline, params, features, available)
        return pipeline.base.head(frozen, merged)

    axes = (None, None, 0, mask_axis(available))
    logits = placement.over_batch(pipeline.mesh, local, axes)
    return placement.everywhere(
        pipeline.mesh, logits(frozen, params, images, available)
    )


def mask_axis(available: jax.Array) -> int | None:
    """The batch axis of `available`: none where `[n, 1]` holds for all images."""
    return None if available.shape[1] == 1 else 1


def _pixels(pipeline: Pipeline, images: jax.Array) -> jax.Array:
    images = normalise(images, pipeline.mean, pipeline.std)
    return images.astype(pipeline.dtype)


def _cast(variables: PyTree, dtype: str) -> PyTree:
    return jax.tree.map(lambda x: x.astype(dtype), variables)


def _encode(pipeline: Pipeline, params: PyTree, images: jax.Array) -> jax.Array:
    pieces = splitting.split(pipeline.plan, _pixels(pipeline, images))
    return pipeline.code.encode(_cast(params, pipeline.dtype), pieces)


def _f_conv(pipeline: Pipeline, frozen: PyTree, images: jax.Array) -> jax.Array:
    return pipeline.base.f_conv(_cast(frozen, pipeline.dtype), images)


def _on_devices(
    pipeline: Pipeline, frozen: PyTree, queries: jax.Array, spread: Spread
) -> jax.Array:
    """`f_conv` of each piece, `[m, B, h, w, C]`, before the cut."""
    each = jax.vmap(lambda images: _f_conv(pipeline, frozen, images))
    return spread(each, queries)
