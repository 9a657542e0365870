"""The estimate of lost shares."""

import jax
import numpy as np
import pytest

from coded_jax.codes.erasures import available, patterns_up_to
from coded_jax.codes.sums import linear_estimate


def ridge(sums, features, lost):
    """`linear_estimate` as least squares on the results, and on a zero per share."""
    k, n = len(sums), len(features)
    kept = [i for i in range(n) if i not in lost]
    rows = np.concatenate([np.concatenate([np.eye(k), sums.T])[kept], np.eye(k)])
    values = features.reshape(n, -1)[kept]
    values = np.concatenate([values, np.zeros((k, values.shape[1]))])
    shares, *_ = np.linalg.lstsq(rows, values)
    return shares.reshape(k, *features.shape[1:])


@pytest.mark.parametrize("k, r", [(2, 1), (3, 3)])
def test_linear_estimate_is_ridge_regression_for_every_example(k, r):
    n = k + r
    rng = np.random.default_rng(0)
    sums = rng.normal(size=(k, r)).astype("f")
    losses = patterns_up_to(n, n)
    features = rng.normal(size=(n, len(losses), 2, 3, 4)).astype("f")
    masks = np.concatenate([available(lost, n) for lost in losses], axis=1)
    zeroed = np.where(masks[:, :, None, None, None], features, 0)
    together = jax.jit(linear_estimate)(sums, zeroed, masks)
    for i, lost in enumerate(losses):
        expected = ridge(sums, features[:, i], lost)
        np.testing.assert_allclose(together[:, i], expected, rtol=1e-3, atol=1e-4)
        alone = linear_estimate(sums, zeroed[:, i : i + 1], available(lost, n))
        np.testing.assert_allclose(alone[:, 0], expected, rtol=1e-3, atol=1e-4)
        if set(range(k, n)) <= set(lost):  # of data alone, zeros for the lost
            assert not np.asarray(together)[[j for j in lost if j < k], i].any()
