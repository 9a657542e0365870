"""ApproxIFER's error locator: which of the results on a rational curve are wrong.

Workers compute values of a curve at N points (`curves.berrut`), and E of their results
may be wrong. Soleymani, Ali, Mahdavifar and Avestimehr (2022) find these without any
calibration, as Berlekamp and Welch do for polynomials (1986).
"""

from __future__ import annotations

import numpy as np

from coded_jax.checks import require
from coded_jax.codes.linear import chebyshev


def workers(k: int, errors: int) -> int:
    """Returns the number of workers that locate E errors among coded results of k
    images, of which none is missing: `2 (k + E)`."""
    return 2 * (k + errors)


def locate(results: np.ndarray, k: int, errors: int = 1) -> np.ndarray:
    """Locates wrong results (Algorithm 2 of ApproxIFER).

    For each coordinate polynomials P and Q of degree `k + E - 1` are fitted, with
    `P(z_i) = y_i Q(z_i)` in least squares and `Q(0) = 1`; Q has its roots where results
    are wrong, and the E points where it is smallest are voted for. Those with most
    votes of all coordinates are returned: always E, whether there are wrong results or
    not.

    Args:
      results: `[..., n, C]`, of n workers in the order of their points, with C
        coordinates, as logits.
      k: images that are coded together.
      errors: E, 1 or more.

    Returns:
      int `[..., E]`, ascending.

    Raises:
      ValueError: n is less than `workers(k, errors)`.
    """
    n, most = results.shape[-2], workers(k, errors)
    require("results", n, n >= most, f"{most} or more workers for k={k}, E={errors}")
    points, size = chebyshev(n, 2), k + errors
    powers = points[:, None] ** np.arange(size)
    y = np.moveaxis(results, -1, -2)[..., None].astype(np.float64)  # [..., C, n, 1]
    numerator = np.broadcast_to(powers, (*y.shape[:-1], size))
    matrix = np.concatenate([numerator, -powers[:, 1:] * y], axis=-1)
    solution = (np.linalg.pinv(matrix) @ y)[..., size:, 0]
    q = 1 + solution @ powers[:, 1:].T  # [..., C, n]
    smallest = np.argsort(abs(q), axis=-1, kind="stable")[..., :errors]
    votes = (smallest[..., None] == np.arange(n)).sum(axis=(-3, -2))
    return np.sort(np.argsort(-votes, axis=-1, kind="stable")[..., :errors], axis=-1)
