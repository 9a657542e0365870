"""Receptive fields: by hand, and against what a lit line of the image changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from coded_jax.splitting import platform_specialised
from coded_jax.splitting.receptive_field import analyse
from coded_jax.splitting.traces import Field
from coded_jax.splitting.windows import Window
from tests.errors import refused

SHAPE = (24, 21, 2)


def conv(x, kernel, stride=(1, 1), dilation=(1, 1), padding="SAME"):
    """A convolution with ones, of as many channels as it is given."""
    return lax.conv_general_dilated(
        x,
        jnp.ones((*kernel, x.shape[-1], x.shape[-1])),
        stride,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def fields_of(f, shape=SHAPE):
    return analyse(lambda variables, x: f(x), {}, shape).fields


layers = st.tuples(*[st.integers(1, 5), st.integers(1, 3)] * 2)


@given(st.lists(layers, max_size=5), st.integers(-3, 9), st.integers(1, 4), st.data())
def test_window_walks_back_layer_by_layer(chain, a, length, data):
    paddings = [data.draw(st.integers(0, 4)) for _ in chain]
    field = Field()
    for (q, s, d, _), p in zip(chain, paddings, strict=True):
        field = field.through(Window(24, q, s, d, p))
    low, high = a, a + length
    for (q, s, d, _), p in reversed(list(zip(chain, paddings, strict=True))):
        low, high = low * s - p, (high - 1) * s - p + (q - 1) * d + 1
    assert field.window(a, a + length) == (low, high)


def test_lenet5(lenet):
    base, variables = lenet
    # 5x5: [0, 5). Pool 2, stride 2: one more pixel, [0, 6), stride 2. 5x5: 4 more of 2
    # pixels, [0, 14). Pool: one more of 2 pixels, [0, 16), stride 4.
    rows, columns = analyse(base.f_conv, variables, (28, 28, 1)).fields
    assert rows == columns == Field(stride=4, low=0, high=16)
    assert [rows.window(0, 2), rows.window(2, 4)] == [(0, 20), (8, 28)]


def residual(x):
    return jnp.tanh(x + conv(conv(x, (3, 1)), (2, 5)))


def inception(x):
    wide = conv(x, (5, 3), padding=((2, 2), (1, 1)))
    return jnp.concatenate([x, conv(x, (1, 1)), wide], axis=-1)


def downsampling_block(x):
    shortcut = conv(x, (1, 1), stride=(2, 2))
    return conv(conv(x, (3, 3), stride=(2, 2)), (3, 3)) + shortcut


# SAME pads low by half of what is missing, rounded down: 24 rows, 21 columns.
NETWORKS = {
    "even kernel": (lambda x: conv(x, (2, 4)), Field(1, 0, 2), Field(1, -1, 3)),
    "explicit padding": (
        lambda x: conv(x, (4, 3), padding=((3, 0), (0, 2))),
        Field(1, -3, 1),
        Field(1, 0, 3),
    ),
    "dilation": (
        lambda x: conv(x, (3, 3), dilation=(2, 3)),
        Field(1, -2, 3),
        Field(1, -3, 4),
    ),
    # 24 rows make 12 with 11*2 + 3 - 24 = 1 missing; 21 columns make 7 with none.
    "stride": (
        lambda x: conv(x, (3, 3), stride=(2, 3)),
        Field(2, 0, 3),
        Field(3, 0, 3),
    ),
    "max pool": (
        lambda x: nn.max_pool(x, (3, 3), (2, 1), padding=((1, 1), (2, 0))),
        Field(2, -1, 2),
        Field(1, -2, 1),
    ),
    "average pool": (
        lambda x: nn.avg_pool(x, (3, 2), (1, 1), padding="SAME"),
        Field(1, -1, 2),
        Field(1, 0, 2),
    ),
    # Rows: 3 then 2, low padding 1 + 0. Columns: 1 then 5, low padding 0 + 2.
    "residual": (residual, Field(1, -1, 3), Field(1, -2, 3)),
    "concatenation": (inception, Field(1, -2, 3), Field(1, -1, 2)),
    # Rows: as "stride", [0, 3), then one feature of 2 pixels on either side.
    # 21 columns make 11 with 10*2 + 3 - 21 = 2 missing: [-1, 2), likewise.
    "downsampling block": (downsampling_block, Field(2, -2, 5), Field(2, -3, 4)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_by_hand_and_by_what_a_lit_line_changes(name):
    f, *fields = NETWORKS[name]
    assert fields_of(f) == tuple(fields)
    for axis, (size, field) in enumerate(zip(SHAPE, fields, strict=False)):
        # Image i is 0 but for line i. No weight is negative, so nothing cancels; the
        # brighter line changes a maximum, the darker one a minimum.
        lines = jnp.expand_dims(jnp.eye(size), (2 - axis, 3))
        lines = jnp.broadcast_to(lines, (size, *SHAPE))
        lit = jax.jit(f)(jnp.concatenate([lines, -lines])) != 0
        changed = lit.any(axis=(2 - axis, 3)).reshape(2, size, -1).any(0)
        for a, pixels in enumerate(np.asarray(changed.T)):
            low, high = field.window(a, a + 1)
            pixels = set(pixels.nonzero()[0].tolist())
            assert pixels <= set(range(low, high))
            if low >= 0 and high <= size:  # in the padding, dilation may leave a hole
                assert (min(pixels), max(pixels)) == (low, high - 1)


@pytest.mark.parametrize(
    "f, rows",
    [
        (lambda x: x[:, 2:-1], Field(1, 0, 4)),  # and what it crops
        # 24 rows: the second stops one short of the end.
        (lambda x: x[:, ::2] + x[:, 1::2], Field(2, 0, 2)),
        (lambda x: conv(x, (3, 1), padding=((-1, 0), (0, 0))), Field(1, 0, 4)),
        (lambda x: jnp.pad(x, ((0, 0), (2, 0), (0, 0), (0, 0))), Field(1, -2, -1)),
    ],
)
def test_crops_and_padding(f, rows):
    assert fields_of(f) == (rows, Field())


ONES = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    "f",
    [
        jax.jit(nn.relu),
        jax.checkpoint(nn.gelu),
        nn.relu6,  # with a gradient of its own
        lambda y: jnp.where(y > 0, y, 0).astype(jnp.bfloat16),
        lambda y: y + lax.broadcasted_iota(jnp.float32, y.shape, 3),
        lambda y: jnp.concatenate([y, jnp.ones_like(y)], axis=3) + ONES.max(),
        lambda y: jnp.stack([y, jnp.ones_like(y)]).sum(0),
        lambda y: (y - y.mean(3, keepdims=True)) / y.std(-1, keepdims=True),
        lambda y: jnp.einsum("cd,bhwc->bhwd", ONES, y),
        lambda y: jnp.maximum(*jnp.split(y @ ONES[:, :2], 2, axis=3)),
        lambda y: jnp.cumsum(jnp.sort(y, axis=3), 3)[..., jnp.array([1, 0, 1])],
        lambda y: jnp.stack([y, y], -1).reshape(*y.shape[:3], 4),
        lambda y: jnp.unstack(y[:, None], axis=1)[0],
        lambda y: lax.optimization_barrier((y, y + 1))[0],
        lambda y: (y, y.mean((0, 1, 2)))[0],  # what nobody needs may mix positions
    ],
)
def test_what_mixes_channels_alone_changes_nothing(f):
    fields = fields_of(lambda x: f(conv(x, (3, 5))))
    assert fields == (Field(1, -1, 2), Field(1, -2, 3))


@pytest.mark.parametrize(
    "operation, f",
    [
        ("dot_general", lambda x: jnp.einsum("bhwc,hi->biwc", x, jnp.ones((24, 24)))),
        ("dot_general", lambda x: jnp.einsum("bhwc,hcd->bhwd", x, np.ones((24, 2, 1)))),
        ("squeeze", lambda x: x[:, 3]),
        ("concatenate", lambda x: lax.concatenate([x, x], dimension=1)),
        ("reshape", lambda x: jnp.stack([x, x], 1).reshape(2, 48, 21, 2)),
        ("gather", lambda x: x[:, jnp.array([3, 1, 2])]),
        ("scatter", lambda x: x.at[:, 0].set(0.0)),
        ("scan", lambda x: lax.fori_loop(0, 999, lambda _, x: jnp.sin(x), x)),
        ("while", lambda x: lax.while_loop(lambda x: x.sum() < 1, lambda x: x + 1, x)),
        (
            "conv_general_dilated",  # the image as the kernel
            lambda x: lax.conv_general_dilated(
                jnp.ones((1, 24, 21, 2)),
                x,
                (1, 1),
                "SAME",
                dimension_numbers=("NHWC", "IHWO", "NHWC"),
            ),
        ),
        (
            "reduce_window_max",  # over the batch
            lambda x: lax.reduce_window(
                x, -np.inf, lax.max, (2, 1, 1, 1), (1, 1, 1, 1), "SAME"
            ),
        ),
    ],
)
def test_what_mixes_positions_is_refused_by_name(operation, f):
    match = f"^f_conv: operation '{operation}'.*head"
    with pytest.raises(ValueError, match=match) as error:
        fields_of(f)
    assert "\n" not in str(error.value)


def pooled(x, padding="SAME"):
    return lax.reduce_window(x, 0.0, lax.add, (1, 3, 3, 1), (1, 1, 1, 1), padding)


UNEVEN = ((0, 0), (2, 0), (1, 1), (0, 0))


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x + np.ones((1, 24, 1, 2), np.float32),
        lambda x: x + lax.broadcasted_iota(jnp.float32, x.shape, 1),
        # Constants that went through padding, and not as the features did.
        lambda x: x + pooled(jnp.ones_like(x)),
        lambda x: pooled(x) / pooled(jnp.ones_like(x), UNEVEN),
        lambda x: pooled(x) / pooled(pooled(jnp.ones_like(x))),
        lambda x: conv(x, (1, 1), (24, 1)) + conv(x, (24, 1), padding="VALID"),
        lambda x: x.transpose(0, 2, 1, 3),
        lambda x: (x, x),
    ],
    ids="rows iota added uneven twice strides axes two".split(),
)
def test_what_tells_positions_apart_is_refused(f):
    with refused("f_conv"):
        fields_of(f)


@pytest.mark.parametrize(
    "f, smaller, odd",
    [
        (
            lambda x: nn.max_pool(conv(x, (3, 3)), (3, 3), (2, 2), "SAME"),
            None,
            "'reduce_window_max'",
        ),
        (
            lambda x: nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False),
            None,
            None,
        ),
        (lambda x: x[:, :14], "'slice'", "'slice'"),
        (lambda x: x * np.float32(x.shape[1] > 15), None, "'mul'"),
        (lambda x: jnp.sin(x) if x.shape[1] > 15 else x, None, "'sin'"),
        (lambda x: (jnp.sin(x), jnp.cos(x))[x.shape[1] > 15], None, "'cos'"),
        (
            lambda x: jnp.split(x, 2, axis=3)[x.shape[1] > 15],
            None,
            "that makes the result",
        ),
    ],
)
def test_analyses_of_two_sizes_differ_where_the_function_does(f, smaller, odd):
    whole, again, *others = (
        analyse(lambda _, x: f(x), {}, (size, 21, 2)) for size in (24, 24, 16, 15)
    )
    assert whole.digest == again.digest
    assert [whole.differs_from(other) for other in others] == [smaller, odd]


def wide(x):
    return conv(x, (5, 3))


def on_cpu_or_else(cpu, default):
    return lambda x: lax.platform_dependent(x, cpu=cpu, default=default)


@pytest.mark.parametrize(
    "f, rows, columns",
    [
        # Rows of the one, columns of the other, on every platform.
        (
            on_cpu_or_else(wide, lambda x: conv(x, (1, 5))),
            Field(1, -2, 3),
            Field(1, -2, 3),
        ),
        (
            jax.jit(on_cpu_or_else(jnp.sin, on_cpu_or_else(jnp.sin, wide))),
            Field(1, -2, 3),
            Field(1, -1, 2),
        ),
    ],
)
def test_receptive_field_of_platform_dependent_covers_every_branch(f, rows, columns):
    assert fields_of(f) == (rows, columns)


def mean_over_rows(x):
    return x - x.mean(1, keepdims=True)


def test_a_promise_of_equal_branches_is_for_that_operation_alone():
    def f(x, cpu, default):
        return platform_specialised(x, cpu=cpu, default=default)

    fields = fields_of(lambda x: f(x, mean_over_rows, wide))
    assert fields == (Field(1, -2, 3), Field(1, -1, 2))
    for nested in (
        lambda x: f(x, jnp.sin, on_cpu_or_else(mean_over_rows, jnp.sin)),
        lambda x: on_cpu_or_else(mean_over_rows, jnp.sin)(f(x, jnp.sin, jnp.sin)),
    ):
        with pytest.raises(ValueError, match="'reduce_sum'"):
            fields_of(nested)
