"""Confidence of answers: calibration, risk-coverage curves, abstaining.

The confidence of an answer is the largest softmax probability of its logits over a
temperature (Guo et al. 2017). Decoded answers have a temperature for each number of
lost results, all others that of no losses: those of least cross-entropy on validation
images.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.codes.erasures import Pattern
from coded_jax.evaluation import pattern_accuracy, predictions
from coded_jax.evaluation.pattern_accuracy import PatternAccuracy, Spread
from coded_jax.evaluation.predictions import Prediction, TrainedPipeline
from coded_jax.inference.pipeline import Pipeline
from coded_jax.types import DENSE

TEMPERATURES = np.geomspace(0.2, 10, 79)  # 5 % apart
BINS = 15
MOST_LABELS = 200_000
"""Limits the labels that confidence is studied on, where each position has one."""
CURVE = 51  # points of a risk-coverage curve


def confidence(logits: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """Computes the confidence `[...]` of `[..., classes]`; 0 without an answer."""
    probability = jax.nn.softmax(logits / temperature).max(-1)
    return jnp.where(jnp.isfinite(logits).all(-1), probability, 0)


def temperatures(
    calibration: dict[str, Any],
    pipeline: Pipeline,
    available: np.ndarray,
    shape: tuple[int, ...],
) -> np.ndarray:
    """Returns the temperature of each answer of a batch, float32 `[B, 1, ...]`.

    Args:
      calibration: the field `confidence` of `results.json`.
      pipeline: the coded inference.
      available: bool `[n, 1]`, or `[S, n, 1]` for each coded stage its own.
      shape: of the logits, `[B, ..., classes]`.
    """
    lost = int((~available).sum(axis=-2).max())
    # Of more losses than were studied that of the most that were: it may be too sure.
    studied = min(lost, max(map(int, calibration)))
    of_decoded = np.float32(calibration[str(studied)]["temperature"])
    of_others = np.float32(calibration["0"]["temperature"])
    decoded = np.asarray(predictions.decoded(pipeline, jnp.asarray(available)))
    decoded = np.broadcast_to(decoded, (shape[0] // decoded.size, decoded.size))
    ones = [1] * (len(shape) - 1)
    return np.where(decoded.reshape(-1, *ones), of_decoded, of_others)


def _cross_entropies(prediction: Prediction, everything: jax.Array) -> jax.Array:
    """Computes cross-entropies `[..., T]` with each of `TEMPERATURES`.

    They are 0 for answers that are not decoded, unless `everything` is 1.
    """
    logits = jnp.where(jnp.isfinite(prediction.logits), prediction.logits, 0)
    temperatures = jnp.asarray(TEMPERATURES, logits.dtype)
    temperatures = jnp.expand_dims(temperatures, range(logits.ndim - 1))
    labels = jnp.maximum(prediction.labels, 0)[..., None]
    # From the largest logit, for each temperature; no array has its own of each class.
    logits = logits - logits.max(-1, keepdims=True)
    of_labels = jnp.take_along_axis(logits, labels, -1) / temperatures
    powers = jnp.exp(logits[..., None, :] / temperatures[..., None])
    entropies = jnp.log(powers.sum(-1)) - of_labels
    counts = prediction.decoded | (everything > 0)
    return jnp.where(counts[..., None], entropies, 0)


def _confidences(prediction: Prediction, temperatures: jax.Array) -> jax.Array:
    """Computes `[..., 7]`: the confidence, the same uncalibrated, and five of
    `pattern_statistics`.

    Args:
      prediction: of a batch.
      temperatures: `[2]`, of decoded answers and of all others.
    """
    temperature = jnp.where(prediction.decoded, *temperatures)[..., None]
    confidences = [confidence(prediction.logits, t) for t in (temperature, 1.0)]
    statistics = pattern_accuracy.pattern_statistics(prediction, temperatures)[..., :5]
    return jnp.concatenate([jnp.stack(confidences, axis=-1), statistics], axis=-1)


def calibrate(
    trained: TrainedPipeline,
    validation: dict[str, jax.Array],
    patterns: Sequence[Pattern],
    stage_losses: str = "held",
) -> dict[int, float]:
    """Chooses the temperature of decoded answers for each number of lost results.

    That of 0 is of all answers where nothing is lost. Where nothing is decoded, as for
    patterns that lose parity alone, it is the same.

    Args:
      trained, patterns, stage_losses: as of `predictions.measure`.
      validation: images and labels that the base model was not trained on.
    """
    entropies = predictions.measure(
        trained,
        validation,
        patterns,
        _cross_entropies,
        parameters=np.array([not lost for lost in patterns], np.float32),
        stage_losses=stage_losses,
    )
    counts = np.array([len(lost) for lost in patterns])
    totals = {int(l): entropies[counts == l].sum(axis=0) for l in np.unique(counts)}
    best = {l: float(TEMPERATURES[total.argmin()]) for l, total in totals.items()}
    return {l: best[l] if totals[l].any() else best[0] for l in best}


def calibration_error(confidences: np.ndarray, correct: np.ndarray) -> float:
    """Computes the expected calibration error in `BINS` bins (Naeini et al. 2015).

    Args:
      confidences: `[N]`, in `[0, 1]`.
      correct: `[N]`, 0 or 1.
    """
    bins = np.minimum((confidences * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, confidences - correct, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidences))


def risk_coverage(
    confidences: np.ndarray, correct: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Computes the errors among the answers given, when the least sure are withheld.

    Args:
      confidences, correct: `[N]` (Geifman and El-Yaniv 2017).

    Returns:
      Risk `[N]` with the `1..N` surest answers, and the confidence `[N]` that these
      have at least. Answers of one confidence count with their mean.
    """
    order = np.argsort(-confidences, kind="stable")
    ordered = confidences[order]
    _, inverse = np.unique(-ordered, return_inverse=True)
    means = np.bincount(inverse, correct[order]) / np.bincount(inverse)
    wrong = np.cumsum(1 - means[inverse])
    return wrong / np.arange(1, len(order) + 1), ordered


