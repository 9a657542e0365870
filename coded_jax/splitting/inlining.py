"""A function as one flat list of operations, the jaxprs that it calls in their places.

Whoever takes a network apart, see `convolutions`, evaluates some of them at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from coded_jax.splitting.receptive_field import CALLS
from coded_jax.types import PyTree

Values = dict[Any, Any]
"""Values of variables of a jaxpr."""


def inline(f: Callable[..., jax.Array], *args: PyTree) -> Any:
    """Traces `f` to a closed jaxpr that calls no other.

    Functions under `jax.jit`, with gradients of their own, under `jax.checkpoint`, and
    layers of `cpu_kernels.layer` are looked into; branches and loops stay as they are.

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
        inner = eqn.params.get(CALLS.get(eqn.primitive.name, ""))
        if inner is None:
            run([eqn], values)
            continue
        results = _evaluate(inner, [read(atom, values) for atom in eqn.invars])
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(atom, values) for atom in jaxpr.outvars]
