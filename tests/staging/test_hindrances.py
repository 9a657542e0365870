"""An error says what keeps a network from being coded, not what is frequent in it."""

import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax import plan_stages
from tests.staging.networks import convolved

VARIABLES = [
    np.random.default_rng(0).normal(size=(3, 3, i, 4)).astype("f") for i in (3, 4)
]


def pooled(variables, x):
    return convolved(convolved(x, variables[0]), variables[1]).mean((1, 2))


def with_a_mask(variables, x):
    """Needs a feature and a mask of it from the very convolution on."""
    x = convolved(x, variables[0])
    some = (x > 0).any((1, 2))
    return jnp.where(some, x.mean((1, 2)), 0)


def with_two_ends(variables, x):
    """Pools the image by itself, too, of which a feature has no whole part."""
    y = convolved(convolved(x, variables[0], 2), variables[1])
    return x.mean((1, 2)).sum() + y.mean((1, 2))


@pytest.mark.parametrize(
    "model, size, k, reason",
    [
        (pooled, 2, 2, "each piece would need the whole image"),
        (pooled, 32, 5000, "no value that could be split has more than 32x32 posi"),
        (with_a_mask, 32, 2, "the values at its cuts do not fit into one array"),
        (with_two_ends, 33, 2, "the values at its cuts do not fit into one array"),
    ],
)
def test_what_is_in_the_way_is_said(model, size, k, reason):
    with pytest.raises(ValueError, match=f"^k: {k} given, .* in the way: {reason}"):
        plan_stages(model, VARIABLES, (size, size, 3), k, 1)
