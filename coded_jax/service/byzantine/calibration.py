"""Calibrates the check of a model's results, on images without any wrong result.

Predictions and the scales of statistics are fitted on training images, thresholds are
set on validation images, which neither the model nor the fit has seen.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from coded_jax.checks import require
from coded_jax.codes import erasures
from coded_jax.inference.pipeline import Pipeline, Results, inputs_of
from coded_jax.inference.stages import (
    begin_stage,
    run_stage,
    shares_of,
    stage_results,
)
from coded_jax.runs.coded_model import CodedModel
from coded_jax.service.byzantine import agreement, detection
from coded_jax.service.byzantine.agreement import Directions, Observed
from coded_jax.service.byzantine.detection import (
    Check,
    StageCheck,
    checked_patterns,
    fingerprint,
)
from coded_jax.types import PyTree

CHUNK = 500
"""Images that are computed at once."""

FEWEST = 5000
"""Validation images. With so many the second largest statistic is a threshold that one
image in a thousand exceeds at most, with 95 % confidence."""

MOST_TRAINING = 30_000
"""Training images that are used, the first ones."""

HIDDEN = 512
"""Random features of what a result is predicted from."""

MOST_COORDINATES = 128
"""Directions in which a share is looked at."""

RATE = 1e-3  # images with a false alarm at most, over all stages
CONFIDENCE = 0.95
GAIN = 1.5  # standard deviation of the inputs of random features
RIDGE = 1e-4  # of the mean variance of the inputs of a regression
SHRINKAGE = 1e-2  # of the mean variance, added to that of each coordinate
TAIL = 0.9995  # quantile of training images that is one scale above the median
EXACT = 1e-4  # of the largest value: what the code predicts as well is exact
ROUNDING = 1e-5  # likewise: a difference that is never an alarm
SLACK = (1.0, 1.25, 1.25)  # of scales: the first statistic shall set the threshold
MARGIN = (2.0**-40, 16.0)  # times the least and the largest magnitude of training


def calibrate(model: CodedModel, images: Any, training: Any, seed: int = 0) -> Check:
    """Calibrates the check of a model, on one device.

    Args:
      model: the coded inference.
      images: `[N, H, W, C]` of the validation part, 5,000 or more.
      training: of the training part; the first 30,000 are used.
      seed: of the losses in earlier stages, which results of later ones depend on.

    Raises:
      ValueError: there are too few images, the code leaves nothing to check, or images
        have another shape.
    """
    count, n = len(images), model.pipeline.n
    patterns = checked_patterns(model.pipeline)
    arrived = np.stack([erasures.available(x, n)[:, 0] for x in patterns])
    require("images", count, count >= FEWEST, f"{FEWEST} or more validation images")
    model.check_images(images)
    model.check_images(training)
    training = training[:MOST_TRAINING]
    model = model._replace(pipeline=model.pipeline._replace(mesh=None))
    stages, ratios = [], []
    for number, stage in enumerate(model.pipeline.stages):
        own = _fit_stage(model, number, training, arrived, seed)
        inspect = functools.partial(detection.inspect, stage, own, model.params[number])
        of_sets = lambda results, inspect=inspect: jnp.stack(
            [inspect(results, mask).ratio for mask in arrived]
        )
        ratios.append(_of_images(of_sets, model, number, images, seed + 1))
        stages.append(own)
    order = order_of_threshold(count, RATE)
    thresholds = np.sort(np.max(ratios, axis=0), axis=1)[:, -order]
    exact = np.all([stage.exact for stage in stages], axis=0)
    # Where all results are exact, the unit of the statistic is what is rounding.
    thresholds = np.where((exact | ~arrived).all(axis=1), 1.0, thresholds)
    held = jnp.array(thresholds, jnp.float32)
    record = {
        "model": fingerprint(model),
        "rate": RATE,
        "confidence": CONFIDENCE,
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
    return max(1, int(stats.binom.ppf(1 - CONFIDENCE, count, rate)))


@functools.partial(jax.jit, static_argnames=("pipeline", "number"))
def results_of_stage(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    images: jax.Array,
    *,
    number: int = 0,
    available: jax.Array,
) -> Results:
    """Computes the results of a coded stage, as workers return them.

    Args:
      pipeline: the functions.
      frozen: variables of the base model.
      params: of the codes.
      images: `[B, H, W, C]`.
      number: of the stage, from 0.
      available: bool `[S, n, B]`, the results that arrive in the stages before.
    """
    state = inputs_of(pipeline, images)
    for i, stage in enumerate(pipeline.stages[:number]):
        state = run_stage(stage, frozen, params[i], state, available[i])
    stage, own = pipeline.stages[number], params[number]
    sent = begin_stage(stage, frozen, own, state)
    return Results(stage_results(stage, frozen, own, sent.queries), sent.kept)


def _of_images(
    function: Callable[[Results], PyTree],
    model: CodedModel,
    number: int,
    images: Any,
    seed: int,
) -> PyTree:
    """Computes a function of the results of a stage for all images, in chunks of one
    size; images are the second axis of its outputs.

    For a third of the images and more nothing is lost in the stages before, for the
    others up to r results.
    """
    pipeline, size, parts = model.pipeline, min(CHUNK, len(images)), []
    draw = lambda key: erasures.sample(key, pipeline.n, pipeline.r, size)
    for start in range(0, len(images), size):
        part = np.asarray(images[start : start + size])
        filled = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
        key = jax.random.fold_in(jax.random.key(seed), start)
        results = results_of_stage(
            pipeline,
            model.frozen,
            model.params,
            filled,
            number=number,
            available=jax.vmap(draw)(jax.random.split(key, len(pipeline.stages))),
        )
        parts.append(jax.device_get(function(results)))
    joined = lambda *parts: np.concatenate(parts, axis=1)[:, : len(images)]
    return jax.tree.map(joined, *parts)


_observe = jax.jit(agreement.observe, static_argnums=0)


def _limits(features: jax.Array) -> jax.Array:
    """Returns bits of the values of all results, uint32 `[3, B]`: of the least
    magnitude but 0, of the largest, and whether one is below zero."""
    bits = detection.value_bits(features)
    magnitude, axes = bits & 0x7FFFFFFF, (0, *range(2, features.ndim))
    least = jnp.where(magnitude == 0, jnp.uint32(0xFFFFFFFF), magnitude).min(axis=axes)
    negative = ((bits >> 31 == 1) & (magnitude > 0)).any(axis=axes)
    return jnp.stack([least, magnitude.max(axis=axes), negative.astype(jnp.uint32)])


def _fit_stage(
    model: CodedModel, number: int, training: Any, sets: np.ndarray, seed: int
) -> StageCheck:
    """Fits everything of a stage but its thresholds, which are 1.

    Args:
      model: the coded inference.
      number: of the stage.
      training: images.
      sets: bool `[P, n]`, the results that are checked together; first all of them.
      seed: of the losses in earlier stages.
    """
    stage, params = model.pipeline.stages[number], model.params[number]
    of_images = lambda function, images: _of_images(
        function, model, number, images, seed
    )
    of_shares = lambda results: agreement.roots(shares_of(stage, results.features))
    few = of_images(of_shares, training[:FEWEST])
    directions = Directions(few.mean(axis=1), np.stack([*map(_directions, few)]))

    def observe(results: Results, arrived: np.ndarray) -> Observed:
        features = results.features
        there = arrived.reshape(-1, *[1] * (features.ndim - 1))
        present = results._replace(features=jnp.where(there, features, 0))
        return _observe(stage, params, directions, present, arrived)

    limits = lambda results: (observe(results, sets[0]), _limits(results.features))
    intact, (least, most, negative) = of_images(limits, training)
    magnitudes = np.array([least.min(), most.max()]).view(np.float32)
    magnitudes = magnitudes.astype(np.float64)
    single = np.finfo(np.float32)
    limited = np.clip(magnitudes * MARGIN, single.tiny, single.max).astype(np.float32)

    # Random features whose inputs have a variance of about 1.
    (count, n), c, rng = sets.shape, intact.own.shape[2], np.random.default_rng(seed)
    hidden = rng.normal(size=((n + 1) * c, HIDDEN))
    hidden *= GAIN / math.sqrt(c * (n + 1) * np.square(intact.own).mean())
    hidden = np.append(hidden, rng.uniform(-1, 1, (1, HIDDEN)), axis=0).astype("f")

    fit = StageCheck(
        *directions,
        hidden=hidden,
        weights=np.zeros((count, n, sum(hidden.shape), c), np.float32),
        whiteners=np.zeros((count, n, c, c), np.float32),
        alone=np.stack([*map(_whitener, intact.own)]),
        centers=np.zeros((count, n, agreement.STATISTICS), np.float32),
        scales=np.ones((count, n, agreement.STATISTICS), np.float32),
        exact=np.zeros((count, n), bool),
        roundings=np.ones((count, n), np.float32),
        thresholds=np.ones(count, np.float32),
        places=np.full(2**n, -1, np.int32),
        magnitudes=limited.view(np.uint32),
        negative=negative.any(),
    )
    fit.places[sets @ 2 ** np.arange(n)] = np.arange(count)
    for place, arrived in enumerate(sets):
        of_set = functools.partial(observe, arrived=arrived)
        seen = of_images(of_set, training) if place else intact
        largest = seen.largest.max(axis=1)
        fit.exact[place] = exact = largest <= EXACT * magnitudes[1]
        roundings = np.maximum(4 * largest, ROUNDING * magnitudes[1])
        fit.roundings[place] = np.where(exact, roundings, 1)
        for i in np.flatnonzero(arrived & ~exact):
            others = arrived & (np.arange(n) != i)
            inputs = agreement.regressors(hidden, seen.own, seen.decoded[i], others)
            weights = _regression(np.asarray(inputs), seen.own[i])
            left = seen.own[i] - inputs @ weights
            whitener = _whitener(np.asarray(left))
            values = agreement.statistics(whitener, fit.alone[i], seen.own[i], left)
            fit.weights[place, i], fit.whiteners[place, i] = weights, whitener
            fit.centers[place, i] = centers = np.median(values, axis=1)
            scales = SLACK * (np.quantile(values, TAIL, axis=1) - centers)
            fit.scales[place, i] = np.maximum(scales, 1e-6)
    return jax.tree.map(jnp.asarray, fit)


def _directions(values: np.ndarray) -> np.ndarray:
    """Returns the directions `[d, q]` of roots `[N, d]`: all of few, else the principal
    ones."""
    size = values.shape[1]
    if size <= MOST_COORDINATES:
        return np.eye(size, dtype=np.float32)
    centred = (values - values.mean(axis=0)) / math.sqrt(len(values))
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return vectors[:, -MOST_COORDINATES:].astype(np.float32)


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
