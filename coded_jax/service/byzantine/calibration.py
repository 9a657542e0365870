"""Calibrates the check of a model's results, on images without any wrong result.

Predictions and the scales of statistics are fitted on training images, thresholds are
set on validation images, which neither the model nor the fit has seen.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.checks import require
from coded_jax.codes import erasures
from coded_jax.codes.erasures import Pattern
from coded_jax.inference.pipeline import Pipeline
from coded_jax.inference.stages import shares_of
from coded_jax.runs.coded_model import CodedModel
from coded_jax.service.byzantine import agreement, alarm
from coded_jax.service.byzantine.check import (
    Check,
    StageCheck,
    checked_patterns,
    fingerprint,
)
from coded_jax.service.byzantine.results import Results, chunks
from coded_jax.types import PyTree

FEWEST = 5000
"""Validation images. With so many the second largest statistic is a threshold that one
image in a thousand exceeds at most, with 95 % confidence."""

MOST_TRAINING = 30_000
"""Training images that are used, the first ones."""

HIDDEN = 512
"""Random features of what a result is predicted from."""

MOST_COORDINATES = 128
"""Directions in which a share is looked at."""

CONFIDENCE = 0.95
GAIN = 1.5  # standard deviation of the inputs of random features
RIDGE = 1e-4  # of the mean variance of the inputs of a regression
SHRINKAGE = 1e-2  # of the mean variance, added to that of each coordinate
TAIL = 0.9995  # quantile of training images that is one scale above the median
EXACT = 1e-4  # of the largest value: what the code predicts as well is exact
ROUNDING = 1e-5  # likewise: a difference that is never an alarm
SLACK = (1.0, 1.25, 1.25)  # of scales: the first statistic shall set the threshold
MARGIN = (2.0**-40, 16.0)  # times the least and the largest magnitude of training


def calibrate(
    model: CodedModel,
    images: Any,
    training: Any,
    rate: float = 1e-3,
    seed: int = 0,
) -> Check:
    """Calibrates the check of a model, on one device.

    Args:
      model: the coded inference.
      images: `[N, H, W, C]` of the validation part, 5,000 or more.
      training: of the training part; the first 30,000 are used.
      rate: the share of images with a false alarm, at most, over all stages.
      seed: of the losses in earlier stages, which results of later ones depend on.

    Raises:
      ValueError: there are too few images for that rate, the code leaves nothing to
        check, or images have another shape.
    """
    patterns = checked_patterns(model.pipeline)
    enough = max(FEWEST, math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-rate)))
    count = len(images)
    accepted = f"{enough} or more validation images for rate={rate:g}"
    require("images", count, count >= enough, accepted)
    require("training", len(training), len(training) >= FEWEST, f"{FEWEST} or more")
    model.check_images(images)
    model.check_images(training)
    training = training[:MOST_TRAINING]
    model = model._replace(pipeline=model.pipeline._replace(mesh=None))
    stages = tuple(
        _fit_stage(model, number, patterns, training, seed)
        for number in range(len(model.pipeline.stages))
    )
    thresholds, order = _thresholds(model, stages, patterns, images, rate, seed)
    stages = tuple(stage._replace(thresholds=thresholds) for stage in stages)
    record = {
        "model": fingerprint(model),
        "rate": rate,
        "confidence": CONFIDENCE,
        "expected_rate": order / (count + 1),
        "images": count,
        "training_images": len(training),
    }
    return Check(stages, record)


def order_of_threshold(count: int, rate: float) -> int:
    """Returns the rank of the statistic that is the threshold, 1 for the largest.

    More than `rate` of all images exceed the j-th largest of N, whatever its
    distribution is, only if fewer than j of these N are among the `rate` most extreme
    ones, whose number is binomial. j is the largest with which that has a probability
    of 5 % at most.
    """
    order, fewer = 0, 0.0
    while True:
        choices = math.lgamma(count + 1) - math.lgamma(order + 1)
        choices -= math.lgamma(count - order + 1)
        odds = order * math.log(rate) + (count - order) * math.log1p(-rate)
        fewer += math.exp(choices + odds)
        if fewer > 1 - CONFIDENCE:
            return max(1, order)
        order += 1


class Observed(NamedTuple):
    """Coordinates of the results of training images, and the range of their values.

    Attributes:
      own, decoded: float32 `[n, N, c]`, coordinates of results, and of what the code
        makes of the others.
      largest: float32 `[n, N]`, the largest difference of values of the two.
      bits: uint32 `[N, 2]`, of the least magnitude but 0, and the largest.
      negative: bool `[N]`, whether a value is below zero.
    """

    own: Any
    decoded: Any
    largest: Any
    bits: Any
    negative: Any


@functools.partial(jax.jit, static_argnums=(0, 1))
def _observe(
    pipeline: Pipeline,
    coded: int,
    params: PyTree,
    means: jax.Array,
    bases: jax.Array,
    results: Results,
    arrived: jax.Array,
) -> Observed:
    """Observes a batch, see `Observed`; the axis of images is the last but one."""
    stage, (features, kept) = pipeline.stages[coded], results
    wide = (slice(None), *[None] * (features.ndim - 1))
    present = jnp.where(arrived[wide], features, 0)
    predicted = agreement.predict(stage, params, present, arrived, kept)
    shares = shares_of(stage, present)
    own = agreement.coordinates(means, bases, shares)
    decoded = agreement.coordinates(means, bases, predicted.shares)
    known = jnp.array(predicted.known)[:, None, None]
    largest = agreement.largest_difference(shares, predicted.shares)
    largest = jnp.where(known[..., 0], largest, jnp.inf)
    bits = jnp.moveaxis(alarm.value_bits(features), 1, 0)
    bits = bits.reshape(len(bits), -1)
    magnitude = bits & 0x7FFFFFFF
    least = jnp.where(magnitude == 0, jnp.uint32(0xFFFFFFFF), magnitude).min(axis=1)
    return Observed(
        own,
        jnp.where(known, decoded, 0),
        largest,
        jnp.stack([least, magnitude.max(axis=1)], axis=1),
        ((bits >> 31 == 1) & (magnitude > 0)).any(axis=1),
    )


def _observe_all(
    model: CodedModel,
    coded: int,
    pattern: Pattern,
    directions: tuple[np.ndarray, np.ndarray],
    training: Any,
    seed: int,
) -> Observed:
    """Observes all training images with the results that a pattern leaves."""
    arrived = erasures.available(pattern, model.pipeline.n)[:, 0]
    parts = []
    for count, results in chunks(model, coded, training, seed):
        own = (model.params[coded], *directions, results, arrived)
        seen = jax.tree.map(np.asarray, _observe(model.pipeline, coded, *own))
        of_results = [x[:, :count] for x in seen[:3]]
        parts.append(Observed(*of_results, *(x[:count] for x in seen[3:])))
    axes = (1, 1, 1, 0, 0)
    joined = zip(zip(*parts, strict=True), axes, strict=True)
    return Observed(*(np.concatenate(x, axis=axis) for x, axis in joined))


def _fit_stage(
    model: CodedModel,
    coded: int,
    patterns: list[Pattern],
    training: Any,
    seed: int,
) -> StageCheck:
    """Fits everything of a stage but its thresholds, which are 1."""
    n, fitted = model.pipeline.n, []
    directions = _directions(model, coded, training, seed)
    observe = lambda lost: _observe_all(model, coded, lost, directions, training, seed)
    intact = observe(())
    bits = np.array([intact.bits[:, 0].min(), intact.bits[:, 1].max()])
    alone = np.stack([*map(_whitener, intact.own)])
    hidden, amplitude = _hidden(intact, seed), float(bits.view(np.float32)[1])
    places = np.full(2**n, -1, np.int32)
    for place, pattern in enumerate(patterns):
        seen = observe(pattern) if pattern else intact
        fitted.append(_fit_set(seen, pattern, hidden, alone, amplitude))
        places[sum(2**i for i in range(n) if i not in pattern)] = place
    names = ("weights", "whiteners", "centers", "scales", "exact", "roundings")
    of_sets = map(np.stack, zip(*fitted, strict=True))
    fields = dict(zip(names, of_sets, strict=True))
    fields |= dict(zip(("means", "bases"), directions, strict=True))
    fields |= {"hidden": hidden, "alone": alone, "places": places}
    fields |= {"magnitudes": _with_margin(bits), "negative": intact.negative.any()}
    fields["thresholds"] = np.ones(len(patterns), np.float32)
    return StageCheck(**jax.tree.map(jnp.asarray, fields))


def _directions(
    model: CodedModel, coded: int, training: Any, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns means and bases, see `StageCheck`: all values of small shares, or else
    the principal directions of the first training images."""
    stage = model.pipeline.stages[coded]
    values: list[np.ndarray] = []
    for count, results in chunks(model, coded, training[:FEWEST], seed):
        of_shares = agreement.roots(shares_of(stage, results.features))
        values.append(np.asarray(of_shares)[:, :count])
    every = np.concatenate(values, axis=1)
    means, size = every.mean(axis=1), every.shape[2]
    if size <= MOST_COORDINATES:
        return means, np.stack([np.eye(size, dtype=np.float32)] * len(every))
    bases = []
    for own, mean in zip(every, means, strict=True):
        centred = (own - mean) / math.sqrt(len(own))
        _, vectors = np.linalg.eigh(centred.T @ centred)
        bases.append(vectors[:, -MOST_COORDINATES:])
    return means, np.stack(bases).astype(np.float32)


