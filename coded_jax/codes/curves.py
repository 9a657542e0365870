"""Training-free codes whose pieces lie on a curve: Berrut's rational one, and splines.

Pieces are values of a curve at k points, queries its values at n others. The results of
`f_conv` are taken to lie on a curve as well, and shares are read back at the k points.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from scipy.interpolate import CubicSpline

from coded_jax.codes.linear import chebyshev, linear_code
from coded_jax.codes.quorum import any_k_mixtures
from coded_jax.types import Code, CodeShape

Curve = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""`(nodes, points) -> [len(points), len(nodes)]`, weights of values at the nodes."""


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
    return _through_curve(shape, berrut_matrix, berrut_matrix)


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
    order = np.argsort(nodes)
    x = nodes[order]
    h = np.diff(x)
    inner = np.arange(m - 2)
    q = np.zeros((m, m - 2))
    q[inner, inner] = 1 / h[:-1]
    q[inner + 1, inner] = -1 / h[:-1] - 1 / h[1:]
    q[inner + 2, inner] = 1 / h[1:]
    band = np.diag((h[:-1] + h[1:]) / 3)
    band += np.diag(h[1:-1] / 6, 1) + np.diag(h[1:-1] / 6, -1)
    values = np.linalg.inv(np.eye(m) + m * smoothing * q @ np.linalg.solve(band, q.T))
    curve = CubicSpline(x, values[:, np.argsort(order)], bc_type="natural")
    inside = np.clip(points, x[0], x[-1])
    return curve(inside) + (points - inside)[:, None] * curve(inside, 1)


def spline(
    shape: CodeShape, encoder_smoothing: float = 1e-3, decoder_smoothing: float = 1e-3
) -> Code:
    """Builds NeRCC, nested regression by splines (Moradi and Maddah-Ali 2024).

    As `berrut`, with a smoothing spline through the pieces, and another one through
    the results that arrived. The smoothing is our choice: of 0 and 1e-6 to 0.1, the
    best mean accuracy over all patterns of at most r losses on 2,000 validation images
    (MNIST, LeNet-5, k=4, r=1 and 2).
    """

    return _through_curve(
        shape,
        functools.partial(spline_matrix, smoothing=encoder_smoothing),
        functools.partial(spline_matrix, smoothing=decoder_smoothing),
    )


def encoding(k: int, n: int, curve: Curve = berrut_matrix) -> np.ndarray:
    """Returns the weights `[n, k]` of k pieces, values of a curve at Chebyshev points
    of the first kind, in its values at n points of the second."""
    return curve(chebyshev(k, 1), chebyshev(n, 2))


def decoding(
    k: int, n: int, arrived: np.ndarray, curve: Curve = berrut_matrix
) -> np.ndarray:
    """Returns the weights `[k, n]` of n results in k pieces; zeros for those that did
    not arrive, or are left out.

    Args:
      k: pieces.
      n: results, at the points of `encoding`.
      arrived: bool `[n]`.
      curve: through the results.
    """
    weights = np.zeros((k, n))
    weights[:, arrived] = curve(chebyshev(n, 2)[arrived], chebyshev(k, 1))
    return weights


def _through_curve(shape: CodeShape, encoder: Curve, decoder: Curve) -> Code:
    k, n = shape.k, shape.n
    decode = lambda arrived: decoding(k, n, arrived, decoder)
    return linear_code(shape, encoding(k, n, encoder), decode, any_k_mixtures(n))
