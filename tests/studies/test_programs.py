"""The programs of an experiment, described by shapes alone, compile as they run."""

import pytest

from coded_jax.devices.meshes import make_mesh
from coded_jax.runs.config import Config
from coded_jax.studies import programs
from tests.devices.counts import devices
from tests.parameters import long

SIZES = programs.Sizes((28, 28, 1), classes=10, examples=3500)
INFERENCES = ["coded inference of 12", "uncoded inference of 12"]
STEP = "training step, code"


@pytest.mark.parametrize(
    "code, step", [("learned", [STEP]), *long(("replication", []))]
)
def test_the_main_programs(code, step):
    config = Config(dataset="mnist_5k", code=code, batch_size=12)
    mesh = make_mesh(config.n, devices(6))
    chosen = programs.main_programs(config, SIZES, mesh, batch=12)
    outcomes = list(map(programs.compile_program, chosen))
    assert [outcome.name for outcome in outcomes] == INFERENCES + step
    kinds = [set(outcome.figures.collectives) for outcome in outcomes]
    assert kinds[:2] == [{"all-to-all", "all-gather"}, {"all-gather"}]
    for exchanged in kinds[2:]:  # gradients, and the losses that are logged
        assert exchanged <= {"all-reduce", "all-gather"}
