"""Optimizers and learning rates, against their formulas."""

import jax.numpy as jnp
import numpy as np
import optax

from coded_jax.training import optimizers


def test_sgd_adds_l2_and_nesterovs_momentum():
    params, gradient = jnp.asarray([2.0]), jnp.asarray([1.0])
    optimizer = optimizers.sgd(0.1, 0.5)
    state, velocity = optimizer.init(params), 0.0
    for _ in range(3):
        update, state = optimizer.update(gradient, state, params)
        whole = gradient + 0.5 * params
        velocity = 0.9 * velocity + whole
        np.testing.assert_allclose(update, -0.1 * (whole + 0.9 * velocity), rtol=1e-6)
        params = optax.apply_updates(params, update)


def test_adam_adds_l2_to_the_gradient():
    params = {"w": jnp.asarray([2.0, -3.0])}
    optimizer = optimizers.adam(0.01, 0.5)
    updates, _ = optimizer.update(
        {"w": jnp.asarray([-1.0, 1.0])}, optimizer.init(params), params
    )
    # g + 0.5 w = [0, -0.5]; Adam's first step is -rate * sign, and 0 where g is 0.
    np.testing.assert_allclose(updates["w"], [0.0, 0.01], rtol=1e-5, atol=1e-8)
