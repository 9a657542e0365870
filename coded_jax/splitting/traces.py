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

from coded_jax.splitting.windows import Ends, Window

Stride = int | Fraction
"""Pixels from one value to the next, below 1 where values are finer than pixels."""


class Field(NamedTuple):
    """Receptive field along one axis: outputs `[a, b)` need `[a*s+low, (b-1)*s+high)`.

    Where values are finer than pixels, `s`, `low` and `high` are fractions, and the
    bounds are rounded to the pixels that hold them.

    Attributes:
      stride: pixels of the image between neighbouring features, `s`.
      low: first pixel that feature 0 needs; negative where it reaches into padding.
      high: one past the last pixel that feature 0 needs.
      grain: times the numerator of the stride, see `step`; more than 1 if something
        that leads to the features has a larger stride than they, as before upsampling.
    """

    stride: Stride = 1
    low: Stride = 0
    high: Stride = 1
    grain: int = 1

    @property
    def step(self) -> int:
        """Pixels between two places where a piece may begin: all that leads to the
        features begins anew there, as if the image began there."""
        return self.grain * self.stride.numerator

    def through(self, window: Window) -> Field:
        """Returns the field after one more step, see `Window.steps`."""
        unit = Fraction(1, window.gap)
        low, reach = -window.low * unit, (window.reach - 1) * unit
        return self.after(Field(window.stride * unit, low, low + reach + 1), unit)

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
            grain=grain // stride.numerator,
        )

    def window(self, a: int, b: int) -> Ends:
        """Returns the pixels that features `[a, b)` need, padding included."""
        low, high = a * self.stride + self.low, (b - 1) * self.stride + self.high
        return math.floor(low), math.ceil(high)


Fields = tuple[Field, Field]  # rows, columns


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
    return Field(
        stride=strides[0],
        low=min(field.low for field in fields),
        high=max(field.high for field in fields),
        grain=math.lcm(*(field.grain for field in fields)),
    )


@dataclasses.dataclass(frozen=True)
class Feature:
    """A value that depends on the image.

    Attributes:
      axes: which axes are batch, rows and columns; all others are channels.
      fields: receptive field along rows and columns.
      ends: positions along rows and columns that padding has had a part in.
      digest: of the operations that made it, but for transpositions since.
      layout: where its axes were before these; None for where they are.
      own: how the operation that has just made it takes rows and columns, if that is
        known without the size of the image: by indices, or see `Rearranged`.
    """

    axes: tuple[int, int, int]
    fields: Fields = (Field(), Field())
    ends: tuple[Ends, Ends] = ((0, 0), (0, 0))
    digest: int = 0
    layout: tuple[int, ...] | None = None
    own: Any = None

    def remap_axes(self, to: Mapping[int, int]) -> Feature:
        """Returns the feature with every axis `a` as axis `to[a]`."""
        batch, rows, columns = (to[axis] for axis in self.axes)
        return dataclasses.replace(self, axes=(batch, rows, columns))

    def through(self, windows: Mapping[int, Window], to: Mapping[int, int]) -> Feature:
        """Returns the feature after windows along some axes, axis `a` as `to[a]`."""
        fields, ends = list(self.fields), list(self.ends)
        for i, axis in enumerate(self.axes[1:]):
            for step in windows[axis].steps() if axis in windows else ():
                ends[i] = step.ends(ends[i])
                fields[i] = fields[i].through(step)
        moved = dataclasses.replace(
            self, fields=(fields[0], fields[1]), ends=(ends[0], ends[1])
        )
        return moved.remap_axes(to)


@dataclasses.dataclass(frozen=True)
class Constant:
    """A value that does not depend on the image.

    Attributes:
      ends: axis -> positions at its ends whose values may differ from all others,
        because padding has had a part in them; or from each other, if these are all.
      digest: of the operations that made it.
      value: computes it; None where it cannot be computed.
    """

    ends: Mapping[int, Ends] = dataclasses.field(default_factory=dict)
    digest: int = 0
    value: Callable[[], np.ndarray | None] = lambda: None


Operands = Sequence[Feature | Constant]


class Refusal(Exception):
    """The reason why an operation cannot be split: `operation 'add' of .. <reason>`."""


def join_ends(ends: Iterable[Ends]) -> Ends:
    """Returns the ends of values that are joined position by position."""
    low, high = map(max, zip(*ends, strict=True))
    return low, high


SIZES = frozenset("shape new_sizes limit_indices slice_sizes sharding".split())


def params_without_sizes(params: dict[str, Any]) -> list[tuple[str, Any]]:
    """Returns the parameters of an operation that do not follow from sizes."""
    return [(key, params[key]) for key in sorted(params) if key not in SIZES]


def digest_of(*parts: Any) -> int:
    """Returns a number that is the same for equal parts, in this process."""
    # Not hash(parts): hash(-1) is hash(-2). Functions show their address.
    return hash(re.sub(r" at 0x[0-9a-f]+", "", repr(parts)))
