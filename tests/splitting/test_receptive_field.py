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
from coded_jax.splitting.receptive_field import Field, analyse, receptive_field

SHAPE = (24, 21, 2)


def conv(x, kernel, stride=(1, 1), dilation=(1, 1), padding="SAME", upsample=(1, 1)):
    """A convolution with ones, of as many channels as it is given."""
    return lax.conv_general_dilated(
        x,
        jnp.ones((*kernel, x.shape[-1], x.shape[-1])),
        stride,
        padding,
        lhs_dilation=upsample,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def fields_of(f, shape=SHAPE):
    return receptive_field(lambda variables, x: f(x), {}, shape)


layers = st.tuples(*[st.integers(1, 5), st.integers(1, 3)] * 2)


@given(st.lists(layers, max_size=5), st.integers(-3, 9), st.integers(1, 4), st.data())
def test_window_walks_back_layer_by_layer(chain, a, length, data):
    paddings = [data.draw(st.integers(0, 4)) for _ in chain]
    field = Field()
    for (q, s, d, _), p in zip(chain, paddings, strict=True):
        field = field.through(q, s, d, p)
    low, high = a, a + length
    for (q, s, d, _), p in reversed(list(zip(chain, paddings, strict=True))):
        low, high = low * s - p, (high - 1) * s - p + (q - 1) * d + 1
    assert field.window(a, a + length) == (low, high)


def test_lenet5(lenet):
    base, variables = lenet
    # 5x5: [0, 5). Pool 2, stride 2: one more pixel, [0, 6), stride 2. 5x5: 4 more of 2
    # pixels, [0, 14). Pool: one more of 2 pixels, [0, 16), stride 4.
    rows, columns = receptive_field(base.f_conv, variables, (28, 28, 1))
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
    "identity": (lambda x: x, Field(1, 0, 1), Field(1, 0, 1)),
    "same": (lambda x: conv(x, (3, 5)), Field(1, -1, 2), Field(1, -2, 3)),
    "same, even kernel": (lambda x: conv(x, (2, 4)), Field(1, 0, 2), Field(1, -1, 3)),
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
    "same, stride": (
        lambda x: conv(x, (3, 3), stride=(2, 3)),
        Field(2, 0, 3),
        Field(3, 0, 3),
    ),
    "kernel below stride": (
        lambda x: conv(x, (1, 2), stride=(2, 3), padding="VALID"),
        Field(2, 0, 1),
        Field(3, 0, 2),
    ),
    "max pool, padded": (
        lambda x: nn.max_pool(x, (3, 3), (2, 1), padding=((1, 1), (2, 0))),
        Field(2, -1, 2),
        Field(1, -2, 1),
    ),
    "max pool, dilated": (
        lambda x: lax.reduce_window(
            x,
            -np.inf,
            lax.max,
            (1, 3, 2, 1),
            (1, 1, 1, 1),
            "VALID",
            window_dilation=(1, 2, 3, 1),
        ),
        Field(1, 0, 5),
        Field(1, 0, 4),
    ),
    "average pool, padded": (
        lambda x: nn.avg_pool(x, (3, 2), (1, 1), padding="SAME"),
        Field(1, -1, 2),
        Field(1, 0, 2),
    ),
    # Rows: 3 then 2, low padding 1 + 0. Columns: 1 then 5, low padding 0 + 2.
    "residual": (residual, Field(1, -1, 3), Field(1, -2, 3)),
    "concatenation": (inception, Field(1, -2, 3), Field(1, -1, 2)),
    # Rows: as "same, stride", [0, 3), then one feature of 2 pixels on either side.
    # 21 columns make 11 with 10*2 + 3 - 21 = 2 missing: [-1, 2), likewise.
    "downsampling block": (downsampling_block, Field(2, -2, 5), Field(2, -3, 4)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_network_by_hand(name):
    f, rows, columns = NETWORKS[name]
    assert fields_of(f) == (rows, columns)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_line_changes_what_is_predicted(name, axis):
    f = NETWORKS[name][0]
    size = SHAPE[axis]
    # Image i is 0 but for line i. No weight is negative, so nothing cancels; the
    # brighter line changes a maximum, the darker one a minimum.
    lines = jnp.expand_dims(jnp.eye(size), (2 - axis, 3))
    lines = jnp.broadcast_to(lines, (size, *SHAPE))
    lit = jax.jit(f)(jnp.concatenate([lines, -lines])) != 0
    changed = lit.any(axis=(2 - axis, 3)).reshape(2, size, -1).any(0)
    field = fields_of(f)[axis]
    for a, pixels in enumerate(np.asarray(changed.T)):
        low, high = field.window(a, a + 1)
        pixels = set(pixels.nonzero()[0].tolist())
        assert pixels <= set(range(low, high))
        if low >= 0 and high <= size:  # in the padding, dilation may leave a hole
            assert (min(pixels), max(pixels)) == (low, high - 1)


@jax.custom_vjp
def with_custom_vjp(x):
    return conv(x, (3, 3))


with_custom_vjp.defvjp(lambda x: (x, None), lambda _, g: (g,))


@pytest.mark.parametrize(
    "f",
    [
        jax.jit(lambda x: conv(x, (3, 3))),
        jax.checkpoint(lambda x: conv(x, (3, 3))),
        with_custom_vjp,
        lambda x: nn.relu(conv(x, (3, 3))),
        lambda x: nn.relu6(nn.gelu(nn.silu(nn.elu(conv(x, (3, 3)))))),
        lambda x: jnp.where(x > 0, conv(x, (3, 3)), x),
        lambda x: conv(x, (3, 3)).astype(jnp.bfloat16).astype(jnp.float32),
    ],
)
def test_calls_and_elementwise_operations_change_nothing(f):
    assert fields_of(f) == (Field(1, -1, 2), Field(1, -1, 2))


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x + jnp.arange(2.0).reshape(1, 1, 1, 2),
        lambda x: x * np.ones((1, 1, 1, 2), np.float32),
        lambda x: jnp.concatenate([x, jnp.ones_like(x)], axis=3),
        lambda x: x + lax.broadcasted_iota(jnp.float32, x.shape, 3),
        lambda x: jnp.stack([x, jnp.ones_like(x)]).sum(0),
        lambda x: nn.BatchNorm(True).apply(
            {
                "params": {"scale": jnp.ones(2), "bias": jnp.ones(2)},
                "batch_stats": {"mean": jnp.ones(2), "var": jnp.ones(2)},
            },
            x,
        ),
    ],
    ids="bias scale concatenation iota stack batch_norm".split(),
)
def test_constants_that_are_the_same_everywhere_are_accepted(f):
    assert fields_of(f) == (Field(), Field())


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x + np.ones((1, 24, 1, 2), np.float32),
        lambda x: x + lax.broadcasted_iota(jnp.float32, x.shape, 1),
        lambda x: x + np.arange(21, dtype=np.float32)[None, None, :, None],
        lambda x: jnp.concatenate(
            [x, lax.broadcasted_iota(jnp.float32, (*x.shape[:3], 1), 2)], axis=3
        ),
    ],
    ids="rows iota vector coordinates".split(),
)
def test_constants_that_tell_positions_apart_are_refused(f):
    with pytest.raises(ValueError, match="^f_conv: "):
        fields_of(f)


