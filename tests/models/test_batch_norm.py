"""Batch norm against Flax's own, with gradients and running statistics."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from coded_jax.models.batch_norm import BatchNorm

SHAPE = (4, 5, 3, 6)


def both():
    """An input, variables that no two channels share, and the modules."""
    rng = np.random.default_rng(0)
    x = rng.normal(2, 3, SHAPE).astype("f")
    ours = BatchNorm(SHAPE[-1])
    variables = ours.init(jax.random.key(0), x)
    variables = jax.tree.map(
        lambda leaf: leaf + rng.uniform(0.1, 1, leaf.shape).astype("f"), variables
    )
    return x, variables, ours, nn.BatchNorm(momentum=0.9)


def test_inference_is_that_of_flax():
    x, variables, ours, flax = both()
    factor, summand = ours.apply(variables, method="affine")
    expected = flax.apply(variables, x, use_running_average=True)
    y = x * factor[None, None, None] + summand[None, None, None]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_training_is_that_of_flax():
    x, variables, ours, flax = both()

    def results(apply):
        def loss(params, x):
            y, updated = apply({**variables, "params": params}, x)
            return jnp.sum(jnp.sin(y)), (y, updated)

        run = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
        return run(variables["params"], x)

    stats = ["batch_stats"]
    actual = results(lambda v, x: ours.apply(v, x, mutable=stats))
    expected = results(
        lambda v, x: flax.apply(v, x, use_running_average=False, mutable=stats)
    )
    chex.assert_trees_all_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_equal_values_have_no_negative_variance():
    x = np.full(SHAPE, 1e4 / 3, "f")
    variables = BatchNorm(SHAPE[-1]).init(jax.random.key(0), x)
    y, updated = BatchNorm(SHAPE[-1]).apply(variables, x, mutable=["batch_stats"])
    assert np.isfinite(y).all()
    assert (updated["batch_stats"]["var"] >= 0.9 - 1e-6).all()


def test_bfloat16():
    x, variables, ours, _ = both()
    low = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), variables["params"])
    y, updated = ours.apply(
        {**variables, "params": low}, x.astype("bfloat16"), mutable=["batch_stats"]
    )
    assert y.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(updated))


def test_what_the_backward_pass_keeps():
    """The input and a few numbers for each channel, nothing else of its size."""
    x, variables, ours, _ = both()
    train = lambda x: ours.apply(variables, x, mutable=["batch_stats"])[0]
    _, pullback = jax.vjp(train, x)
    large = [leaf for leaf in jax.tree.leaves(pullback) if leaf.size == x.size]
    assert len(large) == 1
