"""Traces: the facts about a value inside `f_conv`, a feature or a constant.

A feature knows which of its axes are batch, rows and columns and which interval of the
image each position depends on. A constant knows along which axes it may vary. Every
value has a digest of the operations that made it, free of the image's size, so that
two analyses tell whether a function does the same on pieces as on the whole image.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np


class Field(NamedTuple):
    """Receptive field along one axis: outputs `[a, b)` need `[a*s+low, (b-1)*s+high)`.

    Attributes:
      stride: pixels of the image between neighbouring features, `s`.
      low: first pixel that feature 0 needs; negative where it reaches into padding.
      high: one past the last pixel that feature 0 needs.
    """

    stride: int = 1
    low: int = 0
    high: int = 1

    def through(self, kernel: int, stride: int, dilation: int, padding: int) -> Field:
        """Returns the field after one more windowed operation."""
        reach = (kernel - 1) * dilation
        return Field(
            stride=self.stride * stride,
            low=self.low - padding * self.stride,
            high=self.high + (reach - padding) * self.stride,
        )

    def window(self, a: int, b: int) -> tuple[int, int]:
        """Returns the pixels that features `[a, b)` need, padding included."""
        return a * self.stride + self.low, (b - 1) * self.stride + self.high


Fields = tuple[Field, Field]  # rows, columns
# Largest array of integers whose values are computed: the grid of indices of half of
# 1,448 rows and as many columns, which x[:, ::2, ::2] makes before jax 0.8.
MAX_KNOWN_INTEGERS = 2**20


class Window(NamedTuple):
    """A windowed operation along one axis of `size` positions; no padding is < 0."""

    size: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    low: int = 0
    high: int = 0

    @property
    def trivial(self) -> bool:
        """Returns whether each output sees the input at its own position alone."""
        return self[1:] == (1, 1, self.dilation, 0, 0)


def windows(
    size: int,
    kernel: int = 1,
    stride: int = 1,
    dilation: int = 1,
    padding: tuple[int, int] = (0, 0),
) -> list[Window]:
    """Returns the steps of a windowed operation: a crop, then the window.

    Negative padding crops. A crop counts as a window that needs all that it drops. So
    it holds at every layer
    that a position beyond the first or the last would need pixels beyond the image,
    on which the windows of the pieces rely.
    """
    low, high = padding
    crop = max(0, -low) + max(0, -high)
    steps = [Window(size, crop + 1)] if crop else []
    window = Window(size - crop, kernel, stride, dilation, max(0, low), max(0, high))
    return steps if window.trivial else [*steps, window]


@dataclasses.dataclass(frozen=True)
class Feature:
    """A value that depends on the image.

    Attributes:
      axes: which axes are batch, rows and columns; all others are channels.
      fields: receptive field along rows and columns.
      last: the last window that was not trivial, along rows and columns.
      digest: of the operations that made it.
    """

    axes: tuple[int, int, int]
    fields: Fields = (Field(), Field())
    last: tuple[Window | None, Window | None] = (None, None)
    digest: int = 0

    def remap_axes(self, to: Mapping[int, int]) -> Feature:
        """Returns the feature with every axis `a` as axis `to[a]`."""
        batch, rows, columns = (to[axis] for axis in self.axes)
        return dataclasses.replace(self, axes=(batch, rows, columns))

    def through(self, *steps: Iterable[Window]) -> Feature:
        """Returns the feature after windows along rows and along columns."""
        fields, last = list(self.fields), list(self.last)
        for axis, axis_steps in enumerate(steps):
            for w in axis_steps:
                last[axis] = w
                fields[axis] = fields[axis].through(
                    w.kernel, w.stride, w.dilation, w.low
                )
        return dataclasses.replace(
            self, fields=(fields[0], fields[1]), last=(last[0], last[1])
        )


@dataclasses.dataclass(frozen=True)
class Constant:
    """A value that does not depend on the image.

    Attributes:
      varying: axes along which its values may differ.
      border: axes along which they differ at the borders only, because all positions
        alike went through this padded window.
      digest: of the operations that made it.
      value: of integers computed from literals, where it is known.
    """

    varying: frozenset[int] = frozenset()
    border: Mapping[int, Window] = dataclasses.field(default_factory=dict)
    digest: int = 0
    value: Any = None

    def remap_axes(self, to: Mapping[int, int]) -> Constant:
        """Returns the constant with axis `a` as axis `to[a]`; axes not in it are gone.

        The digest stays and the value goes.
        """
        return Constant(
            frozenset(to[axis] for axis in self.varying if axis in to),
            {to[axis]: w for axis, w in self.border.items() if axis in to},
            self.digest,
        )


class Refusal(Exception):
    """The reason why an operation cannot be split: `operation 'add' of .. <reason>`."""


Trace = Feature | Constant | ValueError  # an error counts once the result needs it


def digest_of(*parts: Any) -> int:
    """Returns a number that is the same for equal parts, in this process."""
    # Not hash(parts): hash(-1) is hash(-2). Functions show their address.
    return hash(re.sub(r" at 0x[0-9a-f]+", "", repr(parts)))


def trace_constant(value: Any, name: Any = None) -> Constant:
    """Returns the trace of an array, or of anything with a shape, called `name`."""
    shape = getattr(value, "shape", ())
    varying = frozenset(axis for axis, size in enumerate(shape) if size > 1)
    try:
        array = np.asarray(value)
    except Exception:  # a tracer, or random keys
        array = np.asarray(None)
    if array.dtype == object:  # abstract, too
        return Constant(varying, digest=digest_of(name, shape))
    few = array.dtype.kind in "iub" and array.size <= MAX_KNOWN_INTEGERS
    digest = digest_of(name, hash(array.tobytes()))
    return Constant(varying, digest=digest, value=array if few else None)
