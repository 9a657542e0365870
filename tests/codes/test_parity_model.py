"""Parity models: what they start as, and what they learn."""

import operator

import jax
import numpy as np
import optax
import pytest

from coded_jax.codes.erasures import available, patterns_up_to
from coded_jax.codes.parity_model import parity_model
from coded_jax.inference.pipeline import infer
from coded_jax.models import batch_norm
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from coded_jax.training import losses, steps, tasks
from coded_jax.types import CodeShape
from tests.codes.rival_examples import (
    SHAPE,
    images_of,
    pipeline_of,
)

NHWC = ("NHWC", "HWIO", "NHWC")


def test_a_parity_model_starts_as_the_addition_code(lenet):
    base, variables = lenet
    ours = pipeline_of(base, code="parity_model")
    sums = pipeline_of(base, code="addition")
    params = jax.jit(ours.init)(jax.random.key(0))
    run = jax.jit(infer, static_argnums=0)
    for lost in patterns_up_to(3, 1):
        mask = available(lost, 3)
        np.testing.assert_allclose(
            run(ours, variables, params, images_of(), mask),
            run(sums, variables, ({},), images_of(), mask),
            atol=1e-4,
        )


def test_a_parity_model_learns_and_leaves_the_base_model_alone(lenet):
    base, variables = lenet
    pipe = pipeline_of(base, code="parity_model", k=2, r=2)
    params = jax.jit(pipe.init)(jax.random.key(0))
    batch = {"images": images_of(8), "labels": np.zeros(8, np.int32)}
    mask = available((0, 1), 4)

    def loss(params, variables):
        return losses.coded_losses(pipe, params, variables, batch, mask).mean()

    value = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    before, (gradient, frozen) = value(params, variables)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(frozen))
    own = gradient[0]["worker"]
    # Each of the two networks has gradients of its own, but none for the head.
    kernel = own["f_conv"]["params"]["Conv_0"]["kernel"]
    assert kernel.shape[0] == 2 and not np.allclose(kernel[0], kernel[1])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(own["head"]))
    step = jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient)
    assert value(step, variables)[0] < before


def test_a_parity_model_may_be_drawn_anew(lenet):
    base, variables = lenet
    pipe = pipeline_of(base, code="parity_model", k=2, r=2, parity_start="anew")
    (params,) = jax.jit(pipe.init)(jax.random.key(0))
    code = pipe.stages[0].code
    weights = code.parity_worker(params, variables)
    first, second = (jax.tree.map(operator.itemgetter(j), weights) for j in (0, 1))
    kernel = lambda tree: tree["f_conv"]["params"]["Conv_0"]["kernel"]
    assert kernel(first).std() > 0 and not np.allclose(kernel(first), kernel(second))
    assert not np.allclose(kernel(first), kernel(variables), atol=1e-2)
    zeros = jax.tree.map(np.zeros_like, variables)  # nothing of the base model is left
    again = jax.tree.map(lambda x: x[0], code.parity_worker(params, zeros))
    np.testing.assert_array_equal(kernel(first), kernel(again))


@pytest.mark.parametrize("k", [2, 4])
def test_a_parity_model_may_be_given_a_montage(k):
    shape = CodeShape(k, 1, (4, 6, 2), (1, 1, 3))
    code = parity_model(shape, {"kernel": np.ones((2, 3), "f")}, pieces="montage")
    pieces = np.random.default_rng(0).normal(size=(k, 3, 4, 6, 2)).astype("f")
    queries = code.encode({}, pieces)
    np.testing.assert_array_equal(queries[:k], pieces)
    rows = k // 2
    for i, piece in enumerate(pieces):
        row, column = divmod(i, 2)
        height = 4 // rows
        shown = queries[k][:, row * height :, column * 3 :][:, :height, :3]
        means = [piece[:, a::rows, b::2] for a in range(rows) for b in range(2)]
        np.testing.assert_allclose(shown, np.mean(means, axis=0), rtol=1e-5)


