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
from coded_jax.inference.pipeline import Results
from coded_jax.inference.stages import CodedStage, shares_of
from coded_jax.runs.coded_model import CodedModel
from coded_jax.service.byzantine import agreement, alarm
from coded_jax.service.byzantine.check import (
    Check,
    StageCheck,
    checked_patterns,
    fingerprint,
)
from coded_jax.service.byzantine.results import chunks
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
    stages = [
        _fit_stage(model, number, training, seed)
        for number in range(len(model.pipeline.stages))
    ]
    order = order_of_threshold(count, rate)
    largest = np.max(
        [
            _largest_statistics(model, number, check, images, seed)
            for number, check in enumerate(stages)
        ],
        axis=0,
    )
    exact = np.all([np.asarray(stage.exact) for stage in stages], axis=0)
    thresholds = np.sort(largest, axis=1)[:, -order]
    for place, pattern in enumerate(patterns):
        arrived = [i for i in range(model.pipeline.n) if i not in pattern]
        if exact[place, arrived].all():
            thresholds[place] = 1.0  # its unit is what is rounding
    held = jnp.array(thresholds, jnp.float32)
    record = {
        "model": fingerprint(model),
        "rate": rate,
        "confidence": CONFIDENCE,
        "expected_rate": order / (count + 1),
        "images": count,
        "training_images": len(training),
    }
    return Check(tuple(stage._replace(thresholds=held) for stage in stages), record)


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
    """Results of training images, compared with what the code makes of the others; N
    images along the second axis.

    Attributes:
      own, decoded: float32 `[n, N, c]`, coordinates of results, and of what the code
        makes of the others.
      largest: float32 `[n, N]`, the largest difference of values of the two.
      bits: uint32 `[2, N]`, of the least magnitude but 0, and the largest.
      negative: bool `[1, N]`, whether a value is below zero.
    """

    own: Any
    decoded: Any
    largest: Any
    bits: Any
    negative: Any


class Directions(NamedTuple):
    """The means and bases of a `StageCheck`."""

    means: Any
    bases: Any


@functools.partial(jax.jit, static_argnums=0)
def _observe(
    stage: CodedStage,
    params: PyTree,
    directions: Directions,
    results: Results,
    arrived: jax.Array,
) -> Observed:
    """Observes a batch of images."""
    features, (means, bases) = results.features, directions
    present = jnp.where(arrived.reshape(-1, *[1] * (features.ndim - 1)), features, 0)
    observed = results._replace(features=present)
    predicted = agreement.predict(stage, params, observed, arrived)
    shares = shares_of(stage, present)
    known = jnp.array(predicted.known)[:, None]
    decoded = agreement.coordinates(means, bases, predicted.shares)
    largest = agreement.largest_difference(shares, predicted.shares)
    bits = jnp.moveaxis(alarm.value_bits(features), 1, 0)
    bits = bits.reshape(len(bits), -1)
    magnitude = bits & 0x7FFFFFFF
    least = jnp.where(magnitude == 0, jnp.uint32(0xFFFFFFFF), magnitude).min(axis=1)
    return Observed(
        agreement.coordinates(means, bases, shares),
        jnp.where(known[..., None], decoded, 0),
        jnp.where(known, largest, jnp.inf),
        jnp.stack([least, magnitude.max(axis=1)]),
        ((bits >> 31 == 1) & (magnitude > 0)).any(axis=1)[None],
    )


def _fit_stage(model: CodedModel, number: int, training: Any, seed: int) -> StageCheck:
    """Fits everything of a stage but its thresholds, which are 1."""
    n, stage, fitted = model.pipeline.n, model.pipeline.stages[number], []
    directions = _directions(model, number, training, seed)

    def observe(pattern: Pattern) -> Observed:
        """Observes all training images with the results that a pattern leaves."""
        arrived = erasures.available(pattern, n)[:, 0]
        parts = []
        for count, results in chunks(model, number, training, seed):
            part = _observe(stage, model.params[number], directions, results, arrived)
            parts.append(jax.tree.map(lambda x, m=count: np.asarray(x)[:, :m], part))
        return jax.tree.map(lambda *x: np.concatenate(x, axis=1), *parts)

    intact = observe(())
    bits = np.array([intact.bits[0].min(), intact.bits[1].max()])
    alone = np.stack([*map(_whitener, intact.own)])
    hidden, amplitude = _hidden(intact, seed), float(bits.view(np.float32)[1])
    places = np.full(2**n, -1, np.int32)
    for place, pattern in enumerate(checked_patterns(model.pipeline)):
        seen = observe(pattern) if pattern else intact
        fitted.append(_fit_set(seen, pattern, hidden, alone, amplitude))
        places[sum(2**i for i in range(n) if i not in pattern)] = place
    single = np.finfo(np.float32)
    limits = bits.view(np.float32).astype(np.float64) * MARGIN
    limits = np.clip(limits, single.tiny, single.max).astype(np.float32)
    fields = {
        **directions._asdict(),
        **jax.tree.map(lambda *sets: np.stack(sets), *fitted)._asdict(),
        "hidden": hidden,
        "alone": alone,
        "places": places,
        "magnitudes": limits.view(np.uint32),
        "negative": intact.negative.any(),
        "thresholds": np.ones(len(fitted), np.float32),
    }
    return StageCheck(**jax.tree.map(jnp.asarray, fields))


