"""Products of few rows or columns: the gradients of narrow dense layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax.cpu_kernels import lowering
from tests.cpu_kernels.reference import assert_close, by_own_kernels, by_xla, randoms

BARRIER = "optimization_barrier"


def layer(x, kernel):
    return jnp.tanh(x @ kernel)


def gradients(x, kernel):
    return jax.grad(lambda *args: jnp.sum(layer(*args)), argnums=(0, 1))(x, kernel)


@pytest.mark.parametrize("inputs, outputs", [(160, 3), (3, 160)])
@pytest.mark.parametrize("batch", [(5,), (2, 4)])
def test_gradients_are_those_of_xla(inputs, outputs, batch):
    x, kernel = randoms(0, (*batch, inputs), (inputs, outputs))
    lowering.install()
    assert BARRIER in jax.jit(gradients).lower(x, kernel).as_text()
    assert_close(by_own_kernels(gradients, x, kernel), by_xla(gradients, x, kernel))


def test_wide_layers_and_other_products_stay():
    lowering.install()
    x, kernel = randoms(1, (5, 100), (100, 90))
    text = lambda f, *args: jax.jit(f).lower(*args).as_text()
    assert BARRIER not in text(gradients, x, kernel)
    assert BARRIER not in text(layer, x, kernel[:, :2])
    one = lambda x, v: jnp.einsum("kbhw,k->bhw", x, v)  # one array has no axis left
    x, v = randoms(2, (2, 3, 40, 5), (2,))
    assert BARRIER not in text(one, x, v)
    np.testing.assert_array_equal(by_own_kernels(one, x, v), by_xla(one, x, v))
