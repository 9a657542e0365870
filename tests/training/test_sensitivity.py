"""How much the logits feel each feature map, against closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax import codes
from coded_jax.inference.stages import CodedStage, Segment
from coded_jax.splitting.plan import make_plan
from coded_jax.training.losses import coded_losses
from coded_jax.training.sensitivity import LEAST, sensitivities
from coded_jax.types import BaseModel, CodeShape
from tests.pipelines import one_stage

SHAPE = (8, 8, 3)
GAINS = np.array([1.0, 2.0, 0.0], np.float32)


def two_stages():
    """Pixels, times `gain` in the second stage, and three logits: sums of the maps."""
    first, second = (lambda v, x: x + 0.0), (lambda v, x: x * v["gain"])
    head = lambda v, features: features.sum(axis=(1, 2))
    base = BaseModel(lambda *_: {}, (first, second), head)
    plan = make_plan(first, {}, SHAPE, (2, 1))
    code = codes.zero_fill(CodeShape.of(plan, 1))
    pipe = one_stage(base, plan, code, None, None, 1)
    stages = (
        CodedStage(first, (1, 1), plan, code),
        CodedStage(second, (2, 2), plan, code),
    )
    return pipe._replace(stages=stages, after=Segment(), image_shape=SHAPE)


def test_by_hand():
    pipe = two_stages()
    images = np.random.default_rng(0).normal(size=(300, *SHAPE)).astype("f")
    variables = {"gain": jnp.asarray(GAINS).reshape(1, 1, 1, 3)}
    first, second = sensitivities(pipe, variables, images)
    # The logits have the gradients GAINS of the first stage's maps, 1 of the second's.
    squares = np.maximum(GAINS**2 / np.mean(GAINS**2), LEAST)
    np.testing.assert_allclose(first, squares / squares.mean(), rtol=0.15)
    np.testing.assert_allclose(second, 1, rtol=0.15)
    assert float(first.mean()) == pytest.approx(1)


def test_weights_in_the_loss():
    pipe = two_stages()
    images = np.random.default_rng(0).normal(size=(4, *SHAPE)).astype("f")
    variables = {"gain": jnp.ones((1, 1, 1, 3))}
    mask = np.array([[False], [True], [True]])
    inputs = (pipe, ({}, {}), variables, {"images": jnp.asarray(images)}, mask, None)
    weights = (jnp.array([0.5, 0.0, 2.5]), jnp.array([3.0, 0.0, 0.0]))
    losses = coded_losses(*inputs, weights)
    expected = 0
    for weight in map(np.asarray, weights):  # the first four rows are zero
        lost = (weight * np.square(images[:, :4])).sum(axis=(1, 2, 3))
        expected += lost / (weight * np.square(images)).sum(axis=(1, 2, 3)).mean()
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    alike = coded_losses(*inputs)
    ones = (jnp.ones(3), jnp.ones(3))
    np.testing.assert_allclose(coded_losses(*inputs, ones), alike, rtol=1e-6)
    assert not np.allclose(losses, alike, rtol=1e-2)
