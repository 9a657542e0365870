"""Accuracy under every erasure pattern."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax import erasures, placement
from coded_jax.erasures import Pattern
from coded_jax.pipeline import (
    Pipeline,
    base_features,
    from_decoder,
    mask_axis,
    up_to_decoder,
)
from coded_jax.placement import Spread
from coded_jax.types import PyTree

CHUNK = 500

STAGE_LOSSES = ("held", "per_stage")


class Outcome(NamedTuple):
    """What one erasure pattern costs, over a whole split.

    Attributes:
      lost: the lost results.
      accuracy: fraction of images classified correctly.
      agreement: fraction classified as by the uncoded base model.
      feature_mse: mean squared error of the features that the head is given.
    """

    lost: Pattern
    accuracy: float
    agreement: float
    feature_mse: float


class _Chunk(NamedTuple):
    features: jax.Array  # [n, B, M, M', D], of the first coded stage
    target: jax.Array  # float32 [B, M*, M'*, D]
    predicted: jax.Array  # int32 [B], by the base model
    labels: jax.Array  # int32 [B]
    weight: jax.Array  # float32 [B], 0 for rows past the end of the split


def _rows(
    arrays: dict[str, jax.Array], start: jax.Array, size: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Images, labels and weights of `size` rows; those past the end weigh nothing."""
    rows = start + jnp.arange(size)
    images = arrays["images"].at[rows].get(mode="clip")
    labels = arrays["labels"].at[rows].get(mode="clip")
    return images, labels, jnp.where(rows < len(arrays["labels"]), 1.0, 0.0)


def _uncoded(
    pipeline: Pipeline, frozen: PyTree, images: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The base model's features float32 and its classes."""
    features = base_features(pipeline, frozen, images).astype(jnp.float32)
    return features, pipeline.base.head(frozen, features).argmax(-1)


@functools.partial(jax.jit, static_argnames=("pipeline", "size"))
def _base_correct(
    pipeline: Pipeline,
    frozen: PyTree,
    arrays: dict[str, jax.Array],
    start: jax.Array,
    size: int,
) -> jax.Array:
    images, labels, weight = _rows(arrays, start, size)
    local = lambda spread, frozen, images: _uncoded(pipeline, frozen, images)[1]
    predict = placement.over_batch(pipeline.mesh, local, (None, 0))
    correct = (predict(frozen, images) == labels) @ weight
    return placement.everywhere(pipeline.mesh, correct)


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
        return features, *_uncoded(pipeline, frozen, images)

    images, labels, weight = _rows(arrays, start, size)
    compute = placement.over_batch(pipeline.mesh, local, (None, None, 0), (1, 0, 0))
    features, target, predicted = compute(frozen, params, images)
    return _Chunk(features, target, predicted, labels, weight)


@functools.partial(jax.jit, static_argnames="pipeline")
def _score(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    chunk: _Chunk,
    available: jax.Array,
) -> jax.Array:
    def local(spread: Spread, frozen, params, available, features, rest) -> jax.Array:
        target, expected, labels = rest
        merged = from_decoder(pipeline, frozen, params, features, available, spread)
        predicted = pipeline.base.head(frozen, merged).argmax(-1)
        error = jnp.square(merged - target).mean(axis=(1, 2, 3))
        return jnp.stack([predicted == labels, predicted == expected, error], axis=1)

    rest = (chunk.target, chunk.predicted, chunk.labels)
    axes = (None, None, mask_axis(available), 1, 0)
    compute = placement.over_batch(pipeline.mesh, local, axes)
    per_image = compute(frozen, params, available, chunk.features, rest)
    sums = (chunk.weight[:, None] * per_image).sum(axis=0)
    return placement.everywhere(pipeline.mesh, sums)


def base_accuracy(
    pipeline: Pipeline, frozen: PyTree, arrays: dict[str, jax.Array]
) -> float:
    """Accuracy of the uncoded base model.

    Args:
      pipeline: whose base model is meant.
      frozen: its variables.
      arrays: `images` uint8 `[N, H, W, C]` and `labels` int32 `[N]`.
    """
    total = len(arrays["labels"])
    size = placement.padded_size(pipeline.mesh, min(CHUNK, total))
    correct = [
        _base_correct(pipeline, frozen, arrays, jnp.asarray(start), size)
        for start in range(0, total, size)
    ]
    return float(np.sum(jax.device_get(correct))) / total


def evaluate(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    arrays: dict[str, jax.Array],
    patterns: Sequence[Pattern],
    stage_losses: str = "held",
) -> list[Outcome]:
    """Tries every pattern on every image.

    The n results of the first coded stage are computed once per image, and one
    compilation serves all patterns.

    Args:
      pipeline: the coded inference.
      frozen: variables of the base model.
      params: parameters of the code.
      arrays: `images` uint8 `[N, H, W, C]` and `labels` int32 `[N]`, N > 0.
      patterns: the erasure patterns.
      stage_losses: `"held"`: the pattern holds in every coded stage; `"per_stage"`: in
        the first, and every other one loses as many, drawn anew for every image.
    """
    total = len(arrays["labels"])
    size = placement.padded_size(pipeline.mesh, min(CHUNK, total))
    stages, drawn = len(pipeline.codings), stage_losses == "per_stage"
    key = jax.random.key(0)  # the same draws for every code, and for every call

    def masks_of(rows: jax.Array | None) -> list[jax.Array]:
        return [
            erasures.in_stages(key, lost, pipeline.n, stages, rows) for lost in patterns
        ]

    held = masks_of(None)
    sums = []
    for start in range(0, total, size):
        chunk = _chunk(pipeline, frozen, params, arrays, jnp.asarray(start), size)
        masks = masks_of(start + jnp.arange(size)) if drawn else held
        sums.append([_score(pipeline, frozen, params, chunk, mask) for mask in masks])
    # Fetched once, after everything has been dispatched.
    totals = np.asarray(jax.device_get(sums), np.float64).sum(axis=0)
    return [
        Outcome(lost, *map(float, mean))
        for lost, mean in zip(patterns, totals / total, strict=True)
    ]


def summarise(outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    """Mean and worst accuracy for every number of lost results.

    Returns:
      `{"0": {"mean": ..., "worst": ...}, "1": ...}`, keys as in `results.json`.
    """
    by_lost: dict[int, list[float]] = {}
    for outcome in outcomes:
        by_lost.setdefault(len(outcome.lost), []).append(outcome.accuracy)
    return {
        str(l): {"mean": float(np.mean(values)), "worst": min(values)}
        for l, values in sorted(by_lost.items())
    }
