"""Baselines: the mean of the features, and a decoder without parity."""

import chex
import jax
import numpy as np
import pytest

from coded_jax.codes.erasures import available, patterns_up_to
from coded_jax.inference.pipeline import base_features
from coded_jax.training import exact_targets
from tests.codes.learned_examples import SHAPE, make, random_features, random_pieces
from tests.codes.rival_examples import images_of, pipeline_of


def test_mean_fill_has_the_mean(lenet, monkeypatch):
    base, variables = lenet
    pipe = pipeline_of(base, code="mean_fill")
    images = images_of(32)
    monkeypatch.setattr(exact_targets, "CHUNK", 12)  # does not divide them
    (params,) = exact_targets.constants(pipe, variables, images)
    features = base_features(pipe, variables, images)
    mean = np.stack([features[:, :2].mean(0), features[:, 2:].mean(0)])
    np.testing.assert_allclose(params["mean"], mean, rtol=1e-5, atol=1e-6)
    assert (
        params["mean"].shape == jax.jit(pipe.init)(jax.random.key(0))[0]["mean"].shape
    )


@pytest.mark.parametrize("systematic", [True, False])
def test_no_parity_keeps_a_decoder_that_never_sees_parity(systematic):
    code, params = make("no_parity", systematic)
    coded, coded_params = make("mlp", systematic)
    assert params.keys() == coded_params.keys() - {"encoder"}
    assert not np.asarray(code.encode(params, random_pieces())[SHAPE.k :]).any()
    features = random_features()
    nan_parity = features.copy()
    nan_parity[SHAPE.k :] = np.nan
    parity = set(range(SHAPE.k, SHAPE.n))
    for lost in patterns_up_to(SHAPE.n, SHAPE.r):
        mask = available(lost, SHAPE.n)
        shares = code.decode(params, features, mask)
        np.testing.assert_array_equal(code.decode(params, nan_parity, mask), shares)
        # It is the code itself, with the same decoder and all parity lost.
        expected = coded.decode(
            coded_params | params, features, available(parity | set(lost), SHAPE.n)
        )
        chex.assert_trees_all_close(shares, expected, rtol=1e-6, atol=1e-6)
