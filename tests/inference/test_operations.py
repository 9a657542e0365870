"""Operations counted by hand, products with padding included."""

import jax
import jax.numpy as jnp
import pytest

from coded_jax.inference.operations import count_operations
from tests.errors import refused


def floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def convolve(kernel, x, padding="SAME", **options):
    layout = ("NHWC", "HWIO", "NHWC")
    strides = options.pop("strides", (1, 1))
    return jax.lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=layout, **options
    )


@pytest.mark.parametrize("padding, outputs", [("SAME", 10 * 8), ("VALID", 8 * 6)])
def test_products_with_padding_count(padding, outputs):
    counted = count_operations(
        lambda w, x: convolve(w, x, padding), floats(3, 3, 2, 7), floats(1, 10, 8, 2)
    )
    assert counted == 2 * 3 * 3 * 2 * 7 * outputs


def test_grouped_strided_and_transposed_convolutions():
    grouped = count_operations(
        lambda w, x: convolve(w, x, feature_group_count=4, strides=(2, 2)),
        floats(3, 3, 1, 4),
        floats(1, 8, 8, 4),
    )
    assert grouped == 2 * 3 * 3 * 4 * 4 * 4
    # Of 16 rows and columns half are zeros between the inputs.
    transposed = count_operations(
        lambda w, x: convolve(w, x, [(1, 2), (1, 2)], lhs_dilation=(2, 2)),
        floats(3, 3, 5, 4),
        floats(1, 8, 8, 5),
    )
    assert transposed == 2 * 3 * 3 * 5 * 4 * 16 * 16 / 4


def test_what_depends_on_the_parameters_alone_is_prepared():
    def normalised(w, x):
        return x @ (w / jnp.sqrt((w**2).sum())) + 1.0

    counted = count_operations(normalised, floats(3, 4), floats(2, 3))
    assert counted == 2 * 2 * 3 * 4 + 2 * 4
    together = lambda _, w, x: normalised(w, x)
    assert count_operations(together, {}, floats(3, 4), floats(2, 3)) > counted


DEVICE = jax.sharding.SingleDeviceSharding(jax.devices()[0])
MOVES = {
    "pad": lambda x: jnp.pad(x, 1)[1:-1, 1:-1],
    "choose": lambda x: jnp.where(x > 0, x, 1.0),
    "concatenate": lambda x: jnp.concatenate([x[:3], x[3:]]),
    "unstack": lambda x: list(x),  # slices, or one primitive, by the version
    "gather": lambda x: x[jnp.array([2, 0])],
    "scatter": lambda x: x.at[1].set(0.0),
    "flip and roll": lambda x: jnp.roll(x[::-1], 1),
    "place": lambda x: jax.lax.with_sharding_constraint(x, DEVICE),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_moves_and_comparisons_cost_nothing(move):
    assert count_operations(lambda _, x: move(x), {}, floats(6, 4)) == 0


def test_reductions_and_windows():
    assert count_operations(lambda _, x: x.sum(), {}, floats(5, 4)) == 19
    pool = lambda _, x: jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
    )
    assert count_operations(pool, {}, floats(1, 8, 6, 3)) == 3 * 4 * 3 * 3


def test_the_dearest_branch_and_every_turn():
    branch = lambda _, x: jax.lax.cond(x[0] > 0, lambda x: x * x + x, lambda x: x, x)
    assert count_operations(branch, {}, floats(5)) == 10
    turns = lambda _, x: jax.lax.fori_loop(0, 7, lambda i, y: y * y, x)
    assert count_operations(turns, {}, floats(5)) == 35
    forever = lambda _, x: jax.lax.while_loop(lambda y: y[0] > 0, lambda y: -y, x)
    with refused("model"):
        count_operations(forever, {}, floats(5))
