"""Calibration and abstaining: closed forms, and a coded model end to end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax.codes import erasures
from coded_jax.evaluation import confidence, pattern_accuracy
from coded_jax.evaluation.predictions import TrainedPipeline
from coded_jax.inference.pipeline import Examples
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from coded_jax.types import BaseModel

CLASSES = 10


def test_confidence_is_the_largest_probability_over_a_temperature():
    logits = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.2, 0.2, 0.6]]))
    np.testing.assert_allclose(confidence.confidence(logits, 1), [0.7, 0.6], rtol=1e-6)
    # Probabilities to the power of 1/T, normalised.
    halved = np.sqrt([0.7, 0.2, 0.1])
    sureness = confidence.confidence(logits, 2)[0]
    np.testing.assert_allclose(sureness, halved[0] / halved.sum(), rtol=1e-6)
    assert confidence.confidence(jnp.array([[1.0, jnp.nan]]), 1.0) == 0


def test_calibration_error_by_hand():
    # Two in one bin, 0.62 sure and half of them right; one alone, 0.9 sure and right.
    sure, correct = np.array([0.62, 0.62, 0.9]), np.array([1, 0, 1])
    error = confidence.calibration_error(sure, correct)
    assert error == pytest.approx((2 * 0.12 + 0.1) / 3)
    assert confidence.calibration_error(np.ones(4), np.ones(4)) == 0


def test_risk_coverage_by_hand():
    sure, correct = np.array([0.5, 0.9, 0.7, 0.8]), np.array([0, 1, 1, 0])
    risk, least = confidence.risk_coverage(sure, correct)
    np.testing.assert_allclose(risk, [0, 1 / 2, 1 / 3, 2 / 4])
    np.testing.assert_allclose(least, [0.9, 0.8, 0.7, 0.5])
    # The order of equals does not matter.
    for correct in ([1, 0, 1, 0], [0, 0, 1, 1]):
        risk, _ = confidence.risk_coverage(np.full(4, 0.5), np.array(correct))
        np.testing.assert_allclose(risk, 0.5)


def overconfident(factor, scale=2.0):
    """A network whose answers are right as often as `softmax(image)` says, but whose
    logits are larger than that by `factor`."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4000, 4, 4, 1), np.uint8)
    logits = scale * (pixels.reshape(4000, 16)[:, :CLASSES] / 255 - 0.5) / 0.25
    noisy = logits + rng.gumbel(size=logits.shape)  # so labels follow the softmax
    arrays = {"images": pixels, "labels": noisy.argmax(1).astype(np.int32)}

    def head(variables, features):
        flat = features.reshape(len(features), -1)[:, :CLASSES]
        return factor * scale * flat

    base = BaseModel(lambda *args: {}, (lambda variables, x: x * 1.0,), head)
    config = Config(dataset="own", base_model="own", code="zero_fill")
    pipe = build_pipeline(
        config, Examples((4, 4, 1), (0.5,), (0.25,)), CLASSES, base=base
    )
    return pipe, jax.tree.map(jnp.asarray, arrays)


def trained(pipe):
    return TrainedPipeline(pipe, {}, ({},))


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_the_temperature_undoes_overconfidence(factor):
    pipe, arrays = overconfident(factor)
    temperatures = confidence.calibrate(trained(pipe), arrays, [()])
    assert temperatures[0] == pytest.approx(factor, rel=0.1)


def test_study_of_a_network_and_of_its_losses():
    pipe, arrays = overconfident(3.0)
    patterns = erasures.patterns_up_to(3, 1)
    outcomes, study = confidence.study(trained(pipe), arrays, arrays, patterns)
    measured = pattern_accuracy.measure_patterns(trained(pipe), arrays, patterns)
    for a, b in zip(outcomes, measured, strict=True):
        assert a.lost == b.lost
        assert a[1:] == pytest.approx(b[1:], rel=1e-5, nan_ok=True)
    assert study.keys() == {"0", "1"}
    nothing, one = study["0"], study["1"]
    assert nothing["ece"] < 0.03 < nothing["ece_uncalibrated"]
    assert one["temperature"] > nothing["temperature"]
    assert nothing["ece_decoded"] is None
    # Of the three patterns the one that loses parity decodes nothing.
    decoded = [np.isfinite(outcome.decoded_accuracy) for outcome in outcomes]
    assert decoded == [False, True, True, False]
    assert outcomes[1].decoded_accuracy == outcomes[1].accuracy
    curve = nothing["curve"]
    # The surest half errs less than all, and lost features make more errors.
    assert curve["risk"][confidence.CURVE // 2] < 0.8 * curve["risk"][-1]
    assert nothing["aurc"] < one["aurc"] < one["curve"]["risk"][-1]


def test_decoded_answers_have_the_temperature_of_their_losses(monkeypatch):
    """Catches the temperatures of decoded and of whole answers swapped."""
    pipe, arrays = overconfident(1.0)
    arrays = jax.tree.map(lambda array: array[:60], arrays)
    # So hot that a decoded answer is no surer than a guess; others stay as they are.
    monkeypatch.setattr(confidence, "calibrate", lambda *_, **__: {0: 1.0, 1: 1e9})
    patterns = erasures.patterns_up_to(3, 1)
    outcomes, study = confidence.study(trained(pipe), arrays, arrays, patterns)
    guess = 1 / CLASSES
    assert min(study["0"]["curve"]["confidence"]) > guess + 0.01
    # Of one lost result: data 0 and data 1 are decoded, parity is not.
    sureness = np.array(study["1"]["curve"]["confidence"])
    assert (sureness > guess + 0.01).mean() == pytest.approx(1 / 3, abs=0.03)
    assert sureness[-1] == pytest.approx(guess, abs=1e-5)
    accuracy = np.mean([outcome.accuracy for outcome in outcomes[1:3]])
    assert study["1"]["ece_decoded"] == pytest.approx(abs(accuracy - guess), abs=1e-5)


def test_temperature_of_an_answer():
    """Catches the same swap where answers are served."""
    pipe, _ = overconfident(1.0)
    studied = {"0": {"temperature": 2.0}, "1": {"temperature": 5.0}}
    for lost, expected in (((), 2), ((0,), 5), ((2,), 2), ((1, 2), 5)):
        mask = erasures.available(lost, 3)
        served = confidence.temperatures(studied, pipe, mask, (4, CLASSES))
        assert served.tolist() == [[expected]] * 4
