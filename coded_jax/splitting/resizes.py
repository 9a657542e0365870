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

EPS = float(np.finfo(np.float32).eps)
LEAST_ROUNDED = 16
"""Inputs of the smallest matrix whose weights round as those of larger ones do, with
the positions that they are computed from: by `EPS` times the number of inputs, where
up to 0.72 of that was measured."""
FEW = 8
"""Times `EPS` and the sum of their sizes, what a sum of weights may be off, however
many inputs there are. With jax 0.10.2 on a CPU sums of 1 differ by up to 3.6 `EPS`
(linear, cubic, Lanczos; factors of 1/8 to 8; 24 to 512 rows)."""


class Weights(NamedTuple):
    """Weights of a window, with their rounding.

    Attributes:
      values: by output and offset.
      tolerance: what a value may be off.
      sums: by output, with what was taken for 0.
      sum_tolerance: what a sum may be off: where the position that weights are computed
        from is rounded, one weight gains what another loses.
    """

    values: np.ndarray
    tolerance: float
    sums: np.ndarray
    sum_tolerance: float


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
      weights: of an output of each phase and of those at either border.
      digest: of the window, whatever the size and the weights.
    """

    steps: list[Window]
    weights: Weights
    digest: int


def resize_of(eqn: Any, traces: Sequence[Any]) -> Resize | None:
    """Returns the resize that a `dot_general` computes; None if it is no resize.

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
    if more or batched[0] or len(shape) != 2 or constant.value is None:
        return None
    if axis not in feature.axes[1:]:
        return None
    band = band_of(np.moveaxis(constant.value(), own[0], 0))
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
    exact, (tolerance, *tolerances) = matrix.astype(np.float64), _tolerances(matrix)
    matrix = np.where(abs(exact) > tolerance, exact, 0.0)
    i, p = np.nonzero(matrix)
    if not len(i):
        return None
    # Input i stands at i gap, output p at p stride.
    offsets = i * gap - p * stride
    first, last = int(offsets.min()), int(offsets.max())
    if not _vanishes_beyond(exact, gap, stride, first - gap, last + gap):
        return None
    kernel = last - first + 1
    places = np.arange(outputs) * stride
    low = places + first < 0
    high = places + last > (inputs - 1) * gap
    inside = np.flatnonzero(~low & ~high)
    phases = [inside[inside % gap == phase] for phase in range(gap)]
    if not all(len(phase) for phase in phases):
        return None
    column = functools.partial(_column, matrix, gap, stride, first, kernel)

    def weights_of(columns: list[int]) -> Weights:
        values = np.stack([column(p) for p in columns])
        return Weights(values, tolerances[0], exact.sum(0)[columns], tolerances[1])

    if not all(_alike(weights_of(phase.tolist())) for phase in phases):
        return None
    borders = [np.flatnonzero(side).tolist() for side in (low, high)]
    shown = [*borders[0], *(int(phase[0]) for phase in phases), *borders[1]]
    padding = (-first, (outputs - 1) * stride + kernel - inputs * gap + gap - 1 + first)
    steps = windows(inputs, kernel, stride, padding=padding, gap=gap)
    own = (gap, stride, first, kernel, *map(len, borders))
    return Band(steps, weights_of(shown), digest_of(own))


def _tolerances(matrix: np.ndarray) -> tuple[float, float, float]:
    """Returns three tolerances: of zeros, of weights, and of sums of weights."""
    sizes = np.abs(matrix.astype(np.float64))
    zero = float(EPS * max(len(matrix), LEAST_ROUNDED) * sizes.max(initial=0))
    # Weights are computed in float32, and rounded again if they are of float16.
    own = float(np.finfo(matrix.dtype).eps) if matrix.dtype.kind == "f" else 0.0
    own = own if own > EPS else 0.0
    total = float(sizes.sum(0).max(initial=0))
    return zero, zero + own * float(sizes.max(initial=0)), (FEW * EPS + own) * total


def _vanishes_beyond(
    matrix: np.ndarray, gap: int, stride: int, first: int, last: int
) -> bool:
    """Returns whether weights of offsets before `first` or after `last` add up to 0.

    So the one input next to the window at either side may have a weight that is 0 but
    for rounding, as a position may be rounded into the window of this input.
    """
    i, p = np.nonzero(matrix)
    offsets, sizes = i * gap - p * stride, abs(matrix[i, p])
    beyond = (offsets < first) | (offsets > last)
    sums = np.bincount(p[beyond], sizes[beyond], minlength=1)
    return bool(sums.max() <= FEW * EPS * sizes.max())


def _alike(weights: Weights) -> bool:
    """Returns whether all outputs have the same weights, but for rounding."""
    return bool(
        np.ptp(weights.values, axis=0).max() <= 2 * weights.tolerance
        and np.ptp(weights.sums) <= 2 * weights.sum_tolerance
    )


def same_weights(one: Sequence[Weights], other: Sequence[Weights]) -> bool:
    """Returns whether the weights of resizes are the same, but for rounding."""
    return len(one) == len(other) and all(
        a.values.shape == b.values.shape
        and np.abs(a.values - b.values).max() <= a.tolerance + b.tolerance
        and np.abs(a.sums - b.sums).max() <= a.sum_tolerance + b.sum_tolerance
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
