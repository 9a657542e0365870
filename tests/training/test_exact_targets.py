"""Exact outputs that are kept take their own memory, and no more."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from coded_jax.devices import memory
from coded_jax.splitting.plan import make_plan
from coded_jax.training import exact_targets
from coded_jax.types import CodeShape
from tests.pipelines import one_stage, untrained

PEAK = r"""
import re
import jax, numpy as np
from coded_jax.codes import LearnedConfig, make_code
from coded_jax.splitting.plan import make_plan
from coded_jax.training import exact_targets
from coded_jax.types import BaseModel, CodeShape
from tests.pipelines import one_stage

def convolve(variables, x):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, variables["kernel"], (1, 1), "VALID", dimension_numbers=layout
    )

variables = {"kernel": np.ones((3, 3, 1, 32), np.float32)}
plan = make_plan(convolve, variables, (16, 16, 1), (2, 1))
sizes = CodeShape(2, 1, plan.piece_shape, plan.share_shape)
code = make_code("zero_fill", sizes, {}, LearnedConfig())
base = BaseModel(None, (convolve,), None)
pipe = one_stage(base, plan, code, None, None, 1)

def peak():
    # Not `ru_maxrss`, which begins with that of the process that started this one.
    status = open("/proc/self/status").read()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])

images = np.random.default_rng(0).normal(size=(16000, 16, 16, 1)).astype("float32")
images = jax.numpy.asarray(images)
few = {"images": images[: 2 * exact_targets.CHUNK]}
exact_targets.with_targets(pipe, variables, few)
before = peak()
(kept,) = exact_targets.with_targets(pipe, variables, {"images": images})["targets"]
print(kept.nbytes, peak() - before)
"""


def make(lenet):
    """LeNet-5 in two pieces, of images as they are."""
    base, variables = lenet
    plan = make_plan(base.f_conv, variables, (28, 28, 1), (2, 1))
    sizes = CodeShape(2, 1, plan.piece_shape, plan.share_shape)
    return one_stage(base, plan, untrained("zero_fill", sizes), None, None, 1)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="kilobytes are Linux's unit")
def test_the_peak_is_the_size_of_what_is_kept():
    done = subprocess.run(
        [sys.executable, "-c", PEAK], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    size, growth = map(int, done.stdout.split())
    assert size > 400e6
    assert size * 0.8 < growth < size * 1.4


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
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.memory_of_host() >= whole


def test_simulated_devices_share_the_memory_of_the_host():
    mesh = jax.make_mesh((1, 4), ("data", "piece"), devices=jax.devices()[:4])
    assert memory.memory_of_device(mesh) == memory.memory_of_host() // 4
