"""How sure an answer is: calibrated confidences, risk-coverage curves, abstaining.

The confidence of an answer is the largest softmax probability of its logits over a
temperature (Guo et al. 2017). Each number of lost results has a temperature of its own,
the one of least cross-entropy on validation images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax import evaluation, predictions
from coded_jax.erasures import Pattern
from coded_jax.evaluation import Outcome
from coded_jax.pipeline import Pipeline
from coded_jax.predictions import Prediction
from coded_jax.types import PyTree

TEMPERATURES = np.geomspace(0.2, 10, 79)  # 5 % apart
BINS = 15
CURVE = 200  # points of a risk-coverage curve


def confidence(logits: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """`[..., classes] -> [...]`, in `[0, 1]`; 0 where there is no answer."""
    probability = jax.nn.softmax(logits / temperature).max(-1)
    return jnp.where(jnp.isfinite(logits).all(-1), probability, 0)


def _cross_entropies(found: Prediction, parameter: jax.Array) -> jax.Array:
    """`[B, g, T]`, with each of `TEMPERATURES`."""
    logits = jnp.where(jnp.isfinite(found.logits), found.logits, 0)[..., None, :]
    temperatures = jnp.asarray(TEMPERATURES, logits.dtype)[None, None, :, None]
    labels = jnp.maximum(found.labels, 0)[..., None, None]
    scaled = jax.nn.log_softmax(logits / temperatures)
    return -jnp.take_along_axis(scaled, labels, -1)[..., 0]


def _confident(found: Prediction, temperature: jax.Array) -> jax.Array:
    """`[B, g, 5]`: confidence, the same uncalibrated, and `evaluation.outcome`."""
    sure = [confidence(found.logits, t) for t in (temperature, 1.0)]
    known = evaluation.outcome(found, temperature)
    return jnp.concatenate([jnp.stack(sure, axis=-1), known], axis=-1)


def calibrate(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    validation: dict[str, jax.Array],
    patterns: Sequence[Pattern],
    stage_losses: str = "held",
) -> dict[int, float]:
    """The temperature for each number of lost results.

    Args:
      pipeline, frozen, params, patterns, stage_losses: as of `predictions.measure`.
      validation: images and labels that the base model was not trained on.
    """
    entropies = predictions.measure(
        pipeline,
        frozen,
        params,
        validation,
        patterns,
        _cross_entropies,
        stage_losses=stage_losses,
    )
    counts = np.array([len(lost) for lost in patterns])
    return {
        int(l): float(TEMPERATURES[entropies[counts == l].mean(axis=0).argmin()])
        for l in np.unique(counts)
    }


def calibration_error(confidences: np.ndarray, correct: np.ndarray) -> float:
    """Expected calibration error in `BINS` bins of equal width (Naeini et al. 2015).

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
    """Errors among the answers that are given, when the least sure are withheld.

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
    pipeline: Pipeline,
    frozen: PyTree,
    seeds: Sequence[PyTree],
    validation: dict[str, jax.Array],
    test: dict[str, jax.Array],
    patterns: Sequence[Pattern],
    stage_losses: str = "held",
) -> tuple[list[list[Outcome]], dict[str, Any]]:
    """Calibration and what abstaining buys, for each number of lost results.

    Args:
      pipeline, frozen, patterns, stage_losses: as of `predictions.measure`.
      seeds: parameters of the code, of each seed.
      validation: images and labels that temperatures are chosen on.
      test: those that all else is measured on.

    Returns:
      The outcomes of every seed, as of `evaluation.evaluate`; and for each number of
      lost results `l`, as a string: `temperature` of the first seed;
      `ece`, `ece_uncalibrated` and `aurc`, the mean risk over all coverages, with
      `..._std` over the seeds; and `curve` with `coverage`, `risk` (means over the
      seeds) and `confidence` (of the first seed). All patterns count alike.
    """
    counts = np.array([len(lost) for lost in patterns])
    found: dict[int, list[dict[str, Any]]] = {int(l): [] for l in np.unique(counts)}
    outcomes = []
    for params in seeds:
        inputs = (pipeline, frozen, params)
        temperatures = calibrate(
            *inputs, validation, patterns, stage_losses=stage_losses
        )
        given = [temperatures[len(lost)] for lost in patterns]
        measured = predictions.measure(
            *inputs, test, patterns, _confident, given, True, stage_losses
        )
        outcomes.append(
            evaluation.outcomes(patterns, measured[..., 2:].mean(axis=1, dtype="d"))
        )
        for l, of_seed in found.items():
            sure, plain, correct = measured[counts == l].reshape(-1, 5).T[:3]
            risk, least = risk_coverage(sure, correct)
            places = np.linspace(0, len(risk) - 1, min(CURVE, len(risk))).astype(int)
            of_seed.append(
                {
                    "temperature": temperatures[l],
                    "ece": calibration_error(sure, correct),
                    "ece_uncalibrated": calibration_error(plain, correct),
                    "aurc": float(risk.mean()),
                    "risk": risk[places],
                    "confidence": least[places],
                    "coverage": (places + 1) / len(risk),
                }
            )
    return outcomes, {str(l): _over_seeds(of_seed) for l, of_seed in found.items()}


def _over_seeds(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    first, summary = seeds[0], {}
    for name in ("ece", "ece_uncalibrated", "aurc"):
        values = np.array([seed[name] for seed in seeds])
        summary[name] = float(values.mean())
        summary[f"{name}_std"] = float(values.std(ddof=1)) if len(seeds) > 1 else 0.0
    curve = {
        "coverage": first["coverage"],
        "risk": np.mean([seed["risk"] for seed in seeds], axis=0),
        "confidence": first["confidence"],
    }
    rounded = {name: [round(float(x), 6) for x in v] for name, v in curve.items()}
    return {"temperature": first["temperature"], **summary, "curve": rounded}
