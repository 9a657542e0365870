"""Learned codes: what every one does with lost results, and its parts by hand."""

import functools

import chex
import jax
import numpy as np
import pytest

from coded_jax.codes import no_parity, zero_fill
from coded_jax.codes.erasures import available, patterns_up_to
from coded_jax.codes.estimate import linear_estimate
from tests.codes.learned_examples import (
    INDEPENDENT,
    LEARNED,
    MLP_AND_CONV,
    SHAPE,
    B,
    make,
    random_features,
    random_pieces,
)
from tests.codes.test_estimate import ridge
from tests.pipelines import learned


@pytest.mark.parametrize("name", [*LEARNED, "zero_fill", "no_parity"])
def test_queries_begin_with_the_pieces(name):
    code, params = make(name)
    pieces = random_pieces()
    queries = code.encode(params, pieces)
    chex.assert_shape(queries, (SHAPE.n, B, *SHAPE.piece))
    np.testing.assert_array_equal(queries[: SHAPE.k], pieces)


@pytest.mark.parametrize("name", LEARNED)
def test_systematic_decoders_reach_values_below_zero(name):
    code, params = make(name)
    shares = code.decode(params, -random_features(), available((0,), SHAPE.n))
    assert (np.asarray(shares[0]) < 0).any()


@pytest.mark.parametrize("systematic", [True, False])
@pytest.mark.parametrize("name", MLP_AND_CONV)
def test_decoder_by_hand(name, systematic):
    # Every kernel picks inputs, and the first one those of results 1 and 2 of 0..3.
    options = LEARNED[name]
    if "conv" in name:  # one hidden layer, as wide as the output
        width = SHAPE.k * (1 if name in INDEPENDENT else SHAPE.share[-1])
        options = options | dict(decoder_width=width, dilations=(1,), kernel=1)
    code = learned(SHAPE, **options, systematic=systematic)

    def pick(x):
        if x.ndim == 1:
            return np.zeros(x.shape, "f")
        *window, inputs, outputs = x.shape
        first = 0 if inputs == outputs else inputs // SHAPE.n
        return np.eye(inputs, outputs, -first, "f").reshape(x.shape)

    params = jax.tree.map(pick, jax.eval_shape(code.init, jax.random.key(0)))
    features = random_features()
    if not systematic:
        shares = jax.jit(code.decode)(params, features, np.ones((SHAPE.n, 1), bool))
        np.testing.assert_array_equal(shares, np.maximum(features[1:3], 0))
        return
    # Both shares are lost: their estimates stand in their places.
    lost = (0, 1)
    params["sums"] = np.array([[0.5, 0.0], [2.0, -1.0]], np.float32)
    estimate = ridge(params["sums"], features, lost)
    picked = np.stack([estimate[1], features[2]])
    expected = estimate + np.maximum(picked, 0)  # the hidden layers have a ReLU
    shares = jax.jit(code.decode)(params, features, available(lost, SHAPE.n))
    np.testing.assert_allclose(shares, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LEARNED)
def test_paper_decoder_regenerates_and_systematic_fills_the_gaps(name):
    # All weights zero and the last bias 7: a decoder that says 7 whatever arrives.
    code, params = make(name, systematic=False)
    systematic, _ = make(name)
    last = max(jax.tree.leaves(_layers(params["decoder"])))
    params = jax.tree.map_with_path(
        lambda path, x: np.full_like(
            x, 7 if path[-1].key == "bias" and path[-2].key == last else 0
        ),
        params,
    )
    features = random_features()
    sums = np.array([[0.5, 0.0], [2.0, -1.0]], np.float32)
    for lost in patterns_up_to(SHAPE.n, SHAPE.r):
        mask = available(lost, SHAPE.n)
        assert (np.asarray(code.decode(params, features, mask)) == 7).all()
        shares = systematic.decode({**params, "sums": sums}, features, mask)
        estimate = ridge(sums, features, lost)
        for i in range(SHAPE.k):
            if i in lost:
                expected = estimate[i] + 7
                np.testing.assert_allclose(shares[i], expected, rtol=1e-4, atol=1e-5)
            else:
                np.testing.assert_array_equal(shares[i], features[i])


@pytest.mark.parametrize("name", LEARNED)
def test_decoders_are_never_negative(name):
    code, params = make(name, systematic=False)
    shares = np.asarray(
        code.decode(params, random_features(), np.ones((SHAPE.n, 1), bool))
    )
    assert shares.min() == 0 < shares.max()


