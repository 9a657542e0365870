"""Gradients of max pooling against XLA's, bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from coded_jax.cpu_kernels import lowering
from tests.cpu_kernels.reference import assert_close, by_own_kernels, by_xla

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
    f = gradient(window, strides, padding)
    if 0 in jax.eval_shape(lambda x: nn.max_pool(x, window, strides, padding), x).shape:
        return
    assert_close(by_own_kernels(f, x), by_xla(f, x), 1e-6)


@pytest.mark.parametrize(
    "window, strides", [((2, 2), (2, 2)), ((3, 3), (2, 2)), ((1, 2), (1, 2))]
)
def test_no_window_after_another(window, strides):
    lowering.install()
    x = np.ones((2, 9, 8, 3), "float32")
    assert SCATTER not in jax.jit(gradient(window, strides, "SAME")).lower(x).as_text()


def test_other_gradients_stay():
    """Of large windows, and of the least element."""
    lowering.install()
    x = np.ones((2, 9, 9, 3), "float32")
    least = lambda x: jnp.sum(-nn.max_pool(-x, (2, 2)))
    smallest = lambda x: jnp.sum(nn.pool(x, jnp.inf, lax.min, (2, 2), (2, 2), "VALID"))
    large = gradient((5, 5), (5, 5), "VALID")
    text = lambda f: jax.jit(f).lower(x).as_text()
    assert SCATTER in text(large)
    assert SCATTER not in text(jax.grad(least))
    assert_close(by_own_kernels(large, x), by_xla(large, x), 0)
    assert_close(*(run(jax.grad(smallest), x) for run in (by_own_kernels, by_xla)), 0)


def test_vmap():
    x = np.random.default_rng(1).normal(size=(3, 2, 6, 7, 4)).astype("float32")
    f = jax.vmap(gradient((2, 2), (2, 2), "SAME"))
    assert_close(by_own_kernels(f, x), by_xla(f, x), 0)


def test_other_platforms_stay():
    lowering.install()
    x = np.ones((2, 6, 6, 3), "float32")
    traced = jax.jit(gradient((2, 2), (2, 2), "VALID")).trace(x)
    assert SCATTER in traced.lower(lowering_platforms=("tpu",)).as_text()
