"""Batch norm against Flax's own, with gradients and running statistics."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from coded_jax.models.batch_norm import BatchNorm

SHAPE = (4, 5, 3, 6)


def both():
    """Ours and Flax's, with variables that no channel shares."""
    rng = np.random.default_rng(0)
    x = rng.normal(2, 3, SHAPE).astype("f")
    ours = BatchNorm()
    variables = ours.init(jax.random.key(0), x, False)
    variables = jax.tree.map(
        lambda leaf: leaf + rng.uniform(0.1, 1, leaf.shape).astype("f"), variables
    )
    flax = nn.BatchNorm(momentum=0.9)
    return (
        x,
        variables,
        (
            ours.apply,
            lambda v, x, train, **kwargs: flax.apply(
                v, x, use_running_average=not train, **kwargs
            ),
        ),
    )


def test_variables_are_those_of_flax():
    x = np.ones(SHAPE, "f")
    ours = BatchNorm().init(jax.random.key(0), x, True)
    chex.assert_trees_all_equal(
        ours, nn.BatchNorm(use_running_average=False).init(jax.random.key(0), x)
    )


def test_inference_is_that_of_flax_bit_for_bit():
    x, variables, applies = both()
    ours, flax = (
        jax.jit(apply, static_argnums=2)(variables, x, False) for apply in applies
    )
    np.testing.assert_array_equal(ours, flax)


def test_training_is_that_of_flax():
    x, variables, applies = both()

    def results(apply):
        def loss(params, x):
            y, updated = apply(
                {**variables, "params": params}, x, True, mutable=["batch_stats"]
            )
            return jnp.sum(jnp.sin(y)), (y, updated)

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(
            variables["params"], x
        )

    ours, flax = map(results, applies)
    chex.assert_trees_all_close(ours, flax, rtol=1e-5, atol=1e-5)


def test_equal_values_have_no_negative_variance():
    x = np.full(SHAPE, 1e4 / 3, "f")
    variables = BatchNorm().init(jax.random.key(0), x, True)
    y, updated = BatchNorm().apply(variables, x, True, mutable=["batch_stats"])
    assert np.isfinite(y).all()
    assert (updated["batch_stats"]["var"] >= 0.9 - 1e-6).all()


@pytest.mark.parametrize("train", [False, True])
def test_bfloat16(train):
    x, variables, _ = both()
    low = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), variables["params"])
    y, updated = BatchNorm().apply(
        {**variables, "params": low},
        x.astype("bfloat16"),
        train,
        mutable=["batch_stats"],
    )
    assert y.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(updated))


def test_what_the_backward_pass_keeps():
    """The input and a few numbers for each channel, nothing else of its size."""
    x, variables, (apply, _) = both()
    y, pullback = jax.vjp(
        lambda x: apply(variables, x, True, mutable=["batch_stats"])[0], x
    )
    large = [leaf for leaf in jax.tree.leaves(pullback) if leaf.size == x.size]
    assert len(large) == 1
