"""ApproxIFER's error locator, on curves in closed form."""

import numpy as np
import pytest

from coded_jax.codes import curves
from coded_jax.codes.linear import chebyshev


@pytest.mark.parametrize("k, errors", [(2, 1), (4, 1), (3, 2)])
def test_wrong_values_of_a_rational_curve_are_located(k, errors):
    n = curves.workers(k, errors)
    z = chebyshev(n, 2)
    rng = np.random.default_rng(k)
    for _ in range(20):
        # (a + b z) / (3 + c z) for each of five coordinates, without poles in [-1, 1].
        a, b, c = rng.normal(size=(2, 5)).tolist() + [rng.uniform(-1, 1, 5).tolist()]
        exact = (np.array(a) + np.outer(z, b)) / (3 + np.outer(z, c))
        wrong = np.sort(rng.choice(n, errors, replace=False))
        results = exact.copy()
        results[wrong] += rng.normal(size=(errors, 5))
        np.testing.assert_array_equal(curves.locate(results, k, errors), wrong)


def test_a_batch_is_located_at_once():
    z = chebyshev(6, 2)
    results = np.stack([1 / (2 + z), 1 / (3 - z)])[..., None]
    results[0, 4] += 1
    results[1, 1] -= 0.5
    assert curves.locate(results, k=2).tolist() == [[4], [1]]
