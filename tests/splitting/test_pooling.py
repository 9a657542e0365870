"""Networks that are cut where they pool, found in their jaxprs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax.splitting.pooling import cut_at_pooling

WHOLE, SMALL = (6, 6, 4), (3, 2, 4)
RNG = np.random.default_rng(0)
VARIABLES = {
    "dense": RNG.normal(size=(4, 3)).astype("f"),
    "gate": RNG.normal(size=(4, 4)).astype("f"),
    "flat": RNG.normal(size=(6 * 6 * 4, 3)).astype("f"),
}
X = RNG.normal(size=(5, *WHOLE)).astype("f")


def mean_head(variables, x):
    return jnp.tanh(x.mean((1, 2))) @ variables["dense"]


def max_head(variables, x):
    return x.max((1, 2)) @ variables["dense"]


def gated_head(variables, x):
    gates = jax.nn.sigmoid(x.mean((1, 2)) @ variables["gate"])
    return (x * gates[:, None, None]).mean((1, 2)) @ variables["dense"]


POOLED = {
    mean_head: lambda x: x.mean((1, 2)),
    max_head: lambda x: x.max((1, 2)),
    gated_head: lambda x: (
        x * jax.nn.sigmoid(x.mean((1, 2)) @ VARIABLES["gate"])[:, None, None]
    ).mean((1, 2)),
}


@pytest.mark.parametrize("head", POOLED)
def test_the_halves_are_the_pooling_and_the_rest(head):
    pool, rest = cut_at_pooling(head, VARIABLES, WHOLE, SMALL)
    pooled = jax.jit(pool)(VARIABLES, X)
    assert pooled.shape == (5, 1, 1, 4)
    np.testing.assert_allclose(pooled[:, 0, 0], POOLED[head](X), rtol=1e-5, atol=1e-6)
    expected = head(VARIABLES, X)
    np.testing.assert_allclose(rest(VARIABLES, pooled), expected, rtol=1e-5, atol=1e-6)
    # A smaller map is pooled as itself, and its mean is one of fewer positions.
    part = X[:, :3, :2]
    expected = POOLED[head](part)
    np.testing.assert_allclose(
        pool(VARIABLES, part)[:, 0, 0], expected, rtol=1e-5, atol=1e-6
    )


def test_halves_are_the_same_functions_each_time():
    assert cut_at_pooling(mean_head, VARIABLES, WHOLE, SMALL) == cut_at_pooling(
        mean_head, VARIABLES, WHOLE, SMALL
    )


@pytest.mark.parametrize(
    "head",
    [
        lambda variables, x: x.reshape(len(x), -1) @ variables["flat"],
        lambda variables, x: x @ variables["dense"],
    ],
    ids=["flat", "by position"],
)
def test_a_head_that_does_not_pool_is_not_cut(head):
    assert cut_at_pooling(head, VARIABLES, WHOLE, SMALL) is None
