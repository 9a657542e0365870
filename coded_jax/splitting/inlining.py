"""A function as one flat list of operations, the jaxprs that it calls in their places.

Whoever takes a network apart, see `convolutions`, evaluates some of them at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from coded_jax.types import PyTree

CALLS = {  # primitive -> the parameter that holds its jaxpr
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
    "coded_jax_convolution_layer": "call_jaxpr",
}
MAX_LENGTH = 256
"""Loops of more steps are not unrolled."""

_SCOPE = "coded_jax.platform_specialised"

Values = dict[Any, Any]
"""Values of variables of a jaxpr."""


def inline(f: Callable[..., jax.Array], *args: PyTree) -> Any:
    """Traces `f` to a closed jaxpr that calls no other.

    Functions under `jax.jit`, with gradients of their own, under `jax.checkpoint`, and
    layers of `cpu_kernels.layer` are looked into, and loops of fixed length unrolled.
    Of a choice by platform every branch is there, and a selection; the compiler drops
    what is not selected. Other branches and loops stay as they are.

    Args:
      f: `(*args) -> array`.
      args: arrays or shapes (`jax.ShapeDtypeStruct`).
    """
    nested = jax.make_jaxpr(f)(*args)
    flat = lambda *args: _evaluate(nested, jax.tree.leaves(args))
    return jax.make_jaxpr(flat)(*args)


def run(eqns: Sequence[Any], values: Values) -> None:
    """Evaluates equations in their order, and adds their results to `values`."""
    for eqn in eqns:
        operands = [read(atom, values) for atom in eqn.invars]
        results = eqn.primitive.bind(*operands, **eqn.params)
        if not eqn.primitive.multiple_results:
            results = [results]
        values.update(zip(eqn.outvars, results, strict=True))


def read(atom: Any, values: Values) -> Any:
    """Returns the value of a variable or of a literal."""
    return atom.val if hasattr(atom, "val") else values[atom]


def _evaluate(closed: Any, operands: Sequence[Any]) -> list[Any]:
    """Evaluates a jaxpr, and what it calls as if it stood there."""
    jaxpr = getattr(closed, "jaxpr", closed)
    values: Values = dict(zip(jaxpr.invars, operands, strict=True))
    values.update(zip(jaxpr.constvars, getattr(closed, "consts", ()), strict=True))
    for eqn in jaxpr.eqns:
        atoms = [read(atom, values) for atom in eqn.invars]
        name, params = eqn.primitive.name, eqn.params
        if name in CALLS:
            results = _evaluate(params[CALLS[name]], atoms)
        elif name == "scan" and params["length"] <= MAX_LENGTH:
            results = unrolled(eqn, *atoms)
        elif name == "cond" and params.get("branches_platforms"):
            results = _selected(eqn, *atoms)
        else:
            run([eqn], values)
            continue
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(atom, values) for atom in jaxpr.outvars]


def unrolled(eqn: Any, *operands: Any) -> list[Any]:
    """Evaluates a `scan` step by step, each in the place of the one before."""
    params = eqn.params
    body = getattr(params["jaxpr"], "jaxpr", params["jaxpr"])
    # By their ranks, since the parameters that say so have changed: what is scanned or
    # stacked has an axis more than a step sees.
    same = lambda outer, inner: outer.aval.ndim == inner.aval.ndim
    carried = sum(map(same, eqn.outvars, body.outvars))
    consts = sum(map(same, eqn.invars, body.invars)) - carried
    fixed, xs = operands[:consts], operands[consts + carried :]
    carry, rows = list(operands[consts : consts + carried]), []
    steps = range(params["length"])
    for i in reversed(steps) if params["reverse"] else steps:
        of_step = [lax.index_in_dim(x, i, keepdims=False) for x in xs]
        results = _evaluate(params["jaxpr"], [*fixed, *carry, *of_step])
        carry = results[:carried]
        rows.append(results[carried:])
    if params["reverse"]:
        rows.reverse()
    ys = [jnp.stack(column) for column in zip(*rows, strict=True)]
    return [*carry, *ys]


def _selected(eqn: Any, index: Any, *operands: Any) -> list[Any]:
    """Evaluates all branches of a choice by platform, and selects."""
    branches = eqn.params["branches"]
    if is_specialised(eqn):
        default = eqn.params["branches_platforms"].index(None)
        return _evaluate(branches[default], operands)
    per_branch = [_evaluate(branch, operands) for branch in branches]
    return [lax.select_n(index, *results) for results in zip(*per_branch, strict=True)]


def platform_specialised(
    *operands: Any, default: Callable[..., Any], **fast: Callable[..., Any]
) -> Any:
    """Runs `jax.lax.platform_dependent`, where all branches return the same.

    The analysis of `f_conv` follows every branch of another choice by platform, and
    refuses those that mix positions, which fast implementations often do: one that
    makes a matrix product of a whole row, say. Of this one it reads the default branch
    alone. The promise is the caller's: it is not verified.

    Args:
      *operands: of the branches.
      default: `(*operands) -> outputs`; of operations that can be analysed.
      **fast: platform -> implementation that returns the same, up to rounding.
    """
    with jax.named_scope(_SCOPE):
        return jax.lax.platform_dependent(*operands, default=default, **fast)


def is_specialised(eqn: Any) -> bool:
    """Returns whether a `cond` over platforms was made by `platform_specialised`."""
    # Transformations wrap the innermost scope: "block/vmap(coded_jax.platform_...)".
    return str(eqn.source_info.name_stack).rstrip(")").endswith(_SCOPE)
