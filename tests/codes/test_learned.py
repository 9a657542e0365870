"""Learned codes: what every one does with lost results, and its parts by hand."""

import chex
import jax
import numpy as np
import pytest

from coded_jax.codes import no_parity
from coded_jax.codes.erasures import available, patterns_up_to
from tests.codes.learned_examples import (
    INDEPENDENT,
    LEARNED,
    MLP_AND_CONV,
    SHAPE,
    make,
    random_features,
)
from tests.codes.test_estimate import ridge
from tests.pipelines import learned


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


@pytest.mark.parametrize("name", ["mlp", "conv", "local", "pointwise"])
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


def _layers(params):
    """The names of the layers that hold a bias."""
    paths = jax.tree.leaves_with_path(params)
    return [path[-2].key for path, _ in paths if path[-1].key == "bias"]


def test_init():
    """No parity is the code without its encoder, so that nothing else differs."""
    code = learned(SHAPE)
    params = jax.jit(code.init)(jax.random.key(0))
    reseeded = jax.jit(code.init)(jax.random.key(1))
    for half in ("encoder", "decoder"):
        kernels = [p[half]["params"]["Dense_0"]["kernel"] for p in (params, reseeded)]
        assert not np.isclose(*kernels).any()
    withheld = jax.jit(no_parity(SHAPE, code).init)(jax.random.key(0))
    del params["encoder"]
    chex.assert_trees_all_equal(withheld, params)


def test_a_linear_decoder_is_the_estimate_alone():
    code = learned(SHAPE, encoder="linear", decoder="linear")
    params = code.init(jax.random.key(0))
    assert params.keys() == {"sums"}
    features = random_features()
    shares = code.decode(params, features, available((0,), SHAPE.n))
    estimate = ridge(np.asarray(params["sums"]), features, (0,))
    np.testing.assert_allclose(shares[0], estimate[0], rtol=1e-4, atol=1e-5)


def test_nonnegative_shares():
    plain, params = make("mlp")
    code = learned(SHAPE, **LEARNED["mlp"], nonnegative=True)
    mask = available((0, 2), SHAPE.n)
    shares = code.decode(params, random_features(), mask)
    expected = np.array(plain.decode(params, random_features(), mask))
    expected[0] = np.maximum(expected[0], 0)  # what arrived is left as it is
    np.testing.assert_allclose(shares, expected, rtol=1e-5, atol=1e-6)
    assert (expected[1] < 0).any()
