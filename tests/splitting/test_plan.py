"""Plans of splits, by hand, and what cannot be planned."""

import functools

import jax.numpy as jnp
import pytest

from coded_jax.splitting import AxisPlan
from coded_jax.splitting.plan import make_plan
from tests.errors import refused
from tests.splitting.exactness import assert_exact, conv, lenet_args, plan_of

# LeNet-5: features [0, 2) need pixels [0, 20), and features are 4 pixels apart.
ROWS = {1: (28, (0,)), 2: (20, (0, 8)), 4: (16, (0, 4, 8, 12))}


@pytest.mark.parametrize("grid", [(1, 1), (4, 1), (1, 2), (2, 2)])
def test_lenet5(lenet, grid):
    base, variables = lenet
    plan = make_plan(base.f_conv, variables, (28, 28, 1), grid)
    (height, rows), (width, columns) = (ROWS[parts] for parts in grid)
    # Without padding nothing is cut, and 4 features divide by 1, 2 and 4.
    for axis, parts, window, starts in (
        (plan.rows, grid[0], height, rows),
        (plan.columns, grid[1], width, columns),
    ):
        assert axis == AxisPlan(28, window, starts, 4, 4 // parts, (0,) * parts, 4)
        assert axis.surplus == 0
    assert plan.grid == grid and plan.k == grid[0] * grid[1]
    assert plan.piece_shape == (height, width, 1)
    assert plan.share_shape == (4 // grid[0], 4 // grid[1], 16)
    assert plan.work_fraction == pytest.approx(height * width / 28**2, rel=1e-12)
    assert_exact(functools.partial(base.f_conv, variables), plan)


def test_same_padding_and_surplus_by_hand():
    # 13 features in shares of ceil(13/3) = 5, the last moved up to end at 13: features
    # [0, 5), [5, 10), [8, 13) need rows [0, 6), [4, 11), [7, 13), at most 7.
    plan = plan_of(conv, (13, 9, 1), (3, 1))
    assert plan.rows == AxisPlan(13, 7, (0, 4, 6), 13, 5, (0, 1, 2), 1)
    assert plan.rows.surplus == 2
    assert plan.columns == AxisPlan(9, 9, (0,), 9, 9, (0,), 1)
    assert_exact(conv, plan)


def test_a_wider_halo_by_hand():
    # One row more at each side: [0, 7), [3, 12), [6, 13), at most 9.
    variables, shape = {}, (13, 9, 1)
    f = lambda variables, x: conv(x)
    plan = make_plan(f, variables, shape, (3, 1), halo=1)
    assert plan.rows == AxisPlan(13, 9, (0, 3, 4), 13, 5, (0, 2, 4), 1)
    assert plan.columns == AxisPlan(9, 9, (0,), 9, 9, (0,), 1)
    assert_exact(conv, plan)
    with refused("halo"):
        make_plan(f, variables, shape, (3, 1), halo=0.5)
    with pytest.raises(ValueError, match="take fewer, a smaller halo or end f_conv"):
        make_plan(f, variables, shape, (3, 1), halo=5)


def test_stride_by_hand():
    # Features [0, 4), [4, 8) need rows [0, 8), [7, 16). Starts are even, so the second
    # piece is rows 6 to 16, and its first feature is the first that is its own.
    f = functools.partial(conv, stride=(2, 2), padding=((1, 1), (1, 1)))
    plan = plan_of(f, (16, 16, 1), (2, 1))
    assert plan.rows == AxisPlan(16, 10, (0, 6), 8, 4, (0, 1), 2)
    assert_exact(f, plan)


def test_length_of_pieces_is_that_of_the_image_modulo_the_stride():
    # 17 rows, SAME, stride 2: 9 features with low padding 1 (8*2 + 3 - 17 = 2 missing).
    # Shares [0, 5), [4, 9) need rows [0, 10), [7, 17). An odd length from an even start
    # that reaches row 17: 11 from 6. An even length would pad low by 0 instead.
    f = functools.partial(conv, stride=(2, 1))
    plan = plan_of(f, (17, 8, 1), (2, 1))
    assert plan.rows == AxisPlan(17, 11, (0, 6), 9, 5, (0, 1), 2)
    assert_exact(f, plan)


def test_halos_are_the_pixels_that_several_pieces_hold(lenet):
    # Rows [0, 20) and [8, 28); [0, 16), [4, 20), [8, 24), [12, 28).
    assert make_plan(*lenet_args(lenet), (2, 1)).rows.halos == (12, 12)
    assert make_plan(*lenet_args(lenet), (4, 1)).rows.halos == (12, 16, 16, 12)
    # Rows [0, 7), [4, 11), [6, 13).
    assert plan_of(conv, (13, 9, 1), (3, 1)).rows.halos == (3, 7, 5)
    assert plan_of(conv, (13, 9, 1), (3, 1)).columns.halos == (0,)
    assert plan_of(jnp.tanh, (8, 8, 1), (4, 1)).rows.halos == (0, 0, 0, 0)
    assert AxisPlan(6, 4, (0, 2), 6, 3, (0, 1), 1).holders == [1, 1, 2, 2, 1, 1]


@pytest.mark.parametrize(
    "shape, grid, name",
    [
        ((28, 28, 1), (3, 1), "k"),  # 4 features: the third of 3 shares would be empty
        ((28, 28, 1), (1, 5), "k"),
        ((28, 28, 1), (2.0, 1), "grid"),
        ((28, 28, 1), None, "grid"),
        ((0, 28, 1), (2, 1), "k"),
    ],
)
def test_what_cannot_be_planned_is_refused(lenet, shape, grid, name):
    base, variables = lenet
    with refused(name):
        make_plan(base.f_conv, variables, shape, grid)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: conv(x) * (x.shape[1] / 24),
        lambda x: conv(x[:, :20]),
        lambda x: x.reshape(2, 24, 24, 1),  # fails for pieces
        lambda x: conv(x, stride=(2, 1))[:, : 1 + x.shape[1] // 3],
    ],
)
def test_functions_that_do_something_else_on_pieces_are_refused(f):
    with refused("f_conv"):
        plan_of(f, (24, 24, 1), (2, 1))


@pytest.mark.parametrize(
    "matrix",
    [
        lambda size: jnp.eye(size) + 1e-6,
        lambda size: jnp.eye(size) + 1e-5 * jnp.eye(size, k=3),
        lambda size: jnp.diag(1 + 1e-5 * jnp.sin(jnp.arange(float(size)))),
        lambda size: jnp.eye(size) * (1 + 1e-7 * size),  # differs by the size
    ],
    ids=["mean", "far row", "gains", "size"],
)
def test_small_weights_of_a_matrix_over_rows_count(matrix):
    f = lambda x: jnp.einsum("bhwc,hi->biwc", x, matrix(x.shape[1]))
    with refused("f_conv"):
        plan_of(f, (256, 4, 1), (2, 1))