def test_a_parity_model_has_statistics_of_its_own_but_keeps_integers():
    variables = {
        "params": {"kernel": np.ones((2, 3), "f")},
        "batch_stats": {"mean": np.full(3, 5, "f"), "var": np.full(3, 2, "f")},
        "count": np.array(4, np.int32),
    }
    for start in ("base", "anew"):
        code = parity_model(SHAPE, variables, start)
        params = jax.tree.map(lambda x: x + 1, code.init(jax.random.key(0)))
        own = code.parity_worker(params, variables)
        stats = own["batch_stats"]
        np.testing.assert_array_equal(stats["mean"], np.full((2, 3), 6))
        np.testing.assert_array_equal(stats["var"], np.full((2, 3), 3))
        np.testing.assert_array_equal(own["count"], [4, 4])
        assert own["count"].dtype == variables["count"].dtype
        if start == "base":
            np.testing.assert_array_equal(
                own["params"]["kernel"], np.full((2, 2, 3), 2)
            )


@pytest.mark.parametrize("start", ["base", "anew"])
def test_no_gradient_reaches_statistics(start):
    """Else a variance could become negative where nothing gathers them."""
    variables = {"batch_stats": {"var": np.ones(3, "f")}, "w": np.ones((2, 2), "f")}
    code = parity_model(SHAPE, variables, start)
    params = code.init(jax.random.key(0))
    total = lambda params: sum(
        x.sum() for x in jax.tree.leaves(code.parity_worker(params, variables))
    )
    own = jax.grad(total)(params)["worker"]
    assert not np.any(own["batch_stats"]["var"]) and np.all(own["w"] == 1)


@pytest.mark.long
@pytest.mark.parametrize("start", ["base", "anew"])
def test_parity_models_of_groups_take_the_statistics_of_what_they_see(start):
    """The first layer's mean, by hand, after one step from a mean of zero."""
    config = Config(
        dataset="cifar10",
        base_model="vgg16",
        base_width=0.0625,
        recipe="systematic",
        split="group",
        k=2,
        r=1,
        code="parity_model",
        parity_start=start,
        batch_size=4,
        supervision=0.5,
    )
    pipe = build_pipeline(config, (16, 16, 3), 10, (0.4,) * 3, (0.3,) * 3)
    frozen = pipe.base.init(jax.random.key(1), (32, 16, 3), 10)
    params = jax.tree.map(np.array, pipe.init(jax.random.key(0)))
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 16, 3), np.uint8)
    batch = {"images": images, "labels": np.zeros((4, 2), np.int32)}
    optimizer = optax.sgd(0.02)
    loss = tasks.code_loss(pipe, config)
    state, _ = steps.initial_state(pipe.init, optimizer, jax.random.key(0))
    settings = {"loss": loss, "optimizer": optimizer, "batch_size": 4}
    inputs = frozen, batch, np.arange(4), jax.random.key(2)
    state, _ = steps.train_steps(state, *inputs, **settings)
    first = jax.tree.map(np.array, state.params)
    worker = pipe.stages[0].code.parity_worker
    own = jax.tree.map(lambda x: x[0], worker(first[0], frozen))
    (stats,) = own["block_1"]["batch_stats"]["ConvNorm_0"].values()
    normalised = (images / 255 - 0.4) / 0.3
    sums = normalised[:, :16] + normalised[:, 16:]
    start_of = jax.tree.map(lambda x: x[0], worker(params[0], frozen))["block_1"]
    kernel = start_of["params"]["ConvNorm_0"]["Conv_0"]["kernel"]
    outputs = jax.lax.conv_general_dilated(
        sums.astype("f"), kernel, (1, 1), "SAME", dimension_numbers=NHWC
    )
    expected = (1 - batch_norm.MOMENTUM) * outputs.mean((0, 1, 2))
    np.testing.assert_allclose(stats["mean"], expected, rtol=1e-3, atol=1e-6)
