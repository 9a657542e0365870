"""Splitting is exact: merging what the pieces give is what the whole image gives."""

import functools

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import strategies as st
from jax import lax

from coded_jax.splitting import AxisPlan, SplitPlan, cut, merge, split
from coded_jax.splitting.plan import make_plan


def conv(
    x,
    kernel=(3, 3),
    stride=(1, 1),
    dilation=(1, 1),
    padding="SAME",
    seed=0,
    groups=1,
    maps=2,
):
    """A convolution with a bias, of fixed random weights."""
    shape = (*kernel, x.shape[-1] // groups, maps)
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=shape, scale=np.prod(shape[:3]) ** -0.5)
    y = lax.conv_general_dilated(
        x,
        jnp.asarray(weights, x.dtype),
        stride,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    bias = np.resize([0.5, -0.3, 0.2, 0.7], maps)
    return y + jnp.asarray(bias, x.dtype).reshape(1, 1, 1, maps)


def plan_of(f, shape, grid) -> SplitPlan:
    return make_plan(lambda variables, x: f(x), {}, shape, grid)


def lenet_args(lenet):
    base, variables = lenet
    return base.f_conv, variables, (28, 28, 1)


def assert_exact(f, plan: SplitPlan):
    """`merge(f_conv(split(x))) == f_conv(x)`, and shapes and work are as announced."""
    shape = (plan.rows.size, plan.columns.size, plan.channels)
    images = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)

    # Each program runs but once: three times as fast to compile.
    @functools.partial(
        jax.jit,
        compiler_options={
            "xla_backend_optimization_level": 0,
            "xla_llvm_disable_expensive_passes": True,
        },
    )
    def both(images):
        pieces = split(plan, images)
        shares = cut(plan, jax.vmap(f)(pieces))
        return f(images), merge(plan, shares), pieces, shares

    whole, merged, pieces, shares = both(images)
    chex.assert_shape(pieces, (plan.k, 2, *plan.piece_shape))
    chex.assert_shape(shares, (plan.k, 2, *plan.share_shape))
    scale = np.abs(whole).max()
    assert scale > 0.1
    np.testing.assert_allclose(merged, whole, rtol=0, atol=1e-5 * scale)


# LeNet-5: features [0, 2) need pixels [0, 20), and features are 4 pixels apart.
LENET5 = {
    (1, 1): dict(rows=(28, (0,)), columns=(28, (0,)), work=1),
    (2, 1): dict(rows=(20, (0, 8)), columns=(28, (0,)), work=20 / 28),
    (4, 1): dict(rows=(16, (0, 4, 8, 12)), columns=(28, (0,)), work=16 / 28),
    (1, 2): dict(rows=(28, (0,)), columns=(20, (0, 8)), work=20 / 28),
    (2, 2): dict(rows=(20, (0, 8)), columns=(20, (0, 8)), work=20 * 20 / (28 * 28)),
}


