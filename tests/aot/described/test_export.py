"""The exported function on one chip of every kind."""

import functools

import jax
import jax.export
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from coded_jax.aot.topologies import compiler_options
from coded_jax.inference.pipeline import Examples
from coded_jax.runs import export
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.coded_model import CodedModel
from coded_jax.runs.config import Config
from tests.aot.described.design import CODES, SIZES, Case, parameters
from tests.aot.described.expectations import collectives_of, takes_pattern
from tests.aot.described.targets import chip_of_target, devices_of
from tests.models.published import random_variables

pytestmark = pytest.mark.aot
KINDS = ("v5e:1x1", "v6e:2x4", "v4:2x2x2", "v5p:2x2x1", "tpu7x:2x2x1", "h100:1")
STATISTICS = (0.13,), (0.31,)
SHAPE, CLASSES, _ = SIZES["lenet5"]


@functools.cache
def exported(config: Config) -> bytes:
    pipeline = build_pipeline(config, Examples(SHAPE, *STATISTICS), CLASSES)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: rng.normal(scale=0.1, size=x.shape).astype(x.dtype),
        jax.eval_shape(pipeline.init, jax.random.key(0)),
    )
    frozen = random_variables(pipeline.base, SHAPE)
    return export.serialize(CodedModel(pipeline, frozen, params))


CASES = [
    Case(target, "lenet5", code, (4, 2), "float32")
    for target, code in zip(KINDS, 2 * [*CODES], strict=True)
]


@pytest.mark.parametrize("case", parameters((case,) for case in CASES))
def test_an_exported_file_on_one_chip(case):
    device = devices_of(case.target)[0]
    place = SingleDeviceSharding(device)
    images = jax.ShapeDtypeStruct((5, *SHAPE), np.uint8, sharding=place)
    pattern = jax.ShapeDtypeStruct((6, 1), np.bool_, sharding=place)
    run = jax.jit(jax.export.deserialize(bytearray(exported(case.config))).call)
    program = run.lower(images, pattern).compile(compiler_options(device))
    assert collectives_of(program, chip_of_target(case.target)) == {}
    assert takes_pattern(program, 6)
    assert program.out_info.shape == (5, CLASSES)
