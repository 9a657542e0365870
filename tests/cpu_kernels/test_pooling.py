"""Gradients of max pooling against XLA's: the same elements have them."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from hypothesis import assume, given
from hypothesis import strategies as st
from jax import lax

from coded_jax.cpu_kernels import lowering
from coded_jax.cpu_kernels.pooling import max_gradient
from tests.cpu_kernels.reference import assert_close, by_own_kernels, by_xla, randoms

SCATTER = "select_and_scatter"


def gradient(window, strides, padding):
    pool = lambda x: nn.max_pool(x, window, strides, padding)
    return lambda x: jax.grad(lambda x: jnp.sum(jnp.cos(pool(x))))(x)


@given(
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    window=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    padding=st.sampled_from(["SAME", "VALID", ((1, 0), (0, 2))]),
    values=st.sampled_from([2, 5, 1000]),  # few values: many equal maxima
)
def test_gradients_are_those_of_xla(sizes, window, strides, padding, values):
    rng = np.random.default_rng(0)
    x = rng.integers(-1, values, (2, *sizes, 3)).astype("float32")
    pool = lambda x: nn.max_pool(x, window, strides, padding)
    y = jax.eval_shape(pool, x)
    assume(0 not in y.shape)
    (g,) = randoms(1, y.shape)
    scatter = lambda x, g: jax.vjp(pool, x)[1](g)[0]
    expected = by_xla(scatter, x, g)
    assert_close(by_own_kernels(scatter, x, g), expected, 1e-6)
    edges = padding
    if isinstance(padding, str):
        edges = lax.padtype_to_pads(sizes, window, strides, padding)
    edges = [(0, 0), *edges, (0, 0)]
    windows = (1, *window, 1), (1, *strides, 1), edges
    elementwise = jax.jit(lambda g, x: max_gradient(g, x, *windows))
    assert_close(elementwise(g, x), expected, 1e-6)


def test_other_gradients_stay():
    """Of least elements, and of windows along the batch."""
    lowering.install()
    x = np.ones((2, 9, 9, 3), "float32")
    least = lambda x: jnp.sum(nn.pool(x, jnp.inf, lax.min, (2, 2), (2, 2), "VALID"))
    batch = lambda x: jnp.sum(
        lax.reduce_window(x, -jnp.inf, lax.max, (2, 5, 5, 1), (2, 5, 5, 1), "VALID")
    )
    for f in (jax.grad(least), jax.grad(batch)):
        assert SCATTER in jax.jit(f).lower(x).as_text()
        assert_close(by_own_kernels(f, x), by_xla(f, x), 0)
