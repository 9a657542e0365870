"""Parity models: what they start as, and what they learn."""

import jax
import numpy as np
import pytest

from coded_jax.codes.erasures import available, patterns_up_to
from coded_jax.codes.parity_model import parity_model
from coded_jax.inference.pipeline import infer
from coded_jax.models import batch_norm
from coded_jax.models.modules import ConvNorm, base_model
from coded_jax.runs.config import Config
from coded_jax.training import tasks
from coded_jax.types import CodeShape
from tests.codes.rival_examples import SHAPE, images_of, pipeline_of


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


def test_a_parity_model_may_be_drawn_anew(lenet):
    base, variables = lenet
    pipe = pipeline_of(base, code="parity_model", k=2, r=2, parity_start="anew")
    (params,) = jax.jit(pipe.init)(jax.random.key(0))
    code = pipe.stages[0].code
    weights = code.traits.parity_worker(params, variables)
    kernel = lambda tree: tree["f_conv"]["params"]["Conv_0"]["kernel"]
    first, second = kernel(weights)
    assert first.std() > 0 and not np.allclose(first, second)
    zeros = jax.tree.map(np.zeros_like, variables)  # nothing of the base model is left
    again = kernel(code.traits.parity_worker(params, zeros))
    np.testing.assert_array_equal(kernel(weights), again)


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


@pytest.mark.parametrize("start", ["base", "anew"])
def test_a_parity_model_has_statistics_of_its_own_but_keeps_integers(start):
    """No gradient reaches a variance, which could become negative else."""
    variables = {
        "params": {"kernel": np.ones((2, 3), "f")},
        "batch_stats": {"mean": np.full(3, 5, "f"), "var": np.full(3, 2, "f")},
        "count": np.array(4, np.int32),
    }
    code = parity_model(SHAPE, variables, start)
    params = jax.tree.map(lambda x: x + 1, code.init(jax.random.key(0)))
    own = code.traits.parity_worker(params, variables)
    np.testing.assert_array_equal(own["batch_stats"]["mean"], np.full((2, 3), 6))
    np.testing.assert_array_equal(own["batch_stats"]["var"], np.full((2, 3), 3))
    np.testing.assert_array_equal(own["count"], [4, 4])
    assert own["count"].dtype == variables["count"].dtype
    if start == "base":
        np.testing.assert_array_equal(own["params"]["kernel"], np.full((2, 2, 3), 2))

    def total(params):
        return sum(
            x.sum()
            for x in jax.tree.leaves(code.traits.parity_worker(params, variables))
        )

    gradient = jax.grad(total)(params)["worker"]
    assert not np.any(gradient["batch_stats"]["var"])
    assert np.all(gradient["params"]["kernel"] == 1)


@pytest.mark.parametrize("start", ["base", "anew"])
def test_parity_models_of_groups_take_the_statistics_of_what_they_see(start):
    """The first layer's mean, by hand, after one step from a mean of zero."""
    base = base_model([ConvNorm(3)])
    settings = dict(code="parity_model", parity_start=start, split="group")
    pipe = pipeline_of(base, k=2, r=1, batch_size=4, **settings)
    frozen = base.init(jax.random.key(1), (56, 28, 1), 10)
    params = pipe.init(jax.random.key(0))
    images = images_of(8).reshape(4, 56, 28, 1)
    batch = {"images": images, "labels": np.zeros((4, 2), np.int32)}
    loss = tasks.code_loss(pipe, Config(batch_size=4))
    _, (updated,) = loss(params, frozen, batch, jax.random.key(2))
    network = pipe.stages[0].code.traits.parity_worker(params[0], frozen)
    kernel = network["block_1"]["params"]["Conv_0"]["kernel"][0]
    changed = updated["worker"]["block_1"]["batch_stats"]["BatchNorm_0"]["mean"][0]
    scaled = (images / 255 - 0.1) / 0.3
    sums = (scaled[:, :28] + scaled[:, 28:]).astype("f")
    outputs = jax.lax.conv_general_dilated(
        sums, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    expected = (1 - batch_norm.MOMENTUM) * outputs.mean((0, 1, 2))
    np.testing.assert_allclose(changed, expected, rtol=1e-3, atol=1e-6)
