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

from coded_jax.splitting.flattening import Values, read
from coded_jax.splitting.rules import ALIGNED
from coded_jax.splitting.windows import ELEMENTWISE, axes_after

Less = Mapping[int, int]
"""Axis of a value -> positions that it has less than that of the whole image."""


OF_RESULT = {"broadcast_in_dim": "shape", "iota": "shape", "reshape": "new_sizes"}
OF_OPERAND = {"slice": "limit_indices", "dynamic_slice": "slice_sizes"}
"""Parameters that have the sizes of the result, or those of the first operand."""


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
        after, operands, before = less[eqn.outvars[0]], [], []
        for v in eqn.invars:
            before.append({} if hasattr(v, "val") else less.get(v, {}))
            x = read(v, values)
            if aligned and not hasattr(v, "val") and v not in less and jnp.ndim(x):
                own = {a: n for a, n in after.items() if x.shape[a] > 1}
                x = _smaller_constant(v, own, values, made_by)
            operands.append(x)
        results = _bind(eqn, operands, before, after)
        values.update(zip(eqn.outvars, results, strict=True))


def _bind(
    eqn: Any, operands: list[Any], before: Sequence[Less], after: Less
) -> Sequence[Any]:
    """Evaluates an equation whose operands have `before` less than on the whole, and
    its results `after`."""
    params, operands = dict(eqn.params), list(operands)
    name = eqn.primitive.name
    if key := OF_RESULT.get(name):
        params[key] = _shorter(params[key], after)
    elif key := OF_OPERAND.get(name):
        params[key] = _shorter(params[key], before[0])
    elif name == "gather":
        sizes, numbers = params["slice_sizes"], params["dimension_numbers"]
        whole = {axis: n for axis, n in before[0].items() if sizes[axis] > 1}
        params["slice_sizes"] = _shorter(sizes, whole)
        # The first ones of evenly spaced indices.
        axes = range(eqn.outvars[0].aval.ndim)
        indexed = [axis for axis in axes if axis not in numbers.offset_dims]
        lengths = zip(indexed, operands[1].shape, strict=False)
        ends = [length - after.get(axis, 0) for axis, length in lengths]
        operands[1] = operands[1][tuple(map(slice, ends))]
    elif name == "dot_general":
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
    matrix = jnp.moveaxis(operands[1 - which], into, 0)
    fewer = after[0 if which else eqn.outvars[0].aval.ndim - 1]
    half = (matrix.shape[1] - fewer) // 2
    halves = matrix[: matrix.shape[0] - less, :half], matrix[less:, half + fewer :]
    smaller = lax.concatenate(halves, 1)
    operands[1 - which] = jnp.moveaxis(smaller, 0, into)


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
    before = [_of_operand(eqn, u, less) for u in eqn.invars]
    operands = [
        _smaller_constant(u, own, values, made_by)
        for u, own in zip(eqn.invars, before, strict=True)
    ]
    return _bind(eqn, operands, before, less)[list(eqn.outvars).index(v)]


def _of_operand(eqn: Any, u: Any, less: Less) -> Less:
    """Returns the lengths that an operand lacks, by axis, if a result lacks `less`."""
    name, shape = eqn.primitive.name, u.aval.shape
    to = {axis: axis for axis in range(len(shape))}
    factors: Sequence[int] = [1] * len(shape)
    if name in ("broadcast_in_dim", "transpose", "reshape", "squeeze") and shape:
        to = axes_after(eqn)
    elif name.startswith("reduce_window") and shape:
        factors = eqn.params["window_strides"]
    return {
        a: less[i] * factors[a] for a, i in to.items() if i in less and shape[a] > 1
    }
