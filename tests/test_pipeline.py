"""Coded inference end to end: exact where it must be, and compiled once."""

import functools

import chex
import jax
import numpy as np
import pytest
from jax import lax

from coded_jax.codes import learned_code, zero_fill
from coded_jax.erasures import available, patterns_up_to
from coded_jax.models import make_base_model
from coded_jax.pipeline import (
    Pipeline,
    base_features,
    coded_features,
    infer,
    reconstruct,
)
from coded_jax.splitting import make_plan
from coded_jax.types import BaseModel, CodeShape

B = 3


def make(lenet, grid, r, make_code=zero_fill):
    base, variables = lenet
    plan = make_plan(base.f_conv, variables, (28, 28, 1), grid)
    shape = CodeShape(plan.k, r, plan.piece_shape, plan.share_shape)
    return Pipeline(base, plan, make_code(shape), (0.13,), (0.31,), r)


def random_images(shape=(28, 28, 1)):
    return np.random.default_rng(0).integers(0, 256, (B, *shape), np.uint8)


def normalised(pipeline, images):
    mean, std = (np.float32(x)[None, None, None] for x in pipeline[3:5])
    return (images.astype(np.float32) / 255 - mean) / std


@pytest.fixture(scope="module")
def truth(lenet):
    """`f_conv` and the head on whole images, in float32 from the start."""
    base, variables = lenet
    pipeline = make(lenet, (1, 1), 0)
    features = jax.jit(base.f_conv)(variables, normalised(pipeline, random_images()))
    return features, jax.jit(base.head)(variables, features)


