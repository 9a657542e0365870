"""Copies of the tail: which variables they have twice, and that they begin the same."""

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.inference.tails import copy_tail


@jax.jit
def after(variables, x):
    mean = variables["batch_stats"]["mean"]
    return jax.nn.relu(x @ variables["w"] - mean[None, None, None])


def run_tail(variables, x):
    """`relu(x w) v`, beside a variable that is not read, and a running mean."""
    features = after(variables, x)
    return features, features.mean((1, 2)) @ variables["head"]


VARIABLES = {
    "other": jnp.ones((7, 7)),
    "w": jnp.arange(6.0).reshape(2, 3),
    "batch_stats": {"mean": jnp.ones(3)},
    "head": jnp.ones((3, 4)),
    "count": jnp.int32(5),
}
X = jax.random.normal(jax.random.key(0), (2, 4, 4, 2))


SHAPE = jax.ShapeDtypeStruct(X.shape, X.dtype)


def test_a_copy_has_what_the_tail_reads_twice_and_nothing_else():
    copy = copy_tail(run_tail, VARIABLES, SHAPE)
    shapes = jax.tree.map(jnp.shape, copy.init())
    assert shapes["w"] == (2, 3) and shapes["head"] == (3, 4)
    assert shapes["other"] == shapes["count"] == shapes["batch_stats"]["mean"] == ()
    assert copy.bytes == 4 * (6 + 12)


def test_a_copy_begins_as_the_same_moves_by_steps_and_is_settled():
    copy = copy_tail(run_tail, VARIABLES, SHAPE)
    params = copy.init()
    same = copy.variables(params, VARIABLES)
    jax.tree.map(np.testing.assert_array_equal, same, VARIABLES)
    params = jax.tree.map(lambda x: x + 3, params)
    moved = copy.variables(params, VARIABLES)
    np.testing.assert_array_equal(
        moved["head"], VARIABLES["head"] + np.float32(0.1) * 3
    )
    np.testing.assert_array_equal(moved["other"], VARIABLES["other"])
    assert moved["count"].dtype == jnp.int32
    settled, sums = copy.settle(params, VARIABLES)
    np.testing.assert_array_equal(sums["head"], moved["head"])
    assert jnp.shape(sums["other"]) == ()  # no second copy of what is the same
    again = settled.variables(sums, VARIABLES)
    jax.tree.map(np.testing.assert_array_equal, again, moved)
    assert settled.settled


def test_gradients_reach_a_copy_alone():
    copy = copy_tail(run_tail, VARIABLES, SHAPE)
    loss = lambda p: run_tail(copy.variables(p, VARIABLES), X)[1].sum()
    gradients = jax.grad(loss)(copy.init())
    assert np.any(gradients["w"]) and np.any(gradients["head"])
    assert not np.any(gradients["other"])
    assert not np.any(gradients["batch_stats"]["mean"])
