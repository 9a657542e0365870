"""Evaluation agrees with a plain loop, whatever the sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax import codes, erasures, evaluation, pipeline, splitting
from coded_jax.evaluation import Outcome
from coded_jax.types import CodeShape


@pytest.fixture
def setting(lenet):
    base, variables = lenet
    plan = splitting.make_plan(base.f_conv, variables, (28, 28, 1), (2, 1))
    shape = CodeShape(2, 2, plan.piece_shape, plan.share_shape)
    code = codes.learned_code(shape)
    pipe = pipeline.Pipeline(base, plan, code, (0.1,), (0.3,), 2)
    key = jax.random.key(4)
    arrays = {
        "images": jax.random.randint(key, (17, 28, 28, 1), 0, 256).astype(jnp.uint8),
        "labels": jax.random.randint(key, (17,), 0, 10),
    }
    return pipe, variables, code.init(key), arrays


@pytest.mark.parametrize("chunk", [5, 17, 100])
def test_every_pattern_against_a_plain_loop(setting, monkeypatch, chunk):
    monkeypatch.setattr(evaluation, "CHUNK", chunk)
    pipe, variables, params, arrays = setting
    images, labels = arrays["images"], np.asarray(arrays["labels"])
    patterns = erasures.patterns_up_to(4, 2)
    found = evaluation.evaluate(pipe, variables, params, arrays, patterns)
    assert [outcome.lost for outcome in found] == patterns
    target = pipeline.base_features(pipe, variables, images)
    base = np.asarray(pipe.base.head(variables, target)).argmax(1)
    for outcome in found:
        mask = erasures.available(outcome.lost, 4)
        logits = pipeline.infer(pipe, variables, params, images, mask)
        predicted = np.asarray(logits).argmax(1)
        features = pipeline.coded_features(pipe, variables, params, images)
        merged = pipeline.reconstruct(pipe, params, features, mask)
        assert outcome.accuracy == pytest.approx((predicted == labels).mean())
        assert outcome.agreement == pytest.approx((predicted == base).mean())
        mse = float(np.square(merged - target).mean())
        assert outcome.feature_mse == pytest.approx(mse, rel=1e-4)
    accuracy = evaluation.base_accuracy(pipe, variables, arrays)
    assert accuracy == pytest.approx((base == labels).mean())


def test_nothing_lost_is_exact_for_a_systematic_code(setting):
    outcome = evaluation.evaluate(*setting, [()])[0]
    assert outcome.agreement == 1
    assert outcome.feature_mse == pytest.approx(0, abs=1e-10)


def test_one_compilation_serves_every_pattern(setting):
    pipe, variables, params, arrays = setting
    traced = []

    def decode(params, features, available):
        traced.append(1)
        return pipe.code.decode(params, features, available)

    counted = pipe._replace(code=pipe.code._replace(decode=decode))
    evaluation.evaluate(
        counted, variables, params, arrays, erasures.patterns_up_to(4, 2)
    )
    assert len(traced) == 1


def test_summary_is_mean_and_worst_by_number_lost():
    outcomes = [
        Outcome((), 0.9, 1, 0),
        Outcome((0,), 0.8, 1, 0),
        Outcome((1,), 0.5, 1, 0),
        Outcome((2,), 0.2, 1, 0),
        Outcome((0, 1), 0.1, 1, 0),
    ]
    summary = evaluation.summarise(outcomes)
    assert list(summary) == ["0", "1", "2"]
    assert summary["1"] == {"mean": pytest.approx(0.5), "worst": 0.2}
    assert summary["0"] == {"mean": 0.9, "worst": 0.9}
