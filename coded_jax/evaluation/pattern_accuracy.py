"""Accuracy under every erasure pattern."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from coded_jax.codes.erasures import Pattern
from coded_jax.devices import placement
from coded_jax.evaluation import predictions
from coded_jax.evaluation.predictions import Prediction, TrainedPipeline, Uncoded
from coded_jax.inference.pipeline import Pipeline
from coded_jax.types import DENSE, PyTree, are_values

LEAST = 1e-12
"""A mean squared error of less is taken for this: 120 dB."""


class PatternAccuracy(NamedTuple):
    """The accuracy under one erasure pattern, over a whole split.

    Attributes:
      lost: the lost results.
      accuracy: fraction of images, or positions, classified correctly. Of values it is
        the coefficient of determination R^2, 1 less the mean squared error over the
        variance of the labels; where there is no answer, 0 is taken for one.
      agreement: fraction classified as by the uncoded base model; of values R^2, with
        the squared difference from the base model's values as the error.
      feature_mse: mean squared error of the features that the head is given.
      decoded_accuracy: as `accuracy`, among the images whose answers are decoded (see
        `predictions.decoded`); NaN if there are none. Where images are coded together
        it is ParM's accuracy in degraded mode (Kosaian et al. 2019).
      mean_iou: of answers that are images, the intersection of predicted and true
        positions of a class over their union, averaged over the classes that there are
        (Jaccard index); NaN of others.
      psnr: of values, the peak signal-to-noise ratio in dB, for a peak of 1, of the
        mean squared error; NaN of others.
    """

    lost: Pattern
    accuracy: float
    agreement: float
    feature_mse: float
    decoded_accuracy: float
    mean_iou: float = math.nan
    psnr: float = math.nan


class Spread(NamedTuple):
    """The variance of values that are labels, of some after the other, float64.

    Attributes:
      count: of the values.
      mean: of them.
      squares: sum of their squared differences from the mean.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def plus(self, labels: Any) -> Spread:
        """Adds labels `[N, H', W', C']` (Chan et al. 1983); none where they are
        classes."""
        if not are_values(labels):
            return self
        values = np.asarray(labels, np.float64)
        count, gap = self.count + values.size, float(values.mean()) - self.mean
        mean = self.mean + gap * values.size / count
        # No digits are lost where all values are large and near each other.
        between = gap**2 * self.count * values.size / count
        return Spread(count, mean, self.squares + values.size * values.var() + between)

    def explained(self, error: float) -> float:
        """Returns the coefficient of determination R^2 of a mean squared error.

        Where all labels are one value it is 1 of no error, and else 0. Of classes,
        which have no spread, the mean is an accuracy already, and returned.
        """
        if not self.count:
            return error
        variance = self.squares / self.count
        return float(1 - error / variance if variance > 0 else error == 0)


def base_accuracy(
    pipeline: Pipeline, frozen: PyTree, arrays: dict[str, jax.Array]
) -> float:
    """Computes the accuracy of the uncoded base model.

    Args:
      pipeline: whose base model is meant.
      frozen: its variables.
      arrays: `images` `[N, H, W, C]` and `labels`, see `types.Dataset`; labels of -1 do
        not count.

    Returns:
      As `PatternAccuracy.accuracy`.
    """
    labels = np.asarray(arrays["labels"])
    chunks = predictions.uncoded_chunks(pipeline, frozen, arrays)
    sums = jax.device_get([_base_sum(chunk, pipeline.mesh) for chunk in chunks])
    mean = np.sum(sums, dtype="d") / predictions.counted(labels).sum()
    return Spread().plus(labels).explained(float(mean))


@functools.partial(jax.jit, static_argnames="mesh")
def _base_sum(chunk: Uncoded, mesh: Mesh | None) -> jax.Array:
    """Adds up `correctness` of the base model's answers."""
    correct = correctness(chunk.expected, chunk.labels)
    return placement.replicated(mesh, (chunk.weight * correct).sum())


