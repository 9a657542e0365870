"""Initial sums of the pieces."""

import jax
import numpy as np
import pytest

from coded_jax.codes.sums import cosines, powers
from tests.codes.learned_examples import SHAPE
from tests.pipelines import learned


@pytest.mark.parametrize("k, r", [(2, 1), (4, 2), (5, 5)])
@pytest.mark.parametrize("name", ["cosine", "power"])
def test_initial_sums(name, k, r):
    """Columns of length 1: orthogonal, or without differences; the first is even."""
    function = {"cosine": cosines, "power": powers}[name]
    sums = np.asarray(function(k, r))
    np.testing.assert_allclose(sums[:, 0], 1 / np.sqrt(k), rtol=1e-6)
    if name == "power":
        np.testing.assert_allclose(np.square(sums).sum(0), 1, rtol=1e-6)
        assert (sums > 0).all() and np.linalg.matrix_rank(sums) == r
    else:
        np.testing.assert_allclose(sums.T @ sums, np.eye(r), atol=1e-6)
    code = learned(SHAPE._replace(k=k, r=r), encoder="linear", sums=name)
    np.testing.assert_allclose(code.init(jax.random.key(0))["sums"], sums, rtol=1e-6)
