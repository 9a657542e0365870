"""Accuracy under every erasure pattern."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax import placement, predictions
from coded_jax.erasures import Pattern
from coded_jax.pipeline import Pipeline
from coded_jax.predictions import Prediction
from coded_jax.types import PyTree


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


@functools.partial(jax.jit, static_argnames=("pipeline", "size"))
def _base_correct(
    pipeline: Pipeline,
    frozen: PyTree,
    arrays: dict[str, jax.Array],
    start: jax.Array,
    size: int,
) -> jax.Array:
    images, labels, weight = predictions.rows_of(arrays, start, size)
    local = lambda spread, frozen, images: predictions.uncoded(
        pipeline, frozen, images
    )[1]
    predict = placement.over_batch(pipeline.mesh, local, (None, 0))
    correct = weight * (predict(frozen, images) == labels)
    return placement.everywhere(pipeline.mesh, correct.sum())


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
    counted = int((arrays["labels"] >= 0).sum())
    size = placement.padded_size(pipeline.mesh, min(predictions.CHUNK, total))
    correct = [
        _base_correct(pipeline, frozen, arrays, jnp.asarray(start), size)
        for start in range(0, total, size)
    ]
    return float(np.sum(jax.device_get(correct))) / counted


def outcome(found: Prediction, parameter: jax.Array) -> jax.Array:
    """`[B, g, 3]`: whether it is correct, whether it agrees, and the error."""
    agrees = found.classes == found.expected
    return jnp.stack([found.correct, agrees, found.error], axis=-1)


def evaluate(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    arrays: dict[str, jax.Array],
    patterns: Sequence[Pattern],
    stage_losses: str = "held",
) -> list[Outcome]:
    """Tries every pattern on every image; arguments as of `predictions.measure`."""
    means = predictions.measure(
        pipeline,
        frozen,
        params,
        arrays,
        patterns,
        outcome,
        stage_losses=stage_losses,
    )
    return outcomes(patterns, means)


def outcomes(patterns: Sequence[Pattern], means: np.ndarray) -> list[Outcome]:
    """The outcome of each pattern, from means `[P, 3]` of `outcome` over the images."""
    return [
        Outcome(lost, *map(float, mean))
        for lost, mean in zip(patterns, means.astype(np.float64), strict=True)
    ]


def summarise(seeds: Sequence[Sequence[Outcome]]) -> dict[str, dict[str, float]]:
    """Mean and worst accuracy for every number of lost results.

    Args:
      seeds: the outcomes of codes that were trained with S seeds, in the same order of
        patterns.

    Returns:
      `{"0": {"mean": ..., "worst": ...}, "1": ...}`, keys as in `results.json`: means
      over the seeds; of several also `mean_std` and `worst_std`, standard deviations
      with `S - 1` degrees of freedom.
    """
    summary = {}
    for l in sorted({len(outcome.lost) for outcome in seeds[0]}):
        values = np.array(
            [[o.accuracy for o in seed if len(o.lost) == l] for seed in seeds]
        )
        for name, each in (("mean", values.mean(1)), ("worst", values.min(1))):
            found = summary.setdefault(str(l), {})
            found[name] = float(each.mean())
            if len(seeds) > 1:
                found[f"{name}_std"] = float(each.std(ddof=1))
    return summary
