"""Traces: the facts about a value inside `f_conv`, a feature or a constant.

A feature knows which of its axes are batch, rows and columns and which interval of the
image each position depends on. A constant knows along which axes it may vary. Every
value has a digest of the operations that made it, free of the image's size, so that
two analyses tell whether a function does the same on pieces as on the whole image.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

Stride = int | Fraction
"""Pixels from one value to the next, below 1 where values are finer than pixels."""


class Window(NamedTuple):
    """A windowed operation along one axis of `size` positions; no padding is < 0.

    With a gap it is moved over these with zeros between them, and behind the last one.
    """

    size: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    low: int = 0
    high: int = 0
    gap: int = 1

    @property
    def trivial(self) -> bool:
        """Returns whether each output sees the input at its own position alone."""
        return self[1:] == (1, 1, self.dilation, 0, 0, 1)


class Field(NamedTuple):
    """Receptive field along one axis: outputs `[a, b)` need `[a*s+low, (b-1)*s+high)`.

    Where values are finer than pixels, `s`, `low` and `high` are fractions, and the
    bounds are rounded to the pixels that hold them.

    Attributes:
      stride: pixels of the image between neighbouring features, `s`.
      low: first pixel that feature 0 needs; negative where it reaches into padding.
      high: one past the last pixel that feature 0 needs.
      grain: pixels between places where all that leads to the features begins anew, as
        if the image began there; their stride, if none of that has a larger one, as
        before upsampling. If 0, the numerator of the stride.
    """

    stride: Stride = 1
    low: Stride = 0
    high: Stride = 1
    grain: int = 0

    @property
    def step(self) -> int:
        """Pixels between two places where a piece may begin."""
        return self.grain or self.stride.numerator

    def through(self, window: Window) -> Field:
        """Returns the field after one more windowed operation."""
        _, kernel, stride, dilation, padding, _, gap = window
        unit, reach = Fraction(1, gap), (kernel - 1) * dilation
        step = Field(stride * unit, -padding * unit, 1 + (reach - padding) * unit)
        return self.after(step, unit)

    def after(self, step: Field, begins: Stride | None = None) -> Field:
        """Returns the field of what has `step` on features that have this one.

        The step may begin anew after `begins` features, by default those of its grain.
        """
        stride = _whole(self.stride * step.stride)
        begins = self.stride * (step.step if begins is None else begins)
        # Of the strides before it, one may be a multiple of the last, or of none.
        grain = math.lcm(self.step, begins.numerator, stride.numerator)
        return Field(
            stride=stride,
            low=_whole(step.low * self.stride + self.low),
            high=_whole((step.high - 1) * self.stride + self.high),
            grain=0 if grain == stride.numerator else grain,
        )

    def window(self, a: int, b: int) -> tuple[int, int]:
        """Returns the pixels that features `[a, b)` need, padding included."""
        low, high = a * self.stride + self.low, (b - 1) * self.stride + self.high
        return math.floor(low), math.ceil(high)


def _whole(number: Stride) -> Stride:
    """Returns an integer where a number is one."""
    return number.numerator if number.denominator == 1 else number


def join_fields(fields: Sequence[Field]) -> Field:
    """Returns the field of features that are joined position by position.

    Raises:
      Refusal: their strides differ.
    """
    strides = sorted({field.stride for field in fields})
    if len(strides) > 1:
        raise Refusal(
            "joins branches of different strides, " + " and ".join(map(str, strides))
        )
    grain = math.lcm(*(field.step for field in fields))
    return Field(
        strides[0],
        min(field.low for field in fields),
        max(field.high for field in fields),
        0 if grain == strides[0].numerator else grain,
    )


Fields = tuple[Field, Field]  # rows, columns
# Largest array of integers whose values are computed: the grid of indices of half of
# 1,448 rows and as many columns, which x[:, ::2, ::2] makes before jax 0.8.
MAX_KNOWN_INTEGERS = 2**20


def windows(
    size: int,
    kernel: int = 1,
    stride: int = 1,
    dilation: int = 1,
    padding: tuple[int, int] = (0, 0),
    gap: int = 1,
) -> list[Window]:
    """Returns the steps of a windowed operation: gaps, a crop, then the window.

    Gaps stand behind the last position, too, and are cropped again. So each position of
    what is dilated belongs to one of the input, as at any other layer.

    Negative padding crops. A crop counts as a window that needs all that it drops. So
    it holds at every layer
    that a position beyond the first or the last would need pixels beyond the image,
    on which the windows of the pieces rely.
    """
    low, high = padding
    steps = []
    if gap > 1:
        steps.append(Window(size, gap=gap))
        size, high = size * gap, high - (gap - 1)
    crop = max(0, -low) + max(0, -high)
    if crop:
        steps.append(Window(size, crop + 1))
    window = Window(size - crop, kernel, stride, dilation, max(0, low), max(0, high))
    return steps if window.trivial else [*steps, window]


def repeated(size: int, factor: int) -> list[Window]:
    """Returns the steps that repeat each position, or make some of its channels.

    As a sum over gaps that hold one value.
    """
    return [Window(size, gap=factor), Window(size * factor, factor, low=factor - 1)]


@dataclasses.dataclass(frozen=True)
class Feature:
    """A value that depends on the image.

    Attributes:
      axes: which axes are batch, rows and columns; all others are channels.
      fields: receptive field along rows and columns.
      last: the last window that was not trivial, along rows and columns.
      digest: of the operations that made it, but for transpositions since.
      layout: where its axes were before these; None for where they are.
    """

    axes: tuple[int, int, int]
    fields: Fields = (Field(), Field())
    last: tuple[Window | None, Window | None] = (None, None)
    digest: int = 0
    layout: tuple[int, ...] | None = None

    def transposed(self, order: Sequence[int]) -> tuple[int, ...] | None:
        """Returns the layout once axis `order[i]` has become axis i."""
        before = self.layout or range(len(order))
        after = tuple(before[axis] for axis in order)
        return None if after == tuple(sorted(after)) else after

    def remap_axes(self, to: Mapping[int, int]) -> Feature:
        """Returns the feature with every axis `a` as axis `to[a]`."""
        batch, rows, columns = (to[axis] for axis in self.axes)
        return dataclasses.replace(self, axes=(batch, rows, columns))

    def through(self, *steps: Iterable[Window]) -> Feature:
        """Returns the feature after windows along rows and along columns."""
        fields, last = list(self.fields), list(self.last)
        for axis, axis_steps in enumerate(steps):
            for window in axis_steps:
                last[axis] = window
                fields[axis] = fields[axis].through(window)
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
      value: computes it, where literals alone lead to it and it is no large one.
    """

    varying: frozenset[int] = frozenset()
    border: Mapping[int, Window] = dataclasses.field(default_factory=dict)
    digest: int = 0
    value: Callable[[], np.ndarray] | None = None

    def remap_axes(self, to: Mapping[int, int]) -> Constant:
        """Returns the constant with axis `a` as axis `to[a]`; axes not in it are gone.

        The digest stays and the value goes.
        """
        return Constant(
            frozenset(to[axis] for axis in self.varying if axis in to),
            {to[axis]: w for axis, w in self.border.items() if axis in to},
            self.digest,
        )


Operands = Sequence[Feature | Constant]


class Refusal(Exception):
    """The reason why an operation cannot be split: `operation 'add' of .. <reason>`."""


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
    # Other literals are weights: products with them are no resizes.
    few = array.dtype.kind in "iub" and array.size <= MAX_KNOWN_INTEGERS
    known = (lambda: array) if few or not array.ndim else None
    return Constant(varying, digest=digest_of(name, hash(array.tobytes())), value=known)