def _fit_set(
    seen: Observed,
    pattern: Pattern,
    hidden: np.ndarray,
    alone: np.ndarray,
    amplitude: float,
) -> tuple[np.ndarray, ...]:
    """Fits regressions, whiteners, centers, scales, exact and roundings of a set of
    results. Of those that are exact, or not in it, nothing else is looked at."""
    n, count, c = seen.own.shape
    weights = np.zeros((n, sum(hidden.shape), c), np.float32)
    whiteners = np.zeros((n, c, c), np.float32)
    centers = np.zeros((n, agreement.STATISTICS), np.float32)
    scales = np.ones((n, agreement.STATISTICS), np.float32)
    largest = seen.largest.max(axis=1)
    exact = largest <= EXACT * amplitude
    for i in (i for i in range(n) if i not in pattern and not exact[i]):
        others = [
            x if j not in (i, *pattern) else 0 * x for j, x in enumerate(seen.own)
        ]
        inputs = [*others, seen.decoded[i], np.ones((count, 1), np.float32)]
        columns = agreement.expanded(hidden, np.concatenate(inputs, axis=1))
        columns = np.asarray(columns)
        weights[i] = _regression(columns, seen.own[i])
        left = seen.own[i] - columns @ weights[i]
        whiteners[i] = _whitener(left)
        values = agreement.statistics(whiteners[i], alone[i], seen.own[i], left)
        centers[i] = np.median(values, axis=1)
        scales[i] = SLACK * (np.quantile(values, TAIL, axis=1) - centers[i])
    roundings = np.maximum(4 * largest, ROUNDING * amplitude)
    roundings = np.where(exact, roundings, 1).astype(np.float32)
    return weights, whiteners, centers, np.maximum(scales, 1e-6), exact, roundings


