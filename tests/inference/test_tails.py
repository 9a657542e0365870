"""Copies of the tail: which variables they have twice, and that they begin the same."""

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.inference.stages import Segment
from coded_jax.inference.tails import Tail, copy_tail, run_tail


def tail_of(jitted: bool):
    """`relu(x w) v`, beside a variable that is not read, and a running mean."""

    def after(variables, x):
        mean = variables["batch_stats"]["mean"]
        return jax.nn.relu(x @ variables["w"] - mean[None, None, None])

    f_conv = jax.jit(after) if jitted else after
    return Tail(Segment(f_conv, (2, 2)), lambda v, x: x.mean((1, 2)) @ v["head"])


VARIABLES = {
    "other": jnp.ones((7, 7)),
    "w": jnp.arange(6.0).reshape(2, 3),
    "batch_stats": {"mean": jnp.ones(3)},
    "head": jnp.ones((3, 4)),
    "count": jnp.int32(5),
}
X = jax.random.normal(jax.random.key(0), (2, 4, 4, 2))


def test_a_copy_has_what_the_tail_reads_twice_and_nothing_else():
    for jitted in (False, True):
        tail = tail_of(jitted)
        copy = copy_tail(tail, VARIABLES, jax.ShapeDtypeStruct(X.shape, X.dtype))
        shapes = jax.tree.map(jnp.shape, copy.init())
        assert shapes["w"] == (2, 3) and shapes["head"] == (3, 4)
        assert shapes["other"] == shapes["count"] == shapes["batch_stats"]["mean"] == ()
        assert copy.bytes == 4 * (6 + 12)


def test_a_copy_begins_as_the_same_and_moves_by_steps():
    tail = tail_of(False)
    copy = copy_tail(tail, VARIABLES, jax.ShapeDtypeStruct(X.shape, X.dtype))
    params = copy.init()
    same = copy.variables(params, VARIABLES)
    assert jax.tree.structure(same) == jax.tree.structure(VARIABLES)
    np.testing.assert_array_equal(
        run_tail(tail, same, X)[1], run_tail(tail, VARIABLES, X)[1]
    )
    moved = copy.variables(
        {**params, "head": params["head"] + 1, "other": 1.0}, VARIABLES
    )
    np.testing.assert_allclose(moved["head"], 1.1)
    shorter = copy_tail(
        tail, VARIABLES, jax.ShapeDtypeStruct(X.shape, X.dtype), step=0.02
    )
    moved_less = shorter.variables({**params, "head": params["head"] + 1}, VARIABLES)
    np.testing.assert_allclose(moved_less["head"], 1.02)
    np.testing.assert_array_equal(moved["other"], VARIABLES["other"])
    assert moved["count"].dtype == jnp.int32


def test_a_copy_that_is_settled_has_its_sums_at_hand():
    copy = copy_tail(
        tail_of(False), VARIABLES, jax.ShapeDtypeStruct(X.shape, X.dtype), step=0.5
    )
    params = jax.tree.map(lambda x: x + 3.0, copy.init())
    settled, sums = copy.settle(params, VARIABLES)
    np.testing.assert_array_equal(sums["head"], VARIABLES["head"] + 1.5)
    assert jnp.shape(sums["other"]) == ()  # no second copy of what is the same
    jax.tree.map(
        np.testing.assert_array_equal,
        settled.variables(sums, VARIABLES),
        copy.variables(params, VARIABLES),
    )
    assert settled.settled and str(settled) == str(copy)


def test_gradients_reach_a_copy_alone():
    tail = tail_of(False)
    copy = copy_tail(tail, VARIABLES, jax.ShapeDtypeStruct(X.shape, X.dtype))
    loss = lambda p: run_tail(tail, copy.variables(p, VARIABLES), X)[1].sum()
    gradients = jax.grad(loss)(copy.init())
    assert np.any(gradients["w"]) and np.any(gradients["head"])
    assert not np.any(gradients["other"]) and not np.any(
        gradients["batch_stats"]["mean"]
    )
