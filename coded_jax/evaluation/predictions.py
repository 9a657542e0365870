"""What is known of every prediction, for every erasure pattern on every image."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from coded_jax.codes import erasures
from coded_jax.codes.erasures import Pattern
from coded_jax.devices import placement
from coded_jax.devices.placement import Spread
from coded_jax.inference.pipeline import (
    Pipeline,
    answered,
    answers,
    base_features,
    from_decoder,
    lost_images,
    mask_axis,
    per_stage,
    up_to_decoder,
)
from coded_jax.types import PyTree

CHUNK = 500

STAGE_LOSSES = ("held", "per_stage")


def classes_of(logits: jax.Array) -> jax.Array:
    """int32 `[...]` of logits `[..., classes]`, -1 where they are not finite."""
    answered = jnp.isfinite(logits).all(-1)
    return jnp.where(answered, logits.argmax(-1), -1)


class Prediction(NamedTuple):
    """What is known of each image of a batch, with one erasure pattern.

    Where k images are coded together, a row of the batch has k of them: `g` is k then,
    and 1 otherwise.

    Attributes:
      logits: float32 `[B, g, classes]`; NaN where there is no answer.
      expected: int32 `[B, g]`, classes by the uncoded base model.
      labels: int32 `[B, g]`.
      error: float32 `[B, g]`, mean squared error of what the head is given; NaN where
        an image of the row has no answer.
      decoded: bool `[B, g]`, see `decoded`.
      weight: float32 `[B, g]`, 0 for rows past the end of the split, else 1.
    """

    logits: jax.Array
    expected: jax.Array
    labels: jax.Array
    error: jax.Array
    decoded: jax.Array
    weight: jax.Array

    @property
    def classes(self) -> jax.Array:
        """int32 `[B, g]`, -1 where there is no answer."""
        return classes_of(self.logits)

    @property
    def correct(self) -> jax.Array:
        """bool `[B, g]`."""
        return self.classes == self.labels


Statistic = Callable[[Prediction, jax.Array], jax.Array]
"""`(prediction, parameter) -> [B, g, Q]`, Q numbers for each image."""


def decoded(pipeline: Pipeline, available: ArrayLike) -> jax.Array:
    """Which images' answers are what a decoder made of other results.

    Args:
      pipeline: the coded inference.
      available: bool `[n, B]` or `[n, 1]`, or `[S, n, ...]` for each stage its own.

    Returns:
      Bool `[B, g]` or `[1, g]`: of a systematic code, whether a data piece of the image
      is lost, which in a group is the image itself; else always.
    """
    lost = lost_images(pipeline, per_stage(pipeline, available))
    return lost if pipeline.systematic else jnp.ones_like(lost)


class _Chunk(NamedTuple):
    features: jax.Array  # [n, B, M, M', D], of the first coded stage
    target: jax.Array  # float32 [B, M*, M'*, D]
    predicted: jax.Array  # int32 [B, g], by the base model
    labels: jax.Array  # int32 [B, g]
    weight: jax.Array  # float32 [B, g]


def rows_of(
    arrays: dict[str, jax.Array], start: jax.Array, size: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Images, labels `[B, g]` and weights of `size` rows, 0 of those past the end."""
    rows = start + jnp.arange(size)
    images = arrays["images"].at[rows].get(mode="clip")
    labels = arrays["labels"].at[rows].get(mode="clip").reshape(size, -1)
    counts = (rows < len(arrays["labels"]))[:, None] & (labels >= 0)
    return images, labels, jnp.where(counts, 1.0, 0.0)


