"""What is true of every code of the registry, and of every learned network in it."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax import splitting
from coded_jax.codes import CODES, LearnedConfig, make_code, quorum
from coded_jax.codes.erasures import available, patterns_up_to
from coded_jax.splitting.plan import make_plan
from coded_jax.types import CodeShape
from tests.codes.learned_examples import LEARNED

B, K, R = 2, 3, 2
N = K + R
PATTERNS = patterns_up_to(N, R)
SMALLER = dict(encoder="linear", parity_pieces="smaller")
# Name -> name in the registry, settings of a learned code.
CASES = {
    **{name: (name, {}) for name in CODES if name != "mean_of_views"},
    **{f"learned, {name}": ("learned", own) for name, own in LEARNED.items()},
    "linear": ("learned", dict(encoder="linear", decoder="linear")),
    "smaller, sharpen": ("learned", SMALLER | dict(decoder="sharpen")),
    "smaller, low rank": ("learned", SMALLER | dict(decoder="low_rank")),
    "sums, sharpen": ("learned", dict(encoder="linear", decoder="sharpen")),
    "whole outputs": (
        "learned",
        dict(encoder="linear", decoder="linear", returned="outputs"),
    ),
    "paper, mlp": ("learned", LEARNED["mlp"] | dict(recipe="paper")),
    "paper, conv": ("learned", LEARNED["conv"] | dict(recipe="paper")),
    "paper, no parity": ("no_parity", dict(recipe="paper")),
}
MIXED = {"berrut", "spline"}
"""Codes that send mixtures in the place of the pieces."""


@functools.cache
def shape_of_a_padded_network():
    kernel = jnp.ones((3, 3, 3, 2))

    def f_conv(variables, x):
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    return CodeShape.of(make_plan(f_conv, {}, (16, 16, 3), (1, K)), R)


def random(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype("f")


@functools.cache
def make(name):
    """A code, random parameters of it, and a result of every device."""
    shape = shape_of_a_padded_network()
    registered, settings = CASES[name]
    config = LearnedConfig(**{"recipe": "systematic", **settings})
    code = make_code(registered, shape, {"w": np.ones((2, 3), "f")}, config)
    params = jax.tree.map(
        lambda x: random(0, *x.shape) * max(1, np.prod(x.shape[:-1])) ** -0.5,
        jax.eval_shape(code.init, jax.random.key(0)),
    )
    params = jax.tree.map(lambda x: x.astype("f"), params)
    return code, params, random(1, N, B, *shape.result(code.traits.uncut))


def pieces():
    return random(2, K, B, *shape_of_a_padded_network().piece)


def decode(code, params, features, mask):
    guide = (pieces(),) if code.traits.guided else ()
    return code.decode(params, features, mask, *guide)


@pytest.mark.parametrize("name", CASES)
def test_lost_results_leak_nothing_and_one_trace_serves_all_patterns(name):
    """Whatever stands in their slots; and results that arrived pass through."""
    code, params, features = make(name)
    shape = shape_of_a_padded_network()
    chex.clear_trace_counter()  # of the codes before

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(params, features, mask):
        return decode(code, params, features, mask)

    own = splitting.cut(shape.plan, features[:K]) if code.traits.uncut else features[:K]
    assert code.systematic == (name not in MIXED and not name.startswith("paper"))
    for lost in PATTERNS:
        mask, dirty = available(lost, N), features.copy()
        dirty[list(lost)] = np.nan
        shares = run(params, dirty, mask)
        chex.assert_shape(shares, (K, B, *shape.share))
        chex.assert_tree_all_finite(shares)
        dirty[list(lost)] = 7.0
        np.testing.assert_array_equal(run(params, dirty, mask), shares)
        if code.systematic:
            for i in set(range(K)) - set(lost):
                np.testing.assert_array_equal(shares[i], own[i])


@pytest.mark.parametrize("name", CASES)
def test_each_image_has_its_own_losses(name):
    code, params, features = make(name)
    run = jax.jit(functools.partial(decode, code))
    for patterns in ([(0, 3), (2,)], [(1, 4), ()]):
        masks = [available(lost, N) for lost in patterns]
        together = run(params, features, np.concatenate(masks, axis=1))
        for i, mask in enumerate(masks):
            alone = run(params, features, mask)
            chex.assert_trees_all_close(
                together[:, i], alone[:, i], rtol=1e-3, atol=1e-4
            )


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_finite_and_none_reaches_what_was_lost(name):
    code, params, features = make(name)
    mask = np.concatenate([available((0, 3), N), available((1, 2), N)], axis=1)
    dirty = np.where(mask[..., None, None, None], features, np.float32(np.nan))

    @jax.jit
    def gradients(params, features):
        loss = lambda *args: (decode(code, *args, mask) ** 2).sum()
        return jax.grad(loss, argnums=(0, 1))(params, features)

    to_params, to_features = gradients(params, dirty)
    chex.assert_tree_all_finite((to_params, to_features))
    assert not np.any(to_features[~mask]) and np.any(to_features[mask])


@pytest.mark.parametrize("name", CASES)
def test_queries_are_the_pieces_and_mixtures_of_them(name):
    code, params, _ = make(name)
    shape = shape_of_a_padded_network()
    queries = jax.jit(code.encode)(params, pieces())
    chex.assert_shape(queries, (N, B, *shape.piece))
    chex.assert_tree_all_finite(queries)
    for query, i in zip(queries, quorum.pieces_of(code.quorum, K, N), strict=True):
        if i is not None:
            np.testing.assert_array_equal(query, pieces()[i])


@pytest.mark.parametrize(
    "name", ["mds", "addition", "replication", "uncoded", "zero_fill", "mean_fill"]
)
def test_exact_where_and_only_where_the_results_suffice(name):
    """For a network that leaves everything as it is, and all sets of results."""
    shape = CodeShape(3, 3, (2, 3, 4), (2, 3, 4))
    code = make_code(name, shape, {}, LearnedConfig())
    sent = random(0, 3, B, *shape.piece)
    params = code.init(jax.random.key(0))
    results, run = code.encode(params, sent), jax.jit(code.decode)
    for lost in patterns_up_to(6, 6):
        shares = run(params, results, available(lost, 6))
        arrived = set(range(6)) - set(lost)
        exact = np.allclose(shares, sent, rtol=1e-3, atol=1e-3)
        assert exact == quorum.suffices(code.quorum, 3, sorted(arrived))
