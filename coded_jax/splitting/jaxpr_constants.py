"""Constants of a jaxpr: along which axes what does not depend on the image may vary.

Most constants are weights, and they may vary along channels only. Others are made in
the shape of the image, such as the number of true pixels that an average divides by.
Their digests leave out the size of the image only where it makes no difference.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from coded_jax.splitting import flattening, windows
from coded_jax.splitting.traces import (
    Constant,
    digest_of,
    join_ends,
    params_without_sizes,
)
from coded_jax.splitting.windows import Ends

MAX_COMPUTED = 2**24
"""Largest array that is computed to know a constant: the matrix of a resize of 2,896
rows to twice as many."""


def trace_constants(flat: flattening.Flat) -> dict[Any, Any]:
    """Returns the traces of what does not depend on the image, by its variable."""
    traces: dict[Any, Any] = {}
    for i, v in enumerate(flat.weights):
        traces[v] = Constant(_all_ends(v.aval.shape), digest_of(i, v.aval.shape))
    for v, value in zip(flat.closed.jaxpr.constvars, flat.closed.consts, strict=True):
        traces[v] = _trace_literal(value)
    for eqn in flat.constant:
        outputs = _results(eqn, [trace_of(atom, traces) for atom in eqn.invars])
        traces.update(zip(eqn.outvars, outputs, strict=True))
    for v, trace in traces.items():
        value = functools.partial(_value_of, flat, v)
        traces[v] = dataclasses.replace(trace, value=value)
    return traces


def trace_of(atom: Any, traces: dict[Any, Any]) -> Any:
    """Returns the trace of a variable or of a literal."""
    return _trace_literal(atom.val) if hasattr(atom, "val") else traces[atom]


def _trace_literal(value: Any) -> Constant:
    try:
        content = hash(np.asarray(value).tobytes())
    except Exception:  # a tracer, or random keys
        content = np.shape(value)
    return Constant(_all_ends(np.shape(value)), digest_of(content))


def _all_ends(shape: Sequence[int]) -> dict[int, Ends]:
    """Returns the ends of a constant of which all values may differ."""
    return {axis: (size, size) for axis, size in enumerate(shape) if size > 1}


def _value_of(flat: flattening.Flat, variable: Any) -> np.ndarray | None:
    """Computes a constant; None where it depends on the variables, or is a large one,
    or random."""
    eqns = flattening.needed(flat.constant, [variable])
    reads = flattening.variables_among(v for eqn in eqns for v in eqn.invars)
    values = dict(zip(flat.closed.jaxpr.constvars, flat.closed.consts, strict=True))
    if not (atoms := {variable, *reads}).isdisjoint(flat.weights) or any(
        v.aval.size > MAX_COMPUTED or not isinstance(v.aval.dtype, np.dtype)
        for v in atoms
    ):
        return None
    with jax.ensure_compile_time_eval():
        flattening.run(eqns, values)
    value = flattening.read(variable, values)
    return None if isinstance(value, jax.core.Tracer) else np.asarray(value)


def _results(eqn: Any, traces: Sequence[Constant]) -> Sequence[Constant]:
    """Returns the traces of the results of an equation whose operands are constants."""
    name, params = eqn.primitive.name, eqn.params
    if name in flattening.UNCHANGED:
        return traces
    digests, ends = [t.digest for t in traces], _ends_after(eqn, traces)
    if ends is None:
        shapes = [v.aval.shape for v in eqn.invars]
        return [
            Constant(
                _all_ends(v.aval.shape), digest_of(name, i, params, shapes, digests)
            )
            for i, v in enumerate(eqn.outvars)
        ]
    own = [] if name in ("reshape", "squeeze") else [params_without_sizes(params)]
    if name == "iota":  # its size along other axes makes no difference
        own.append(params["shape"][params["dimension"]])
    return [Constant(ends, digest_of(name, *own, digests))]


def _ends_after(eqn: Any, traces: Sequence[Constant]) -> dict[int, Ends] | None:
    """Returns the ends of the only result of an equation, None without a rule."""
    name = eqn.primitive.name
    if len(eqn.outvars) > 1:
        return None
    if name == "iota":
        along, whole = eqn.params["dimension"], _all_ends(eqn.outvars[0].aval.shape)
        return {along: whole[along]} if along in whole else {}
    if name in windows.ELEMENTWISE:
        return {
            axis: join_ends(t.ends[axis] for t in traces if axis in t.ends)
            for axis in {axis for t in traces for axis in t.ends}
        }
    if name in ("broadcast_in_dim", "transpose", "reshape", "squeeze"):
        to, ends = windows.axes_after(eqn), traces[0].ends
        return {to[a]: n for a, n in ends.items()} if ends.keys() <= to.keys() else None
    if name in ("pad", "reduce_window_sum", "reduce_window_max", "reduce_window_min"):
        # The same window of equal values: only padding makes a difference.
        along = windows.windows_of_operation(eqn)[1]
        if any(window.gap > 1 for window in along.values()):
            return None
        after = {
            axis: functools.reduce(
                lambda ends, step: step.ends(ends),
                window.steps(),
                traces[0].ends.get(axis, (0, 0)),
            )
            for axis, window in along.items()
        }
        return {axis: ends for axis, ends in after.items() if any(ends)}
    return None
