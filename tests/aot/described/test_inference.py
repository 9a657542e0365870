"""Coded inference on every target, with the collectives of the design."""

import chex
import jax
import pytest

from coded_jax.codes import erasures
from coded_jax.data.groups import infer_images
from tests.aot.described import design
from tests.aot.described.design import Case, parameters, subject
from tests.aot.described.expectations import collectives_of, compiled, takes_pattern
from tests.aot.described.targets import chip_of_target

pytestmark = pytest.mark.aot
LARGE = {"lenet5": 1024, "vgg16": 256, "resnet18": 256}


def batch_of(case: Case, size: str) -> int:
    """Returns one image, a few more than there are devices, or many."""
    few = subject(case).mesh.size + 1
    return {"one": 1, "few": few, "many": LARGE[case.network]}[size]


@pytest.mark.parametrize("case, size", parameters(design.inferred()))
def test_coded_inference(case, size):
    made, batch = subject(case), batch_of(case, size)
    program = compiled(made.inference(batch))
    kinds = {"all-to-all": 2 * case.stages, "all-gather": 1}
    if batch < made.mesh.size:
        kinds = {"all-gather": case.stages}
    if made.mesh.size == 1:
        kinds = {}
    assert collectives_of(program, chip_of_target(case.target)) == kinds
    assert takes_pattern(program, made.pipeline.n)


@pytest.mark.parametrize("case", parameters((case,) for case in design.cases()))
def test_uncoded_inference(case):
    made, chip = subject(case), chip_of_target(case.target)
    kinds = {"all-gather": 1} if made.mesh.size > 1 else {}
    program = compiled(made.uncoded_inference(batch_of(case, "few")))
    assert collectives_of(program, chip) == kinds
    assert collectives_of(compiled(made.uncoded_inference(1)), chip) == {}


@pytest.mark.parametrize("case", parameters(design.evaluated()))
def test_evaluation(case):
    """Each device has its part of the images, and decodes no piece of another."""
    made, chip = subject(case), chip_of_target(case.target)
    results, pattern = map(compiled, made.evaluation())
    kinds = {"all-to-all": 2 * case.stages} if made.mesh.size > 1 else {}
    assert collectives_of(results, chip) == kinds
    assert "all-to-all" not in collectives_of(pattern, chip)
    assert takes_pattern(pattern, case.stages, made.pipeline.n)


@pytest.mark.parametrize("case", parameters((case,) for case in design.cases()))
def test_a_first_k_inference_on_one_device_each(case):
    names = []
    for part in subject(case).parts(4):
        assert collectives_of(compiled(part), chip_of_target(case.target)) == {}
        names.append(part.name)
    assert len(names) == 1 + 2 * case.stages


@pytest.mark.parametrize("case", parameters((case,) for case in design.cases()))
def test_one_trace_serves_every_erasure_pattern(case):
    made = subject(case)
    shapes = made._placed((made.frozen, made.params, made._images(4)))
    chex.clear_trace_counter()
    run = jax.jit(chex.assert_max_traces(infer_images, n=1), static_argnums=0)
    masks = [erasures.available(lost, made.pipeline.n) for lost in ([], [0], [1])]
    texts = {run.lower(made.pipeline, *shapes, mask).as_text() for mask in masks}
    assert len(texts) == 1
