"""The programs of an experiment, described by shapes alone, compile as they run."""

import dataclasses
import json

import pytest

from coded_jax.aot import programs
from coded_jax.devices.meshes import make_mesh
from coded_jax.runs.config import Config
from coded_jax.runs.phases import CODE
from tests.devices.counts import devices
from tests.parameters import long

SIZES = programs.Sizes((28, 28, 1), classes=10, examples=3500)
INFERENCES = ["coded inference of 12", "uncoded inference of 12"]
STEP = "training step, code"


def test_the_main_programs():
    config = Config(dataset="mnist_5k", batch_size=12)
    mesh = make_mesh(config.n, devices(6))
    subject = programs.Subject(config, SIZES, mesh)
    chosen = [subject.inference(12), subject.uncoded_inference(12), subject.step(CODE)]
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
    for program in programs.Subject(TINY, SIZES, mesh).programs((1, 12), [kind]):
        outcome = programs.compile_program(program)
        assert outcome.refusal is None and outcome.figures.needed > 0
        as_json = json.loads(json.dumps(dataclasses.asdict(outcome)))
        assert programs.Compiled.from_json(as_json) == outcome


def test_bytes_of_a_query_and_of_a_share():
    mesh = make_mesh(TINY.n, 1)
    ((query, share),) = programs.Subject(TINY, SIZES, mesh).exchanged
    assert (query, share) == (4 * 20 * 28, 4 * 2 * 4 * 16)  # LeNet-5 in two strips
    halved = dataclasses.replace(TINY, precision="bfloat16")
    exchanged = programs.Subject(halved, SIZES, mesh).exchanged
    assert exchanged == [[query // 2, share // 2]]
