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
from coded_jax.types import PyTree, are_values

DENSE = 3
"""Axes of labels that have a class for each position, `[B, H', W']`."""

LEAST = 1e-12
"""A mean squared error of less is as good as none: 120 dB."""


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


@functools.partial(jax.jit, static_argnames="mesh")
def _base_sums(expected: jax.Array, rows: Rows, mesh: Mesh | None) -> jax.Array:
    """Counts the labels that are the base model's class, `[1]`; of values `[3]`, sums
    of `squares`."""
    if are_values(rows.labels):
        columns = squares(expected, rows.labels)
    else:
        columns = (expected == rows.labels,)
    sums = jnp.stack([(rows.weight * column).sum() for column in columns])
    return placement.replicated(mesh, sums)


def squares(values: jax.Array, labels: jax.Array) -> tuple[jax.Array, ...]:
    """Returns three arrays `[...]`, means over channels `[..., C']`: the squared errors
    of the values, the labels, and their squares."""
    answered = jnp.isfinite(values).all(-1, keepdims=True)
    errors = jnp.square(jnp.where(answered, values, 0) - labels)
    return tuple(x.mean(-1) for x in (errors, labels, jnp.square(labels)))


def explained(error: float, mean: float, square: float) -> float:
    """Returns the coefficient of determination, R^2.

    Args:
      error: the mean squared error of values.
      mean: of the labels.
      square: the labels' mean square.
    """
    return 1 - error / max(square - mean**2, LEAST)


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
    counted = int(predictions.counted(np.asarray(arrays["labels"])).sum())
    sums = [
        _base_sums(chunk.expected, chunk.rows, pipeline.mesh)
        for chunk in predictions.uncoded_chunks(pipeline, frozen, arrays)
    ]
    means = np.sum(jax.device_get(sums), axis=0, dtype="d") / counted
    return explained(*means) if are_values(arrays["labels"]) else float(means[0])


def pattern_statistics(prediction: Prediction, parameter: jax.Array) -> jax.Array:
    """Computes what `PatternAccuracy` averages, a `predictions.Statistic`.

    Returns:
      `[..., 5]`: whether an answer is correct, whether it agrees with the base model,
      the error of its features, whether it is decoded and correct, whether it is
      decoded. Of answers that are images `[..., 5 + 3 classes]`: for each class whether
      it is predicted and true, whether it is predicted, whether it is true. Of values
      `[..., 7]`: squared errors in the place of what is correct or agrees, then the
      labels and their squares.
    """
    decoded, error = prediction.decoded, prediction.error
    if are_values(prediction.labels):
        square, label, label_square = squares(prediction.logits, prediction.labels)
        from_base = squares(prediction.logits, prediction.expected)[0]
        columns = (square, from_base, error, decoded * square, decoded)
        return jnp.stack([*columns, label, label_square], axis=-1)
    agrees, correct = prediction.classes == prediction.expected, prediction.correct
    columns = (correct, agrees, error, decoded & correct, decoded)
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
    return from_means(patterns, means, are_values(arrays["labels"]))


def from_means(
    patterns: Sequence[Pattern], means: np.ndarray, values: bool = False
) -> list[PatternAccuracy]:
    """Makes records of means `[P, 5]`, or more, of `pattern_statistics`.

    Args:
      patterns: P erasure patterns.
      means: of the statistics.
      values: whether they are those of values.
    """
    records = []
    for lost, row in zip(patterns, means, strict=True):
        accuracy, agreement, error, of_decoded, decoded = row[:5].tolist()
        of_decoded = of_decoded / decoded if decoded else math.nan
        if values:
            psnr = -10 * math.log10(max(accuracy, LEAST))
            fields = (explained(x, *row[5:]) for x in (accuracy, agreement))
            of_decoded = explained(of_decoded, *row[5:])
            common = (lost, *map(float, fields), error, float(of_decoded))
            records.append(PatternAccuracy(*common, psnr=psnr))
        else:
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
      intersection over union, or `mean_psnr` and `worst_psnr`, of values.
    """
    summary = {}
    for l in sorted({len(pattern.lost) for pattern in seeds[0]}):
        values, decoded, *of_images = (
            np.array(
                [[getattr(p, name) for p in seed if len(p.lost) == l] for seed in seeds]
            )
            for name in ("accuracy", "decoded_accuracy", "mean_iou", "psnr")
        )
        decoded = decoded[:, ~np.isnan(decoded[0])]
        per_seed = {"mean": values.mean(1), "worst": values.min(1)}
        if decoded.size:
            per_seed["decoded"] = decoded.mean(1)
        for name, measured in zip(("iou", "psnr"), of_images, strict=True):
            if not np.isnan(measured).any():
                per_seed[f"mean_{name}"] = measured.mean(1)
                per_seed[f"worst_{name}"] = measured.min(1)
        summary[str(l)] = {}
        for name, numbers in per_seed.items():
            summary[str(l)][name] = float(numbers.mean())
            if len(seeds) > 1:
                summary[str(l)][f"{name}_std"] = float(numbers.std(ddof=1))
    return summary
