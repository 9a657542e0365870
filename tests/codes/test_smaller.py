"""Parity pieces that are the whole image made smaller, by hand and in a code."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax import splitting
from coded_jax.codes import LearnedConfig, learned_code, smaller
from coded_jax.codes.erasures import available
from coded_jax.codes.networks import DECODERS
from coded_jax.codes.networks.network import READS, NetworkSpec
from coded_jax.splitting.plan import make_plan
from coded_jax.types import CodeShape

B = 3


def conv(x, stride=1):
    kernel = jnp.ones((3, 3, x.shape[-1], 2)) / 9
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


NETWORKS = {
    "pixels": (lambda v, x: jnp.tanh(x), (8, 12, 1)),
    "padded": (lambda v, x: conv(conv(x, 2)), (16, 16, 3)),
    "odd": (lambda v, x: conv(x), (13, 9, 2)),
}


@functools.cache
def plan_of(name, grid):
    f, shape = NETWORKS[name]
    return make_plan(f, {}, shape, grid)


def images_of(plan, kind="random"):
    shape = (B, plan.rows.size, plan.columns.size, plan.channels)
    if kind == "random":
        return np.random.default_rng(0).uniform(size=shape).astype("f")
    rows, columns = np.ogrid[: shape[1], : shape[2]]
    plane = {"ones": 1 + 0 * rows + 0 * columns, "ramp": rows + 10 * columns}[kind]
    return np.broadcast_to(plane[..., None], shape).astype("f")


@pytest.mark.parametrize("name, grid", [("padded", (2, 2)), ("odd", (1, 3))])
def test_an_image_of_one_colour_stays_so(name, grid, r=2):
    plan = plan_of(name, grid)
    shape = CodeShape.of(plan, r)
    pieces = splitting.split(plan, images_of(plan, "ones"))
    parity = smaller.parity(plan, smaller.init(plan, shape.r), pieces)
    np.testing.assert_allclose(parity, np.ones((r, B, *shape.piece)), rtol=1e-6)
    shares = jnp.arange(plan.k)[:, None]
    results = jnp.ones((r, B, *shape.share))
    stretched = smaller.stretched(plan, results, shares)
    np.testing.assert_allclose(stretched, np.ones((r, plan.k, B, *shape.share)))


def test_half_of_the_columns_by_hand():
    # 12 columns become 6, each a mean of those around its place, 2p + 0.5, with the
    # weights 1 - distance / 2. Stretched, columns are at (x + 0.5) / 2 - 0.5.
    plan = plan_of("pixels", (1, 2))
    shape = CodeShape.of(plan, 1)
    taps = smaller.shrink(plan.columns, 0)
    np.testing.assert_array_equal(taps.places[2], [3, 4, 5, 6])
    np.testing.assert_allclose(taps.weights[2], [0.125, 0.375, 0.375, 0.125])
    pieces = splitting.split(plan, images_of(plan, "ramp"))
    parity = smaller.parity(plan, smaller.init(plan, shape.r), pieces)
    expected = np.arange(8)[:, None] + 10 * (2 * np.arange(6) + 0.5)
    np.testing.assert_allclose(parity[0, 0, :, 1:-1, 0], expected[:, 1:-1], rtol=1e-5)
    stretched = smaller.stretched(plan, parity, jnp.arange(2)[:, None])[0]
    merged = splitting.merge(plan, stretched)
    # Inside, what is linear is as it was.
    inside = slice(3, -3)
    np.testing.assert_allclose(
        merged[:, :, inside], images_of(plan, "ramp")[:, :, inside], rtol=1e-5
    )


def test_sources_are_the_pixels_of_each_position():
    plan = plan_of("padded", (1, 2))
    images = images_of(plan)
    sources = smaller.sources(plan, splitting.split(plan, images))
    chex.assert_shape(sources, (2, B, 8, 4, smaller.pixels_of(plan)))
    blocks = images.reshape(B, 8, 2, 8, 2, 3).transpose(0, 1, 3, 2, 4, 5)
    merged = np.concatenate(list(sources), axis=2)
    np.testing.assert_array_equal(merged, blocks.reshape(B, 8, 8, 12))


@functools.cache
def code_of(grid=(2, 2), r=2, **settings):
    plan = plan_of("padded", grid)
    config = LearnedConfig(
        recipe="systematic",
        encoder="linear",
        **{"decoder": "sharpen", "parity_pieces": "smaller", **settings},
    )
    shape = CodeShape.of(plan, r)
    code = learned_code(shape, config)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: x + rng.normal(scale=0.3, size=x.shape).astype("f"),
        code.init(jax.random.key(0)),
    )
    return shape, code, params


def inputs_of(shape):
    rng = np.random.default_rng(1)
    features = rng.normal(size=(shape.n, B, *shape.share)).astype("f")
    return features, rng.normal(size=(shape.k, B, *shape.piece)).astype("f")


@pytest.mark.parametrize("reads", READS)
def test_the_decoder_reads_what_it_is_told_to(reads):
    shape, _, _ = code_of()
    module = DECODERS["sharpen"].build(
        NetworkSpec(shape, shape.k, 3, (1,), reads=reads)
    )
    rng = np.random.default_rng(0)
    height, width, depth = shape.share
    draw = lambda *sizes: jnp.asarray(rng.normal(size=sizes), jnp.float32)
    results = draw(B, height, width, shape.r * depth)
    source, state = draw(B, height, width, smaller.pixels_of(shape.plan)), draw(B, 10)
    params = module.init(jax.random.key(0), results, source, state)
    params = jax.tree.map(lambda x: x + draw(*x.shape), params)
    corrections = lambda *inputs: module.apply(params, *inputs)
    exact = corrections(results, source, state)
    chex.assert_shape(exact, (B, *shape.share))
    changes = lambda *inputs: not np.array_equal(corrections(*inputs), exact)
    assert changes(results + 1, source, state)
    assert changes(results, source + 1, state) == (reads in ("all", "input"))
    assert changes(results, source, state + 1) == (reads in ("all", "pattern"))


def test_other_decoders_begin_with_the_stretched_results():
    shape, code, params = code_of(decoder="linear")
    features, _ = inputs_of(shape)
    shares = code.decode(params, features, available((1,), shape.n))
    numbers = jnp.array([[1]])
    stretched = smaller.stretched(shape.plan, jnp.asarray(features[shape.k :]), numbers)
    np.testing.assert_allclose(shares[1], stretched[:, 0].mean(axis=0), rtol=1e-5)
