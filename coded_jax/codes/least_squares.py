"""Least squares for every erasure pattern, from the moments of results and targets.

The best linear estimate of a target from any set of results follows from means, the
Gram matrix of all results and their products with the target: of a pattern it takes
the rows and columns of what arrived. So one pass over images fits them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from coded_jax.codes import erasures


class Moments(NamedTuple):
    """Sums over images, float64. Those of different images add up.

    Attributes:
      count: images.
      results: `[n, Q]`, sums of the results' values.
      target: `[P]`, of the target.
      gram: `[n Q, n Q]`, of products of the results' values with each other.
      cross: `[n Q, P]`, with the target.
    """

    count: float
    results: np.ndarray
    target: np.ndarray
    gram: np.ndarray
    cross: np.ndarray

    def plus(self, more: Moments) -> Moments:
        """Returns the moments of both sets of images together."""
        sums: Any = [a + b for a, b in zip(self, more, strict=True)]
        return Moments(*sums)

    @property
    def centred(self) -> Centred:
        """Returns means, and moments of the differences from them."""
        results, target = self.results / self.count, self.target / self.count
        flat = results.reshape(-1)
        gram = self.gram / self.count - np.outer(flat, flat)
        cross = self.cross / self.count - np.outer(flat, target)
        return Centred(results, target, gram, cross)

    @classmethod
    def zero(cls, n: int, results: int, target: int) -> Moments:
        """Returns those of no image, of n results of so many values, and a target."""
        shapes = (n, results), (target,), (n * results,) * 2, (n * results, target)
        return cls(0.0, *map(np.zeros, shapes))


class Centred(NamedTuple):
    """Means, and moments of the differences from them.

    Attributes:
      results, target, gram, cross: as of `Moments`, over their count.
    """

    results: np.ndarray
    target: np.ndarray
    gram: np.ndarray
    cross: np.ndarray

    def estimate(
        self, arrived: Sequence[int], ridge: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the weights `[results, Q, P]` of the results that arrived, and the
        bias `[P]`; see `solve`."""
        (n, size), outputs = self.results.shape, len(self.target)
        chosen, shape = list(arrived), (len(arrived), size, outputs)
        if not chosen:
            return np.zeros(shape), self.target
        rows = np.arange(n * size).reshape(n, size)[chosen].reshape(-1)
        simple = np.zeros((len(rows), outputs))
        if size == outputs:
            simple = np.tile(np.eye(size) / len(chosen), (len(chosen), 1))
        own = self.gram[np.ix_(rows, rows)]
        wanted = self.cross[rows] - own @ simple
        penalty = ridge * np.trace(self.gram) / len(self.gram)
        own[np.diag_indices(len(rows))] += penalty + np.finfo(np.float32).tiny
        found = simple + np.linalg.solve(own, wanted)
        return found.reshape(shape), self.target - self.results.reshape(-1)[
            rows
        ] @ found


class Estimates(NamedTuple):
    """Linear estimates of a target, one for each set of results, float32.

    That of a set is at the place `sum(arrived * 2^i)`; it is `results @ weights[place]
    + bias[place]`, where what did not arrive is 0.

    Attributes:
      weights: `[2^n, n Q, P]`.
      bias: `[2^n, P]`.
    """

    weights: np.ndarray
    bias: np.ndarray


def directions(moments: Moments, weights: np.ndarray, rank: int) -> np.ndarray:
    """Returns orthogonal directions of the target, float64 `[rank, P]`: those in which
    the estimates from all results differ most between images (reduced-rank regression,
    Izenman 1975).

    Args:
      moments: of the images.
      weights: `[n Q, P]`, of all results.
      rank: directions, at most P.
    """
    spread = weights.T @ moments.centred.gram @ weights
    _, vectors = np.linalg.eigh((spread + spread.T) / 2)
    return vectors[:, ::-1][:, :rank].T


def solve(moments: Moments, ridge: float) -> Estimates:
    """Fits a linear estimate for each of the 2^n sets of results.

    Its weights minimise the squared error, and `ridge` times the mean square of a
    value of the results times the squares of their differences from those of a simple
    estimate: the mean of the results, where they have as many values as the target, or
    else 0.

    Args:
      moments: of one image or more.
      ridge: of the penalty, more than 0.
    """
    (n, size), outputs = moments.results.shape, len(moments.target)
    weights = np.zeros((2**n, n, size, outputs), np.float32)
    bias = np.zeros((2**n, outputs), np.float32)
    centred = moments.centred
    for lost in erasures.patterns_up_to(n, n):
        arrived = [i for i in range(n) if i not in lost]
        place = sum(2**i for i in arrived)
        weights[place, arrived], bias[place] = centred.estimate(arrived, ridge)
    return Estimates(weights.reshape(2**n, -1, outputs), bias)
