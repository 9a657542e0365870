"""Products with a matrix of a resize, which are windows in disguise.

`jax.image.resize` multiplies rows and columns by matrices. Where these are the same at
every position, but for the borders, each output sees the inputs around it alone.
"""

from __future__ import annotations

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

    def of_outputs(self, outputs: np.ndarray) -> Weights:
        """Returns those of some outputs."""
        return self._replace(values=self.values[outputs], sums=self.sums[outputs])

    def alike(self) -> bool:
        """Returns whether all outputs have the same weights, but for rounding."""
        return bool(
            np.ptp(self.values, axis=0).max() <= 2 * self.tolerance
            and np.ptp(self.sums) <= 2 * self.sum_tolerance
        )


class Resize(NamedTuple):
    """A product of a feature with a matrix that is the same window at every position.

    Attributes:
      axis: of the feature, which is resized.
      order: axis `order[i]` of the feature is axis i of the result.
      steps: the window, see `traces.windows`.
      weights: of an output of each phase and of those at either border.
      digest: of the window, whatever the size and the weights.
    """

    axis: int
    order: tuple[int, ...]
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
    contracted, batched = eqn.params["dimension_numbers"]
    (axis, *more), own = contracted[which], contracted[1 - which]
    if (
        not isinstance(constant, Constant)
        or constant.value is None
        or len(eqn.invars[1 - which].aval.shape) != 2
        or more
        or batched[0]
        or axis not in feature.axes[1:]
    ):
        return None
    band = _band_of(np.moveaxis(constant.value(), own[0], 0))
    kept = [a for a in range(len(eqn.invars[which].aval.shape)) if a != axis]
    order = [axis, *kept] if which else [*kept, axis]
    return Resize(axis, tuple(order), *band) if band else None


def _band_of(matrix: np.ndarray) -> tuple[list[Window], Weights, int] | None:
    """Returns the window that a matrix `[inputs, outputs]` is, its weights and its
    digest; None if it is none, or too small for one."""
    inputs, outputs = matrix.shape
    common = math.gcd(inputs, outputs)
    gap, stride = outputs // common, inputs // common
    exact = matrix.astype(np.float64)
    sizes = np.abs(exact)
    largest, total = sizes.max(initial=0), sizes.sum(0).max(initial=0)
    zero = EPS * max(inputs, LEAST_ROUNDED) * largest
    # Weights are computed in float32, and rounded again if they are of float16.
    own = float(np.finfo(matrix.dtype).eps) if matrix.dtype.kind == "f" else 0.0
    own = own if own > EPS else 0.0
    if not (sizes > zero).any():
        return None
    # Input i stands at i gap, output p at p stride.
    offsets = np.arange(inputs)[:, None] * gap - np.arange(outputs) * stride
    inner = offsets[sizes > zero]
    first, last = int(inner.min()), int(inner.max())
    # The one input next to the window at either side may have a weight that is 0 but
    # for rounding, as a position may be rounded into the window of this input.
    beyond = (offsets < first - gap) | (offsets > last + gap)
    if np.where(beyond, sizes, 0).sum(0).max() > FEW * EPS * largest:
        return None
    kernel = last - first + 1
    places = np.arange(outputs) * stride
    low, high = places + first < 0, places + last > (inputs - 1) * gap
    inside = np.flatnonzero(~low & ~high)
    phases = [inside[inside % gap == phase] for phase in range(gap)]
    # Of every output the weights by their offsets, 0 where there is no input.
    at, rest = np.divmod(places[:, None] + np.arange(first, last + 1), gap)
    there = (rest == 0) & (at >= 0) & (at < inputs)
    values = np.where(sizes > zero, exact, 0.0)
    values = values[np.where(there, at, 0), np.arange(outputs)[:, None]]
    weights = Weights(
        values=np.where(there, values, 0.0),
        tolerance=float(zero + own * largest),
        sums=exact.sum(0),
        sum_tolerance=float((FEW * EPS + own) * total),
    )
    if not all(len(phase) and weights.of_outputs(phase).alike() for phase in phases):
        return None
    shown = [np.flatnonzero(low), [p[0] for p in phases], np.flatnonzero(high)]
    padding = (-first, (outputs - 1) * stride + kernel - inputs * gap + gap - 1 + first)
    return (
        windows(inputs, kernel, stride, padding=padding, gap=gap),
        weights.of_outputs(np.concatenate(shown)),
        digest_of(gap, stride, first, kernel, int(low.sum()), int(high.sum())),
    )


def same_weights(one: Sequence[Weights], other: Sequence[Weights]) -> bool:
    """Returns whether the weights of resizes are the same, but for rounding."""
    return len(one) == len(other) and all(
        a.values.shape == b.values.shape
        and np.abs(a.values - b.values).max() <= a.tolerance + b.tolerance
        and np.abs(a.sums - b.sums).max() <= a.sum_tolerance + b.sum_tolerance
        for a, b in zip(one, other, strict=True)
    )
