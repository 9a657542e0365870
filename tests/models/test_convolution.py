"""The faster convolutions against those of `lax`, with their gradients."""

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from coded_jax.codes.networks.conv import DilatedStack
from coded_jax.models import convolution
from coded_jax.models.convolution import (
    conv_by_lax,
    conv_by_products,
    conv_by_rows,
    dilated_stack,
    map_chunks,
    max_pool_2x2,
)
from coded_jax.models.lenet5 import Features
from tests.models.published import random_variables
from tests.parameters import long

TOLERANCE = {"float32": 2e-5, "bfloat16": 3e-2}


def randoms(seed, *shapes, dtype="float32"):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)


def value_and_gradients(f, *args):
    """`f(*args)` and the gradients of a curved function of it, in one jitted call."""

    @jax.jit
    def run(*args):
        out, pullback = jax.vjp(f, *args)
        return out, pullback(jnp.cos(out))

    return run(*args)


def assert_close(actual, expected, tolerance=TOLERANCE["float32"]):
    """Up to `tolerance` of the largest element of each array."""
    chex.assert_trees_all_equal_shapes_and_dtypes(actual, expected)
    for a, b in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        a, b = (np.asarray(x, "float64") for x in (a, b))
        assert np.abs(a - b).max() <= tolerance * max(1, np.abs(b).max())


@given(
    batch=st.integers(1, 3),
    h=st.integers(1, 9),
    w=st.integers(1, 9),
    c=st.integers(1, 5),
    d=st.integers(1, 5),
    kernel=st.sampled_from([(1, 1), (3, 3), (1, 3), (5, 3)]),
    dilation=st.sampled_from([1, 2, 4, 8]),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)
def test_products_are_the_convolution(batch, h, w, c, d, kernel, dilation, dtype):
    x, kernel = randoms(0, (batch, h, w, c), (*kernel, c, d), dtype=dtype)
    actual, expected = (
        value_and_gradients(lambda x, k: conv(x, k, dilation), x, kernel)  # noqa: B023
        for conv in (conv_by_products, conv_by_lax)
    )
    if dtype == "bfloat16":  # whose cosine depends on how the value was rounded
        actual, expected = actual[0], expected[0]
    assert_close(actual, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("c, d", [(3, 4), (4, 3)])
def test_bfloat16_gradients(c, d):
    # Whole numbers, so that every sum is exact.
    rng = np.random.default_rng(0)
    shapes = (2, 5, 4, c), (3, 3, c, d), (2, 5, 4, d)
    x, kernel, g = (
        jnp.asarray(rng.integers(-1, 2, shape), "bfloat16") for shape in shapes
    )
    actual, expected = (
        jax.jit(lambda x, k, g, conv=conv: jax.vjp(lambda *a: conv(*a, 1), x, k)[1](g))(
            x, kernel, g
        )
        for conv in (conv_by_products, conv_by_lax)
    )
    chex.assert_trees_all_equal(actual, expected)


def test_a_kernel_row_beyond_the_map_costs_nothing():
    x, kernel = randoms(0, (2, 2, 4, 3), (3, 3, 3, 5))
    run = lambda dilation: (
        jax.jit(lambda x, k: conv_by_products(x, k, dilation))
        .lower(x, kernel)
        .as_text()
        .count("dot_general")
    )
    assert [run(1), run(2), run(4)] == [3, 1, 1]


@pytest.mark.parametrize("conv", [conv_by_products, conv_by_lax])
def test_pieces_share_weights(conv):
    x, kernel = randoms(1, (3, 2, 6, 5, 4), (3, 3, 4, 2))
    mapped = jax.vmap(lambda x, k: conv(x, k, 2), in_axes=(0, None))
    flat = lambda x, k: conv_by_lax(x.reshape(6, 6, 5, 4), k, 2).reshape(3, 2, 6, 5, 2)
    assert_close(
        value_and_gradients(mapped, x, kernel), value_and_gradients(flat, x, kernel)
    )


def stack_by_lax(x, layers, dilations):
    for i, ((kernel, bias), dilation) in enumerate(zip(layers, dilations, strict=True)):
        x = conv_by_lax(x, kernel, dilation) + bias
        x = nn.relu(x) if i < len(layers) - 1 else x
    return x


def make_layers(*maps):
    shapes = [
        shape
        for i, (c, d) in enumerate(zip(maps[:-1], maps[1:], strict=True))
        for shape in ((1, 1, c, d) if i == len(maps) - 2 else (3, 3, c, d), (d,))
    ]
    flat = [x / np.prod(x.shape[:-1]) ** 0.5 for x in randoms(2, *shapes)]
    return list(zip(flat[::2], flat[1::2], strict=True))


@pytest.mark.parametrize("chunk", [3, 100, *long(1, 2, 7)])
@pytest.mark.parametrize("maps", [(2, 4, 4, 1), (5, 3, 6, 2)])
def test_stack(monkeypatch, chunk, maps):
    # Chunks of unequal numbers: 7 examples.
    monkeypatch.setattr(convolution, "CHUNK_BYTES", chunk * 6 * 5 * max(maps) * 4)
    layers, (x,) = make_layers(*maps), randoms(3, (7, 6, 5, maps[0]))
    twice = lambda stack: (
        lambda x, layers: (
            stack(x, layers, (1, 4, 1)) * jnp.tanh(stack(x[::-1], layers, (1, 4, 1)))
        )
    )
    with jax.numpy_rank_promotion("allow"):
        expected = value_and_gradients(twice(stack_by_lax), x, layers)
    assert_close(value_and_gradients(twice(dilated_stack), x, layers), expected)


def test_map_chunks():
    (x,) = randoms(4, (7, 3))
    for most, size in [(1, 1), (2, 2), (3, 3), (4, 4), (5, 4), (6, 4), (7, 7), (8, 7)]:
        y = map_chunks(lambda c: c + c.shape[0], x, most)
        np.testing.assert_array_equal(y, x + size)


def test_a_stack_has_the_parameters_of_nn_conv():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x):
            for dilation in (1, 8):
                conv = nn.Conv(4, (3, 3), padding="SAME", kernel_dilation=dilation)
                x = nn.relu(conv(x))
            return nn.Conv(2, (1, 1))(x)

    stack = DilatedStack(2, width=4, dilations=(1, 8))
    (x,) = randoms(5, (3, 10, 9, 2))
    plain = jax.jit(Plain().init)(jax.random.key(0), x)
    variables = jax.jit(stack.init)(jax.random.key(0), x)
    chex.assert_trees_all_equal(variables, plain)
    assert_close(stack.apply(variables, x), Plain().apply(plain, x))


