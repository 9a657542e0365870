"""Operations of a whole network, computed on a piece of what they read.

The equations of a jaxpr have the sizes of the whole image in them. On a piece every
value is shorter by as many rows and columns as the input is, over its stride on it; so
are the constants beside it, of which only the borders may differ from the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from coded_jax.splitting.constants import ELEMENTWISE, axes_kept_by_reshape
from coded_jax.splitting.flattening import Values, read
from coded_jax.splitting.rules import ALIGNED

Less = Mapping[int, int]
"""Axis of a value -> positions that it has less than that of the whole image."""


def run_resized(
    eqns: Sequence[Any],
    less: Mapping[Any, Less],
    values: Values,
    constants: Sequence[Any],
) -> None:
    """Evaluates equations on a piece, and adds their results to `values`.

    Args:
      eqns: of the whole image, in their order.
      less: what each variable that depends on the image has less.
      values: of what they read of the piece, and of what does not depend on the image.
      constants: the equations that have made the latter.

    Raises:
      ValueError: an operation depends on the size of the image.
    """
    made_by = {v: eqn for eqn in constants for v in eqn.outvars}
    for eqn in eqns:
        aligned = eqn.primitive.name in ELEMENTWISE | ALIGNED
        out = less[eqn.outvars[0]]
        operands = []
        for v in eqn.invars:
            x = read(v, values)
            if aligned and not hasattr(v, "val") and v not in less and jnp.ndim(x):
                own = {a: n for a, n in out.items() if x.shape[a] > 1}
                x = _smaller_constant(v, own, values, made_by)
            operands.append(x)
        before = [less.get(v, {}) if not hasattr(v, "val") else {} for v in eqn.invars]
        results = _bind(eqn, operands, before, out)
        values.update(zip(eqn.outvars, results, strict=True))


def _bind(
    eqn: Any, operands: list[Any], before: Sequence[Less], after: Less
) -> Sequence[Any]:
    """Evaluates an equation whose operands have `before` less than on the whole, and
    its results `after`."""
    params, operands = dict(eqn.params), list(operands)
    match eqn.primitive.name:
        case "broadcast_in_dim":
            params["shape"] = _shorter(params["shape"], after)
        case "reshape":
            params["new_sizes"] = _shorter(params["new_sizes"], after)
        case "slice":
            params["limit_indices"] = _shorter(params["limit_indices"], before[0])
        case "dynamic_slice":
            params["slice_sizes"] = _shorter(params["slice_sizes"], before[0])
        case "gather":
            sizes, numbers = params["slice_sizes"], params["dimension_numbers"]
            whole = {axis: n for axis, n in before[0].items() if sizes[axis] > 1}
            params["slice_sizes"] = _shorter(sizes, whole)
            # The first ones of evenly spaced indices.
            axes = range(len(eqn.outvars[0].aval.shape))
            indexed = [axis for axis in axes if axis not in numbers.offset_dims]
            for place, axis in enumerate(indexed):
                if axis in after:
                    end = operands[1].shape[place] - after[axis]
                    operands[1] = lax.slice_in_dim(operands[1], 0, end, axis=place)
        case "dot_general":
            _resize_matrix(eqn, operands, before, after)
    results = eqn.primitive.bind(*operands, **params)
    results = results if eqn.primitive.multiple_results else [results]
    expected = _shorter(eqn.outvars[0].aval.shape, after)
    if results[0].shape != expected:
        raise ValueError(
            f"f_conv: operation {eqn.primitive.name!r} gives {results[0].shape} on a "
            f"piece, where {expected} is needed: move it to the head"
        )
    return results


def _shorter(shape: Sequence[int], less: Less) -> tuple[int, ...]:
    return tuple(size - less.get(axis, 0) for axis, size in enumerate(shape))


def _resize_matrix(
    eqn: Any, operands: list[Any], before: Sequence[Less], after: Less
) -> None:
    """Drops inputs and outputs in the middle of the matrix of a resize."""
    contracted, _ = eqn.params["dimension_numbers"]
    which = 0 if before[0] or not before[1] else 1  # of both is the features
    axis, *more = contracted[which] or (0,)
    less = before[which].get(axis, 0)
    if more or not less:
        return
    (into,) = contracted[1 - which]
    matrix, out = operands[1 - which], 1 - into
    fewer = after[0 if which else len(eqn.outvars[0].aval.shape) - 1]
    half = (matrix.shape[out] - fewer) // 2
    first = lax.slice_in_dim(matrix, 0, matrix.shape[into] - less, axis=into)
    last = lax.slice_in_dim(matrix, less, None, axis=into)
    halves = (
        lax.slice_in_dim(first, 0, half, axis=out),
        lax.slice_in_dim(last, half + fewer, None, axis=out),
    )
    operands[1 - which] = lax.concatenate(halves, out)


def _smaller_constant(
    v: Any, less: Less, values: Values, made_by: Mapping[Any, Any]
) -> jax.Array:
    """Returns a constant with fewer positions, as the piece would have made it."""
    less = {axis: n for axis, n in less.items() if n}
    if not less:
        return read(v, values)
    if hasattr(v, "val") or v not in made_by:
        raise ValueError(
            f"f_conv: a constant of shape {v.aval.shape} has the size of the image: "
            "move what reads it to the head"
        )
    eqn = made_by[v]
    name, operands = eqn.primitive.name, eqn.invars
    inner = [_of_operand(eqn, u, less) for u in operands]
    smaller = [
        _smaller_constant(u, own, values, made_by)
        for u, own in zip(operands, inner, strict=True)
    ]
    if name == "iota":
        shape = _shorter(eqn.params["shape"], less)
        return lax.broadcasted_iota(eqn.params["dtype"], shape, eqn.params["dimension"])
    return _bind(eqn, smaller, inner, less)[list(eqn.outvars).index(v)]


def _of_operand(eqn: Any, u: Any, less: Less) -> Less:
    """Returns the lengths that an operand lacks, by axis, if a result lacks `less`."""
    name, params = eqn.primitive.name, eqn.params
    shape = jnp.shape(getattr(u, "val", u.aval))
    if not shape:
        return {}
    if name == "broadcast_in_dim":
        to = params["broadcast_dimensions"]
        return {a: less[to[a]] for a, n in enumerate(shape) if n > 1 and to[a] in less}
    if name == "transpose":
        return {a: less[i] for i, a in enumerate(params["permutation"]) if i in less}
    if name in ("reshape", "squeeze"):
        kept = axes_kept_by_reshape(shape, eqn.outvars[0].aval.shape)
        return {a: less[i] for a, i in kept.items() if i in less and shape[a] > 1}
    if name.startswith("reduce_window"):
        strides = params["window_strides"]
        return {a: n * strides[a] for a, n in less.items()}
    return {a: n for a, n in less.items() if shape[a] > 1}
