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

from coded_jax import splitting
from coded_jax.splitting import AxisPlan, SplitPlan, cut, merge, split
from tests.errors import refused
from tests.splitting.exactness import assert_exact, conv, plan_of

narrow = functools.partial(conv, kernel=(1, 3), seed=1)
wide = functools.partial(conv, kernel=(5, 1), stride=(1, 1), seed=2)

NETWORKS = {
    "wider on CPUs": lambda x: lax.platform_dependent(x, cpu=wide, default=narrow),
    "tile and stack": lambda x: conv(
        jnp.stack([conv(x, maps=4), jnp.tile(x, (1, 1, 1, 2))], -1).reshape(
            *x.shape[:3], 8
        )
    ),
    "average of true pixels": lambda x: nn.avg_pool(
        conv(x), (3, 3), (2, 2), "SAME", count_include_pad=False
    ),
    "true pixels of fewer windows": lambda x: conv(
        conv(conv(x)) * nn.avg_pool(jnp.ones_like(x), (3, 3), padding="SAME")
    ),
    "channel shuffle": lambda x: conv(shuffled(conv(x, maps=4)), seed=1),
    "up and down": lambda x: conv(
        x + conv(doubled(conv(x, stride=(2, 2), seed=1), x), seed=2)
    ),
    "hourglass": lambda x: conv(jnp.repeat(jnp.repeat(pooled(x), 4, 1), 4, 2)),
    "transposed": lambda x: lax.conv_transpose(
        conv(x), jnp.ones((3, 3, 2, 2)) / 9, (2, 2), "SAME"
    ),
    "transposed, valid": lambda x: lax.conv_transpose(
        conv(x), jnp.ones((2, 3, 2, 2)) / 9, (3, 2), "VALID"
    ),
    "patches": lambda x: lax.conv_general_dilated_patches(
        conv(x), (3, 2), (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ),
    "loop of fixed length": lambda x: lax.fori_loop(0, 3, lambda _, x: conv(x), x),
}


def shuffled(x):
    """Shuffles channels that come first, as of ShuffleNet."""
    x = x.transpose(0, 3, 1, 2)
    batch, maps, rows, columns = x.shape
    x = x.reshape(batch, 2, maps // 2, rows, columns).swapaxes(1, 2)
    return x.reshape(batch, maps, rows, columns).transpose(0, 2, 3, 1)


def doubled(x, like):
    """Resizes by a factor of two, and crops to the size of another."""
    shape = (x.shape[0], 2 * x.shape[1], 2 * x.shape[2], x.shape[3])
    y = jax.image.resize(x, shape, "linear")
    return y[:, : like.shape[1], : like.shape[2]]


def pooled(x):
    return nn.max_pool(conv(x), (4, 4), (4, 4))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    assert_exact(NETWORKS[name], plan_of(NETWORKS[name], (31, 28, 2), (2, 2)))


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
    kinds(
        "pool",
        of=st.sampled_from([nn.max_pool, nn.avg_pool]),
        window=pairs(2, 3),
        stride=pairs(1, 3),
        padding=paddings(0, 1),
    ),
    kinds("residual", kernel=pairs(1, 4)),
    kinds("pad", padding=st.tuples(*[pairs(-1, 3)] * 2)),
    kinds(
        "conv",
        kernel=pairs(1, 4),
        stride=pairs(1, 2),
        gaps=pairs(1, 3),
        padding=st.tuples(*[pairs(0, 4)] * 2),
    ),
    kinds("space to depth", factors=pairs(1, 3)),
    kinds(
        "resize",
        method=st.sampled_from(["nearest", "linear", "cubic"]),
        factors=pairs(1, 3),
        down=st.booleans(),
    ),
    kinds("loop", kernel=pairs(1, 3), reverse=st.booleans()),
)


def whole(x, factors):
    """Crops to sizes that are multiples of some factors."""
    rows, columns = (n // f * f for n, f in zip(x.shape[1:3], factors, strict=True))
    return x[:, :rows, :columns]


def blocks_as_channels(x, factors):
    """Moves the values of blocks of positions to one position."""
    (i, j), x = factors, whole(x, factors)
    batch, rows, columns, maps = x.shape
    x = x.reshape(batch, rows // i, i, columns // j, j, maps)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows // i, columns // j, -1)


def resized(x, method, factors, down):
    x = whole(x, factors) if down else x
    rows, columns = (
        size // factor if down else size * factor
        for size, factor in zip(x.shape[1:3], factors, strict=True)
    )
    return jax.image.resize(x, (x.shape[0], rows, columns, x.shape[3]), method)


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
        elif kind == "pad":
            config = [(0, 0, 0), *((*p, 0) for p in options["padding"]), (0, 0, 0)]
            x = lax.pad(x, jnp.float32(0.7), config)
        elif kind == "space to depth":
            x = conv_(blocks_as_channels(x, **options), (1, 1), seed=seed)
        elif kind == "resize":
            x = resized(x, **options)
        elif kind == "loop":
            reverse = options.pop("reverse")
            step = lambda x, scale, options=options, seed=seed: (
                x + jnp.tanh(scale * conv_(x, **options, seed=seed)),
                None,
            )
            x, _ = lax.scan(step, x, jnp.array([0.5, 1.5]), reverse=reverse)
        else:
            strides, padding = options["stride"], options["padding"]
            x = options["of"](x, options["window"], strides, padding)
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
        # And a resize to four positions looks like a dense layer, a piece of one column
        # like an image without columns.
        few = ("sums over", "fails for pieces")
        assert str(error).startswith("k: ") or any(words in str(error) for words in few)
        assert "\n" not in str(error)
        hypothesis.reject()
    assert plan.grid == grid
    assert plan.work_fraction < 1
    assert_exact(f, plan)


def test_parity_is_cut_as_an_interior_piece():
    plan = plan_of(conv, (15, 15, 1), (3, 3))
    # 15 features in shares of 5, pieces of 7: the middle one from 4, so 1 is cut.
    axis = AxisPlan(15, 7, (0, 4, 8), 15, 5, (0, 1, 2), 1)
    assert plan.rows == plan.columns == axis
    outputs = jax.random.normal(jax.random.key(0), (11, 2, 7, 7, 2))
    shares = cut(plan, outputs)
    chex.assert_shape(shares, (11, 2, 5, 5, 2))
    cuts = {0: (0, 0), 5: (1, 2), 4: (1, 1), 9: (1, 1), 10: (1, 1)}
    for index, (i, j) in cuts.items():
        np.testing.assert_array_equal(
            shares[index], outputs[index, :, i : i + 5, j : j + 5]
        )


def test_merge_drops_the_surplus():
    # As by hand above: shares of features [0, 5), [5, 10), [8, 13); 8 and 9 are twice.
    axis = AxisPlan(13, 7, (0, 4, 6), 13, 5, (0, 1, 2), 1)
    plan = SplitPlan(axis, axis, 1, 1)
    features = jnp.arange(13 * 13.0).reshape(1, 13, 13, 1)
    shares = jnp.stack(
        [features[:, i : i + 5, j : j + 5] for i in (0, 5, 8) for j in (0, 5, 8)]
    )
    shares = shares.at[6:, :, :2].set(jnp.nan)  # the last strip of rows
    shares = shares.at[2::3, :, :, :2].set(jnp.nan)  # the last of every strip
    np.testing.assert_array_equal(merge(plan, shares), features)
    again = splitting.shares(plan, features)  # the inverse, the surplus included
    known = jnp.isfinite(shares)
    np.testing.assert_array_equal(again[known], shares[known])
    np.testing.assert_array_equal(merge(plan, again), features)


TWO_ROWS = SplitPlan(
    AxisPlan(8, 4, (0, 4), 4, 2, (0, 0), 2), AxisPlan(8, 8, (0,), 4, 4, (0,), 2), 1, 3
)


@pytest.mark.parametrize(
    "function, array, name",
    [
        (split, jnp.zeros((2, 7, 8, 1)), "images"),
        (split, [0], "images"),
        (merge, jnp.zeros((3, 5, 2, 4, 3)), "shares"),
    ],
)
def test_what_does_not_fit_a_plan_is_refused(function, array, name):
    with refused(name):
        function(TWO_ROWS, array)
