"""The programs of an experiment, described by shapes alone, compile as they run."""

import json

import pytest

from coded_jax.devices.hlo import Module
from coded_jax.devices.meshes import make_mesh
from coded_jax.runs.config import Config
from coded_jax.studies import programs
from coded_jax.training.steps import MAPS_SEEDS
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


TINY = Config(
    recipe="systematic",
    encoder="linear",
    decoder="low_rank",
    batch_size=12,
    base_batch_size=24,
)
NAMES = {
    "inference": [
        "coded inference of 1",
        "uncoded inference of 1",
        "coded inference of 12",
        "uncoded inference of 12",
    ],
    "training": [
        "training step, base",
        "training step, code",
        "training, code, loop of 50 steps",
        *["training step, code, 2 seeds"] * MAPS_SEEDS,
    ],
    "evaluation": [
        "evaluation, results of 504",
        "evaluation, one pattern on 504",
    ],
    "local": [
        f"local engine, {name} of {batch}"
        for batch in (1, 12)
        for name in ("encoding", "a piece of stage 1", "decoding stage 1")
    ],
}


def programs_on(count, config=TINY, kinds=programs.KINDS):
    mesh = make_mesh(config.n, devices(count))
    return list(programs.programs_of(config, SIZES, mesh, (1, 12), kinds))


def test_the_programs_of_an_experiment():
    made = programs_on(6)
    assert [x.name for x in made] == [
        name for names in NAMES.values() for name in names
    ]
    for kind, names in NAMES.items():
        assert [x.name for x in programs_on(6, kinds=[kind])] == names
    assert [x.images for x in made[:7]] == [1, 1, 12, 12, 24, 12, 12]
    local = {x.mesh.size for x in made if x.name.startswith("local")}
    others = {x.mesh.size for x in made if not x.name.startswith("local")}
    assert (local, others) == ({1}, {6})
    assert {x.dtype for x in made} == {"float32"}


@pytest.mark.parametrize("kinds", [[], ["training", "inferences"]])
def test_other_kinds_are_refused(kinds):
    accepted = "some of inference, training, evaluation, local accepted"
    with pytest.raises(ValueError, match=accepted):
        programs_on(1, kinds=kinds)


def test_a_code_that_learns_nothing_has_no_steps():
    names = [x.name for x in programs_on(1, Config(code="mds"), ["training"])]
    assert names == ["training step, base"]


@pytest.mark.skipif(not MAPS_SEEDS, reason="an older JAX trains them one by one")
def test_more_seeds_are_trained_at_once():
    config = Config(batch_size=12, seeds=5)
    last = programs_on(1, config, ["training"])[-1]
    assert (last.name, last.images) == ("training step, code, 5 seeds", 60)


@pytest.mark.parametrize(
    "kind, count",
    [("inference", 6), ("local", 3)]
    + long(("inference", 1), ("training", 4), ("evaluation", 4), ("training", 1)),
)
def test_every_program_compiles(kind, count):
    for program in programs_on(count, kinds=[kind]):
        outcome = programs.compile_program(program)
        assert outcome.refusal is None
        assert outcome.mesh == program.mesh.devices.shape
        assert outcome.figures.needed > 0 and outcome.figures.host == ()
        if program.mesh.size == 1:
            assert outcome.figures.collectives == {}
        as_json = json.loads(json.dumps(outcome.to_json()))
        assert programs.Compiled.from_json(as_json) == outcome


def test_a_refusal_is_one_line():
    class Lowered:
        def compile(self, options):
            raise RuntimeError("INTERNAL: no such layout\nand 200 lines of it")

    program = programs_on(1)[0]._replace(lower=Lowered)
    outcome = programs.compile_program(program)
    assert outcome.figures is None
    assert outcome.refusal == "INTERNAL: no such layout"
    as_json = json.loads(json.dumps(outcome.to_json()))
    assert programs.Compiled.from_json(as_json) == outcome


@pytest.mark.parametrize("batch", [1, 12])
def test_the_erasure_pattern_is_an_input(batch):
    """Inputs that a program does not use are dropped, as a pattern it has fixed is."""
    subject = programs.Subject(TINY, SIZES, make_mesh(3, devices(3)))
    lowered = subject.inference(batch).lower()
    module = Module(lowered.compile().as_text())
    inputs = [x for x in module.computations[module.entry] if x.opcode == "parameter"]
    assert [x.types for x in inputs].count("pred[3,1]{1,0}") == 1


def test_the_same_mesh_or_others_are_compared():
    shapes = [(3, 1), (1, 3)]
    meshes = [make_mesh(3, devices(3), shape) for shape in shapes]
    made = list(programs.inferences(TINY, SIZES, meshes, (4, 8)))
    assert [x.mesh.devices.shape for x in made] == [(3, 1), (3, 1), (1, 3), (1, 3)]
    assert [x.images for x in made] == [4, 8, 4, 8]


def test_bytes_of_a_query_and_of_a_share():
    ((query, share),) = programs.exchanged(TINY, SIZES)
    assert (query, share) == (4 * 20 * 28, 4 * 2 * 4 * 16)  # LeNet-5 in two strips
    halved = Config(**{**TINY.__dict__, "precision": "bfloat16"})
    assert programs.exchanged(halved, SIZES) == [[query // 2, share // 2]]
