"""The programs of an experiment, described by shapes alone, compile as they run."""

import json

import pytest

from coded_jax.aot import programs
from coded_jax.devices.meshes import make_mesh
from coded_jax.runs.config import Config
from tests.devices.counts import devices
from tests.parameters import long

SIZES = programs.Sizes((28, 28, 1), classes=10, examples=3500)
INFERENCES = ["coded inference of 12", "uncoded inference of 12"]
STEP = "training step, code"


def test_the_main_programs():
    config = Config(dataset="mnist_5k", batch_size=12)
    mesh = make_mesh(config.n, devices(6))
    chosen = programs.main_programs(config, SIZES, mesh, batch=12)
    outcomes = list(map(programs.compile_program, chosen))
    assert [outcome.name for outcome in outcomes] == [*INFERENCES, STEP]
    kinds = [set(outcome.figures.collectives) for outcome in outcomes]
    assert kinds[:2] == [{"all-to-all", "all-gather"}, {"all-gather"}]
    for exchanged in kinds[2:]:  # gradients, and the losses that are logged
        assert exchanged <= {"all-reduce", "all-gather"}


TINY = Config(
    recipe="systematic", encoder="linear", decoder="low_rank", batch_size=12,
    base_batch_size=24,
)  # fmt: skip


@pytest.mark.parametrize(
    "kind, count", [("local", 3), *long(("training", 4), ("evaluation", 4))]
)
def test_every_program_compiles(kind, count):
    mesh = make_mesh(TINY.n, devices(count))
    for program in programs.programs_of(TINY, SIZES, mesh, (1, 12), [kind]):
        outcome = programs.compile_program(program)
        assert outcome.refusal is None and outcome.figures.needed > 0
        as_json = json.loads(json.dumps(outcome.to_json()))
        assert programs.Compiled.from_json(as_json) == outcome


def test_bytes_of_a_query_and_of_a_share():
    ((query, share),) = programs.exchanged(TINY, SIZES)
    assert (query, share) == (4 * 20 * 28, 4 * 2 * 4 * 16)  # LeNet-5 in two strips
    halved = Config(**{**TINY.__dict__, "precision": "bfloat16"})
    assert programs.exchanged(halved, SIZES) == [[query // 2, share // 2]]
