"""Rules for operations on constants: along which axes their results may vary.

Most constants are weights, and they may vary along channels only. Others are made in
the shape of the image, such as the number of true pixels that an average divides by.
Their digests leave out the size of the image only where it makes no difference.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import numpy as np

from coded_jax.splitting.traces import (
    MAX_KNOWN_INTEGERS,
    Constant,
    Window,
    digest_of,
    trace_constant,
    windows,
)

SIZES = frozenset("shape new_sizes limit_indices slice_sizes sharding".split())
INDEX_OPERATIONS = frozenset(
    "broadcast_in_dim concatenate iota reshape rev slice squeeze transpose".split()
)

SUMS = frozenset("reduce_sum dot_general".split())
MAX_COMPUTED = 2**24
"""Largest array that is computed if it is asked for: the matrix of a resize of 2,896
rows to twice as many."""


def params_without_sizes(params: dict[str, Any]) -> list[tuple[str, Any]]:
    """Returns the parameters of an operation that do not follow from sizes."""
    return [(key, params[key]) for key in sorted(params) if key not in SIZES]


def axes_kept_by_reshape(
    before: tuple[int, ...], after: tuple[int, ...]
) -> dict[int, int]:
    """Returns the axes that a reshape keeps, and where they then are.

    They have the same size, and as many values before them.

    An axis of size 1 could be any; it is kept if all before it or all after it is.
    """
    kept, shift = {}, len(after) - len(before)
    for axis, size in enumerate(before):
        if size == 1:
            places = {axis} if before[: axis + 1] == after[: axis + 1] else set()
            if axis + shift >= 0 and before[axis:] == after[axis + shift :]:
                places.add(axis + shift)
        else:
            ahead = math.prod(before[:axis])
            places = {
                i
                for i, other in enumerate(after)
                if other == size and math.prod(after[:i]) == ahead
            }
        if len(places) == 1:
            kept[axis] = places.pop()
    return kept


def regrouped(
    before: tuple[int, ...], after: tuple[int, ...]
) -> list[tuple[list[int], list[int]]]:
    """Returns groups of axes that a reshape merges and splits among themselves.

    Axes of size 1 are in none.
    """
    groups, i, j = [], 0, 0
    ins, outs = ([a for a, n in enumerate(shape) if n > 1] for shape in (before, after))
    while i < len(ins) and j < len(outs):
        left, right = [ins[i]], [outs[j]]
        sizes = [before[ins[i]], after[outs[j]]]
        i, j = i + 1, j + 1
        while sizes[0] != sizes[1]:
            if sizes[0] < sizes[1]:
                left.append(ins[i])
                sizes[0] *= before[ins[i]]
                i += 1
            else:
                right.append(outs[j])
                sizes[1] *= after[outs[j]]
                j += 1
        groups.append((left, right))
    return groups


def windows_of_operation(eqn: Any) -> dict[int, tuple[int, list[Window]]]:
    """Returns input axis -> (output axis, windows) of a windowed operation."""
    name, params, shape = eqn.primitive.name, eqn.params, eqn.invars[0].aval.shape
    if name == "pad":
        return {
            axis: (
                axis,
                windows(
                    shape[axis], padding=(int(low), int(high)), gap=int(interior) + 1
                ),
            )
            for axis, (low, high, interior) in enumerate(params["padding_config"])
        }
    if name == "conv_general_dilated":
        numbers = params["dimension_numbers"]
        ins, outs = numbers.lhs_spec[2:], numbers.out_spec[2:]
        kernel = [eqn.invars[1].aval.shape[axis] for axis in numbers.rhs_spec[2:]]
        dilation, gaps = params["rhs_dilation"], params["lhs_dilation"]
    else:
        ins = outs = range(len(shape))
        kernel, dilation = params["window_dimensions"], params["window_dilation"]
        gaps = params["base_dilation"]
    return {
        axis: (
            out,
            windows(
                shape[axis], int(q), int(s), int(d), (int(p[0]), int(p[1])), int(gap)
            ),
        )
        for axis, out, q, s, d, p, gap in zip(
            ins,
            outs,
            kernel,
            params["window_strides"],
            dilation,
            params["padding"],
            gaps,
            strict=True,
        )
    }


def through_constants(
    eqn: Any, traces: list[Constant], elementwise: bool
) -> list[Constant]:
    """Returns the traces of the results of an equation whose operands are constants.

    Args:
      eqn: an equation of a jaxpr that calls no other.
      traces: those of its operands.
      elementwise: whether it works on every position alike.
    """
    name, params = eqn.primitive.name, eqn.params
    digests = [t.digest for t in traces]
    shapes = [getattr(v.aval, "shape", ()) for v in eqn.invars]
    varying = _varying_axes(eqn, traces, shapes, elementwise)
    if varying is not None:
        digest = digest_of(name, params_without_sizes(params), digests)
        if name in ("reshape", "squeeze"):
            digest = digest_of(name, digests)
        elif name == "iota":  # its size along other axes makes no difference
            digest = digest_of(
                name, params_without_sizes(params), params["shape"][params["dimension"]]
            )
        outputs = [Constant(varying.varying, varying.border, digest)] * len(eqn.outvars)
    else:
        digest = digest_of(name, params, shapes, digests)
        outputs = [
            Constant(trace_constant(v.aval).varying, digest=digest_of(digest, i))
            for i, v in enumerate(eqn.outvars)
        ]
    return _add_value(eqn, traces, outputs, elementwise)


def _varying_axes(
    eqn: Any, traces: list[Constant], shapes: list[Any], elementwise: bool
) -> Constant | None:
    """Returns a constant that varies as the result does, None without a rule."""
    name, params = eqn.primitive.name, eqn.params
    if name == "iota":
        varying = trace_constant(eqn.outvars[0].aval).varying
        return Constant(varying & {params["dimension"]})
    if name == "broadcast_in_dim":
        return traces[0].remap_axes(dict(enumerate(params["broadcast_dimensions"])))
    if name == "transpose":
        return traces[0].remap_axes({a: i for i, a in enumerate(params["permutation"])})
    if name in ("reshape", "squeeze"):
        kept = axes_kept_by_reshape(shapes[0], eqn.outvars[0].aval.shape)
        if traces[0].varying | set(traces[0].border) <= set(kept):
            return traces[0].remap_axes(kept)
    if elementwise and len(eqn.outvars) == 1:
        return join_constants(traces)
    if (
        name in ("pad", "reduce_window_sum", "reduce_window_max", "reduce_window_min")
        and not traces[0].border
        and {1} >= set(params.get("base_dilation", ()))
        and not any(interior for *_, interior in params.get("padding_config", ()))
    ):
        # The same window of equal values: only padding makes a difference.
        steps = windows_of_operation(eqn).items()
        padded = {
            out: last
            for _, (out, axis_windows) in steps
            for last in axis_windows[-1:]
            if last.low or last.high
        }
        return Constant(traces[0].varying, padded)
    return None


def join_constants(traces: list[Constant]) -> Constant:
    """Joins constants of one shape, or scalars, elementwise."""
    varying = frozenset[int]().union(*(t.varying for t in traces))
    border: dict[int, Window] = {}
    for t in traces:
        for axis, window in t.border.items():
            if border.setdefault(axis, window) != window:
                varying |= {axis}
    return Constant(varying, border)


def _add_value(
    eqn: Any, traces: list[Constant], outputs: list[Constant], elementwise: bool
) -> list[Constant]:
    """Adds the values of few integers: indices, which jax computes from iotas."""
    out = eqn.outvars[0].aval
    dtype, name = getattr(out, "dtype", None), eqn.primitive.name
    if (
        len(outputs) > 1
        or not all(t.known for t in traces)
        or not isinstance(dtype, np.dtype)  # of random keys, for instance
        or dtype.kind not in "iubf"
        or out.size > MAX_COMPUTED
        or not (elementwise or name in INDEX_OPERATIONS or name in SUMS)
    ):
        return outputs

    @functools.cache
    def compute() -> np.ndarray:
        operands = [
            np.asarray(t.at_hand(), v.aval.dtype)
            for t, v in zip(traces, eqn.invars, strict=True)
        ]
        with jax.ensure_compile_time_eval():
            return np.asarray(eqn.primitive.bind(*operands, **eqn.params))

    indices = dtype.kind != "f" and all(t.value is not None for t in traces)
    if indices and name not in SUMS and out.size <= MAX_KNOWN_INTEGERS:
        return [dataclasses.replace(outputs[0], value=compute())]
    # Weights of a resize, or indices that floats lead to: if they are asked for.
    return [dataclasses.replace(outputs[0], compute=compute)]
