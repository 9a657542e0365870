"""Windows of operations: where kernel, stride, padding and gaps stand in a jaxpr.

`windows_of_operation` reads them off convolutions, pooling, padding and slices, and
`axes_after` says where the axes of other operations go. What these do to the receptive
field of a feature is told by `traces.Field`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

Ends = tuple[int, int]
"""Numbers of positions at the low and at the high end of an axis."""

ELEMENTWISE = frozenset(
    "abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e "
    "cbrt ceil clamp clz complex conj convert_element_type copy copy_p cos cosh "
    "digamma div eq eq_to erf erf_inv erfc exp exp2 expm1 floor ge gt igamma igammac "
    "imag integer_pow is_finite le le_to lgamma log log1p log2 logistic lt lt_to max "
    "min mul name ne neg nextafter not or polygamma polynomial population_count pow "
    "real reduce_precision regularized_incomplete_beta rem round rsqrt select_n "
    "shift_left shift_right_arithmetic shift_right_logical sharding_constraint sign "
    "sin sinh sqrt square stop_gradient sub tan tanh xor zeta".split()
)
# Where the parameters of a window stand, in the order of `Window`.
CONVOLUTION = "window_strides rhs_dilation padding lhs_dilation".split()
POOLING = (
    "window_dimensions window_strides window_dilation padding base_dilation".split()
)


class Window(NamedTuple):
    """A windowed operation along one axis of `size` positions; negative padding crops.

    With a gap it is moved over these with zeros between them.
    """

    size: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    low: int = 0
    high: int = 0
    gap: int = 1

    @property
    def reach(self) -> int:
        """Positions from the first to the last that an output sees."""
        return (self.kernel - 1) * self.dilation + 1

    def steps(self) -> Iterator[Window]:
        """Yields gaps, a crop, then the window: one or two of them may be missing.

        Gaps of a step stand behind the last position, too, and are cropped again. So
        each position of what is dilated belongs to one of the input, as at any other
        layer. A crop counts as a window that needs all that it drops. So it holds at
        every layer that a position beyond the first or the last would need pixels
        beyond the image, on which the windows of the pieces rely.
        """
        size, low, high = self.size * self.gap, self.low, self.high - (self.gap - 1)
        if self.gap > 1:
            yield Window(self.size, gap=self.gap)
        if crop := max(0, -low) + max(0, -high):
            yield Window(size, kernel=crop + 1)
        low, high = max(0, low), max(0, high)
        if (self.kernel, self.stride, low, high) != (1, 1, 0, 0):
            yield self._replace(size=size - crop, low=low, high=high, gap=1)

    def ends(self, before: Ends) -> Ends:
        """Counts the outputs of a step at either end that see padding, or an input at
        an end, of which there are so many before."""
        low, high = before
        size, reach = self.size * self.gap, self.reach
        outputs = (size + self.low + self.high - reach) // self.stride + 1
        # Output p sees inputs from p * stride - low on.
        first = -(-(low * self.gap + self.low) // self.stride)
        last = (size - high * self.gap + self.low - reach) // self.stride
        return first, max(0, outputs - 1 - last)


def repeated(size: int, factor: int) -> Window:
    """Returns the window that repeats each position, or makes some of its channels.

    As a sum over gaps that hold one value.
    """
    return Window(size, factor, low=factor - 1, high=factor - 1, gap=factor)


def windows_of_operation(eqn: Any) -> tuple[dict[int, int], dict[int, Window]]:
    """Returns input axis -> output axis, and input axis -> window, of an operation.

    A convolution has no windows along batch and channels.
    """
    params, shape = eqn.params, eqn.invars[0].aval.shape
    axes, ones = tuple(range(len(shape))), [1] * len(shape)
    to = dict(zip(axes, axes, strict=True))
    match eqn.primitive.name:
        case "slice":
            limits = zip(
                params["start_indices"], params["limit_indices"], shape, strict=True
            )
            padding = [(-start, limit - size) for start, limit, size in limits]
            per_axis = [ones, params["strides"] or ones, ones, padding, ones]
        case "pad":
            padding = [(low, high) for low, high, _ in params["padding_config"]]
            gaps = [interior + 1 for *_, interior in params["padding_config"]]
            per_axis = [ones, ones, ones, padding, gaps]
        case "conv_general_dilated":
            numbers = params["dimension_numbers"]
            axes = numbers.lhs_spec[2:]
            to = dict(zip(numbers.lhs_spec, numbers.out_spec, strict=True))
            kernel = [eqn.invars[1].aval.shape[axis] for axis in numbers.rhs_spec[2:]]
            per_axis = [kernel, *(params[key] for key in CONVOLUTION)]
        case _:
            per_axis = [params[key] for key in POOLING]
    windows = {}
    for axis, *window, (low, high), gap in zip(axes, *per_axis, strict=True):
        numbers_of_window = (shape[axis], *window, low, high, gap)
        windows[axis] = Window._make(map(int, numbers_of_window))
    return to, windows


def axes_after(eqn: Any) -> dict[int, int]:
    """Returns the axes of the operand that an operation keeps, and where they then are.

    Of a broadcast these are not the ones that grow.
    """
    params = eqn.params
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    axes = range(len(before))
    match eqn.primitive.name:
        case "transpose":
            return {axis: i for i, axis in enumerate(params["permutation"])}
        case "broadcast_in_dim":
            to = params["broadcast_dimensions"]
            return {axis: to[axis] for axis in axes if before[axis] == after[to[axis]]}
        case "reshape":
            return _axes_kept_by_reshape(before, after)
        case "tile":
            return {axis: axis for axis in axes if params["reps"][axis] == 1}
        case "stack":
            return {axis: axis + (axis >= params["axis"]) for axis in axes}
    keys = ("axes", "axis", "dimensions")  # of reductions, squeeze and unstack
    gone = np.atleast_1d(next(params[key] for key in keys if key in params))
    return {axis: i for i, axis in enumerate(a for a in axes if a not in gone)}


def begins_of_reshape(
    before: tuple[int, ...], after: tuple[int, ...]
) -> dict[int, int]:
    """Returns the axes before which a reshape leaves as many values as there were, and
    the axes that then begin there; those of size 1 are in none."""
    places = {math.prod(after[:axis]): axis for axis, n in enumerate(after) if n > 1}
    begins = {axis: math.prod(before[:axis]) for axis, n in enumerate(before) if n > 1}
    return {axis: places[n] for axis, n in begins.items() if n in places}


def _axes_kept_by_reshape(
    before: tuple[int, ...], after: tuple[int, ...]
) -> dict[int, int]:
    """Returns the axes that a reshape keeps, and where they then are.

    They have the same size, and as many values before them. An axis of size 1 could be
    any; it is kept if all before it or all after it is.
    """
    begins, shift = begins_of_reshape(before, after), len(after) - len(before)
    kept = {axis: to for axis, to in begins.items() if before[axis] == after[to]}
    for axis, size in enumerate(before):
        if size == 1:
            places = {axis} if before[: axis + 1] == after[: axis + 1] else set()
            if axis + shift >= 0 and before[axis:] == after[axis + shift :]:
                places.add(axis + shift)
            if len(places) == 1:
                kept[axis] = places.pop()
    return kept
