"""Coded inference on every target, with the collectives of the design."""

import functools

import pytest

from coded_jax.devices.meshes import make_mesh
from coded_jax.runs.config import Config
from coded_jax.studies import programs
from tests.aot.targets import TARGETS, chip_of_target, devices_of

pytestmark = pytest.mark.aot
MNIST = programs.Sizes((28, 28, 1), 10, 50_000)


@functools.cache
def subject(target, config, sizes):
    mesh = make_mesh(config.n, available=devices_of(target))
    return programs.Subject(config, sizes, mesh)


@pytest.mark.parametrize("target", ["v5e:2x4"])
def test_coded_inference(target):
    config = Config(k=2, r=1, recipe="systematic")
    batch = TARGETS[target] + 1
    outcome = programs.compile_program(subject(target, config, MNIST).inference(batch))
    assert outcome.refusal is None
    kinds = {kind: x.count for kind, x in outcome.figures.collectives.items()}
    assert kinds == {"all-to-all": 2, "all-gather": 1}
    assert outcome.figures.host == ()
    assert 0 < outcome.figures.needed < chip_of_target(target).memory
