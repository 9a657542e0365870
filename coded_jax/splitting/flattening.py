"""A network as one flat list of operations, the jaxprs that it calls in their places.

Whoever takes a network apart, see `convolutions`, evaluates some of them at a time, and
traces it anew for every number of images and every dtype: the operations keep their
order, only their shapes differ.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from coded_jax.types import PyTree

BATCH = 2
"""Images of a trace that plans are made of: an axis of 1 could be any."""
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
UNCHANGED = frozenset("device_put optimization_barrier pvary reshard".split())
"""They move or order values, and change none."""
MAX_LENGTH = 256
"""Loops of more steps are not unrolled."""

Values = dict[Any, Any]
"""Values of variables of a jaxpr."""

_SPECIALISED = "coded_jax.platform_specialised"


def platform_specialised(
    *operands: Any, default: Callable[..., Any], **fast: Callable[..., Any]
) -> Any:
    """Runs `jax.lax.platform_dependent`, where all branches return the same.

    The analysis of `f_conv` follows every branch of a `platform_dependent`, and refuses
    those that mix positions, which fast implementations often do: one that makes a
    matrix product of a whole row, say. Of this it reads the default branch alone. That
    they return the same is the caller's promise: it is not verified.

    Args:
      *operands: of the branches.
      default: `(*operands) -> outputs`; of operations that can be analysed.
      **fast: platform -> implementation that returns the same, up to rounding.
    """
    with jax.named_scope(_SPECIALISED):
        return jax.lax.platform_dependent(*operands, default=default, **fast)


def form_of(leaf: Any) -> jax.ShapeDtypeStruct:
    """Returns shape, dtype and weak type of an array, a shape or a number."""
    if not hasattr(leaf, "shape"):
        leaf = jnp.asarray(leaf)
    weak = bool(getattr(leaf, "weak_type", False))
    return jax.ShapeDtypeStruct(tuple(leaf.shape), leaf.dtype, weak_type=weak)


def is_array(leaf: Any) -> bool:
    """Returns whether a leaf is an array or shape of numbers, bools or random keys."""
    if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
        return False
    kinds = (np.number, np.bool_, jax.dtypes.extended)
    return any(jnp.issubdtype(leaf.dtype, kind) for kind in kinds)


@dataclasses.dataclass(frozen=True, eq=False)
class Flat:
    """The operations of a network.

    Attributes:
      closed: its jaxpr, which calls no other; the image is the last input.
      dynamic: the equations whose results depend on the image and lead to the result.
      constant: those whose results depend on the variables alone.
    """

    closed: Any
    dynamic: list[Any]
    constant: list[Any]

    @property
    def image(self) -> Any:
        """The variable of the image."""
        return self.closed.jaxpr.invars[-1]

    @property
    def results(self) -> list[Any]:
        """The variables of the results."""
        return self.closed.jaxpr.outvars

    @property
    def weights(self) -> list[Any]:
        """The variables of the leaves of the network's variables."""
        return self.closed.jaxpr.invars[:-1]

    def constants(self, leaves: Sequence[Any]) -> Values:
        """Returns the values that are there before the image is."""
        jaxpr = self.closed.jaxpr
        values = dict(zip(jaxpr.constvars, self.closed.consts, strict=True))
        return values | dict(zip(self.weights, leaves, strict=True))


def flatten(
    f: Callable[[PyTree, jax.Array], Any],
    variables: PyTree,
    image_shape: tuple[int, int, int],
    batch: Any = BATCH,
    dtype: Any = "float32",
) -> Flat:
    """Traces a network for so many images, or looks up what was found before.

    Args:
      f: `(variables, [B, H, W, C]) -> result`.
      variables: arrays or shapes (`jax.ShapeDtypeStruct`).
      image_shape: `(H, W, C)`.
      batch: `B`.
      dtype: of the images.
    """
    leaves, structure = jax.tree.flatten(variables)
    forms = tuple(map(form_of, leaves))
    image = jax.ShapeDtypeStruct((batch, *image_shape), dtype)
    # The types of a jaxpr name the mesh, its operations the precision.
    precision = jax.config.jax_default_matmul_precision
    context = (jax.sharding.get_abstract_mesh(), precision)
    return _flatten(f, structure, forms, image, context)


@functools.lru_cache(maxsize=64)
def _flatten(
    f: Callable[[PyTree, jax.Array], Any],
    structure: Any,
    forms: tuple[jax.ShapeDtypeStruct, ...],
    image: jax.ShapeDtypeStruct,
    context: Any,
) -> Flat:
    return trace_flat(f, jax.tree.unflatten(structure, forms), image)


