"""Networks taken apart at their convolutions: the parts, their plans, what is kept."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jax import lax

from coded_jax.splitting import AxisPlan, cut, merge, split
from coded_jax.splitting.convolutions import separate_convolutions
from coded_jax.types import apart, chain, together
from tests.errors import refused
from tests.splitting import test_pieces
from tests.splitting.exactness import COMPILED_QUICKLY, conv


def separate(f, shape=(9, 8, 2), k=2):
    """Takes a function without variables apart."""
    return separate_convolutions(lambda variables, x: f(x), {}, shape, k)


def images_of(shape, batch=2):
    return np.random.default_rng(0).normal(size=(batch, *shape)).astype("f")


def assert_the_same(blocks, f, variables, shape):
    images = images_of(shape)
    whole = jax.jit(f)(variables, images)
    parts = jax.jit(chain(blocks))(variables, images)
    scale = np.abs(whole).max()
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-5 * scale)


def test_plans_of_padded_convolutions_by_hand():
    # 9x8 outputs: 2 strips of 5 rows are 40 places, 2 of 4 columns 36. These need
    # columns 0..5 and 4..9 of 10, with one of padding at either side.
    blocks, (plan,) = separate(conv)
    assert plan.rows == AxisPlan(11, 11, (0,), 9, 9, (0,), 1)
    assert plan.columns == AxisPlan(10, 6, (0, 4), 8, 4, (0, 0), 1)
    padded = jax.jit(blocks[0])({}, images_of((9, 8, 2)))
    np.testing.assert_array_equal(padded[:, 1:-1, 1:-1], images_of((9, 8, 2)))
    assert padded.shape == (2, 11, 10, 2) and not np.any(padded[:, 0])
    # 7x7 in strips of 2 rows, the fourth of them half empty: 14 places, not 4x4.
    blocks, (plan,) = separate(conv, (7, 7, 1), k=4)
    assert plan.grid == (4, 1) and plan.share_shape == (2, 7, 2)
    assert plan.rows == AxisPlan(10, 4, (0, 2, 4, 6), 8, 2, (0,) * 4, 1)
    assert_the_same(blocks, lambda variables, x: conv(x), {}, (7, 7, 1))


def test_convolutions_of_one_value_are_one_round():
    def inception(x):
        paths = [
            conv(x, kernel=(1, 1), maps=3),
            jax.nn.relu(conv(x, kernel=(3, 3), seed=1)),
            conv(x, kernel=(5, 3), dilation=(1, 2), seed=2),
        ]
        return jnp.concatenate([*paths, x], axis=-1)

    blocks, (plan,) = separate(inception)
    assert plan.share_shape[-1] == 3 + 2 + 2
    x, kept = apart(jax.eval_shape(blocks[0], {}, images_of((9, 8, 2))))
    assert x.shape == (2, 13, 12, 2) and [v.shape for v in kept] == [(2, 9, 8, 2)]
    assert_the_same(blocks, lambda variables, x: inception(x), {}, (9, 8, 2))


@pytest.mark.parametrize("least, rounds", [(0.1, 2), (0.1001, 1)])
def test_a_convolution_that_spares_too_little_stays_with_the_client(least, rounds):
    # 2 maps of 2 and 8 of them: a fifth and four fifths, of which half is spared.
    f = lambda x: conv(jax.nn.relu(conv(x, maps=2)), maps=8)
    of_image = lambda variables, x: f(x)
    blocks, plans = separate_convolutions(of_image, {}, (8, 8, 2), 2, least)
    assert len(plans) == rounds and plans[-1].share_shape[-1] == 8
    assert_the_same(blocks, of_image, {}, (8, 8, 2))


@pytest.mark.parametrize(
    "lone",
    [
        lambda x: conv(x, padding="VALID", kernel=(9, 8)),  # of one output
        lambda x: conv(x.reshape(-1, 3, 8, 2)).reshape(x.shape),  # of another batch
        lambda x: lax.cond(x.sum() > 0, conv, jnp.negative, x),
        lambda x: x * 2,
    ],
    ids="output batch branch none".split(),
)
def test_networks_without_a_convolution_to_share_are_refused(lone):
    with refused("split"):
        separate(lone)
    # Beside one that is shared the client computes it.
    f = lambda x: lone(jnp.tanh(conv(x)))
    blocks, (plan,) = separate(f)
    assert plan.share_shape == (9, 4, 2)
    assert_the_same(blocks, lambda variables, x: f(x), {}, (9, 8, 2))


def test_layouts_and_transposed_convolutions():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4, 2, 3, 3)).astype("f")  # OIHW

    def f(variables, x):
        x = x.transpose(0, 3, 1, 2)
        x = lax.conv_general_dilated(x, variables, (1, 1), ((2, 1), (-1, 2)))
        x = lax.conv_general_dilated(
            jnp.tanh(x)[:, :2],
            variables,
            (1, 1),
            ((2, 1), (-1, 3)),
            lhs_dilation=(2, 3),
            dimension_numbers=("NCHW", "OIHW", "HWNC"),
        )
        return x.transpose(2, 0, 1, 3)

    blocks, plans = separate_convolutions(f, kernel, (9, 8, 2), 4)
    assert len(plans) == 2
    assert_the_same(blocks, f, kernel, (9, 8, 2))


@hypothesis.given(
    layers=st.lists(test_pieces.layer, min_size=1, max_size=3),
    size=test_pieces.pairs(8, 16),
    k=st.sampled_from([2, 3, 4]),
)
def test_random_networks(layers, size, k):
    """Every convolution of them is split, and all the rest is the client's."""
    f = lambda variables, x: test_pieces.network(layers, x)
    shape = (*size, 2)
    try:
        blocks, plans = separate_convolutions(f, {}, shape, k)
    except (ValueError, ZeroDivisionError):  # no convolution to share, nothing left
        hypothesis.reject()

    @functools.partial(jax.jit, compiler_options=COMPILED_QUICKLY)
    def both(state):
        whole = f({}, state)
        for i, block in enumerate(blocks):
            if i % 2:
                plan, (x, kept) = plans[i // 2], apart(state)
                outputs = jax.vmap(lambda x, block=block: block({}, x))(split(plan, x))
                state = together(merge(plan, cut(plan, outputs)), kept)
            else:
                state = block({}, state)
        return whole, state

    whole, parts = both(images_of(shape))
    scale = np.abs(whole).max(initial=1e-3)
    np.testing.assert_allclose(parts, whole, rtol=0, atol=2e-5 * scale)
