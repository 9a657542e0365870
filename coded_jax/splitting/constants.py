"""Rules for operations on constants: along which axes their results may vary.

Most constants are weights, and they may vary along channels only. Others are made in
the shape of the image, such as the number of true pixels that an average divides by.
Their digests leave out the size of the image only where it makes no difference.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from coded_jax.splitting.traces import (
    Constant,
    Window,
    digest_of,
    trace_constant,
    windows,
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
COMPUTED = frozenset(
    "broadcast_in_dim concatenate iota reshape rev slice squeeze transpose "
    "reduce_sum dot_general".split()
)
"""Operations, but for elementwise ones, that lead to indices and to the weights of a
resize."""
MAX_COMPUTED = 2**24
"""Largest array that is computed if it is asked for: the matrix of a resize of 2,896
rows to twice as many."""


def params_without_sizes(params: dict[str, Any]) -> list[tuple[str, Any]]:
    """Returns the parameters of an operation that do not follow from sizes."""
    return [(key, params[key]) for key in sorted(params) if key not in SIZES]


def axes_after(eqn: Any) -> dict[int, int]:
    """Returns the axes of the operand that an operation keeps, and where they then are.

    Of a broadcast these are not the ones that grow.
    """
    name, params = eqn.primitive.name, eqn.params
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    axes = range(len(before))
    if name == "transpose":
        return {axis: i for i, axis in enumerate(params["permutation"])}
    if name == "broadcast_in_dim":
        to = params["broadcast_dimensions"]
        return {axis: to[axis] for axis in axes if before[axis] == after[to[axis]]}
    if name == "reshape":
        return axes_kept_by_reshape(before, after)
    if name == "tile":
        return {axis: axis for axis in axes if params["reps"][axis] == 1}
    if name == "stack":
        return {axis: axis + (axis >= params["axis"]) for axis in axes}
    keys = ("axes", "axis", "dimensions")  # of reductions, squeeze and unstack
    gone = np.atleast_1d(next(params[key] for key in keys if key in params))
    return {axis: i for i, axis in enumerate(a for a in axes if a not in gone)}


def axes_kept_by_reshape(
    before: tuple[int, ...], after: tuple[int, ...]
) -> dict[int, int]:
    """Returns the axes that a reshape keeps, and where they then are.

    They have the same size, and as many values before them. An axis of size 1 could be
    any; it is kept if all before it or all after it is.
    """
    groups, shift = regrouped(before, after), len(after) - len(before)
    kept = {old[0]: new[0] for old, new in groups if len(old) == len(new) == 1}
    for axis, size in enumerate(before):
        if size == 1:
            places = {axis} if before[: axis + 1] == after[: axis + 1] else set()
            if axis + shift >= 0 and before[axis:] == after[axis + shift :]:
                places.add(axis + shift)
            if len(places) == 1:
                kept[axis] = places.pop()
    return kept


def regrouped(
    before: tuple[int, ...], after: tuple[int, ...]
) -> list[tuple[list[int], list[int]]]:
    """Returns groups of axes that a reshape merges and splits among themselves.

    Axes of size 1 are in none, and there are none of an empty array.
    """
    if 0 in before:
        return []
    groups = []
    ins, outs = ([a for a, n in enumerate(shape) if n > 1] for shape in (before, after))
    while ins and outs:
        old, new = [ins.pop(0)], [outs.pop(0)]
        while True:
            sizes = [
                math.prod(before[a] for a in old),
                math.prod(after[a] for a in new),
            ]
            if sizes[0] == sizes[1]:
                break
            if sizes[0] < sizes[1]:
                old.append(ins.pop(0))
            else:
                new.append(outs.pop(0))
        groups.append((old, new))
    return groups


def windows_of_operation(eqn: Any) -> tuple[dict[int, int], dict[int, list[Window]]]:
    """Returns input axis -> output axis, and input axis -> windows, of an operation.

    A convolution has no windows along batch and channels.
    """
    name, params, shape = eqn.primitive.name, eqn.params, eqn.invars[0].aval.shape
    axes = list(range(len(shape)))
    to = dict(zip(axes, axes, strict=True))
    if name == "slice":
        windows_along = {}
        for axis, size in enumerate(shape):
            start, limit = params["start_indices"][axis], params["limit_indices"][axis]
            stride = params["strides"][axis] if params["strides"] else 1
            crop = windows(size, padding=(-start, limit - size))
            windows_along[axis] = crop + windows(limit - start, stride=stride)
        return to, windows_along
    kernel = strides = dilation = gaps = [1] * len(shape)
    if name == "pad":
        padding = [(low, high) for low, high, _ in params["padding_config"]]
        gaps = [interior + 1 for *_, interior in params["padding_config"]]
    else:
        strides, padding = params["window_strides"], params["padding"]
    if name == "conv_general_dilated":
        numbers = params["dimension_numbers"]
        to = dict(zip(numbers.lhs_spec, numbers.out_spec, strict=True))
        axes = numbers.lhs_spec[2:]
        kernel = [eqn.invars[1].aval.shape[axis] for axis in numbers.rhs_spec[2:]]
        dilation, gaps = params["rhs_dilation"], params["lhs_dilation"]
    elif name != "pad":
        kernel = params["window_dimensions"]
        dilation, gaps = params["window_dilation"], params["base_dilation"]
    return to, {
        axis: windows(
            shape[axis],
            kernel=int(kernel[i]),
            stride=int(strides[i]),
            dilation=int(dilation[i]),
            padding=(int(padding[i][0]), int(padding[i][1])),
            gap=int(gaps[i]),
        )
        for i, axis in enumerate(axes)
    }


def through_constants(eqn: Any, traces: Sequence[Constant]) -> Sequence[Constant]:
    """Returns the traces of the results of an equation whose operands are constants.

    Args:
      eqn: an equation of a jaxpr that calls no other.
      traces: those of its operands.
    """
    name, params, out = eqn.primitive.name, eqn.params, eqn.outvars[0].aval
    if name in UNCHANGED:
        return traces
    digests = [t.digest for t in traces]
    result = _varying_axes(eqn, traces)
    if result is None:
        shapes = [getattr(v.aval, "shape", ()) for v in eqn.invars]
        digest = digest_of(name, params, shapes, digests)
        outputs = [
            dataclasses.replace(trace_constant(v.aval), digest=digest_of(digest, i))
            for i, v in enumerate(eqn.outvars)
        ]
    else:
        own = [] if name in ("reshape", "squeeze") else [params_without_sizes(params)]
        if name == "iota":  # its size along other axes makes no difference
            own.append(params["shape"][params["dimension"]])
        digest = digest_of(name, *own, digests)
        outputs = [dataclasses.replace(result, digest=digest)] * len(eqn.outvars)
    if (
        len(outputs) > 1
        or any(t.value is None for t in traces)
        or not isinstance(dtype := getattr(out, "dtype", None), np.dtype)  # random keys
        or dtype.kind not in "iubf"
        or out.size > MAX_COMPUTED
        or name not in ELEMENTWISE | COMPUTED
    ):
        return outputs

    @functools.cache
    def compute() -> np.ndarray:
        operands = [
            np.asarray(t.value(), v.aval.dtype)
            for t, v in zip(traces, eqn.invars, strict=True)
            if t.value is not None
        ]
        with jax.ensure_compile_time_eval():
            return np.asarray(eqn.primitive.bind(*operands, **eqn.params))

    return [dataclasses.replace(outputs[0], value=compute)]


def _varying_axes(eqn: Any, traces: Sequence[Constant]) -> Constant | None:
    """Returns a constant that varies as the result does, None without a rule."""
    name, params = eqn.primitive.name, eqn.params
    if name == "iota":
        varying = trace_constant(eqn.outvars[0].aval).varying
        return Constant(varying & {params["dimension"]})
    if name in ("broadcast_in_dim", "transpose", "reshape", "squeeze"):
        to = axes_after(eqn)
        if traces[0].varying | set(traces[0].border) <= set(to):
            return traces[0].remap_axes(to)
    if name in ELEMENTWISE and len(eqn.outvars) == 1:
        return join_constants(traces)
    if (
        name in ("pad", "reduce_window_sum", "reduce_window_max", "reduce_window_min")
        and not traces[0].border
    ):
        # The same window of equal values: only padding makes a difference.
        _, windows_along = windows_of_operation(eqn)
        if not any(w.gap > 1 for steps in windows_along.values() for w in steps):
            last = {axis: w[-1] for axis, w in windows_along.items() if w}
            padded = {axis: w for axis, w in last.items() if w.low or w.high}
            return Constant(traces[0].varying, padded)
    return None


def join_constants(traces: Sequence[Constant]) -> Constant:
    """Joins constants of one shape, or scalars, elementwise."""
    varying = frozenset[int]().union(*(t.varying for t in traces))
    border: dict[int, Window] = {}
    for t in traces:
        for axis, window in t.border.items():
            if border.setdefault(axis, window) != window:
                varying |= {axis}
    return Constant(varying, border)