def trace_flat(
    f: Callable[[PyTree, jax.Array], Any],
    variables: PyTree,
    image: jax.ShapeDtypeStruct,
    for_analysis: bool = False,
) -> Flat:
    """Traces a network to operations that call no others.

    Functions under `jax.jit`, with gradients of their own, under `jax.checkpoint`, and
    layers of `cpu_kernels.layer` are looked into, and loops of fixed length unrolled.
    Of a choice by platform every branch is there, and a selection; the compiler drops
    what is not selected. Other loops stay as they are.

    Args:
      f, variables: as of `flatten`.
      image: the shape of the images.
      for_analysis: whether every branch of other choices is there, too, and what moves
        or orders values is not; else they stay.
    """
    nested = jax.make_jaxpr(f)(variables, image)
    flat = lambda *args: _evaluate(nested, jax.tree.leaves(args), for_analysis)
    closed = jax.make_jaxpr(flat)(variables, image)
    varying = {closed.jaxpr.invars[-1]}  # with the image
    dynamic, constant = [], []
    for eqn in closed.jaxpr.eqns:
        depends = not varying.isdisjoint(variables_among(eqn.invars))
        (dynamic if depends else constant).append(eqn)
        if depends:
            varying.update(eqn.outvars)
    return Flat(closed, needed(dynamic, closed.jaxpr.outvars), constant)


def variables_among(atoms: Iterable[Any]) -> set[Any]:
    """Returns those that are no literals."""
    return {atom for atom in atoms if not hasattr(atom, "val")}


def needed(eqns: Sequence[Any], goals: Collection[Any]) -> list[Any]:
    """Returns the equations that lead to some variables, in their order."""
    wanted, chosen = variables_among(goals), []
    for eqn in reversed(eqns):
        if not wanted.isdisjoint(eqn.outvars):
            chosen.append(eqn)
            wanted |= variables_among(eqn.invars)
    return chosen[::-1]


def run(eqns: Sequence[Any], values: Values) -> None:
    """Evaluates equations in their order, and adds their results to `values`."""
    for eqn in eqns:
        operands = [read(atom, values) for atom in eqn.invars]
        bound = eqn.primitive.get_bind_params(eqn.params)
        # Before jax 0.10 the functions that an operation calls are apart.
        functions, params = bound if isinstance(bound, tuple) else ((), bound)
        results = eqn.primitive.bind(*functions, *operands, **params)
        if not eqn.primitive.multiple_results:
            results = [results]
        values.update(zip(eqn.outvars, results, strict=True))


def read(atom: Any, values: Values) -> Any:
    """Returns the value of a variable or of a literal."""
    return atom.val if hasattr(atom, "val") else values[atom]


def _evaluate(closed: Any, operands: Sequence[Any], for_analysis: bool) -> list[Any]:
    """Evaluates a jaxpr, and what it calls as if it stood there."""
    jaxpr = getattr(closed, "jaxpr", closed)
    values: Values = dict(zip(jaxpr.invars, operands, strict=True))
    values.update(zip(jaxpr.constvars, getattr(closed, "consts", ()), strict=True))
    for eqn in jaxpr.eqns:
        atoms = [read(atom, values) for atom in eqn.invars]
        name, params = eqn.primitive.name, eqn.params
        scope = str(eqn.source_info.name_stack)
        with jax.named_scope(scope) if scope else contextlib.nullcontext():
            if name in CALLS:
                results = _evaluate(params[CALLS[name]], atoms, for_analysis)
            elif name == "scan" and params["length"] <= MAX_LENGTH:
                with jax.named_scope("scan"):
                    results = _unroll(eqn, atoms, for_analysis)
            elif name == "cond" and (params.get("branches_platforms") or for_analysis):
                results = _select(eqn, atoms, for_analysis)
            elif name in UNCHANGED and for_analysis:
                results = atoms
            else:
                run([eqn], values)
                continue
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(atom, values) for atom in jaxpr.outvars]


def _unroll(eqn: Any, operands: Sequence[Any], for_analysis: bool) -> list[Any]:
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
        results = _evaluate(params["jaxpr"], [*fixed, *carry, *of_step], for_analysis)
        carry = results[:carried]
        rows.append(results[carried:])
    if params["reverse"]:
        rows.reverse()
    ys = [jnp.stack(column) for column in zip(*rows, strict=True)]
    return [*carry, *ys]


def _select(eqn: Any, atoms: Sequence[Any], for_analysis: bool) -> list[Any]:
    """Evaluates all branches of a choice, and selects; of `platform_specialised` the
    default one."""
    index, *operands = atoms
    branches, platforms = eqn.params["branches"], eqn.params.get("branches_platforms")
    # Transformations wrap the innermost scope: "block/vmap(coded_jax.platform_...)".
    scope = str(eqn.source_info.name_stack).rstrip(")")
    if platforms and scope.endswith(_SPECIALISED):
        return _evaluate(branches[platforms.index(None)], operands, for_analysis)
    kind, names = "cond", [str(i) for i in range(len(branches))]
    if platforms:
        kind = "platform_dependent"
        names = [", ".join(on or ["default"]) for on in platforms]
    per_branch = []
    for branch, name in zip(branches, names, strict=True):
        with jax.named_scope(f"{kind}({name})"):
            per_branch.append(_evaluate(branch, operands, for_analysis))
    with jax.named_scope(kind):
        return [lax.select_n(index, *xs) for xs in zip(*per_branch, strict=True)]
