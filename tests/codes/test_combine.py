"""Sums with weights against the matrix products that they are."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax.codes.combine import piece_sums, weighted_sums


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