@pytest.mark.parametrize("systematic", [True, False])
@pytest.mark.parametrize("name", ["mlp", "conv", "no_parity"])
def test_garbage_in_lost_slots_leaks_nowhere(name, systematic):
    code, params = make(name, systematic)
    # Every example loses others, the last nothing.
    mask = np.array([[0, 1, 1], [1, 0, 1], [1, 0, 1], [0, 1, 1]], bool)
    features = random_features()

    @jax.jit
    def outcome(params, features):
        loss = lambda *args: (code.decode(*args, mask) ** 2).sum()
        gradients = jax.grad(loss, argnums=(0, 1))(params, features)
        return code.decode(params, features, mask), gradients

    lost = ~mask[:, :, None, None, None]
    clean = outcome(params, np.where(lost, np.float32(0), features))
    chex.assert_tree_all_finite(clean)
    for garbage in np.array([np.nan, np.inf, -3e38], np.float32):
        dirty = outcome(params, np.where(lost, garbage, features))
        chex.assert_trees_all_equal(dirty, clean)
    to_features = np.asarray(clean[1][1])
    assert not to_features[~mask].any() and to_features[mask].any()


@pytest.mark.parametrize("name", [*LEARNED, "zero_fill", "no_parity"])
def test_availability_per_example_and_for_all_agree(name):
    code, params = make(name)
    features = random_features()
    masks = [available(lost, SHAPE.n) for lost in [(), (0, 3), (1, 2)]]
    together = code.decode(params, features, np.concatenate(masks, axis=1))
    for i, mask in enumerate(masks):
        alone = code.decode(params, features, mask)
        chex.assert_trees_all_close(together[:, i], alone[:, i], rtol=1e-5, atol=1e-6)
        repeated = code.decode(params, features, np.repeat(mask, B, axis=1))
        chex.assert_trees_all_close(repeated, alone, rtol=1e-5, atol=1e-6)


def _layers(params):
    """The names of the layers that hold a bias."""
    paths = jax.tree.leaves_with_path(params)
    return [path[-2].key for path, _ in paths if path[-1].key == "bias"]


def test_init():
    code = learned(SHAPE)
    params = jax.jit(code.init)(jax.random.key(0))
    chex.assert_trees_all_equal(jax.jit(code.init)(jax.random.key(0)), params)
    reseeded = jax.jit(code.init)(jax.random.key(1))
    for half in ("encoder", "decoder"):
        kernels = [p[half]["params"]["Dense_0"]["kernel"] for p in (params, reseeded)]
        assert not np.isclose(*kernels).any()
    # So that the two differ by nothing but parity when they are trained.
    withheld = jax.jit(no_parity(SHAPE, code).init)(jax.random.key(0))
    del params["encoder"]
    chex.assert_trees_all_equal(withheld, params)


@pytest.mark.parametrize("make_code", [learned, zero_fill])
def test_codes_are_static_arguments(make_code):
    code = make_code(SHAPE)
    encode = jax.jit(lambda code, *args: code.encode(*args), static_argnums=0)
    params = jax.eval_shape(code.init, jax.random.key(0))
    out = jax.eval_shape(functools.partial(encode, code), params, random_pieces())
    assert out.shape == (SHAPE.n, B, *SHAPE.piece) and hash(code) == hash(code)


def test_linear_networks_are_the_sums_and_the_estimate_alone():
    code = learned(SHAPE, encoder="linear", decoder="linear")
    params = jax.jit(code.init)(jax.random.key(0))
    assert params.keys() == {"sums"}
    pieces, features = random_pieces(), random_features()
    expected = np.einsum("kbhwc,kr->rbhwc", pieces, params["sums"])
    encoded = code.encode(params, pieces)
    np.testing.assert_allclose(encoded[SHAPE.k :], expected, rtol=1e-4, atol=1e-5)
    mask = available((0,), SHAPE.n)
    shares = code.decode(params, features, mask)
    zeroed = np.where(mask[..., None, None, None], features, 0)
    estimate = linear_estimate(params["sums"], zeroed, mask)
    np.testing.assert_allclose(shares[0], estimate[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(shares[1], features[1])


def test_a_linear_network_takes_a_systematic_code():
    with pytest.raises(ValueError, match="^decoder: 'linear' .* with recipe=paper"):
        learned(SHAPE, decoder="linear", systematic=False)


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_nonnegative_shares(name):
    plain, params = make(name)
    code = learned(SHAPE, **LEARNED[name], nonnegative=True)
    mask = available((0, 2), SHAPE.n)
    shares = code.decode(params, random_features(), mask)
    expected = np.array(plain.decode(params, random_features(), mask))
    expected[0] = np.maximum(expected[0], 0)  # what arrived is left as it is
    np.testing.assert_allclose(shares, expected, rtol=1e-5, atol=1e-6)
    assert (expected[1] < 0).any()