@pytest.mark.parametrize(
    "operation, f",
    [
        ("reshape", lambda x: x.reshape(x.shape[0], -1)),
        ("reshape", lambda x: conv(x, (3, 3)).reshape(-1, 16, 63, 2).max(2)),
        ("reduce_sum", lambda x: conv(x, (3, 3)).mean((1, 2), keepdims=True)),
        ("reduce_sum", lambda x: x - x.mean(0, keepdims=True)),
        (
            "dot_general",  # attention between rows
            lambda x: lax.dot_general(x, x, (((2, 3), (2, 3)), ((0,), (0,)))),
        ),
        ("dot_general", lambda x: jnp.einsum("bhwc,hi->biwc", x, jnp.ones((24, 24)))),
        (
            "dot_general",
            lambda x: jnp.einsum("bhwc,hcd->bhwd", x, np.ones((24, 2, 1), np.float32)),
        ),
        ("squeeze", lambda x: x[:, 3]),
        ("slice", lambda x: x[1:]),
        ("rev", lambda x: x[:, ::-1]),
        ("pad", lambda x: jnp.pad(x, ((0, 1), (1, 1), (0, 0), (0, 0)))),
        ("cumsum", lambda x: lax.cumsum(x, axis=1)),
        ("concatenate", lambda x: lax.concatenate([x, x], dimension=1)),
        ("reshape", lambda x: jnp.stack([x, x], 1).reshape(2, 48, 21, 2)),
        ("unstack|split", lambda x: jnp.unstack(x, axis=1)[0]),
        ("gather", lambda x: x[:, jnp.array([3, 1, 2])]),
        ("scatter", lambda x: x.at[:, 0].set(0.0)),
        ("slice", lambda x: lax.scan(lambda c, row: (c, row + c), 0.0, x)[1]),
        ("scan", lambda x: lax.fori_loop(0, 999, lambda _, x: jnp.sin(x), x)),
        ("while", lambda x: lax.while_loop(lambda x: x.sum() < 1, lambda x: x + 1, x)),
        ("fft", lambda x: jnp.fft.fft(x, axis=1).real),
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
            "conv_general_dilated",  # rows are taken for channels
            lambda x: lax.conv_general_dilated(
                x,
                jnp.ones((3, 3, 24, 1)),
                (1, 1),
                "SAME",
                dimension_numbers=("NCHW", "HWIO", "NCHW"),
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
    with pytest.raises(
        ValueError, match=f"^f_conv: operation '({operation})' of "
    ) as e:
        fields_of(f)
    assert "\n" not in str(e.value) and "head" in str(e.value)


def test_what_the_result_does_not_need_may_mix_positions():
    def f(x):
        statistics = x.mean((0, 1, 2))
        del statistics
        return conv(x, (3, 3))

    assert fields_of(f) == (Field(1, -1, 2), Field(1, -1, 2))


def test_branches_of_different_strides_are_refused():
    def f(x):  # one row is left of either, so that the shapes agree
        return conv(x, (1, 1), stride=(24, 1)) + conv(x, (24, 1), padding="VALID")

    with pytest.raises(
        ValueError, match="'add' .* joins branches of different strides"
    ):
        fields_of(f)


@pytest.mark.parametrize(
    "f, words",
    [
        (lambda x: x.transpose(0, 2, 1, 3), "on axes"),
        (lambda x: x[..., None], "accepted"),
        (lambda x: (x, x), "accepted"),
    ],
)
def test_results_of_another_layout_are_refused(f, words):
    with pytest.raises(ValueError, match=f"^f_conv: its? result.*{words}|results"):
        fields_of(f)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x + lax.reduce_window(jnp.ones_like(x), 0.0, lax.add, *NINE, "SAME"),
        lambda x: pooled(x, "SAME") / pooled(jnp.ones_like(x), UNEVEN),
        # the same window, but of what one more padding has touched
        lambda x: pooled(x, "SAME") / pooled(pooled(jnp.ones_like(x), "SAME"), "SAME"),
        lambda x: conv(pooled(x, "SAME"), (3, 5)) / pooled(jnp.ones_like(x), "SAME"),
    ],
)
def test_constants_that_went_through_padding_alone_are_refused(f):
    with pytest.raises(ValueError, match="constant that varies"):
        fields_of(f)


NINE, EVEN = ((1, 3, 3, 1), (1, 1, 1, 1)), ((0, 0), (0, 0))
UNEVEN = ((0, 0), (2, 0), (1, 1), (0, 0))


def pooled(x, padding):
    return lax.reduce_window(x, 0.0, lax.add, *NINE, padding)


def nchw(x):
    y = lax.conv_general_dilated(
        x.transpose(0, 3, 1, 2),
        jnp.ones((4, 2, 3, 5)),
        (1, 1),
        "SAME",
        dimension_numbers=("NCHW", "OIHW", "NCHW"),
    )
    y = y.reshape(y.shape[0], 2, 2, *y.shape[2:]).swapaxes(1, 2).reshape(y.shape)
    return nn.relu(y).transpose(0, 2, 3, 1)


def normed(x):
    y = conv(x, (3, 5))
    y = (y - y.mean(3, keepdims=True)) / jnp.sqrt(y.var(-1, keepdims=True) + 1)
    return y / (1 + lax.reduce_window(y**2, 0.0, lax.add, (1, 1, 1, 2), *ONE_SAME))


ONE_SAME = ((1, 1, 1, 1), "SAME")


@pytest.mark.parametrize(
    "f",
    [
        nchw,
        normed,
        lambda x: conv(x, (3, 5)) @ jnp.ones((2, 3)),
        lambda x: jnp.einsum("bhwc,dc->bhwd", conv(x, (3, 5)), jnp.ones((3, 2))),
        lambda x: jnp.einsum("dc,bhwc->bhwd", jnp.ones((3, 2)), conv(x, (3, 5))),
        lambda x: jnp.maximum(*jnp.split(conv(x, (3, 5)), 2, axis=3)),
        lambda x: jnp.sort(conv(x, (3, 5)), axis=3)[..., ::-1],
        lambda x: jnp.cumsum(conv(x, (3, 5)), 3)[..., jnp.array([1, 0, 1])],
        lambda x: conv(x, (3, 5)).max(3)[..., None],
        lambda x: jnp.stack([x, conv(x, (3, 5))], -1).reshape(*x.shape[:3], 4),
        lambda x: jnp.unstack(conv(x, (3, 5))[:, None], axis=1)[0],
        lambda x: conv(jnp.pad(x, ((0, 0), (1, 1), (2, 2), (0, 0))), (3, 5), **VALID),
        lambda x: lax.optimization_barrier((conv(x, (3, 5)), x))[0],
    ],
)
def test_channels_may_be_mixed_and_axes_moved(f):
    assert fields_of(f) == (Field(1, -1, 2), Field(1, -2, 3))


VALID = {"padding": "VALID"}


@pytest.mark.parametrize(
    "f, rows",
    [
        (lambda x: x[:, 2:-1], Field(1, 0, 4)),
        (lambda x: x[:, ::2, ::3], Field(2, 0, 1)),
        # 24 rows: the second stops one short of the end.
        (lambda x: x[:, ::2] + x[:, 1::2], Field(2, 0, 2)),
        (lambda x: x[:, 1::3], Field(3, 0, 2)),
        (lambda x: conv(x, (3, 1), padding=((-1, 0), (0, 0))), Field(1, 0, 4)),
        (lambda x: jnp.pad(x, ((0, 0), (2, 0), (0, 0), (0, 0))), Field(1, -2, -1)),
        (lambda x: lax.dynamic_slice_in_dim(x, 1, 1, axis=3), Field(1, 0, 1)),
    ],
)
def test_crops_and_strides(f, rows):
    assert fields_of(f)[0] == rows


def test_analyses_of_two_sizes_differ_where_the_function_does():
    def differs(f):
        analyses = [
            analyse(lambda _, x: f(x), {}, (size, 21, 2)) for size in (24, 16, 15)
        ]
        assert analyses[0].digest == analyse(lambda _, x: f(x), {}, SHAPE).digest
        return [analyses[0].differs_from(smaller) for smaller in analyses[1:]]

    same = lambda x: nn.max_pool(conv(x, (3, 3)), (3, 3), (2, 2), "SAME")
    assert differs(same) == [None, "'reduce_window_max'"]
    mean = lambda x: nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)
    assert differs(mean) == [None, None]
    assert differs(lambda x: x[:, :14]) == ["'slice'"] * 2
    assert differs(lambda x: x * x.shape[1]) == ["'mul'"] * 2
    assert differs(lambda x: x * np.float32(x.shape[1] > 15)) == [None, "'mul'"]
    assert differs(lambda x: x / jnp.ones(x.shape[1]).sum()) == ["'div'"] * 2
    assert (
        differs(lambda x: x * jnp.full(2, x.shape[1])[None, None, None])
        == ["'mul'"] * 2
    )
    assert (
        differs(lambda x: jnp.repeat(x, x.shape[1], 3).sum(3, keepdims=True))
        == ["'broadcast_in_dim'"] * 2
    )
    more = lambda x, y: jnp.concatenate([x, y], -1)
    assert differs(lambda x: more(x, jnp.zeros(x.shape))) == [None, None]
    assert (
        differs(lambda x: more(x, jnp.zeros((*x.shape[:3], x.shape[1]))))
        == ["'concatenate'"] * 2
    )
    assert differs(lambda x: jnp.argsort(x, -1)) == [None, None]
    assert differs(lambda x: jnp.tile(x, (1, 1, 1, 2))) == [None, None]
    longer = lambda x: jnp.sin(x) if x.shape[1] > 15 else x
    assert differs(longer) == [None, "'sin'"]
    longer = lambda x: jnp.sin(x) if x.shape[1] > 15 else jnp.cos(jnp.sin(x))
    assert differs(longer) == [None, "'cos'"]
    either = lambda x: (jnp.sin(x), jnp.cos(x))[x.shape[1] > 15]
    assert differs(either) == [None, "that makes the result"]


