"""Initial sums of the pieces."""

import jax
import numpy as np
import pytest

from coded_jax.codes.sums import cosines, hadamard, powers
from tests.codes.learned_examples import SHAPE, random_pieces
from tests.errors import refused
from tests.pipelines import learned


@pytest.mark.parametrize("k, r", [(2, 1), (4, 2), (5, 5)])
@pytest.mark.parametrize("name", ["cosine", "power", "hadamard"])
def test_initial_sums(name, k, r):
    """Columns of length 1: orthogonal, or without differences; the first is even."""
    if name == "hadamard" and k == 5:
        with refused("sums"):
            hadamard(k, r)
        return
    function = {"cosine": cosines, "power": powers, "hadamard": hadamard}[name]
    sums = np.asarray(function(k, r))
    np.testing.assert_allclose(sums[:, 0], 1 / np.sqrt(k), rtol=1e-6)
    if name == "power":
        np.testing.assert_allclose(np.square(sums).sum(0), 1, rtol=1e-6)
        assert (sums > 0).all() and np.linalg.matrix_rank(sums) == r
    else:
        np.testing.assert_allclose(sums.T @ sums, np.eye(r), atol=1e-6)
    if name == "hadamard":
        np.testing.assert_allclose(abs(sums), 1 / np.sqrt(k), rtol=1e-6)
    code = learned(SHAPE._replace(k=k, r=r), encoder="linear", sums=name)
    np.testing.assert_allclose(code.init(jax.random.key(0))["sums"], sums, rtol=1e-6)


def test_fixed_sums_are_no_parameters():
    pieces = random_pieces()
    code, free = (learned(SHAPE, encoder="linear", fixed_sums=x) for x in (True, False))
    params = free.init(jax.random.key(0))
    fixed = code.init(jax.random.key(0))
    assert params.keys() - fixed.keys() == {"sums"}
    expected = code.encode(fixed, pieces)
    np.testing.assert_array_equal(free.encode(params, pieces), expected)
    doubled = {"sums": 2 * params["sums"]}
    np.testing.assert_array_equal(code.encode(fixed | doubled, pieces), expected)
    assert not np.allclose(free.encode(params | doubled, pieces), expected)