def correctness(answers: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns whether classes `[...]` are the labels; of values `[..., C']` squared
    errors, means over channels, where 0 is taken for what has no answer."""
    if not are_values(labels):
        return answers == labels
    answered = jnp.isfinite(answers).all(-1, keepdims=True)
    return jnp.square(jnp.where(answered, answers, 0) - labels).mean(-1)


def pattern_statistics(prediction: Prediction, parameter: jax.Array) -> jax.Array:
    """Computes what `PatternAccuracy` averages, a `predictions.Statistic`.

    Returns:
      `[..., 5]`: whether an answer is correct, whether it agrees with the base model,
      the error of its features, whether it is decoded and correct, whether it is
      decoded. Of answers that are images `[..., 5 + 3 classes]`: for each class whether
      it is predicted and true, whether it is predicted, whether it is true. Of values
      squared errors are in the place of what is correct or agrees.
    """
    values = are_values(prediction.labels)
    answers = prediction.logits if values else prediction.classes
    correct = correctness(answers, prediction.labels)
    agrees = correctness(answers, prediction.expected)
    error, decoded = prediction.error, prediction.decoded
    columns = (correct, agrees, error, decoded * correct, decoded)
    statistics = jnp.stack(columns, axis=-1)
    if values or prediction.labels.ndim != DENSE:
        return statistics
    one_hot = lambda classes: jax.nn.one_hot(classes, prediction.logits.shape[-1])
    predicted, true = one_hot(prediction.classes), one_hot(prediction.labels)
    counts = [predicted * true, predicted, true]
    return jnp.concatenate([statistics, *counts], axis=-1)


def measure_patterns(
    trained: TrainedPipeline,
    arrays: dict[str, jax.Array],
    patterns: Sequence[Pattern],
    stage_losses: str = "held",
    uncoded: Sequence[Uncoded] | None = None,
) -> list[PatternAccuracy]:
    """Tries every pattern on every image; arguments as of `predictions.measure`."""
    means = predictions.measure(
        trained,
        arrays,
        patterns,
        pattern_statistics,
        stage_losses=stage_losses,
        uncoded=uncoded,
    )
    return from_means(patterns, means, Spread().plus(arrays["labels"]))


def from_means(
    patterns: Sequence[Pattern], means: np.ndarray, spread: Spread
) -> list[PatternAccuracy]:
    """Makes records of means `[P, 5]`, or more, of `pattern_statistics`.

    Args:
      patterns: P erasure patterns.
      means: of the statistics.
      spread: of labels that are values; of classes there is nothing in it.
    """
    records = []
    for lost, row in zip(patterns, means, strict=True):
        correct, agrees, error, of_decoded, decoded = row[:5].tolist()
        # Of classes, what is predicted and true, predicted, and true.
        both, predicted, true = np.reshape(row[5:], (3, -1))
        union = predicted + true - both
        overlaps = both[union > 0] / union[union > 0]
        of_decoded = spread.explained(of_decoded / decoded) if decoded else math.nan
        record = PatternAccuracy(
            lost,
            accuracy=spread.explained(correct),
            agreement=spread.explained(agrees),
            feature_mse=error,
            decoded_accuracy=of_decoded,
            mean_iou=float(overlaps.mean()) if overlaps.size else math.nan,
            psnr=-10 * math.log10(max(correct, LEAST)) if spread.count else math.nan,
        )
        records.append(record)
    return records


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
      intersection over union, or `mean_psnr` and `worst_psnr`, of values.
    """
    summary = {}
    for l in sorted({len(pattern.lost) for pattern in seeds[0]}):
        accuracy, decoded, *of_images = (
            np.array(
                [[getattr(p, x) for p in seed if len(p.lost) == l] for seed in seeds]
            )
            for x in ("accuracy", "decoded_accuracy", "mean_iou", "psnr")
        )
        per_seed = {"mean": accuracy.mean(1), "worst": accuracy.min(1)}
        if (some := ~np.isnan(decoded[0])).any():
            per_seed["decoded"] = decoded[:, some].mean(1)
        for name, measured in zip(("iou", "psnr"), of_images, strict=True):
            if not np.isnan(measured).any():
                per_seed[f"mean_{name}"] = measured.mean(1)
                per_seed[f"worst_{name}"] = measured.min(1)
        numbers = {name: float(values.mean()) for name, values in per_seed.items()}
        if len(seeds) > 1:
            for name, values in per_seed.items():
                numbers[f"{name}_std"] = float(values.std(ddof=1))
        summary[str(l)] = numbers
    return summary