def _directions(model: CodedModel, number: int, training: Any, seed: int) -> Directions:
    """Returns all values of small shares, or else the principal directions of the first
    training images."""
    stage = model.pipeline.stages[number]
    values: list[np.ndarray] = []
    for count, results in chunks(model, number, training[:FEWEST], seed):
        of_shares = agreement.roots(shares_of(stage, results.features))
        values.append(np.asarray(of_shares)[:, :count])
    every = np.concatenate(values, axis=1)
    means, size = every.mean(axis=1), every.shape[2]
    if size <= MOST_COORDINATES:
        return Directions(means, np.stack([np.eye(size, dtype="f")] * len(every)))
    bases = []
    for own, mean in zip(every, means, strict=True):
        centred = (own - mean) / math.sqrt(len(own))
        _, vectors = np.linalg.eigh(centred.T @ centred)
        bases.append(vectors[:, -MOST_COORDINATES:])
    return Directions(means, np.stack(bases).astype(np.float32))


class SetFit(NamedTuple):
    """The fields of a `StageCheck` for one set of results, without the axis P."""

    weights: Any
    whiteners: Any
    centers: Any
    scales: Any
    exact: Any
    roundings: Any


def _fit_set(
    seen: Observed,
    pattern: Pattern,
    hidden: np.ndarray,
    alone: np.ndarray,
    amplitude: float,
) -> SetFit:
    """Fits a set of results. Of those that are exact, or not in it, nothing but that is
    looked at."""
    n, count, c = seen.own.shape
    largest = seen.largest.max(axis=1)
    exact = largest <= EXACT * amplitude
    roundings = np.maximum(4 * largest, ROUNDING * amplitude)
    fit = SetFit(
        weights=np.zeros((n, sum(hidden.shape), c), np.float32),
        whiteners=np.zeros((n, c, c), np.float32),
        centers=np.zeros((n, agreement.STATISTICS), np.float32),
        scales=np.ones((n, agreement.STATISTICS), np.float32),
        exact=exact,
        roundings=np.where(exact, roundings, 1).astype(np.float32),
    )
    for i in (i for i in range(n) if i not in pattern and not exact[i]):
        own, left_out = seen.own[i], (i, *pattern)
        others = [0 * x if j in left_out else x for j, x in enumerate(seen.own)]
        inputs = [*others, seen.decoded[i], np.ones((count, 1), np.float32)]
        columns = np.asarray(agreement.expanded(hidden, np.concatenate(inputs, axis=1)))
        fit.weights[i] = _regression(columns, own)
        left = own - columns @ fit.weights[i]
        fit.whiteners[i] = _whitener(left)
        values = agreement.statistics(fit.whiteners[i], alone[i], own, left)
        fit.centers[i] = np.median(values, axis=1)
        scales = SLACK * (np.quantile(values, TAIL, axis=1) - fit.centers[i])
        fit.scales[i] = np.maximum(scales.astype(np.float32), 1e-6)
    return fit


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


def _largest_statistics(
    model: CodedModel, number: int, check: StageCheck, images: Any, seed: int
) -> np.ndarray:
    """Returns the largest statistics of images for each set, float32 `[P, N]`."""
    stage, params, parts = model.pipeline.stages[number], model.params[number], []
    n, patterns = model.pipeline.n, checked_patterns(model.pipeline)
    for count, results in chunks(model, number, images, seed + 1):
        arrived = [erasures.available(pattern, n)[:, 0] for pattern in patterns]
        ratios = [
            alarm.inspect(stage, check, params, results, x).ratio for x in arrived
        ]
        parts.append(np.stack(ratios)[:, :count])
    return np.concatenate(parts, axis=1)
