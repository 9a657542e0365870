"""Exact outputs that are kept take their own memory, and no more."""

import jax
import numpy as np
import pytest

from coded_jax.splitting.plan import make_plan
from coded_jax.training import exact_targets
from coded_jax.types import CodeShape
from tests.pipelines import one_stage, untrained


def make(lenet):
    """LeNet-5 in two pieces, of images as they are."""
    base, variables = lenet
    plan = make_plan(base.f_conv, variables, (28, 28, 1), (2, 1))
    sizes = CodeShape(2, 1, plan.piece_shape, plan.share_shape)
    return one_stage(base, plan, untrained("zero_fill", sizes), None, None, 1)


@pytest.mark.parametrize("chunk", [4, 100])
def test_rows_are_those_of_each_chunk(lenet, monkeypatch, chunk):
    monkeypatch.setattr(exact_targets, "CHUNK", chunk)
    pipe = make(lenet)
    images = jax.random.normal(jax.random.key(0), (10, 28, 28, 1))
    (kept,) = exact_targets.with_targets(pipe, lenet[1], {"images": images})["targets"]
    exact = jax.jit(lenet[0].f_conv)(lenet[1], images)
    np.testing.assert_allclose(kept, exact, rtol=1e-4, atol=1e-5)