def uncoded(
    pipeline: Pipeline, frozen: PyTree, images: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The base model's features float32 and its classes `[B, g]`."""
    features = base_features(pipeline, frozen, images).astype(jnp.float32)
    classes = pipeline.base.head(frozen, features).argmax(-1)
    return features, classes.reshape(len(images), -1)


@functools.partial(jax.jit, static_argnames=("pipeline", "size"))
def _chunk(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    arrays: dict[str, jax.Array],
    start: jax.Array,
    size: int,
) -> _Chunk:
    def local(spread: Spread, frozen, params, images) -> tuple:
        features = up_to_decoder(pipeline, frozen, params, images, spread)
        return features, *uncoded(pipeline, frozen, images)

    images, labels, weight = rows_of(arrays, start, size)
    compute = placement.over_batch(pipeline.mesh, local, (None, None, 0), (1, 0, 0))
    features, target, predicted = compute(frozen, params, images)
    return _Chunk(features, target, predicted, labels, weight)


@functools.partial(jax.jit, static_argnames=("pipeline", "statistic", "per_image"))
def _score(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    chunk: _Chunk,
    available: jax.Array,
    parameter: jax.Array,
    *,
    statistic: Statistic,
    per_image: bool,
) -> jax.Array:
    def local(spread: Spread, frozen, params, available, features, target) -> tuple:
        merged = from_decoder(pipeline, frozen, params, features, available, spread)
        error = jnp.square(merged - target).mean(axis=(1, 2, 3))
        error = jnp.where(answered(pipeline, available).all(axis=1), error, jnp.nan)
        return answers(pipeline, frozen, merged, available), error

    axes = (None, None, mask_axis(available), 1, 0)
    compute = placement.over_batch(pipeline.mesh, local, axes)
    logits, error = compute(frozen, params, available, chunk.features, chunk.target)
    error = jnp.broadcast_to(error[:, None], chunk.labels.shape)
    made = jnp.broadcast_to(decoded(pipeline, available), chunk.labels.shape)
    known = Prediction(logits, chunk.predicted, chunk.labels, error, made, chunk.weight)
    found = statistic(known, parameter)
    if not per_image:
        found = jnp.where(chunk.weight[..., None] > 0, found, 0).sum(axis=(0, 1))
    return placement.everywhere(pipeline.mesh, found)


def measure(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    arrays: dict[str, jax.Array],
    patterns: Sequence[Pattern],
    statistic: Statistic,
    parameters: ArrayLike | None = None,
    per_image: bool = False,
    stage_losses: str = "held",
) -> np.ndarray:
    """Some statistic of the predictions for every pattern on every image.

    The n results of the first coded stage are computed once per image, and one
    compilation serves all patterns.

    Args:
      pipeline: the coded inference.
      frozen: variables of the base model.
      params: parameters of the code.
      arrays: `images` uint8 `[N, H, W, C]` and `labels` int32 `[N]` or `[N, g]`, N > 0;
        images with label -1 do not count.
      patterns: P erasure patterns.
      statistic: see `Statistic`; a function of a module, since it is compiled once.
      parameters: `[P, ...]`, what the statistic is given for each pattern; 0 if None.
      per_image: whether the images are kept apart.
      stage_losses: `"held"`: the pattern holds in every coded stage; `"per_stage"`: in
        the first, and every other one loses as many, drawn anew for every image.

    Returns:
      `[P, Q]`, means over the images; or `[P, N', Q]` for the N' images that count.
    """
    total = len(arrays["labels"])
    size = placement.padded_size(pipeline.mesh, min(CHUNK, total))
    stages, drawn = len(pipeline.codings), stage_losses == "per_stage"
    key = jax.random.key(0)  # the same draws for every code, and for every call
    given = (
        jnp.zeros(len(patterns))
        if parameters is None
        else jnp.asarray(parameters, jnp.float32)
    )

    def masks_of(rows: jax.Array | None) -> list[jax.Array]:
        return [
            erasures.in_stages(key, lost, pipeline.n, stages, rows) for lost in patterns
        ]

    held = masks_of(None)
    score = functools.partial(_score, statistic=statistic, per_image=per_image)
    found = []
    for start in range(0, total, size):
        chunk = _chunk(pipeline, frozen, params, arrays, jnp.asarray(start), size)
        masks = masks_of(start + jnp.arange(size)) if drawn else held
        found.append(
            [
                score(pipeline, frozen, params, chunk, mask, value)
                for mask, value in zip(masks, given, strict=True)
            ]
        )
    # Fetched once, after everything has been dispatched.
    values = jax.device_get(found)
    counts = np.asarray(arrays["labels"]).reshape(total, -1) >= 0
    if not per_image:
        return np.asarray(values, np.float64).sum(axis=0) / counts.sum()
    rows = np.concatenate([np.stack(chunk) for chunk in values], axis=1)
    return rows[:, :total][:, counts]
