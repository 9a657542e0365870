"""Training steps on every target: devices exchange gradients, and no pieces."""

import pytest

from coded_jax.runs.phases import BASE, CODE
from coded_jax.training.steps import CALL_STEPS
from tests.aot.described import design
from tests.aot.described.design import parameters, subject
from tests.aot.described.expectations import collectives_of, compiled
from tests.aot.described.targets import chip_of_target

pytestmark = pytest.mark.aot
OF_GRADIENTS = {"all-reduce", "all-gather", "reduce-scatter"}
OPTIONS = {"loop": {"count": CALL_STEPS}, "seeds": {"seeds": 2}}


@pytest.mark.parametrize("case, kind", parameters(design.steps()))
def test_training(case, kind):
    made, chip = subject(case), chip_of_target(case.target)
    phase = BASE if kind == "base" else CODE
    program = made.step(phase, **OPTIONS.get(kind, {}))
    kinds = set(collectives_of(compiled(program), chip))
    assert kinds <= (OF_GRADIENTS if made.mesh.size > 1 else set())
