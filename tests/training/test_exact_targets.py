"""Exact outputs that are kept take their own memory, and no more."""

import jax
import numpy as np
import pytest

from coded_jax.devices import memory
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


def test_little_memory_keeps_little(lenet, monkeypatch):
    pipe, size = make(lenet), 6 * 256 * 4
    arrays = {"images": np.zeros((6, 28, 28, 1), np.float32)}
    for memory_of_device, kept in ((4 * size, True), (4 * size - 4, False)):
        of_device = lambda _, memory=memory_of_device: memory
        monkeypatch.setattr(exact_targets, "memory_of_device", of_device)
        assert ("targets" in exact_targets.with_targets(pipe, lenet[1], arrays)) == kept


def test_memory_of_the_host_is_at_most_that_of_the_container(monkeypatch, tmp_path):
    whole = memory.memory_of_host()
    assert 1 << 28 < whole
    monkeypatch.setattr(memory, "CGROUP_LIMIT", tmp_path / "memory.max")
    (tmp_path / "memory.max").write_text("100000\n")
    assert memory.memory_of_host() == memory.memory_of_device(None) == 100000
