"""Rules for operations on constants: along which axes their results may vary.

Most constants are weights, and they may vary along channels only. Others are made in
the shape of the image, such as the number of true pixels that an average divides by.
Their digests leave out the size of the image only where it makes no difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from coded_jax.splitting.traces import (
    Constant,
    Ends,
    Window,
    digest_of,
    join_ends,
)

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
UNCHANGED = frozenset("device_put optimization_barrier pvary reshard".split())
SIZES = frozenset("shape new_sizes limit_indices slice_sizes sharding".split())


def params_without_sizes(params: dict[str, Any]) -> list[tuple[str, Any]]:
    """Returns the parameters of an operation that do not follow from sizes."""
    return [(key, params[key]) for key in sorted(params) if key not in SIZES]


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
            return axes_kept_by_reshape(before, after)
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


def axes_kept_by_reshape(
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


def windows_of_operation(eqn: Any) -> tuple[dict[int, int], dict[int, Window]]:
    """Returns input axis -> output axis, and input axis -> window, of an operation.

    A convolution has no windows along batch and channels.
    """
    params, shape = eqn.params, eqn.invars[0].aval.shape
    axes: Sequence[int] = range(len(shape))
    to = {axis: axis for axis in axes}
    kernel = dilation = gaps = strides = [1] * len(shape)
    match eqn.primitive.name:
        case "slice":
            first, last = params["start_indices"], params["limit_indices"]
            cuts = zip(first, last, shape, strict=True)
            padding = [(-start, limit - size) for start, limit, size in cuts]
            strides = params["strides"] or strides
        case "pad":
            padding = [(low, high) for low, high, _ in params["padding_config"]]
            gaps = [interior + 1 for *_, interior in params["padding_config"]]
        case "conv_general_dilated":
            numbers = params["dimension_numbers"]
            to = dict(zip(numbers.lhs_spec, numbers.out_spec, strict=True))
            axes = numbers.lhs_spec[2:]
            kernel = [eqn.invars[1].aval.shape[axis] for axis in numbers.rhs_spec[2:]]
            strides, padding = params["window_strides"], params["padding"]
            dilation, gaps = params["rhs_dilation"], params["lhs_dilation"]
        case _:  # pooling
            kernel = params["window_dimensions"]
            strides, padding = params["window_strides"], params["padding"]
            dilation, gaps = params["window_dilation"], params["base_dilation"]
    found = {}
    for i, axis in enumerate(axes):
        low, high = padding[i]
        sizes = [shape[axis], kernel[i], strides[i], dilation[i], low, high, gaps[i]]
        found[axis] = Window._make(map(int, sizes))
    return to, found


def trace_literal(value: Any) -> Constant:
    """Returns the trace of an array or a number."""
    try:
        content = hash(np.asarray(value).tobytes())
    except Exception:  # a tracer, or random keys
        content = np.shape(value)
    return Constant(all_ends(np.shape(value)), digest_of(content))


def all_ends(shape: Sequence[int]) -> dict[int, Ends]:
    """Returns the ends of a constant of which all values may differ."""
    return {axis: (size, size) for axis, size in enumerate(shape) if size > 1}


def through_constants(eqn: Any, traces: Sequence[Constant]) -> Sequence[Constant]:
    """Returns the traces of the results of an equation whose operands are constants.

    Args:
      eqn: an equation of a jaxpr that calls no other.
      traces: those of its operands.
    """
    name, params = eqn.primitive.name, eqn.params
    if name in UNCHANGED:
        return traces
    digests, ends = [t.digest for t in traces], _ends_after(eqn, traces)
    if ends is None:
        shapes = [v.aval.shape for v in eqn.invars]
        return [
            Constant(
                all_ends(v.aval.shape), digest_of(name, i, params, shapes, digests)
            )
            for i, v in enumerate(eqn.outvars)
        ]
    own = [] if name in ("reshape", "squeeze") else [params_without_sizes(params)]
    if name == "iota":  # its size along other axes makes no difference
        own.append(params["shape"][params["dimension"]])
    return [Constant(ends, digest_of(name, *own, digests))]


def _ends_after(eqn: Any, traces: Sequence[Constant]) -> dict[int, Ends] | None:
    """Returns the ends of the only result of an equation, None without a rule."""
    name, whole = eqn.primitive.name, all_ends(eqn.outvars[0].aval.shape)
    if len(eqn.outvars) > 1:
        return None
    if name == "iota":
        axis = eqn.params["dimension"]
        return {axis: whole[axis]} if axis in whole else {}
    if name in ELEMENTWISE:
        axes = {axis for t in traces for axis in t.ends}
        by_axis = {a: [t.ends[a] for t in traces if a in t.ends] for a in axes}
        return {axis: join_ends(ends) for axis, ends in by_axis.items()}
    if name in ("broadcast_in_dim", "transpose", "reshape", "squeeze"):
        to, ends = axes_after(eqn), traces[0].ends
        return {to[a]: n for a, n in ends.items()} if ends.keys() <= to.keys() else None
    if name in ("pad", "reduce_window_sum", "reduce_window_max", "reduce_window_min"):
        # The same window of equal values: only padding makes a difference.
        after = {}
        for axis, window in windows_of_operation(eqn)[1].items():
            if window.gap > 1:
                return None
            ends = traces[0].ends.get(axis, (0, 0))
            for step in window.steps():
                ends = step.ends(ends)
            if any(ends):
                after[axis] = ends
        return after
    return None
