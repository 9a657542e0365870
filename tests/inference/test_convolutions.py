"""Exact codes around every convolution: nothing changes, whatever is lost."""

import functools
import itertools

import jax
import numpy as np
import pytest

from coded_jax.codes.erasures import available, patterns_up_to
from coded_jax.inference.costs import cost_of
from coded_jax.inference.pipeline import Examples, base_features, infer
from coded_jax.models import make_base_model
from coded_jax.runs.build import build_pipeline, rival_pipelines
from coded_jax.runs.config import Config
from tests.errors import refused
from tests.models.published import random_variables
from tests.parameters import long

ROUNDS = {"lenet5": 2, "resnet18": 17, "mobilenet": 39}
run = jax.jit(infer, static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def run_uncoded(pipeline, variables, images):
    features = base_features(pipeline, variables, images)
    return pipeline.base.head(variables, features)


def pipeline_of(name, size=28, mesh=None, **settings):
    """The pipeline of a narrow network, and its variables."""
    width = 1.0 if name == "lenet5" else 1 / 16
    fields = {"code": "mds", "split": "convolution", **settings}
    config = Config(base_model=name, base_width=width, **fields)
    shape = (size, size, 1)
    pipeline = build_pipeline(config, Examples(shape, (0.4,), (0.3,)), 10, mesh)
    return pipeline, random_variables(make_base_model(name, width), shape)


def pixels(size=28, batch=3):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (batch, size, size, 1), np.uint8)


def assert_exact(logits, expected):
    scale = np.ptp(expected)
    assert scale > 0.05
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-5 * scale)


@pytest.mark.parametrize(
    "name, size, k, r",
    [("lenet5", 28, 4, 2), ("resnet18", 32, 2, 1), *long(("mobilenet", 28, 4, 2))],
)
def test_every_pattern_gives_the_logits_of_the_network(name, size, k, r):
    pipeline, variables = pipeline_of(name, size, k=k, r=r)
    images, params = pixels(size), pipeline.init(jax.random.key(0))
    assert len(pipeline.stages) == ROUNDS[name]
    expected = run_uncoded(pipeline, variables, images)
    before = run._cache_size()
    for lost in patterns_up_to(k + r, r):
        mask = available(lost, k + r)
        assert_exact(run(pipeline, variables, params, images, mask), expected)
    assert run._cache_size() == before + 1
    # In every round other losses, and of each image its own.
    rng = np.random.default_rng(0)
    masks = np.ones((ROUNDS[name], k + r, len(images)), bool)
    for round_, image in itertools.product(range(ROUNDS[name]), range(len(images))):
        masks[round_, rng.permutation(k + r)[:r], image] = False
    assert_exact(run(pipeline, variables, params, images, masks), expected)


def test_the_convolutions_of_some_blocks_alone():
    stages = ((2, 3), (5, 5))
    pipeline, variables = pipeline_of("resnet18", stages=stages, k=2, r=1)
    assert len(pipeline.stages) == 6  # of a residual block two; a shortcut is kept
    expected = run_uncoded(pipeline, variables, pixels())
    params, mask = pipeline.init(jax.random.key(0)), available((1,), 3)
    assert_exact(run(pipeline, variables, params, pixels(), mask), expected)
    every, blocks = (
        cost_of(pipeline_of("resnet18", **fields)[0], variables, (28, 28, 1))
        for fields in ({}, {"stages": stages, "split": "image"})
    )
    cost = cost_of(pipeline, variables, (28, 28, 1))
    assert set(cost.rounds) < set(every.rounds) and cost.whole == every.whole
    # Beside the blocks that are in no stage the client adds, and applies ReLUs.
    assert 1 < cost.client_flops / blocks.client_flops < 1.05


def test_costs_by_hand():
    """LeNet-5: what the client computes whole is bias, ReLU and pooling."""
    pipeline, variables = pipeline_of("lenet5", k=4, r=2)
    cost = cost_of(pipeline, variables, (28, 28, 1))
    assert len(cost.rounds) == 2 and cost.devices == 6
    first, second = cost.rounds
    # 24x24 outputs in quarters of 12x12, then 8x8 in quarters of 4x4.
    assert first.device_flops == 2 * 25 * 6 * 12 * 12
    assert second.device_flops == 2 * 25 * 6 * 16 * 4 * 4
    assert (first.bytes_in, first.bytes_out) == (4 * 16 * 16, 4 * 12 * 12 * 6)
    # Of each value bias and ReLU, and three comparisons for a pooled one.
    values = 24 * 24 * 6 + 8 * 8 * 16
    assert cost.client_flops == values * 2 + values / 4 * 3
    plain, _ = pipeline_of("lenet5", k=4, r=2, split="image", grid=(2, 2))
    assert cost.whole == cost_of(plain, variables, (28, 28, 1)).whole


@pytest.mark.parametrize(
    "settings, name",
    [
        ({"code": "learned"}, "code"),  # that is trained
        ({"grid": (2, 1)}, "grid"),
        ({"split": "group", "stages": ((1, 2),)}, "stages"),
        ({"stages": ((1, 1), (2, 2))}, "split"),  # the second has no convolution
    ],
)
def test_codes_and_splits_that_do_not_fit_are_refused(settings, name):
    with refused(name):
        pipeline_of("lenet5", **settings)


def test_rivals_with_a_training_are_refused():
    pipeline, variables = pipeline_of("lenet5")
    config = Config(code="mds", split="convolution", baselines=("parity_model",))
    with refused("code"):
        rival_pipelines(config, pipeline, variables)
