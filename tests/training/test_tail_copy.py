"""Training a copy of the tail: what reaches it, and what reaches the codes."""

import functools

import chex
import jax
import numpy as np
import pytest

from coded_jax.inference.pipeline import Examples
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
    pipeline = build_pipeline(
        config, Examples(SHAPE, statistics, statistics), 10, base=BASE
    )
    frozen = random_variables(pipeline.base, SHAPE, 10)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (B, *SHAPE), dtype=np.uint8)
    batch = {"images": images, "labels": rng.integers(0, 10, B, dtype=np.int32)}
    available = np.array([[False], [True], [True]])
    params = pipeline.init(jax.random.key(0))

    @jax.jit
    @jax.grad
    def gradient(params):
        return coded_losses(
            pipeline, params, frozen, batch, available, config=config
        ).mean()

    *codes, tail = gradient(params) if pipeline.tail_copy else (*gradient(params), None)
    return codes, tail


def test_codes_and_the_tail_learn_from_answers():
    """The codes also learn from the errors of features, as without a copy."""
    alone, _ = gradients()
    codes, tail = gradients(tail="tuned", supervision=1.0)
    assert any(map(np.any, jax.tree.leaves(tail)))
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(codes, alone, rtol=1e-3, atol=1e-6)
