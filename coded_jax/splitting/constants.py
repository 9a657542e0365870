"""How operations on constants change along which axes they may vary.

Most constants are weights, and they may vary along channels only. Others are made in
the shape of the image, such as the number of true pixels that an average divides by.
Their digests leave out the size of the image only where it makes no difference.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from coded_jax.splitting.traces import (
    MOST_KNOWN,
    Constant,
    Window,
    constant_of,
    digest_of,
    windows,
)

SIZES = frozenset("shape new_sizes limit_indices slice_sizes sharding".split())
OF_INDICES = frozenset(
    "broadcast_in_dim concatenate iota reshape rev slice squeeze transpose".split()
)


def static(params: dict[str, Any]) -> list[tuple[str, Any]]:
    """The parameters of an operation that do not follow the size of its operands."""
    return [(key, params[key]) for key in sorted(params) if key not in SIZES]


def kept_axes(before: tuple[int, ...], after: tuple[int, ...]) -> dict[int, int]:
    """The axes that a reshape keeps, and where: same size, and as much before them.

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


def window_steps(eqn: Any) -> dict[int, tuple[int, list[Window]]]:
    """Of a windowed operation: input axis -> output axis and windows."""
    name, params, shape = eqn.primitive.name, eqn.params, eqn.invars[0].aval.shape
    if name == "pad":
        return {
            axis: (axis, windows(shape[axis], padding=(low, high)))
            for axis, (low, high, _) in enumerate(params["padding_config"])
        }
    if name == "conv_general_dilated":
        numbers = params["dimension_numbers"]
        ins, outs = numbers.lhs_spec[2:], numbers.out_spec[2:]
        kernel = [eqn.invars[1].aval.shape[axis] for axis in numbers.rhs_spec[2:]]
        dilation = params["rhs_dilation"]
    else:
        ins = outs = range(len(shape))
        kernel, dilation = params["window_dimensions"], params["window_dilation"]
    return {
        axis: (
            out,
            windows(shape[axis], int(q), int(s), int(d), (int(p[0]), int(p[1]))),
        )
        for axis, out, q, s, d, p in zip(
            ins,
            outs,
            kernel,
            params["window_strides"],
            dilation,
            params["padding"],
            strict=True,
        )
    }


def through_constants(
    eqn: Any, traces: list[Constant], elementwise: bool
) -> list[Constant]:
    """The traces of what `eqn` makes of constants.

    Args:
      eqn: an equation of a jaxpr that calls no other.
      traces: of its operands.
      elementwise: whether it works on every position alike.
    """
    name, params = eqn.primitive.name, eqn.params
    digests = [t.digest for t in traces]
    shapes = [getattr(v.aval, "shape", ()) for v in eqn.invars]
    made = _rule(eqn, traces, shapes, elementwise)
    if made is not None:
        digest = digest_of(name, static(params), digests)
        if name in ("reshape", "squeeze"):
            digest = digest_of(name, digests)
        elif name == "iota":  # its size along other axes makes no difference
            digest = digest_of(
                name, static(params), params["shape"][params["dimension"]]
            )
        outputs = [Constant(made.varying, made.border, digest)] * len(eqn.outvars)
    else:
        digest = digest_of(name, params, shapes, digests)
        outputs = [
            Constant(constant_of(v.aval).varying, digest=digest_of(digest, i))
            for i, v in enumerate(eqn.outvars)
        ]
    return _with_value(eqn, traces, outputs, elementwise)


def _rule(
    eqn: Any, traces: list[Constant], shapes: list[Any], elementwise: bool
) -> Constant | None:
    name, params = eqn.primitive.name, eqn.params
    if name == "iota":
        varying = constant_of(eqn.outvars[0].aval).varying
        return Constant(varying & {params["dimension"]})
    if name == "broadcast_in_dim":
        return traces[0].moved(dict(enumerate(params["broadcast_dimensions"])))
    if name == "transpose":
        return traces[0].moved({a: i for i, a in enumerate(params["permutation"])})
    if name in ("reshape", "squeeze"):
        kept = kept_axes(shapes[0], eqn.outvars[0].aval.shape)
        if traces[0].varying | set(traces[0].border) <= set(kept):
            return traces[0].moved(kept)
    if elementwise and len(eqn.outvars) == 1:
        return joined(traces)
    if (
        name in ("pad", "reduce_window_sum", "reduce_window_max", "reduce_window_min")
        and not traces[0].border
        and {1} >= set(params.get("base_dilation", ()))
        and not any(interior for *_, interior in params.get("padding_config", ()))
    ):
        # The same window of equal values: only padding makes a difference.
        steps = window_steps(eqn).items()
        padded = {
            out: last
            for _, (out, made) in steps
            for last in made[-1:]
            if last.low or last.high
        }
        return Constant(traces[0].varying, padded)
    return None


def joined(traces: list[Constant]) -> Constant:
    """Constants of one shape, or scalars, put together elementwise."""
    varying = frozenset[int]().union(*(t.varying for t in traces))
    border: dict[int, Window] = {}
    for t in traces:
        for axis, window in t.border.items():
            if border.setdefault(axis, window) != window:
                varying |= {axis}
    return Constant(varying, border)


def _with_value(
    eqn: Any, traces: list[Constant], outputs: list[Constant], elementwise: bool
) -> list[Constant]:
    """Adds the value of a few integers: indices, which jax computes from iotas."""
    out = eqn.outvars[0].aval
    dtype = getattr(out, "dtype", None)
    if (
        len(outputs) > 1
        or any(t.value is None for t in traces)
        or not isinstance(dtype, np.dtype)  # of random keys, for instance
        or dtype.kind not in "iub"
        or out.size > MOST_KNOWN
        or not (elementwise or eqn.primitive.name in OF_INDICES)
    ):
        return outputs
    operands = [
        np.asarray(t.value, v.aval.dtype)
        for t, v in zip(traces, eqn.invars, strict=True)
    ]
    with jax.ensure_compile_time_eval():
        value = np.asarray(eqn.primitive.bind(*operands, **eqn.params))
    return [dataclasses.replace(outputs[0], value=value)]
