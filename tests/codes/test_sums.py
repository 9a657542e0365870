"""Initial sums of the pieces."""

import jax
import numpy as np
import pytest

from coded_jax.codes.sums import cosines, hadamard, powers
from coded_jax.types import CodeShape
from tests.codes.learned_examples import SHAPE
from tests.pipelines import learned


@pytest.mark.parametrize("k, r", [(2, 1), (4, 2), (5, 5)])
def test_parity_starts_as_orthonormal_sums(k, r):
    sums = np.asarray(cosines(k, r))
    np.testing.assert_allclose(sums.T @ sums, np.eye(r), atol=1e-6)
    np.testing.assert_allclose(sums[:, 0], 1 / np.sqrt(k), rtol=1e-6)
    shape = CodeShape(k, r, SHAPE.piece, SHAPE.share)
    init = jax.jit(lambda key: learned(shape).init(key)["sums"])
    np.testing.assert_allclose(init(jax.random.key(0)), sums, rtol=1e-6)
    plain = jax.eval_shape(learned(shape, systematic=False).init, jax.random.key(0))
    assert "sums" not in plain


@pytest.mark.parametrize("k, r", [(2, 1), (4, 2), (5, 5)])
def test_sums_without_differences(k, r):
    sums = np.asarray(powers(k, r))
    np.testing.assert_allclose(np.square(sums).sum(0), 1, rtol=1e-6)
    np.testing.assert_allclose(sums[:, 0], 1 / np.sqrt(k), rtol=1e-6)
    assert (sums > 0).all() and np.linalg.matrix_rank(sums) == min(k, r)
    shape = CodeShape(k, r, SHAPE.piece, SHAPE.share)
    init = jax.jit(lambda key: learned(shape, sums="power").init(key)["sums"])
    np.testing.assert_allclose(init(jax.random.key(0)), sums, rtol=1e-6)


@pytest.mark.parametrize("k, r", [(2, 1), (4, 2), (8, 8)])
def test_sums_that_differ_in_signs_alone(k, r):
    sums = np.asarray(hadamard(k, r))
    np.testing.assert_allclose(sums.T @ sums, np.eye(r), atol=1e-6)
    np.testing.assert_allclose(abs(sums), 1 / np.sqrt(k), rtol=1e-6)
    np.testing.assert_array_equal(sums[:, 0] > 0, True)
    with pytest.raises(ValueError, match="^sums: 'hadamard' given, cosine or power"):
        hadamard(6, 2)


def test_fixed_sums_are_no_parameters():
    pieces = np.random.default_rng(0).normal(size=(SHAPE.k, 2, *SHAPE.piece))
    code, free = (learned(SHAPE, encoder="linear", fixed_sums=x) for x in (True, False))
    params = free.init(jax.random.key(0))
    fixed = code.init(jax.random.key(0))
    assert params.keys() - fixed.keys() == {"sums"}
    np.testing.assert_array_equal(
        code.encode(fixed, pieces), free.encode(params, pieces)
    )
    doubled = {**params, "sums": 2 * params["sums"]}
    np.testing.assert_array_equal(
        code.encode({**fixed, "sums": doubled["sums"]}, pieces),
        code.encode(fixed, pieces),
    )
    assert not np.allclose(free.encode(doubled, pieces), code.encode(fixed, pieces))