@pytest.mark.parametrize("grid", LENET5)
def test_lenet5(lenet, grid):
    base, variables = lenet
    plan = make_plan(base.f_conv, variables, (28, 28, 1), grid)
    expected = LENET5[grid]
    for axis, parts in (("rows", grid[0]), ("columns", grid[1])):
        window, starts = expected[axis]
        # Without padding nothing is cut, and 4 features divide by 1, 2 and 4.
        share, cuts = 4 // parts, (0,) * parts
        assert getattr(plan, axis) == AxisPlan(28, window, starts, 4, share, cuts)
        assert getattr(plan, axis).surplus == 0
    assert plan.grid == grid and plan.k == grid[0] * grid[1]
    assert plan.piece_shape == (expected["rows"][0], expected["columns"][0], 1)
    assert plan.share_shape == (4 // grid[0], 4 // grid[1], 16)
    assert plan.work_fraction == pytest.approx(expected["work"], rel=1e-12)
    assert_exact(functools.partial(base.f_conv, variables), plan)


def test_same_padding_and_surplus_by_hand():
    # 13 features in shares of ceil(13/3) = 5, the last moved up to end at 13: features
    # [0, 5), [5, 10), [8, 13) need rows [0, 6), [4, 11), [7, 13), at most 7.
    plan = plan_of(conv, (13, 9, 1), (3, 1))
    assert plan.rows == AxisPlan(13, 7, (0, 4, 6), 13, 5, (0, 1, 2))
    assert plan.rows.surplus == 2
    assert plan.columns == AxisPlan(9, 9, (0,), 9, 9, (0,))
    assert_exact(conv, plan)


def test_stride_by_hand():
    # Features [0, 4), [4, 8) need rows [0, 8), [7, 16). Starts are even, so the second
    # piece is rows 6 to 16, and its first feature is the first that is its own.
    f = functools.partial(conv, stride=(2, 2), padding=((1, 1), (1, 1)))
    plan = plan_of(f, (16, 16, 1), (2, 1))
    assert plan.rows == AxisPlan(16, 10, (0, 6), 8, 4, (0, 1))
    assert_exact(f, plan)


def test_length_of_pieces_is_that_of_the_image_modulo_the_stride():
    # 17 rows, SAME, stride 2: 9 features with low padding 1 (8*2 + 3 - 17 = 2 missing).
    # Shares [0, 5), [4, 9) need rows [0, 10), [7, 17). An odd length from an even start
    # that reaches row 17: 11 from 6. An even length would pad low by 0 instead.
    f = functools.partial(conv, stride=(2, 1))
    plan = plan_of(f, (17, 8, 1), (2, 1))
    assert plan.rows == AxisPlan(17, 11, (0, 6), 9, 5, (0, 1))
    assert_exact(f, plan)


narrow = functools.partial(conv, kernel=(1, 3), seed=1)
wide = functools.partial(conv, kernel=(5, 1), stride=(1, 1), seed=2)

NETWORKS = {
    "wider on CPUs": lambda x: lax.platform_dependent(x, cpu=wide, default=narrow),
    "narrower on CPUs": lambda x: lax.platform_dependent(x, cpu=narrow, default=wide),
    "even kernels": lambda x: conv(conv(x, (2, 4)), (4, 2), seed=1),
    "padding after stride": lambda x: conv(conv(x, stride=(2, 2)), (5, 3), seed=1),
    "residual": lambda x: nn.relu(conv(x) + conv(conv(x, (1, 5)), (5, 1), seed=1)),
    "concatenation": lambda x: jnp.concatenate([x, conv(x), conv(x, (5, 5))], axis=3),
    "channels of zeros": lambda x: conv(
        jnp.concatenate([x[:, ::2, ::2], jnp.zeros(x[:, ::2, ::2].shape)], -1)
    ),
    "tile and stack": lambda x: conv(
        jnp.stack([conv(x, maps=4), jnp.tile(x, (1, 1, 1, 2))], -1).reshape(
            *x.shape[:3], 8
        )
    ),
    "order of channels": lambda x: conv(x + jnp.argsort(x, -1)),
    "average of true pixels": lambda x: nn.avg_pool(
        conv(x), (3, 3), (2, 2), "SAME", count_include_pad=False
    ),
    "max pool, padded": lambda x: nn.max_pool(conv(x), (3, 3), (2, 2), "SAME"),
    "padding beyond the kernel": lambda x: conv(x, padding=((5, 4), (4, 5))),
    "stride beyond the kernel": lambda x: conv(x, (1, 2), stride=(3, 3)),
}


@pytest.mark.parametrize("grid", [(3, 1), (2, 2)])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name, grid):
    assert_exact(NETWORKS[name], plan_of(NETWORKS[name], (31, 28, 2), grid))


pairs = lambda low, high: st.tuples(*[st.integers(low, high)] * 2)
kinds = lambda kind, **options: st.fixed_dictionaries(
    dict(kind=st.just(kind), **options)
)
paddings = lambda low, high: (
    st.sampled_from(["SAME", "VALID"]) | st.tuples(*[pairs(low, high)] * 2)
)

# XLA of jaxlib 0.10.2 reads beyond its operand on CPUs, if a convolution of several
# channels crops one end of an axis and pads the other.
mixed = lambda p: not isinstance(p, str) and any(a * b < 0 for a, b in p)

layer = st.one_of(
    kinds(
        "conv",
        kernel=pairs(1, 5),
        stride=pairs(1, 3),
        dilation=pairs(1, 2),
        # Crops, and padding wider than the kernel.
        padding=paddings(-1, 6).filter(lambda p: not mixed(p)),
        groups=st.sampled_from([1, 2, 4]),
    ),
    kinds("max", window=pairs(1, 3), stride=pairs(1, 3), padding=paddings(0, 2)),
    kinds(
        "avg",
        window=pairs(2, 3),
        stride=pairs(1, 3),
        padding=paddings(0, 1),
        count_include_pad=st.booleans(),
    ),
    kinds("residual", kernel=pairs(1, 4)),
    kinds("shortcut", kernel=pairs(1, 3), stride=pairs(2, 2), sliced=st.booleans()),
    kinds("concat", kernel=pairs(1, 4), dilation=pairs(1, 2)),
    kinds("pad", padding=st.tuples(*[pairs(-1, 3)] * 2)),
    kinds("crop", low=st.integers(0, 2), high=st.integers(0, 2)),
    kinds("channels", of=st.sampled_from(["norm", "dense", "layer norm", "shuffle"])),
)


