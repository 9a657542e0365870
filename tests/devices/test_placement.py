"""Any number of devices gives the numbers of one, and moves the data twice."""

import functools
import itertools
import re

import jax
import numpy as np
import optax
import pytest

from coded_jax.codes import erasures
from coded_jax.devices import placement
from coded_jax.devices.meshes import arrange, make_mesh
from coded_jax.evaluation import pattern_accuracy
from coded_jax.evaluation.predictions import TrainedPipeline
from coded_jax.inference.pipeline import Examples, infer
from coded_jax.models.modules import ConvNorm, base_model
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from coded_jax.splitting.plan import make_plan
from coded_jax.training import steps, tasks
from coded_jax.training.exact_targets import with_targets
from coded_jax.training.losses import base_losses, coded_losses
from coded_jax.types import CodeShape, Dataset, Split
from tests.devices.counts import devices
from tests.models.published import random_variables
from tests.parameters import long
from tests.pipelines import learned, one_stage

SHAPE = (28, 28, 1)
B = 24  # divided by all of 1, 2, 3, 4, 6 and 8


def pipeline_on(lenet, mesh, k=2, r=1, make_code=learned):
    base, variables = lenet
    plan = make_plan(base.f_conv, variables, SHAPE, (k, 1))
    shape = CodeShape(k, r, plan.piece_shape, plan.share_shape)
    return one_stage(base, plan, make_code(shape), (0.13,), (0.31,), r, mesh)


def images_of(size):
    return np.random.default_rng(0).integers(0, 256, (size, *SHAPE), np.uint8)


@pytest.fixture(scope="module")
def expected(lenet):
    """Logits on one device for a code and a mask of every example."""

    @functools.cache
    def compute(k, r, size):
        pipe = pipeline_on(lenet, None, k, r)
        params = jax.jit(pipe.init)(jax.random.key(1))
        mask = erasures.sample(jax.random.key(2), k + r, r, size)
        run = jax.jit(infer, static_argnums=0)
        return params, mask, run(pipe, lenet[1], params, images_of(size), mask)

    return compute


@pytest.mark.parametrize(
    "k, r, count, shape",
    [
        (2, 1, 6, None),
        (2, 1, 8, (4, 2)),  # as on a TPU, all of whose chips take part: one has none
        *long((2, 1, 1, None), (4, 2, 4, None), (4, 2, 6, None), (4, 2, 8, (8, 1))),
    ],
)
def test_inference_on_any_number_of_devices(lenet, expected, k, r, count, shape):
    devices(count)
    mesh = arrange(jax.devices(), shape) if shape else make_mesh(k + r, count)
    pipe = pipeline_on(lenet, mesh, k, r)
    run = jax.jit(infer, static_argnums=0)
    # Batches that the devices do not divide, and that are fewer than devices.
    for size in (13, 1):
        params, mask, logits = expected(k, r, size)
        variables, params = placement.put_replicated(mesh, (lenet[1], params))
        gathered = run(pipe, variables, params, images_of(size), mask)
        np.testing.assert_allclose(gathered, logits, rtol=1e-4, atol=1e-5)
        assert gathered.sharding.is_fully_replicated


def test_one_mask_for_all_images(lenet, expected):
    mesh = make_mesh(3, devices(4))
    params, _, _ = expected(2, 1, B)
    mask = erasures.available([0], 3)
    run = jax.jit(infer, static_argnums=0)
    gathered, logits = (
        run(pipeline_on(lenet, m), lenet[1], params, images_of(B), mask)
        for m in (mesh, None)
    )
    np.testing.assert_allclose(gathered, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "count, kept, batch",
    [(6, True, 10), (6, False, 2)]  # the second: fewer than devices
    + long(*itertools.product((1, 3, 8), (True, False), (10,))),
)
def test_training_on_any_number_of_devices(lenet, count, kept, batch):
    split = Split(images_of(B), np.zeros(B, np.int32))
    states = []
    optimizer = optax.sgd(0.1)
    for mesh in (None, make_mesh(3, devices(count))):
        pipe = pipeline_on(lenet, mesh)
        frozen = placement.put_replicated(mesh, lenet[1])
        arrays = tasks.device_arrays(mesh, split)
        if kept:
            arrays = with_targets(pipe, frozen, arrays)
        dataset = Dataset("tiny", 10, split, split, split, (0.13,), (0.31,))
        task = tasks.code_task(pipe, frozen, dataset, optimizer, patterns=[()])
        fresh = steps.initial_state(task.init, optimizer, jax.random.key(0))[0]
        state = placement.put_replicated(mesh, fresh)
        for _ in range(2):
            state, metrics = steps.train_steps(
                state,
                frozen,
                arrays,
                placement.put_replicated(mesh, np.arange(B, dtype=np.int32)),
                placement.put_replicated(mesh, jax.random.key(5)),
                loss=task.loss,
                optimizer=optimizer,
                batch_size=batch,  # 10, which 3, 4, 6 and 8 do not divide
            )
        states.append((state.params, metrics["loss"]))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6), *states
    )


