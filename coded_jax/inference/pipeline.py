"""Coded inference, end to end: split, encode, `f_conv` on n pieces, decode, head.

The convolutional part may be a chain of stages. What a coded stage makes of its input
`[B, H, W, C]` is split, encoded, computed, decoded and merged before the next stage
begins; a stage without a code is computed whole, as the head is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from coded_jax.devices import placement
from coded_jax.devices.placement import Spread, here
from coded_jax.inference.pixels import normalise
from coded_jax.inference.stages import Coding, Stage, coded_features, compute, recover
from coded_jax.types import BaseModel, Code, CodeShape, PyTree


class Pipeline(NamedTuple):
    """All that one coded inference consists of, but for the variables.

    It is hashable, so that it can be a static argument of a jitted function. The
    parameters of its codes are a tuple, one entry for every coded stage.

    Attributes:
      base: the CNN.
      stages: all of its blocks, in order.
      mean, std: of each image channel, in units of the pixel range `[0, 1]`.
      k, r: data and parity pieces, of every coded stage.
      mesh: the devices, see `placement`; None: the default one.
      dtype: that encoder, `f_conv` and decoder compute in; their parameters and the
        head stay float32.
      group: images that are coded together, see `grouping`; 1 where the pieces are
        those of one image. What is said of images elsewhere is then true of groups.
    """

    base: BaseModel
    stages: tuple[Stage, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    k: int
    r: int
    mesh: Mesh | None = None
    dtype: str = "float32"
    group: int = 1

    @property
    def n(self) -> int:
        """All results of a stage, of data and parity pieces."""
        return self.k + self.r

    @property
    def codings(self) -> tuple[Coding, ...]:
        """Those of the coded stages."""
        return tuple(stage.coding for stage in self.stages if stage.coding)

    @property
    def systematic(self) -> bool:
        """Whether nothing changes where nothing is lost."""
        return all(coding.code.systematic for coding in self.codings)

    def init(self, key: jax.Array) -> PyTree:
        """Parameters of all codes."""
        keys = jax.random.split(key, len(self.codings))
        return tuple(
            coding.code.init(key)
            for coding, key in zip(self.codings, keys, strict=True)
        )

    def with_codes(self, change: Callable[[CodeShape, Code], Code]) -> Pipeline:
        """The same with other codes: `change(shape, code)` in place of each `code`."""

        def changed(stage: Stage) -> Stage:
            if not stage.coding:
                return stage
            plan, code = stage.coding
            shape = CodeShape(self.k, self.r, plan.piece_shape, plan.share_shape)
            return stage._replace(coding=Coding(plan, change(shape, code)))

        return self._replace(stages=tuple(map(changed, self.stages)))


def pixels(pipeline: Pipeline, images: jax.Array) -> jax.Array:
    """What the first stage is given for uint8 images `[B, H, W, C]`."""
    images = normalise(images, pipeline.mean, pipeline.std)
    return images.astype(pipeline.dtype)


def base_features(pipeline: Pipeline, frozen: PyTree, images: jax.Array) -> jax.Array:
    """Uncoded features `[B, M*, M'*, D]` of uint8 images `[B, H, W, C]`."""
    x = pixels(pipeline, images)
    for stage in pipeline.stages:
        x = compute(stage, frozen, x)
    return x


def up_to_decoder(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    images: jax.Array,
    spread: Spread = here,
) -> jax.Array:
    """What does not depend on the losses: results of the first coded stage.

    Returns:
      `[n, B, M, M', D]`; `from_decoder` goes on with it.
    """
    x = pixels(pipeline, images)
    for stage in pipeline.stages:
        if stage.coding:
            return coded_features(stage, frozen, params[0], x, spread)
        x = compute(stage, frozen, x)
    raise AssertionError("a pipeline has a coded stage")


def from_decoder(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    features: jax.Array,
    available: Sequence[jax.Array],
    spread: Spread = here,
) -> jax.Array:
    """What the head is given, from the results of the first coded stage.

    Args:
      pipeline: the functions.
      frozen: variables of the base model.
      params: of the codes.
      features: `[n, B, M, M', D]` from `up_to_decoder`.
      available: for each coded stage, bool `[n, B]` or `[n, 1]`.
      spread: how the pieces come to their devices.

    Returns:
      float32 `[B, M*, M'*, D]`.
    """
    x, coded = features, 0
    for stage in pipeline.stages:
        if stage.coding:
            if coded:
                x = coded_features(stage, frozen, params[coded], x, spread)
            x = recover(stage, params[coded], x, available[coded])
            coded += 1
        elif coded:
            x = compute(stage, frozen, x)
    return x.astype(jnp.float32)


def answers(
    pipeline: Pipeline, frozen: PyTree, features: jax.Array, available: jax.Array
) -> jax.Array:
    """What the head makes of features, NaN for images that have no answer.

    Args:
      pipeline: the functions.
      frozen: variables of the base model.
      features: float32 `[B, M*, M'*, D]`.
      available: bool `[S, n, B]` or `[S, n, 1]`, see `answered`.

    Returns:
      float32 `[B, g, classes]`, for g images in a group.
    """
    logits = pipeline.base.head(frozen, features)
    logits = logits.reshape(logits.shape[0], pipeline.group, logits.shape[-1])
    # Not by NaN among the features: XLA's CPU backend loses them in a max pooling.
    return jnp.where(answered(pipeline, available)[..., None], logits, jnp.nan)


def answered(pipeline: Pipeline, available: jax.Array) -> jax.Array:
    """Which images have an answer: all, but of codes that wait for their results.

    Args:
      pipeline: the functions.
      available: bool `[S, n, B]` or `[S, n, 1]`, of S coded stages.

    Returns:
      Bool `[B, g]` or `[1, g]`.
    """
    waits = any(coding.code.waits for coding in pipeline.codings)
    lost = lost_images(pipeline, available)
    return ~lost if waits else jnp.ones_like(lost)


def lost_images(pipeline: Pipeline, available: jax.Array) -> jax.Array:
    """Which images have lost a data result; arguments and result as of `answered`."""
    lost = ~available.all(axis=0)[: pipeline.k]
    return lost.T if pipeline.group > 1 else lost.any(axis=0)[:, None]


def infer(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    images: jax.Array,
    available: jax.Array,
) -> jax.Array:
    """Logits of images, from the results that arrived, on every device.

    Args:
      pipeline: the functions.
      frozen: variables of the base model.
      params: of the codes.
      images: uint8 `[B, H, W, C]`; B is a multiple of the pipeline's `group`.
      available: bool `[n, B]` or `[n, 1]`, the same in every stage; or `[S, n, B]` or
        `[S, n, 1]`, for each of S coded stages its own. B counts groups.

    Returns:
      float32 `[B, classes]`.
    """
    total, height, *rest = images.shape
    if pipeline.group > 1:
        images = images.reshape(-1, pipeline.group * height, *rest)

    def local(spread: Spread, frozen, params, images, available) -> jax.Array:
        features = up_to_decoder(pipeline, frozen, params, images, spread)
        x = from_decoder(pipeline, frozen, params, features, available, spread)
        return answers(pipeline, frozen, x, available)

    available = per_stage(pipeline, available)
    axes = (None, None, 0, mask_axis(available))
    logits = placement.over_batch(pipeline.mesh, local, axes)
    found = logits(frozen, params, images, available)
    found = found.reshape(total, found.shape[-1])
    return placement.everywhere(pipeline.mesh, found)


def per_stage(pipeline: Pipeline, available: jax.Array) -> jax.Array:
    """`[n, ...]`, or `[S, n, ...]`, as `[S, n, ...]` of the S coded stages."""
    if available.ndim == 3:
        return available
    return jnp.broadcast_to(available, (len(pipeline.codings), *available.shape))


def mask_axis(available: jax.Array) -> int | None:
    """The batch axis of `[S, n, B]`: none where `[S, n, 1]` holds for all images."""
    return None if available.shape[-1] == 1 else 2