@given(
    h=st.integers(2, 7),
    w=st.integers(2, 7),
    c=st.integers(1, 3),
    values=st.sampled_from([2, 5, 1000]),  # few values: many equal maxima
)
def test_max_pool(h, w, c, values):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, values, (2, h, w, c)), "float32")
    stock = lambda x: nn.max_pool(x, (2, 2), (2, 2))
    chex.assert_trees_all_equal(
        value_and_gradients(max_pool_2x2, x), value_and_gradients(stock, x)
    )


@pytest.mark.parametrize("c, d", [(1, 6), (6, 2)])
def test_rows_are_the_convolution(c, d):
    x, kernel = randoms(6, (2, 8, 7, c), (5, 3, c, d))
    stock = lambda x, k: lax.conv_general_dilated(
        x, k, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    rows = lambda x, k: conv_by_rows(x, k, (1, 1), "VALID")
    assert_close(
        value_and_gradients(rows, x, kernel), value_and_gradients(stock, x, kernel)
    )
    with pytest.raises(ValueError, match="^padding: 'SAME' given, 'VALID'"):
        conv_by_rows(x, kernel, (1, 1), "SAME")


@pytest.mark.parametrize("shape", [(28, 28, 1), (20, 28, 1), (17, 19, 3)])
def test_features_of_lenet5(lenet, shape):
    base, _ = lenet
    variables = random_variables(base, shape)["f_conv"]
    (images,) = randoms(7, (2, 11, *shape))  # pieces, batch
    pieces = lambda f: jax.vmap(f, in_axes=(None, 0))
    expected = value_and_gradients(pieces(Features().apply), variables, images)
    f_conv = lambda variables, images: base.f_conv({"f_conv": variables}, images)
    assert_close(value_and_gradients(pieces(f_conv), variables, images), expected)


def test_only_cpus_do_without_convolutions(lenet):
    base, variables = lenet
    layers = make_layers(1, 4, 1)

    def both(images):
        return dilated_stack(images, layers, (2, 1)), base.f_conv(variables, images)

    (b,) = jax.export.symbolic_shape("b")
    symbolic = jax.ShapeDtypeStruct((b, 28, 28, 1), "float32")
    fixed = jax.ShapeDtypeStruct((16, 28, 28, 1), "float32")
    for spec in (symbolic, fixed):
        for platform, there in [("cpu", False), ("cuda", True), ("tpu", True)]:
            exported = jax.export.export(jax.jit(both), platforms=[platform])(spec)
            assert ("stablehlo.convolution" in exported.mlir_module()) == there
    everywhere = jax.export.export(jax.jit(both), platforms=["cpu", "cuda", "tpu"])
    exported = everywhere(symbolic)
    (images,) = randoms(8, (19, 28, 28, 1))
    assert_close(tuple(exported.call(images)), jax.jit(both)(images))
