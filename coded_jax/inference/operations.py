"""Operations of a function on an image, counted one way for all strategies.

They are read off its jaxpr. A convolution has a product and a sum for each weight at
each output, products with padding included, as published counts have it; a product of
matrices likewise; every other operation on real numbers has one for each value that it
makes, the larger of two included. To move, cut or choose values costs nothing, and
neither does what depends on the parameters alone, for that can be prepared in advance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from coded_jax.splitting.flattening import CALLS
from coded_jax.types import PyTree

MOVES = frozenset(
    "broadcast_in_dim reshape transpose slice dynamic_slice dynamic_update_slice "
    "concatenate stack unstack pad squeeze expand_dims rev gather scatter tile split "
    "convert_element_type select_n copy stop_gradient optimization_barrier iota name "
    "device_put sharding_constraint reshard pvary real imag bitcast_convert_type "
    "reduce_precision".split()
)
"""Primitives that compute nothing."""


def count_operations(
    f: Callable[..., PyTree], parameters: PyTree, *inputs: PyTree
) -> float:
    """Counts the floating point operations of `f(parameters, *inputs)`.

    Args:
      f: the function.
      parameters: arrays or shapes (`jax.ShapeDtypeStruct`); what depends on them alone
        is not counted.
      inputs: likewise, of an image.

    Raises:
      ValueError: `f` has a loop whose length depends on its inputs.
    """
    return operations_and_output(f, parameters, *inputs)[0]


def operations_and_output(
    f: Callable[..., PyTree], parameters: PyTree, *inputs: PyTree
) -> tuple[float, PyTree]:
    """Counts as `count_operations`; also returns shapes and dtypes of what `f` returns.

    Raises:
      ValueError: see `count_operations`.
    """
    closed, output = jax.make_jaxpr(f, return_shape=True)(parameters, *inputs)
    constants = len(jax.tree.leaves(parameters))
    varies = [i >= constants for i in range(len(closed.jaxpr.invars))]
    return _count(closed.jaxpr, varies)[0], output


def _count(jaxpr: Any, varies: Sequence[bool]) -> tuple[float, list[bool]]:
    """Returns the operations, and which results depend on the inputs that vary."""
    depends = {v: vary for v, vary in zip(jaxpr.invars, varies, strict=True)}
    read = lambda atom: not hasattr(atom, "val") and depends.get(atom, False)
    total = 0.0
    for eqn in jaxpr.eqns:
        operands = [read(atom) for atom in eqn.invars]
        outputs = [any(operands)] * len(eqn.outvars)
        if any(operands):
            flops, outputs = count_equation(eqn, operands)
            total += flops
        depends |= dict(zip(eqn.outvars, outputs, strict=True))
    return total, [read(atom) for atom in jaxpr.outvars]


def count_equation(eqn: Any, varies: Sequence[bool]) -> tuple[float, list[bool]]:
    """Counts the floating point operations of one equation.

    Args:
      eqn: of a jaxpr.
      varies: which of its operands depend on the inputs that vary.

    Returns:
      The operations, and which results depend on the inputs that vary.
    """
    name, all_vary = eqn.primitive.name, [True] * len(eqn.outvars)
    if name in CALLS:
        inner = eqn.params[CALLS[name]]
        return _count(getattr(inner, "jaxpr", inner), varies)
    if name == "cond":  # of which the dearest branch counts
        counted = [_count(b.jaxpr, varies[1:])[0] for b in eqn.params["branches"]]
        return max(counted), all_vary
    if name == "scan":
        inner = getattr(eqn.params["jaxpr"], "jaxpr", eqn.params["jaxpr"])
        once = _count(inner, [True] * len(inner.invars))[0]
        return eqn.params["length"] * once, all_vary
    if name == "while":
        raise ValueError("model: a while loop given, loops of fixed length accepted")
    return _count_primitive(eqn), all_vary


def _count_primitive(eqn: Any) -> float:
    name, params, out = eqn.primitive.name, eqn.params, eqn.outvars[0].aval
    if name in MOVES or not jnp.issubdtype(out.dtype, jnp.inexact):
        return 0.0
    size = float(math.prod(out.shape))
    if name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        maps = kernel[params["dimension_numbers"].rhs_spec[0]]
        # Zeros between the inputs of a transposed convolution meet no product.
        gaps = math.prod(params["lhs_dilation"])
        return 2 * size * math.prod(kernel) / maps / gaps
    if name == "dot_general":
        (axes, _), _ = params["dimension_numbers"]
        shape = eqn.invars[0].aval.shape
        return 2 * size * math.prod(shape[axis] for axis in axes)
    if name == "polynomial":  # by Horner's rule; of jax 0.12 and later
        return 2 * size * (len(eqn.invars) - 2)
    if name.startswith("reduce_window"):
        return size * (math.prod(params["window_dimensions"]) - 1)
    if name.startswith("reduce_"):
        return math.prod(eqn.invars[0].aval.shape) - size
    return size
