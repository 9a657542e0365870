"""Accuracy under every erasure pattern."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from coded_jax.codes.erasures import Pattern
from coded_jax.devices import placement
from coded_jax.evaluation import predictions
from coded_jax.evaluation.predictions import Prediction, Rows, Uncoded
from coded_jax.inference.pipeline import Pipeline
from coded_jax.types import PyTree

DENSE = 3
"""Axes of labels that have one for each position, `[B, H, W]`."""


class PatternAccuracy(NamedTuple):
    """The accuracy under one erasure pattern, over a whole split.

    Attributes:
      lost: the lost results.
      accuracy: fraction of images classified correctly.
      agreement: fraction classified as by the uncoded base model.
      feature_mse: mean squared error of the features that the head is given.
      decoded_accuracy: as `accuracy`, among the images whose answers are decoded (see
        `predictions.decoded`); NaN if there are none. Where images are coded together
        it is ParM's accuracy in degraded mode (Kosaian et al. 2019).
      mean_iou: of answers that are images, the intersection of predicted and true
        positions of a class over their union, averaged over the classes that there are
        (Jaccard index); NaN of others.
    """

    lost: Pattern
    accuracy: float
    agreement: float
    feature_mse: float
    decoded_accuracy: float
    mean_iou: float = math.nan


@functools.partial(jax.jit, static_argnames="mesh")
def _count_correct(expected: jax.Array, rows: Rows, mesh: Mesh | None) -> jax.Array:
    """Counts the rows whose class is their label."""
    correct = rows.weight * (expected == rows.labels)
    return placement.replicated(mesh, correct.sum())


def base_accuracy(
    pipeline: Pipeline, frozen: PyTree, arrays: dict[str, jax.Array]
) -> float:
    """Computes the accuracy of the uncoded base model.

    Args:
      pipeline: whose base model is meant.
      frozen: its variables.
      arrays: `images` `[N, H, W, C]` and `labels` int32 `[N, ...]`; labels of -1 do not
        count.
    """
    counted = int((np.asarray(arrays["labels"]) >= 0).sum())
    correct = [
        _count_correct(chunk.expected, chunk.rows, pipeline.mesh)
        for chunk in predictions.uncoded_chunks(pipeline, frozen, arrays)
    ]
    return float(np.sum(jax.device_get(correct))) / counted


def pattern_statistics(prediction: Prediction, parameter: jax.Array) -> jax.Array:
    """Computes what `PatternAccuracy` averages, a `predictions.Statistic`.

    Returns:
      `[..., 5]`: whether an answer is correct, whether it agrees with the base model,
      the error of its features, whether it is decoded and correct, whether it is
      decoded. Of answers that are images `[..., 5 + 3 classes]`: for each class whether
      it is predicted and true, whether it is predicted, whether it is true.
    """
    agrees, correct = prediction.classes == prediction.expected, prediction.correct
    decoded = prediction.decoded
    columns = (correct, agrees, prediction.error, decoded & correct, decoded)
    statistics = jnp.stack(columns, axis=-1)
    if prediction.labels.ndim != DENSE:
        return statistics
    classes = prediction.logits.shape[-1]
    predicted, true = (
        jax.nn.one_hot(x, classes, dtype=bool)
        for x in (prediction.classes, prediction.labels)
    )
    counts = jnp.concatenate([predicted & true, predicted, true], axis=-1)
    return jnp.concatenate([statistics, counts.astype(statistics.dtype)], axis=-1)


def measure_patterns(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    arrays: dict[str, jax.Array],
    patterns: Sequence[Pattern],
    stage_losses: str = "held",
    uncoded: Sequence[Uncoded] | None = None,
) -> list[PatternAccuracy]:
    """Tries every pattern on every image; arguments as of `predictions.measure`."""
    means = predictions.measure(
        pipeline,
        frozen,
        params,
        arrays,
        patterns,
        pattern_statistics,
        stage_losses=stage_losses,
        uncoded=uncoded,
    )
    return from_means(patterns, means)


def from_means(patterns: Sequence[Pattern], means: np.ndarray) -> list[PatternAccuracy]:
    """Makes records of means `[P, 5]`, or more, of `pattern_statistics`."""
    records = []
    for lost, row in zip(patterns, means, strict=True):
        accuracy, agreement, error, decoded_correct, decoded = row[:5].tolist()
        of_decoded = decoded_correct / decoded if decoded else math.nan
        common = (lost, accuracy, agreement, error, of_decoded)
        records.append(PatternAccuracy(*common, mean_iou(row[5:])))
    return records


def mean_iou(counts: np.ndarray) -> float:
    """Returns the mean intersection over union of classes.

    Args:
      counts: `[3 classes]`, of what is predicted and true, predicted, and true; none of
        answers that are no images.
    """
    both, predicted, true = np.reshape(counts, (3, -1))
    union = predicted + true - both
    if not union.any():
        return math.nan
    return float((both[union > 0] / union[union > 0]).mean())


def summarise(
    seeds: Sequence[Sequence[PatternAccuracy]],
) -> dict[str, dict[str, float]]:
    """Summarises the patterns for every number of lost results: mean and worst.

    Args:
      seeds: the patterns' accuracies of codes that were trained with S seeds, in the
        same order of patterns.

    Returns:
      `{"0": {"mean": ..., "worst": ...}, "1": ...}`, keys as in `results.json`: means
      over the seeds; of several also `mean_std` and `worst_std`, standard deviations
      with `S - 1` degrees of freedom. Where answers are decoded there is `decoded`,
      their accuracy, likewise; every pattern that decodes some weighs the same. Where
      answers are images there are `mean_iou` and `worst_iou`, of their mean
      intersection over union.
    """
    summary = {}
    for l in sorted({len(pattern.lost) for pattern in seeds[0]}):
        values, decoded, overlaps = (
            np.array(
                [[getattr(p, name) for p in seed if len(p.lost) == l] for seed in seeds]
            )
            for name in ("accuracy", "decoded_accuracy", "mean_iou")
        )
        decoded = decoded[:, ~np.isnan(decoded[0])]
        per_seed = {"mean": values.mean(1), "worst": values.min(1)}
        if decoded.size:
            per_seed["decoded"] = decoded.mean(1)
        if not np.isnan(overlaps).any():
            per_seed["mean_iou"] = overlaps.mean(1)
            per_seed["worst_iou"] = overlaps.min(1)
        summary[str(l)] = {}
        for name, numbers in per_seed.items():
            summary[str(l)][name] = float(numbers.mean())
            if len(seeds) > 1:
                summary[str(l)][f"{name}_std"] = float(numbers.std(ddof=1))
    return summary