def of_channels(x, of, seed):
    """A layer that looks at one position at a time."""
    rng = np.random.default_rng(seed)
    scale, bias, mean = rng.normal(size=(3, 1, 1, 1, 4)).astype(np.float32)
    if of == "norm":  # batch norm with running statistics
        return (x - mean) / np.sqrt(scale**2 + 0.5) * scale + bias
    if of == "dense":
        return x @ rng.normal(size=(4, 4)).astype(np.float32) / 2 + bias
    if of == "layer norm":
        return x - x.mean(-1, keepdims=True) + bias
    return x.reshape(*x.shape[:3], 2, 2).swapaxes(3, 4).reshape(x.shape)


def network(layers, x):
    """A random network of 4 maps."""
    conv_ = functools.partial(conv, maps=4)
    x = conv_(x, (1, 1), seed=100)
    for seed, options in enumerate(layers):
        options = dict(options)
        kind = options.pop("kind")
        if kind == "conv":
            x = jnp.tanh(conv_(x, **options, seed=seed))
        elif kind == "residual":
            x = x + conv_(x, **options, seed=seed)
        elif kind == "shortcut":
            (i, j), sliced = options["stride"], options.pop("sliced")
            ahead = x[:, ::i, ::j] if sliced else conv_(x, (1, 1), (i, j), seed=50)
            x = ahead + jnp.tanh(conv_(x, **options, seed=seed))
        elif kind == "concat":
            x = jnp.concatenate([x, conv_(x, **options, seed=seed)], 3)[..., 2:6]
        elif kind == "pad":
            config = [(0, 0, 0), *((*p, 0) for p in options["padding"]), (0, 0, 0)]
            x = lax.pad(x, jnp.float32(0.7), config)
        elif kind == "crop":
            low, high = options["low"], options["high"]
            x = x[:, low : x.shape[1] - high, high : x.shape[2] - low]
        elif kind == "channels":
            x = of_channels(x, options["of"], seed)
        else:
            pool = nn.max_pool if kind == "max" else nn.avg_pool
            options["window_shape"] = window = options.pop("window")
            options["strides"] = options.pop("stride")
            if not isinstance(options["padding"], str):  # at least one true position
                options["padding"] = tuple(
                    tuple(min(p, w - 1) for p in padding)
                    for padding, w in zip(options["padding"], window, strict=True)
                )
            x = pool(x, **options)
    return x


@hypothesis.given(
    layers=st.lists(layer, min_size=1, max_size=4),
    size=pairs(12, 40),
    grid=st.sampled_from([(2, 1), (3, 1), (4, 1), (1, 2), (1, 3), (1, 4), (2, 2)]),
)
def test_random_networks(layers, size, grid):
    f = functools.partial(network, layers)
    try:
        plan = plan_of(f, (*size, 2), grid)
    except ValueError as error:
        # Too few features or too large a field. If that were most of the networks,
        # hypothesis would fail the test.
        assert str(error).startswith("k: ") and "\n" not in str(error)
        hypothesis.reject()
    assert plan.grid == grid
    assert plan.work_fraction < 1
    assert_exact(f, plan)


def test_halos_are_the_pixels_that_several_pieces_hold(lenet):
    # Rows [0, 20) and [8, 28); [0, 16), [4, 20), [8, 24), [12, 28).
    assert make_plan(*lenet_args(lenet), (2, 1)).rows.halos == (12, 12)
    assert make_plan(*lenet_args(lenet), (4, 1)).rows.halos == (12, 16, 16, 12)
    # Rows [0, 7), [4, 11), [6, 13).
    assert plan_of(conv, (13, 9, 1), (3, 1)).rows.halos == (3, 7, 5)
    assert plan_of(conv, (13, 9, 1), (3, 1)).columns.halos == (0,)
    assert plan_of(jnp.tanh, (8, 8, 1), (4, 1)).rows.halos == (0, 0, 0, 0)


def test_split_takes_the_windows_row_by_row(lenet):
    plan = make_plan(*lenet_args(lenet), (2, 2))
    images = jnp.arange(2 * 28 * 28, dtype=jnp.uint8).reshape(2, 28, 28, 1)
    pieces = split(plan, images)
    chex.assert_shape(pieces, (4, 2, 20, 20, 1))
    assert pieces.dtype == jnp.uint8
    corners = [(0, 0), (0, 8), (8, 0), (8, 8)]
    for piece, (i, j) in zip(pieces, corners, strict=True):
        np.testing.assert_array_equal(piece, images[:, i : i + 20, j : j + 20])


