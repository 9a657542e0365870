"""Training a copy of the tail: what reaches it, and what reaches the codes."""

import functools

import jax
import numpy as np
import pytest

from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from coded_jax.training.losses import coded_losses
from tests.models.published import random_variables

B = 4
SHAPE = (16, 16, 3)
SETTINGS = dict(
    base_model="vgg16",
    base_width=1 / 16,
    stages=((1, 2), (3, 3)),
    grid=(1, 2),
    recipe="systematic",
    parity_pieces="smaller",
    encoder="linear",
    decoder="sharpen",
)


@functools.cache
def gradients(**settings):
    """Gradients of the loss with one lost data result, of codes and of the tail."""
    config = Config(**SETTINGS, **settings)
    statistics = (0.5,) * 3
    pipeline = build_pipeline(config, SHAPE, 10, statistics, statistics)
    frozen = random_variables(pipeline.base, SHAPE, 10)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (B, *SHAPE), dtype=np.uint8)
    batch = {"images": images, "labels": rng.integers(0, 10, B, dtype=np.int32)}
    available = np.array([[False], [True], [True]])
    params = pipeline.init(jax.random.key(0))

    @jax.jit
    @jax.grad
    def gradient(params):
        inputs = (pipeline, params, frozen, batch, available, config)
        return coded_losses(*inputs).mean()

    *codes, tail = gradient(params) if pipeline.tail_copy else (*gradient(params), None)
    return codes, tail


def squares(tree):
    return sum(float(np.square(leaf).sum()) for leaf in jax.tree.leaves(tree))


def assert_close(tree, other):
    for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-6)


def test_both_learn_from_the_answers():
    alone, _ = gradients()
    codes, tail = gradients(tail="tuned", supervision=1.0)
    assert squares(tail) > 0
    with pytest.raises(AssertionError):
        assert_close(codes, alone)


def test_codes_may_learn_from_the_errors_of_features_alone():
    alone, _ = gradients()
    codes, tail = gradients(tail="tuned", supervision=1.0, ends="tail")
    assert squares(tail) > 0
    assert_close(codes, alone)
    # The tail learns the same either way.
    assert_close(tail, gradients(tail="tuned", supervision=1.0)[1])


def test_an_intact_tail_learns_from_exact_features():
    codes, tail = gradients(tail="intact", supervision=1.0)
    assert_close(codes, gradients()[0])
    assert squares(tail) > 0
    with pytest.raises(AssertionError):
        assert_close(tail, gradients(tail="tuned", supervision=1.0)[1])


def test_what_nothing_would_train_is_refused():
    with pytest.raises(ValueError, match="^tail: 'tuned' given, frozen without"):
        Config(**SETTINGS, tail="tuned")
    with pytest.raises(ValueError, match="^tail: 'intact' given, frozen or tuned"):
        Config(**SETTINGS, tail="intact", distillation=1.0)
    with pytest.raises(ValueError, match="^ends: 'tail' given, all with tail=frozen"):
        Config(**SETTINGS, ends="tail", supervision=1.0)
    with pytest.raises(ValueError, match="^tail: 'tuned' given, frozen with split="):
        Config(split="group", tail="tuned", supervision=1.0)


def test_networks_of_bfloat16_have_a_copy():
    settings = {"recipe": "systematic", "tail": "tuned", "supervision": 1.0}
    config = Config(**settings, precision="bfloat16")
    pipeline = build_pipeline(config, (28, 28, 1), 10, (0.5,), (0.5,))
    assert pipeline.tail_copy.bytes > 0


def test_codes_that_are_exact_or_change_what_arrived_have_no_copy():
    for code, has in (("zero_fill", True), ("addition", True), ("no_parity", True)) + (
        ("replication", False),
        ("uncoded", False),
        ("mean_fill", False),
        ("berrut", False),
    ):
        config = Config(**SETTINGS, code=code, tail="tuned", supervision=1.0)
        statistics = (0.5,) * 3
        pipeline = build_pipeline(config, SHAPE, 10, statistics, statistics)
        assert (pipeline.tail_copy is not None) == has, code
        assert len(pipeline.init(jax.random.key(0))) == 2 + has
