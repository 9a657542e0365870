"""Weighted sums against the matrix products that they are; their initial weights."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax.codes.sums import cosines, piece_sums, powers, weighted_sums
from tests.codes.learned_examples import SHAPE
from tests.pipelines import learned


def by_product(weights, values):
    product = jnp.einsum("bkn,nb...->kb...", weights, values, precision="highest")
    return product.astype(values.dtype)


@pytest.mark.parametrize("k, n", [(1, 1), (4, 6)])
@pytest.mark.parametrize("shape", [(), (3, 2, 5)])
def test_sums_and_gradients(k, n, shape):
    rng = np.random.default_rng(0)
    weights, values, g = (
        rng.normal(size=size).astype("f")
        for size in ((7, k, n), (n, 7, *shape), (k, 7, *shape))
    )

    def both(f):
        y, pullback = jax.vjp(f, weights, values)
        return y, pullback(g)

    chex.assert_trees_all_close(
        jax.jit(lambda: both(weighted_sums))(),
        jax.jit(lambda: both(by_product))(),
        rtol=1e-5,
        atol=1e-5,
    )


def test_sums_of_pieces():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(4, 2)).astype("f")
    pieces = rng.normal(size=(4, 3, 5, 6, 2)).astype("f")
    by_product = jnp.einsum("kbhwc,kr->rbhwc", pieces, weights, precision="highest")
    sums = jax.jit(piece_sums)(weights, pieces)
    np.testing.assert_allclose(sums, by_product, rtol=1e-5, atol=1e-5)


def test_sums_are_of_float32():
    """In bfloat16 the parts of 1 + 256 - 256 would be lost on the way."""
    values = jnp.asarray([1.0, 256.0, -256.0], "bfloat16")
    assert weighted_sums(jnp.ones((1, 1, 3), "bfloat16"), values[:, None]).item() == 1
    pieces = values.reshape(3, 1, 1, 1, 1)
    assert piece_sums(jnp.ones((3, 1), "bfloat16"), pieces).item() == 1


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_sums_are_no_matrix_products(platform):
    """Of few rows and columns, those cost accelerators passes over all pieces."""
    weights, pieces = jnp.ones((4, 2)), jnp.ones((4, 3, 5, 6, 2))
    traced = jax.jit(piece_sums).trace(weights, pieces)
    assert "dot_general" not in traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("k, r", [(2, 1), (4, 2), (5, 5)])
@pytest.mark.parametrize("name", ["cosine", "power"])
def test_initial_sums(name, k, r):
    """Columns of length 1: orthogonal, or without differences; the first is even."""
    function = {"cosine": cosines, "power": powers}[name]
    sums = np.asarray(function(k, r))
    np.testing.assert_allclose(sums[:, 0], 1 / np.sqrt(k), rtol=1e-6)
    if name == "power":
        np.testing.assert_allclose(np.square(sums).sum(0), 1, rtol=1e-6)
        assert (sums > 0).all() and np.linalg.matrix_rank(sums) == r
    else:
        np.testing.assert_allclose(sums.T @ sums, np.eye(r), atol=1e-6)
    code = learned(SHAPE._replace(k=k, r=r), encoder="linear", sums=name)
    np.testing.assert_allclose(code.init(jax.random.key(0))["sums"], sums, rtol=1e-6)
