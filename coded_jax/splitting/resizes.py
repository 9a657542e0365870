"""Products with a matrix of a resize, which are windows in disguise.

`jax.image.resize` multiplies rows and columns by matrices. Where these are the same at
every position, but for the borders, each output sees the inputs around it alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from coded_jax.splitting.traces import digest_of
from coded_jax.splitting.windows import Window

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
      values: by output and input, of those from the first one in the window on.
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

    def same(self, other: Weights) -> bool:
        """Returns whether other weights are the same, but for rounding."""
        if self.values.shape != other.values.shape:
            return False
        off, sums_off = self.values - other.values, self.sums - other.sums
        return bool(
            np.abs(off).max() <= self.tolerance + other.tolerance
            and np.abs(sums_off).max() <= self.sum_tolerance + other.sum_tolerance
        )


class Resize(NamedTuple):
    """A matrix that is the same window at every position.

    Attributes:
      window: along rows or columns.
      weights: of an output of each phase and of those at either border.
      digest: of the window, whatever the size and the weights.
    """

    window: Window
    weights: Weights
    digest: int


class Rearranged(NamedTuple):
    """A transposition, or a resize, which may be one, too.

    Rows and columns may be resized in either order, which is chosen by their sizes. So
    digests of resizes are added, and where the axes are counts as a transposition.

    Attributes:
      order: axis `order[i]` becomes axis i.
      along: 0 if rows are resized, 1 for columns.
      resize: None of a mere transposition.
    """

    order: tuple[int, ...]
    along: int = 0
    resize: Resize | None = None


def resize_of(matrix: np.ndarray) -> Resize | None:
    """Returns the resize that a matrix `[inputs, outputs]` is; None if it is none, or
    too small for one."""
    inputs, outputs = matrix.shape
    common = math.gcd(inputs, outputs)
    gap, stride = outputs // common, inputs // common
    sizes = np.abs(matrix)
    largest, totals = float(sizes.max(initial=0)), sizes.sum(0, dtype=np.float64)
    zero = EPS * max(inputs, LEAST_ROUNDED) * largest
    # Weights are computed in float32, and rounded again if they are of float16.
    is_real = jnp.issubdtype(matrix.dtype, jnp.floating)
    own = float(jnp.finfo(matrix.dtype).eps) if is_real else 0.0
    own = own if own > EPS else 0.0
    # Input i stands at i gap, output p at p stride.
    i, p = np.nonzero(sizes > zero)
    if not len(i):
        return None
    offsets = i * gap - p * stride
    first, last = int(offsets.min()), int(offsets.max())
    places = np.arange(outputs) * stride
    at_low = int((places + first < 0).sum())
    at_high = int((places + last > (inputs - 1) * gap).sum())
    inside = np.arange(at_low, outputs - at_high)
    if len(inside) < gap:  # not every phase has an output
        return None
    # The one input next to the window at either side may have a weight that is 0 but
    # for rounding, as a position may be rounded into the window of this input.
    span = np.arange(-1, (last - first) // gap + 3)
    at = -(-(places + first) // gap)[:, None] + span
    there = (at >= 0) & (at < inputs) & (at * gap - places[:, None] <= last + gap)
    values = matrix[np.where(there, at, 0), np.arange(outputs)[:, None]]
    values = np.where(there, values.astype(np.float64), 0.0)
    if (totals - np.abs(values).sum(1)).max() > FEW * EPS * largest:
        return None
    weights = Weights(
        values=np.where(np.abs(values) > zero, values, 0.0),
        tolerance=float(zero + own * largest),
        sums=matrix.sum(0, dtype=np.float64),
        sum_tolerance=float((FEW * EPS + own) * totals.max()),
    )
    of_phase = inside[0] + (inside - inside[0]) % gap
    if not weights.of_outputs(inside).same(weights.of_outputs(of_phase)):
        return None
    shown = np.r_[:at_low, inside[:gap], outputs - at_high : outputs]
    kernel = last - first + 1
    high = (outputs - 1) * stride + kernel - inputs * gap + gap - 1 + first
    return Resize(
        window=Window(inputs, kernel, stride, low=-first, high=high, gap=gap),
        weights=weights.of_outputs(shown),
        digest=digest_of([gap, stride, first, kernel, at_low, at_high]),
    )
