"""Evaluation agrees with a plain loop, whatever the sizes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax import codes
from coded_jax.codes import erasures
from coded_jax.devices import placement
from coded_jax.devices.meshes import make_mesh
from coded_jax.evaluation import pattern_accuracy, predictions
from coded_jax.evaluation.pattern_accuracy import PatternAccuracy
from coded_jax.evaluation.predictions import TrainedPipeline
from coded_jax.inference import pipeline
from coded_jax.inference.pipeline import Examples
from coded_jax.models.modules import ConvNorm, base_model
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from coded_jax.splitting.plan import make_plan
from coded_jax.types import BaseModel, CodeShape
from tests.models.published import random_variables
from tests.parameters import long
from tests.pipelines import learned, one_stage, plainly


@pytest.fixture(scope="module")
def setting(lenet):
    base, variables = lenet
    plan = make_plan(base.f_conv, variables, (28, 28, 1), (2, 1))
    shape = CodeShape(2, 2, plan.piece_shape, plan.share_shape)
    code = learned(shape)
    pipe = one_stage(base, plan, code, (0.1,), (0.3,), 2)
    key = jax.random.key(4)
    arrays = {
        "images": jax.random.randint(key, (17, 28, 28, 1), 0, 256).astype(jnp.uint8),
        "labels": jax.random.randint(key, (17,), 0, 10),
    }
    return pipe, variables, jax.jit(pipe.init)(key), arrays


@pytest.mark.parametrize("chunk", [5, *long(100)])
def test_every_pattern_against_a_plain_loop(setting, monkeypatch, chunk):
    monkeypatch.setattr(predictions, "CHUNK", chunk)
    pipe, variables, params, arrays = setting
    images, labels = arrays["images"], np.asarray(arrays["labels"])
    patterns = erasures.patterns_up_to(4, 2)
    outcomes = pattern_accuracy.measure_patterns(
        TrainedPipeline(pipe, variables, params), arrays, patterns
    )
    assert [outcome.lost for outcome in outcomes] == patterns
    target = pipeline.base_features(pipe, variables, images)
    base = np.asarray(pipe.base.head(variables, target)).argmax(1)
    for outcome in outcomes:
        mask = erasures.available(outcome.lost, 4)
        logits, merged = plainly(pipe, variables, params, images, mask)
        predicted = np.asarray(logits).argmax(1)
        assert outcome.accuracy == pytest.approx((predicted == labels).mean())
        assert outcome.agreement == pytest.approx((predicted == base).mean())
        mse = float(np.square(merged - target).mean())
        assert outcome.feature_mse == pytest.approx(mse, rel=1e-4)
    accuracy = pattern_accuracy.base_accuracy(pipe, variables, arrays)
    assert accuracy == pytest.approx((base == labels).mean())


def test_one_compilation_serves_every_pattern_and_split(setting, monkeypatch):
    monkeypatch.setattr(predictions, "CHUNK", 5)
    pipe, variables, params, arrays = setting
    traced = []

    def count(shape, code):
        def encode(params, pieces):
            traced.append("encode")
            return code.encode(params, pieces)

        def decode(params, features, available):
            traced.append("decode")
            return code.decode(params, features, available)

        return code._replace(encode=encode, decode=decode)

    counted = pipe.with_codes(count)
    patterns = erasures.patterns_up_to(4, 2)
    for images in (17, 11):  # the second as of another split
        split = {name: array[:images] for name, array in arrays.items()}
        pattern_accuracy.measure_patterns(
            TrainedPipeline(counted, variables, params), split, patterns
        )
    assert traced == ["encode", "decode"]


def test_deviations_are_over_seeds_not_over_patterns():
    """Catches a mean over the wrong axis, which leaves the mean itself right."""

    def seed(*accuracies):
        return [
            PatternAccuracy((i,), accuracy, 1, 0, accuracy)
            for i, accuracy in enumerate(accuracies)
        ]

    # The seeds' means are 0.7 and 0.5, the patterns' 0.8, 0.6 and 0.4.
    summary = pattern_accuracy.summarise([seed(0.9, 0.7, 0.5), seed(0.7, 0.5, 0.3)])
    expected = {"mean": 0.6, "worst": 0.4, "decoded": 0.6}
    deviations = {f"{name}_std": math.sqrt(0.02) for name in expected}
    assert summary["1"] == pytest.approx(expected | deviations)


def classes_are_bright_pixels(classes):
    """A pipeline whose base model reads the class off the image, and such images."""
    base = BaseModel(
        lambda *_: {},
        (lambda variables, x: x * 1.0,),
        lambda variables, features: features.reshape(len(features), -1)[:, :10],
    )
    config = Config(dataset="own", base_model="own", code="zero_fill")
    pipe = build_pipeline(config, Examples((4, 4, 1), (0.0,), (1.0,)), 10, base=base)
    images = np.zeros((len(classes), 16), np.uint8)
    images[np.arange(len(classes)), classes] = 255
    return pipe, jnp.asarray(images.reshape(-1, 4, 4, 1))


def test_images_without_a_label_do_not_count(monkeypatch):
    """Catches a denominator with the images whose label is -1, and a numerator too."""
    monkeypatch.setattr(predictions, "CHUNK", 3)
    pipe, images = classes_are_bright_pixels([0, 1, 2, 3, 9, 5, 6, 8])
    labels = jnp.array([0, 1, -1, 3, 9, -1, -1, 7])  # 4 of 5 are right
    arrays = {"images": images, "labels": labels}
    assert pattern_accuracy.base_accuracy(pipe, {}, arrays) == pytest.approx(0.8)
    # Without the second half of the image, class 9 is lost.
    whole, half = pattern_accuracy.measure_patterns(
        TrainedPipeline(pipe, {}, ({},)), arrays, [(), (1,)]
    )
    assert whole.accuracy == pytest.approx(0.8) and whole.agreement == 1
    assert half.accuracy == pytest.approx(0.6)
    # One pixel of 16 is lost, of two images that count, 8 and 9.
    assert half.feature_mse == pytest.approx(2 / 16 / 5)


TINY = (12, 12, 1)


def logits_statistic(prediction, parameter):
    return prediction.logits


def rounded(shape):
    """Zero-fill of pieces that are sent with few bits."""
    code = codes.zero_fill(shape)
    encode = lambda params, pieces: jnp.round(32 * code.encode(params, pieces)) / 32
    return code._replace(encode=encode)


@pytest.mark.parametrize("stage_losses", ["held", *long("later")])
@pytest.mark.parametrize(
    "devices, code, moves",
    [
        (1, "learned", True),
        (1, rounded, False),
        *long((1, "learned", False), (4, "learned", True)),
    ],
)
def test_stages_that_are_not_coded_change_no_logits(
    monkeypatch, stage_losses, devices, code, moves
):
    """Stages before losses begin are computed whole, and those that lose no data."""
    monkeypatch.setattr(predictions, "CHUNK", 5)
    base = base_model([ConvNorm(3), ConvNorm(4, stride=2), ConvNorm(4)])
    variables = random_variables(base, TINY)
    own = {"dataset": "own", "base_model": "own", "recipe": "systematic"}
    changes = {"parity_moves": moves, "code": code}
    config = Config(**own, **changes, r=2, stages=((1, 1), (2, 2), (3, 3)))
    pipe = build_pipeline(config, Examples(TINY, (0.1,), (0.3,)), 10, base=base)
    params = pipe.init(jax.random.key(3))
    rng = np.random.default_rng(0)
    arrays = {
        "images": rng.integers(0, 256, (17, *TINY), np.uint8),
        "labels": np.arange(17, dtype=np.int32) % 11 - 1,
    }
    patterns = [(), (0,), (1, 2), (0, 1, 2)]
    mesh = make_mesh(4, devices, None)
    trained = TrainedPipeline(pipe._replace(mesh=mesh), variables, params)
    arrays_there = placement.put_replicated(mesh, arrays)
    inputs = (trained, arrays_there, patterns, logits_statistic)
    settings = {"stage_losses": stage_losses, "first_row": 7}
    each = predictions.measure(*inputs, per_image=True, **settings)
    counts = arrays["labels"] >= 0
    infer = jax.jit(pipeline.infer, static_argnums=0)
    for lost, logits in zip(patterns, each, strict=True):
        if stage_losses == "held":
            masks = erasures.in_stages(lost, 4, 3)
        else:
            rows = jnp.arange(7, 24)
            masks = erasures.begin_in_stages(jax.random.key(0), lost, 4, 3, rows)
        expected = infer(pipe, variables, params, arrays["images"], masks)
        np.testing.assert_allclose(logits, expected[counts], rtol=1e-4, atol=1e-5)
    means = predictions.measure(*inputs, **settings)
    np.testing.assert_allclose(means, each.mean(axis=1), rtol=1e-4, atol=1e-6)