@functools.cache
def two_stages(mesh):
    """A base model with batch norm, in two coded stages, and variables of both."""
    base = base_model([ConvNorm(3), ConvNorm(4, stride=2)])
    variables = random_variables(base, SHAPE)
    config = Config(
        dataset="own",
        base_model="own",
        recipe="systematic",
        stages=((1, 1), (2, 2)),
        encoder="conv",
        decoder="conv",
        encoder_width=2,
        decoder_width=2,
        dilations=(1,),
    )
    pipe = build_pipeline(config, Examples(SHAPE, (0.13,), (0.31,)), 10, mesh, base)
    return pipe, variables


@pytest.mark.parametrize("batch", [10, *long(8, 3)])  # on 4 devices
def test_base_model_with_batch_norm_on_several_devices(batch):
    per_mesh = []
    data = {"images": images_of(batch), "labels": np.arange(batch, dtype=np.int32)}
    for mesh in (None, make_mesh(3, devices(4), (2, 2))):
        pipe, variables = two_stages(mesh)
        arguments = placement.put_replicated(mesh, (variables, data))
        per_mesh.append(jax.jit(functools.partial(base_losses, pipe))(*arguments))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *per_mesh
    )


@pytest.mark.parametrize("batch", [10, *long(3)])
def test_losses_and_logits_of_a_chain_on_several_devices(batch):
    per_mesh = []
    images = images_of(batch)
    images[: batch // 2] //= 8  # so that parts of the batch differ in scale
    available = np.ones((2, 3, batch), bool)
    available[0, 0, 1] = available[1, 1, 2] = available[:, 2, 0] = False
    for mesh in (None, make_mesh(3, devices(4), (2, 2))):
        pipe, variables = two_stages(mesh)
        params = jax.jit(pipe.init)(jax.random.key(1))
        put = functools.partial(placement.put_replicated, mesh)
        frozen, params, pixels, mask = put((variables, params, images, available))
        loss = jax.jit(functools.partial(coded_losses, pipe))
        logits = jax.jit(infer, static_argnums=0)(pipe, frozen, params, pixels, mask)
        per_mesh.append((loss(params, frozen, {"images": pixels}, mask), logits))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *per_mesh
    )


def test_evaluation_on_several_devices(lenet):
    split = {"images": images_of(29), "labels": np.arange(29, dtype=np.int32) % 10}
    patterns = erasures.patterns_up_to(3, 1)
    per_mesh = []
    for mesh in (None, make_mesh(3, devices(6))):
        pipe = pipeline_on(lenet, mesh)
        params = jax.jit(pipe.init)(jax.random.key(1))
        frozen, params, arrays = placement.put_replicated(
            mesh, (lenet[1], params, split)
        )
        outcomes = pattern_accuracy.measure_patterns(
            TrainedPipeline(pipe, frozen, params), arrays, patterns
        )
        base = pattern_accuracy.base_accuracy(pipe, frozen, arrays)
        per_mesh.append([base, *(value for o in outcomes for value in o[1:])])
    np.testing.assert_allclose(*per_mesh, rtol=1e-4, atol=1e-9)


def collectives(compiled):
    names = ("all-to-all", "all-gather", "all-reduce", "collective-permute")
    text = compiled.as_text()
    counts = {name: len(re.findall(rf"{name}(?:-start)?\(", text)) for name in names}
    return {name: count for name, count in counts.items() if count}


def compiled_inference(pipe, variables, batch):
    params = jax.eval_shape(pipe.init, jax.random.key(0))
    images = jax.ShapeDtypeStruct((batch, *SHAPE), np.uint8)
    mask = jax.ShapeDtypeStruct((pipe.n, 1), bool)
    run = jax.jit(infer, static_argnums=0)
    return run.lower(pipe, variables, params, images, mask).compile()


@pytest.mark.parametrize("k, r, count", [(2, 1, 6), (4, 2, 4)])
def test_one_all_to_all_each_way(lenet, k, r, count):
    pipe = pipeline_on(lenet, make_mesh(k + r, devices(count)), k, r)
    # The all-gather collects the logits.
    found = collectives(compiled_inference(pipe, lenet[1], B))
    assert found == {"all-to-all": 2, "all-gather": 1}


@pytest.mark.parametrize("batch", [1, *long(3)])
def test_a_small_batch_needs_one_gather_for_each_stage(lenet, batch):
    pipe = pipeline_on(lenet, make_mesh(3, devices(6)))
    assert collectives(compiled_inference(pipe, lenet[1], batch)) == {"all-gather": 1}
    pipe, variables = two_stages(make_mesh(3, devices(4), (2, 2)))
    assert collectives(compiled_inference(pipe, variables, batch)) == {"all-gather": 2}