def test_base_features(lenet, truth):
    _, variables = lenet
    features = jax.jit(base_features, static_argnums=0)(
        make(lenet, (2, 1), 1), variables, random_images()
    )
    chex.assert_trees_all_close(features, truth[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("grid, r", [((2, 1), 1), ((4, 1), 2), ((2, 2), 0)])
def test_nothing_lost_is_uncoded_inference(lenet, truth, grid, r):
    pipeline = make(lenet, grid, r)
    n = grid[0] * grid[1] + r
    assert pipeline.n == n
    mask = np.ones((n, 1), bool)
    logits = jax.jit(infer, static_argnums=0)(
        pipeline, lenet[1], {}, random_images(), mask
    )
    chex.assert_shape(logits, (B, 10))
    chex.assert_trees_all_close(logits, truth[1], rtol=1e-4, atol=1e-5)
    assert np.ptp(truth[1]) > 0.1


def test_colour_images_and_surplus():
    # 5 features in two shares of 3; each channel with its own mean and deviation.
    base = make_base_model("lenet5")
    shapes = jax.eval_shape(
        lambda key: base.init(key, (32, 32, 3), 10), jax.random.key(0)
    )
    rng = np.random.default_rng(1)
    variables = jax.tree.map(
        lambda x: rng.normal(scale=0.1, size=x.shape).astype("f"), shapes
    )
    plan = make_plan(base.f_conv, variables, (32, 32, 3), (2, 1))
    assert plan.rows.surplus == 1
    code = zero_fill(CodeShape(2, 1, plan.piece_shape, plan.share_shape))
    pipeline = Pipeline(base, plan, code, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), 1)
    images = random_images((32, 32, 3))

    @jax.jit
    def uncoded(images):
        return base.head(variables, base.f_conv(variables, images))

    mask = np.ones((3, 1), bool)
    logits = jax.jit(infer, static_argnums=0)(pipeline, variables, {}, images, mask)
    expected = uncoded(normalised(pipeline, images))
    chex.assert_trees_all_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_padded_base_model():
    # The outputs of f_conv on a piece are more than its share, and are cut.
    def f_conv(kernel, x):
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    base = BaseModel(lambda *_: None, f_conv, lambda _, features: features[:, ::9, 0])
    kernel = np.arange(1.0, 10).reshape(3, 3, 1, 1).astype("f")
    plan = make_plan(f_conv, kernel, (28, 28, 1), (3, 1))
    assert plan.rows.cuts == (0, 1, 2)
    code = zero_fill(CodeShape(3, 1, plan.piece_shape, plan.share_shape))
    pipeline = Pipeline(base, plan, code, (0.13,), (0.31,), 1)
    images = random_images()
    mask = np.ones((4, 1), bool)
    rows = jax.jit(infer, static_argnums=0)(pipeline, kernel, {}, images, mask)
    expected = jax.jit(f_conv)(kernel, normalised(pipeline, images))[:, ::9, 0]
    chex.assert_trees_all_close(rows, expected, rtol=1e-4, atol=1e-4)


def test_one_compilation_serves_every_pattern(lenet, truth):
    base, variables = lenet
    features, _ = truth
    pipeline = make(lenet, (4, 1), 2)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def coded(*args):
        return infer(pipeline, *args)

    head = jax.jit(base.head)
    every = patterns_up_to(pipeline.n, 2)
    assert len(every) == 1 + 6 + 15
    for lost in every:
        logits = coded(variables, {}, random_images(), available(lost, pipeline.n))
        # Share i is row i of the features.
        rows = np.array([[[[i not in lost]]] for i in range(4)])[None, :, 0]
        expected = head(variables, np.where(rows, features, 0))
        chex.assert_trees_all_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_every_example_may_lose_others(lenet, truth):
    pipeline = make(lenet, (2, 1), 1)
    mask = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]], bool)
    features = jax.jit(coded_features, static_argnums=0)(
        pipeline, lenet[1], {}, random_images()
    )
    chex.assert_shape(features, (3, B, 2, 4, 16))
    merged = jax.jit(reconstruct, static_argnums=0)(pipeline, {}, features, mask)
    expected = np.array(truth[0])
    expected[0, :2] = 0
    expected[1, 2:] = 0
    chex.assert_trees_all_close(merged, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("systematic", [True, False])
def test_garbage_in_lost_slots_does_not_reach_the_features(lenet, systematic):
    make_code = functools.partial(learned_code, encoder_width=8, systematic=systematic)
    pipeline = make(lenet, (2, 1), 1, make_code)
    rng = np.random.default_rng(2)
    params = jax.tree.map(
        lambda x: rng.normal(scale=0.1, size=x.shape).astype("f"),
        jax.eval_shape(pipeline.code.init, jax.random.key(0)),
    )
    rebuild = jax.jit(reconstruct, static_argnums=0)
    features = np.abs(rng.normal(size=(3, B, 2, 4, 16))).astype("f")
    for lost in patterns_up_to(3, 1):
        mask = available(lost, 3)
        clean = rebuild(pipeline, params, features, mask)
        chex.assert_shape(clean, (B, 4, 4, 16))
        for garbage in (np.nan, np.inf):
            dirty = features.copy()
            dirty[list(lost)] = garbage
            np.testing.assert_array_equal(rebuild(pipeline, params, dirty, mask), clean)
        if systematic:
            for i in {0, 1} - set(lost):
                rows = slice(2 * i, 2 * i + 2)
                np.testing.assert_array_equal(clean[:, rows], features[i])


@pytest.mark.parametrize("systematic", [True, False])
def test_a_systematic_code_decodes_only_what_is_lost(lenet, systematic):
    decoded = []

    def make_code(shape):
        code = learned_code(shape, encoder_width=8, systematic=systematic)

        def decode(params, features, available):
            jax.debug.callback(lambda: decoded.append(1))
            return code.decode(params, features, available)

        return code._replace(decode=decode)

    pipeline = make(lenet, (2, 1), 1, make_code)
    params = pipeline.code.init(jax.random.key(0))
    coded = jax.jit(infer, static_argnums=0)
    for lost, expected in (((), 0), ((2,), 0), ((0,), 1)):
        decoded.clear()
        mask = available(lost, 3)
        coded(pipeline, lenet[1], params, random_images(), mask).block_until_ready()
        jax.effects_barrier()
        assert len(decoded) == (expected if systematic else 1)


def test_scaled_images_are_refused(lenet):
    pipeline = make(lenet, (2, 1), 1)
    images = random_images().astype(np.float32) / 255
    for f in (base_features, lambda *args: coded_features(*args[:2], {}, args[2])):
        with pytest.raises(ValueError, match="^images .*float32.* uint8"):
            f(pipeline, lenet[1], images)
