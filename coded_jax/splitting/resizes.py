"""Products with a matrix of a resize, which are windows in disguise.

`jax.image.resize` multiplies rows and columns by matrices. Where these are the same at
every position, but for the borders, each output sees the inputs around it alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from coded_jax.splitting.traces import Constant, Feature, Window, digest_of, windows

ROUNDING = 1e-6
"""Times the larger size, what weights may differ by, over the largest of them: they are
computed in float32, from positions up to that size, and anew for every size."""


class Weights(NamedTuple):
    """Weights of a window, with their rounding."""

    values: np.ndarray
    tolerance: float


class Resize(NamedTuple):
    """A product of a feature with a matrix that is a window.

    Attributes:
      axis: of the feature, which is resized.
      order: axis `order[i]` of the feature is axis i of the result.
      band: the window.
    """

    axis: int
    order: tuple[int, ...]
    band: Band


class Band(NamedTuple):
    """A matrix `[inputs, outputs]` that is the same window at every position.

    Attributes:
      steps: the window, see `traces.windows`.
      weights: by offset, of an output of each phase and of those at either border, and
        what they may differ by.
      digest: of the window, whatever the size and the weights.
    """

    steps: list[Window]
    weights: Weights
    digest: int


def resize_of(eqn: Any, traces: Sequence[Any]) -> Resize | None:
    """Returns what a `dot_general` resizes; None if it is no resize.

    Args:
      eqn: the equation.
      traces: those of its operands.
    """
    which = 0 if isinstance(traces[0], Feature) else 1
    feature, constant = traces[which], traces[1 - which]
    if not (isinstance(feature, Feature) and isinstance(constant, Constant)):
        return None
    contracted, batched = eqn.params["dimension_numbers"]
    shape = eqn.invars[1 - which].aval.shape
    (axis, *more), own = contracted[which], contracted[1 - which]
    if more or batched[0] or len(shape) != 2 or not constant.known:
        return None
    if axis not in feature.axes[1:]:
        return None
    band = band_of(np.moveaxis(constant.at_hand(), own[0], 0))
    if band is None:
        return None
    kept = [a for a in range(len(eqn.invars[which].aval.shape)) if a != axis]
    order = [axis, *kept] if which else [*kept, axis]
    return Resize(axis, tuple(order), band)


def band_of(matrix: np.ndarray) -> Band | None:
    """Returns the window that a matrix is; None if it is none, or too small for one.

    Args:
      matrix: `[inputs, outputs]`.
    """
    inputs, outputs = matrix.shape
    common = math.gcd(inputs, outputs)
    gap, stride = outputs // common, inputs // common
    tolerance = float(ROUNDING * max(inputs, outputs) * np.abs(matrix).max())
    matrix = np.where(abs(matrix) > tolerance, matrix, 0.0).astype(np.float64)
    i, p = np.nonzero(matrix)
    if not len(i):
        return None
    # Input i stands at i gap, output p at p stride.
    offsets = i * gap - p * stride
    first, last = int(offsets.min()), int(offsets.max())
    kernel = last - first + 1
    places = np.arange(outputs) * stride
    low = places + first < 0
    high = places + last > (inputs - 1) * gap
    inside = np.flatnonzero(~low & ~high)
    phases = [inside[inside % gap == phase] for phase in range(gap)]
    if not all(len(phase) for phase in phases):
        return None
    column = functools.partial(_column, matrix, gap, stride, first, kernel)
    for phase in phases:
        columns = np.stack([column(p) for p in phase])
        if np.ptp(columns, axis=0).max() > 2 * tolerance:
            return None
    borders = [np.flatnonzero(side).tolist() for side in (low, high)]
    shown = [*borders[0], *(int(phase[0]) for phase in phases), *borders[1]]
    weights = np.stack([column(p) for p in shown])
    padding = (-first, (outputs - 1) * stride + kernel - inputs * gap + gap - 1 + first)
    steps = windows(inputs, kernel, stride, padding=padding, gap=gap)
    own = (gap, stride, first, kernel, *map(len, borders))
    return Band(steps, Weights(weights, tolerance), digest_of(own))


def same_weights(one: Sequence[Weights], other: Sequence[Weights]) -> bool:
    """Returns whether the weights of resizes are the same, but for rounding."""
    return len(one) == len(other) and all(
        a.values.shape == b.values.shape
        and np.abs(a.values - b.values).max() <= a.tolerance + b.tolerance
        for a, b in zip(one, other, strict=True)
    )


def _column(
    matrix: np.ndarray, gap: int, stride: int, first: int, kernel: int, p: int
) -> np.ndarray:
    """Returns the weights of output `p` by their offsets, 0 where there is no input."""
    offsets = np.arange(first, first + kernel) + p * stride
    at, rest = np.divmod(offsets, gap)
    there = (rest == 0) & (at >= 0) & (at < len(matrix))
    return np.where(there, matrix[np.where(there, at, 0), p], 0.0) + 0.0
