"""Training-free codes whose pieces lie on a curve: Berrut's rational one, and splines.

Pieces are values of a curve at k points, queries its values at n others. The results of
`f_conv` are taken to lie on a curve as well, and shares are read back at the k points.
ApproxIFER (Soleymani, Ali, Mahdavifar and Avestimehr 2022) finds wrong ones among them
without any calibration, as Berlekamp and Welch do for polynomials (1986).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

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
    from scipy.interpolate import CubicSpline  # 0.2 s, for this code alone

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
      results: `[..., n, C]`, of n workers in the order of their points, at least
        `workers(k, errors)`, with C coordinates, as logits.
      k: images that are coded together.
      errors: E, 1 or more.

    Returns:
      int `[..., E]`, ascending.
    """
    n = results.shape[-2]
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