def test_parity_is_cut_as_an_interior_piece():
    plan = plan_of(conv, (15, 15, 1), (3, 3))
    # 15 features in shares of 5, pieces of 7: the middle one from 4, so 1 is cut.
    axis = AxisPlan(15, 7, (0, 4, 8), 15, 5, (0, 1, 2))
    assert plan.rows == plan.columns == axis
    outputs = jax.random.normal(jax.random.key(0), (11, 2, 7, 7, 2))
    shares = cut(plan, outputs)
    chex.assert_shape(shares, (11, 2, 5, 5, 2))
    for index, (i, j) in {
        0: (0, 0),
        5: (1, 2),
        4: (1, 1),
        9: (1, 1),
        10: (1, 1),
    }.items():
        np.testing.assert_array_equal(
            shares[index], outputs[index, :, i : i + 5, j : j + 5]
        )


def test_merge_drops_the_surplus():
    # As by hand above: shares of features [0, 5), [5, 10), [8, 13); 8 and 9 are twice.
    axis = AxisPlan(13, 7, (0, 4, 6), 13, 5, (0, 1, 2))
    plan = SplitPlan(axis, axis, 1, 1)
    features = jnp.arange(13 * 13.0).reshape(1, 13, 13, 1)
    shares = jnp.stack(
        [features[:, i : i + 5, j : j + 5] for i in (0, 5, 8) for j in (0, 5, 8)]
    )
    shares = shares.at[6:, :, :2].set(jnp.nan)  # the last strip of rows
    shares = shares.at[2::3, :, :, :2].set(jnp.nan)  # the last of every strip
    np.testing.assert_array_equal(merge(plan, shares), features)


@pytest.mark.parametrize("parts", [0, 3, 5, -1])
def test_empty_pieces_are_refused(lenet, parts):
    # 4 features: 3 shares of 2 would leave the third empty.
    for grid, name in (((parts, 1), "rows"), ((1, parts), "columns")):
        with pytest.raises(ValueError, match=f"^k: {parts} pieces along the {name} "):
            make_plan(*lenet_args(lenet), grid)


def test_accepted_numbers_of_pieces_are_named(lenet):
    with pytest.raises(ValueError, match=r"accepted are \[1, 2, 4\]"):
        make_plan(*lenet_args(lenet), (3, 1))


def test_pieces_as_large_as_the_image_are_refused():
    # 15x15 kernels reach 7 pixels: 6 of 12 features need 6 + 7 > 12 of them.
    f = functools.partial(conv, kernel=(15, 15))
    for grid, name in (((2, 1), "rows"), ((1, 2), "columns")):
        with pytest.raises(ValueError, match=f"^k: .* all 12 {name} of the image"):
            plan_of(f, (12, 12, 1), grid)
    assert plan_of(f, (12, 12, 1), (1, 1)).work_fraction == 1


@pytest.mark.parametrize("shape", [(2, 27, 28, 1), (2, 28, 28, 3), (28, 28, 1)])
def test_images_of_another_shape_are_refused(lenet, shape):
    plan = make_plan(*lenet_args(lenet), (2, 1))
    with pytest.raises(ValueError, match=r"^images: .* \[B, 28, 28, 1\] accepted"):
        split(plan, jnp.zeros(shape))


def test_networks_that_look_at_the_size_of_the_image_are_refused():
    def adaptive_pool(x):  # to 4x4 features, whatever it is given
        window = (x.shape[1] // 4, x.shape[2] // 4)
        return nn.max_pool(x, window, window)

    with pytest.raises(ValueError, match="^f_conv: "):
        plan_of(lambda x: adaptive_pool(conv(x)), (28, 28, 1), (2, 1))


@pytest.mark.parametrize(
    "f, words",
    [
        (lambda x: conv(x) * (x.shape[1] / 24), "'mul' depends .*adaptive pooling"),
        (lambda x: conv(x[:, :20]), "'slice' depends on .*: crop relative to its end"),
        (lambda x: jnp.tanh(x) if x.shape[1] > 20 else x, "'tanh' depends on the size"),
        (lambda x: x.reshape(-1, 24, 24, 1), "fails for pieces"),
        (lambda x: x.reshape(2, 24, 24, 1), r"fails for pieces .*\(cannot reshape"),
        (lambda x: conv(x, stride=(2, 1))[:, : 1 + x.shape[1] // 3], "depends on the"),
    ],
)
def test_functions_that_do_something_else_on_pieces_are_refused(f, words):
    with pytest.raises(ValueError, match=f"^f_conv: .*{words}") as error:
        plan_of(f, (24, 24, 1), (2, 1))
    assert "\n" not in str(error.value)


def test_a_plan_is_static(lenet):
    plan = make_plan(*lenet_args(lenet), (2, 1))
    again = make_plan(*lenet_args(lenet), (2, 1))
    assert plan == again and hash(plan) == hash(again)
    pieces = jax.jit(split, static_argnums=0)(plan, jnp.zeros((1, 28, 28, 1)))
    chex.assert_shape(pieces, (2, 1, 20, 28, 1))
