"""Training-free codes whose pieces lie on a curve: Berrut's rational one, and splines.

Pieces are values of a curve at k points, queries its values at n others. The results of
`f_conv` are taken to lie on a curve as well, and shares are read back at the k points.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from coded_jax.codes.linear import chebyshev, linear_code
from coded_jax.codes.quorum import any_k_mixtures
from coded_jax.types import Code, CodeShape


def berrut_matrix(nodes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Evaluates Berrut's rational interpolant at `points`: `[len(points), len(nodes)]`.

    `sum_i (-1)^i y_i / (z - x_i)` over `sum_i (-1)^i / (z - x_i)`, for nodes in order
    (Berrut 1988); it has no poles on the real line.
    """
    if not len(nodes):
        return np.zeros((len(points), 0))
    distance = points[:, None] - nodes[None]
    at_node = np.isclose(distance, 0, atol=1e-12)
    terms = (-1.0) ** np.arange(len(nodes)) / np.where(at_node, 1, distance)
    hit = at_node.any(1, keepdims=True)
    weights = terms / np.where(hit, 1, terms.sum(1, keepdims=True))
    return np.where(hit, at_node, weights)


def berrut(shape: CodeShape) -> Code:
    """Builds Berrut's rational code (BACC, Jahani-Nezhad and Maddah-Ali 2022).

    Pieces are values at the k Chebyshev points of the first kind, queries those of
    their interpolant at the n of the second; shares are read back from the interpolant
    of the results that arrived. Training-free, not systematic, for any number of
    losses. ApproxIFER uses it for inference.
    """
    data, workers = chebyshev(shape.k, 1), chebyshev(shape.n, 2)
    return _through_curve(shape, data, workers, berrut_matrix, berrut_matrix)


def spline_matrix(
    nodes: np.ndarray, points: np.ndarray, smoothing: float
) -> np.ndarray:
    """Evaluates the smoothing spline at `points`: `[len(points), len(nodes)]`.

    The natural cubic spline that minimises `mean((y - f(x))^2) + smoothing *
    integral(f''^2)`: values at the nodes `(I + m s Q R^-1 Q')^-1 y` (Reinsch 1967;
    Green and Silverman 1994, section 2.3), linear beyond the first and the last node.

    Args:
      nodes: x, `[m]`, strictly monotonic.
      points: where it is evaluated.
      smoothing: 0 interpolates.
    """
    m = len(nodes)
    if m < 2:
        return np.ones((len(points), m))
    ascending = np.argsort(nodes)
    x = nodes[ascending]
    h = np.diff(x)
    inner = np.arange(m - 2)
    q = np.zeros((m, m - 2))
    q[inner, inner] = 1 / h[:-1]
    q[inner + 1, inner] = -1 / h[:-1] - 1 / h[1:]
    q[inner + 2, inner] = 1 / h[1:]
    band = np.diag((h[:-1] + h[1:]) / 3)
    band += np.diag(h[1:-1] / 6, 1) + np.diag(h[1:-1] / 6, -1)
    values = np.linalg.inv(np.eye(m) + m * smoothing * q @ np.linalg.solve(band, q.T))
    # Second derivatives at the nodes, zero at both ends.
    curvature = np.zeros((m, m))
    curvature[1:-1] = np.linalg.solve(band, q.T) @ values
    left = np.clip(np.searchsorted(x, points) - 1, 0, m - 2)
    width, t = h[left], np.clip(points, x[0], x[-1]) - x[left]
    a, b = (width - t) / width, t / width
    matrix = a[:, None] * values[left] + b[:, None] * values[left + 1]
    matrix += ((a**3 - a) * width**2 / 6)[:, None] * curvature[left]
    matrix += ((b**3 - b) * width**2 / 6)[:, None] * curvature[left + 1]
    for end, inside, beyond in ((0, 1, points < x[0]), (m - 1, m - 2, points > x[-1])):
        step = x[end] - x[inside]
        slope = (values[end] - values[inside]) / step + step * curvature[inside] / 6
        matrix += (beyond * (points - x[end]))[:, None] * slope
    in_order = np.empty_like(matrix)
    in_order[:, ascending] = matrix
    return in_order


def spline(
    shape: CodeShape, encoder_smoothing: float = 1e-3, decoder_smoothing: float = 1e-3
) -> Code:
    """Builds NeRCC, nested regression by splines (Moradi and Maddah-Ali 2024).

    As `berrut`, with a smoothing spline through the pieces, and another one through
    the results that arrived. The smoothing is our choice: of 0 and 1e-6 to 0.1, the
    best mean accuracy over all patterns of at most r losses on 2,000 validation images
    (MNIST, LeNet-5, k=4, r=1 and 2).
    """

    def fitted(smoothing: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        return lambda nodes, points: spline_matrix(nodes, points, smoothing)

    data, workers = chebyshev(shape.k, 1), chebyshev(shape.n, 2)
    return _through_curve(
        shape, data, workers, fitted(encoder_smoothing), fitted(decoder_smoothing)
    )


def _through_curve(
    shape: CodeShape,
    data: np.ndarray,
    workers: np.ndarray,
    encoder: Callable[[np.ndarray, np.ndarray], np.ndarray],
    decoder: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Code:
    """Builds the code of a curve: pieces are its values at `data`, queries others."""

    def decode(arrived: np.ndarray) -> np.ndarray:
        weights = np.zeros((shape.k, shape.n))
        weights[:, arrived] = decoder(workers[arrived], data)
        return weights

    return linear_code(shape, encoder(data, workers), decode, any_k_mixtures(shape.n))
