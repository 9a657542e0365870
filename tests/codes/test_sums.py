"""Initial sums of the pieces."""

import jax
import numpy as np
import pytest

from coded_jax.codes.sums import cosines, powers
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