def _hidden(seen: Observed, seed: int) -> np.ndarray:
    """Draws weights of random features whose inputs have a variance of about 1."""
    n, _, c = seen.own.shape
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=((n + 1) * c, HIDDEN))
    weights *= GAIN / math.sqrt(c * (n + 1) * np.square(seen.own).mean())
    return np.append(weights, rng.uniform(-1, 1, (1, HIDDEN)), axis=0).astype("f")


def _regression(inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Returns the weights `[p, c]` of a ridge regression (Hoerl and Kennard 1970)."""
    gram = (inputs.T @ inputs).astype(np.float64) / len(inputs)
    gram += RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    mixed = (inputs.T @ outputs).astype(np.float64) / len(inputs)
    return np.linalg.solve(gram, mixed).astype(np.float32)


def _whitener(values: np.ndarray) -> np.ndarray:
    """Returns the matrix `[c, c]` times which values `[N, c]` of mean 0 have the unit
    covariance: the symmetric root of the inverse of a shrunk covariance."""
    covariance = (values.T @ values).astype(np.float64) / len(values)
    shrunk = SHRINKAGE * np.trace(covariance) / len(covariance) + 1e-12
    variances, vectors = np.linalg.eigh(covariance)
    roots = 1 / np.sqrt(np.maximum(variances, 0) + shrunk)
    return ((vectors * roots) @ vectors.T).astype(np.float32)


def _with_margin(bits: np.ndarray) -> np.ndarray:
    """Returns bits of magnitudes beyond which no right value is, uint32 `[2]`."""
    limits = np.clip(bits.view(np.float32).astype(np.float64) * MARGIN, *_NORMAL)
    return limits.astype(np.float32).view(np.uint32)


_NORMAL = (np.finfo(np.float32).tiny, np.finfo(np.float32).max)


def _thresholds(
    model: CodedModel,
    stages: tuple[StageCheck, ...],
    patterns: list[Pattern],
    images: Any,
    rate: float,
    seed: int,
) -> tuple[jax.Array, int]:
    """Returns the threshold of each set of results, which holds in all stages, float32
    `[P]`, and which of the largest statistics it is."""
    order, thresholds = order_of_threshold(len(images), rate), []
    largest = np.stack(
        [
            _of_images(model, coded, check, patterns, images, seed)
            for coded, check in enumerate(stages)
        ]
    ).max(axis=0)
    exact = np.all([np.asarray(stage.exact) for stage in stages], axis=0)
    for place, pattern in enumerate(patterns):
        arrived = [i for i in range(model.pipeline.n) if i not in pattern]
        is_exact = exact[place, arrived].all()
        thresholds.append(1.0 if is_exact else np.sort(largest[place])[-order])
    return jnp.array(thresholds, jnp.float32), order


def _of_images(
    model: CodedModel,
    coded: int,
    check: StageCheck,
    patterns: list[Pattern],
    images: Any,
    seed: int,
) -> np.ndarray:
    """Returns the largest statistics of images for each set, float32 `[P, N]`."""
    n, parts = model.pipeline.n, []
    for count, results in chunks(model, coded, images, seed + 1):
        ratios = [
            alarm.inspect(
                *(model.pipeline, coded, check, model.params[coded]),
                *(tuple(results.features), erasures.available(pattern, n)[:, 0]),
                results.kept,
            ).ratio
            for pattern in patterns
        ]
        parts.append(np.stack(ratios)[:, :count])
    return np.concatenate(parts, axis=1)