def wide(x):
    return conv(x, (5, 3))


def narrow(x):
    return conv(x, (1, 5))


def on_cpu_or_else(cpu, default):
    return lambda x: lax.platform_dependent(x, cpu=cpu, default=default)


@pytest.mark.parametrize(
    "f, rows, columns",
    [
        # Rows of the one, columns of the other, on every platform.
        (on_cpu_or_else(wide, narrow), Field(1, -2, 3), Field(1, -2, 3)),
        (
            on_cpu_or_else(jnp.sin, on_cpu_or_else(jnp.sin, narrow)),
            Field(1, 0, 1),
            Field(1, -2, 3),
        ),
        (
            lambda x: lax.platform_dependent(
                x, cpu=jnp.sin, tpu=jnp.cos, cuda=wide, default=jnp.tan
            ),
            Field(1, -2, 3),
            Field(1, -1, 2),
        ),
        (
            jax.jit(jax.checkpoint(on_cpu_or_else(jnp.sin, wide))),
            Field(1, -2, 3),
            Field(1, -1, 2),
        ),
        (jax.vmap(on_cpu_or_else(jnp.sin, jnp.cos)), Field(), Field()),
    ],
)
def test_receptive_field_of_platform_dependent_covers_every_branch(f, rows, columns):
    assert fields_of(f) == (rows, columns)


def mean_over_rows(x):
    return x - x.mean(1, keepdims=True)


def test_a_promise_of_equal_branches_is_for_that_operation_alone():
    def f(x, cpu, default):
        return platform_specialised(x, cpu=cpu, default=default)

    assert fields_of(lambda x: f(x, mean_over_rows, wide)) == (
        Field(1, -2, 3),
        Field(1, -1, 2),
    )
    for nested in (
        lambda x: f(x, jnp.sin, on_cpu_or_else(mean_over_rows, jnp.sin)),
        lambda x: on_cpu_or_else(mean_over_rows, jnp.sin)(f(x, jnp.sin, jnp.sin)),
        jax.named_scope("coded_jax.platform_specialised")(
            lambda x: jax.named_scope("other")(on_cpu_or_else(mean_over_rows, wide))(x)
        ),
    ):
        with pytest.raises(ValueError, match="'reduce_sum'"):
            fields_of(nested)
    batched = jax.vmap(lambda x: f(x, lambda x: jnp.cumsum(x, 0), jnp.sin))
    assert fields_of(batched) == (Field(), Field())