def study(
    trained: TrainedPipeline,
    validation: dict[str, jax.Array],
    test: dict[str, jax.Array],
    patterns: Sequence[Pattern],
    stage_losses: str = "held",
) -> tuple[list[PatternAccuracy], dict[str, Any]]:
    """Measures every pattern, its calibration, and what abstaining buys.

    Args:
      trained, patterns, stage_losses: as of `predictions.measure`.
      validation: images and labels that temperatures are chosen on.
      test: those that all else is measured on.

    Returns:
      The patterns' accuracies, as of `measure_patterns`; and for each number of lost
      results, as a string: `temperature`; `ece`, `ece_uncalibrated`, and `ece_decoded`
      of decoded answers alone, None without any; `aurc`, the mean risk over all
      coverages; and `curve` with `coverage`, `risk` and `confidence`. All patterns
      count alike.
    """
    counts = np.array([len(lost) for lost in patterns])
    records = []
    if test["labels"].ndim == DENSE:  # all images for accuracy, some for the rest
        records = pattern_accuracy.measure_patterns(
            trained, test, patterns, stage_losses
        )
        validation, test = _few(validation), _few(test)
    temperatures = calibrate(trained, validation, patterns, stage_losses)
    values = predictions.measure(
        trained,
        test,
        patterns,
        _confidences,
        parameters=[[temperatures[l], temperatures[0]] for l in counts],
        per_image=True,
        stage_losses=stage_losses,
    )
    if not records:
        means = values[..., 2:].mean(axis=1, dtype="d")
        records = pattern_accuracy.from_means(patterns, means, Spread())
    by_lost = {
        str(l): {"temperature": temperature, **_calibration(values[counts == l])}
        for l, temperature in temperatures.items()
    }
    return records, by_lost


def _few(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns the first images that have labels which count, with at most `MOST_LABELS`
    of these, but one image or more."""
    # A random choice, since images are in random order.
    counts = predictions.counted(np.asarray(arrays["labels"])).sum((1, 2))
    labelled = np.flatnonzero(counts)
    most = np.searchsorted(counts[labelled].cumsum(), MOST_LABELS, "right")
    chosen = labelled[: max(1, most)]
    return {name: array[chosen] for name, array in arrays.items()}


def _calibration(values: np.ndarray) -> dict[str, Any]:
    """Computes the errors and the curve of `study` from `_confidences` `[P, N, 7]`."""
    calibrated, uncalibrated, correct, *_, decoded = values.reshape(-1, 7).T
    risk, least = risk_coverage(calibrated, correct)
    places = np.linspace(0, len(risk) - 1, min(CURVE, len(risk))).astype(int)
    curve = {
        "coverage": (places + 1) / len(risk),
        "risk": risk[places],
        "confidence": least[places],
    }
    some = decoded > 0
    of_decoded = (
        calibration_error(calibrated[some], correct[some]) if some.any() else None
    )
    return {
        "ece": calibration_error(calibrated, correct),
        "ece_uncalibrated": calibration_error(uncalibrated, correct),
        "ece_decoded": of_decoded,
        "aurc": float(risk.mean()),
        "curve": {k: [round(float(x), 6) for x in v] for k, v in curve.items()},
    }


def mean_over_seeds(seeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Averages what `study` returns for several seeds.

    Temperatures, and the confidences of the curve, are those of the first seed, which
    is the one that is served; all else are means, with `..._std` beside the numbers.
    """
    summary = dict(seeds[0])
    if len(seeds) == 1:
        return summary
    for l, of_first in seeds[0].items():
        curves = [seed[l]["curve"]["risk"] for seed in seeds]
        risk = np.round(np.mean(curves, axis=0), 6).tolist()
        summary[l] = {**of_first, "curve": {**of_first["curve"], "risk": risk}}
        for name in ("ece", "ece_uncalibrated", "ece_decoded", "aurc"):
            values = [seed[l][name] for seed in seeds]
            if None not in values:
                summary[l][name] = statistics.fmean(values)
                summary[l][f"{name}_std"] = statistics.stdev(values)
    return summary
