"""Accuracy under every erasure pattern."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.codes.erasures import Pattern
from coded_jax.devices import placement
from coded_jax.evaluation import predictions
from coded_jax.evaluation.predictions import Prediction
from coded_jax.inference.pipeline import Pipeline
from coded_jax.types import PyTree


class Outcome(NamedTuple):
    """What one erasure pattern costs, over a whole split.

    Attributes:
      lost: the lost results.
      accuracy: fraction of images classified correctly.
      agreement: fraction classified as by the uncoded base model.
      feature_mse: mean squared error of the features that the head is given.
      decoded_accuracy: as `accuracy`, among the images whose answers are decoded (see
        `predictions.decoded`); NaN if there are none. In a group it is what ParM calls
        the accuracy in degraded mode (Kosaian et al. 2019).
    """

    lost: Pattern
    accuracy: float
    agreement: float
    feature_mse: float
    decoded_accuracy: float


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
    """`[B, g, 5]`: whether it is correct, and agrees; its error; whether it is decoded
    and correct, and decoded."""
    agrees, correct = found.classes == found.expected, found.correct
    made = (found.decoded & correct, found.decoded)
    return jnp.stack([correct, agrees, found.error, *made], axis=-1)


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
    """The outcome of each pattern, from means `[P, 5]` of `outcome` over the images."""
    found = []
    for lost, mean in zip(patterns, means.tolist(), strict=True):
        accuracy, agreement, error, correct, made = mean
        decoded = correct / made if made else math.nan
        found.append(Outcome(lost, accuracy, agreement, error, decoded))
    return found


def summarise(seeds: Sequence[Sequence[Outcome]]) -> dict[str, dict[str, float]]:
    """Mean and worst accuracy for every number of lost results.

    Args:
      seeds: the outcomes of codes that were trained with S seeds, in the same order of
        patterns.

    Returns:
      `{"0": {"mean": ..., "worst": ...}, "1": ...}`, keys as in `results.json`: means
      over the seeds; of several also `mean_std` and `worst_std`, standard deviations
      with `S - 1` degrees of freedom. Where answers are decoded there is `decoded`,
      their accuracy, likewise; every pattern that decodes some weighs the same.
    """
    summary = {}
    for l in sorted({len(outcome.lost) for outcome in seeds[0]}):
        values, decoded = (
            np.array(
                [[getattr(o, name) for o in seed if len(o.lost) == l] for seed in seeds]
            )
            for name in ("accuracy", "decoded_accuracy")
        )
        decoded = decoded[:, ~np.isnan(decoded[0])]
        found = {"mean": values.mean(1), "worst": values.min(1)}
        if decoded.size:
            found["decoded"] = decoded.mean(1)
        summary[str(l)] = {}
        for name, each in found.items():
            summary[str(l)][name] = float(each.mean())
            if len(seeds) > 1:
                summary[str(l)][f"{name}_std"] = float(each.std(ddof=1))
    return summary
