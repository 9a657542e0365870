"""Training a copy of the tail: what reaches it, and what reaches the codes."""

import functools

import chex
import jax
import numpy as np
import pytest

from coded_jax.models.modules import ConvNorm, base_model
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from coded_jax.training.losses import coded_losses
from tests.models.published import random_variables

B = 4
SHAPE = (8, 8, 3)
SETTINGS = dict(
    dataset="own",
    base_model="own",
    stages=((1, 1), (2, 2)),
    grid=(1, 2),
    recipe="systematic",
    parity_pieces="smaller",
    encoder="linear",
    decoder="sharpen",
)
BASE = base_model([ConvNorm(4), ConvNorm(4)])


@functools.cache
def gradients(**settings):
    """Gradients of the loss with one lost data result, of codes and of the tail."""
    config = Config(**SETTINGS, **settings)
    statistics = (0.5,) * 3
    pipeline = build_pipeline(config, SHAPE, 10, statistics, statistics, base=BASE)
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


assert_close = functools.partial(chex.assert_trees_all_close, rtol=1e-3, atol=1e-6)


def test_codes_may_learn_from_the_errors_of_features_alone():
    alone, _ = gradients()
    codes, tail = gradients(tail="tuned", supervision=1.0, ends="tail")
    assert any(map(np.any, jax.tree.leaves(tail)))
    assert_close(codes, alone)
    # The tail learns the same either way.
    assert_close(tail, gradients(tail="tuned", supervision=1.0)[1])


def test_an_intact_tail_learns_from_exact_features():
    codes, tail = gradients(tail="intact", supervision=1.0)
    assert_close(codes, gradients()[0])
    assert any(map(np.any, jax.tree.leaves(tail)))
    with pytest.raises(AssertionError):
        assert_close(tail, gradients(tail="tuned", supervision=1.0)[1])
