"""Codes that are functions of the user's own, checked where they are built."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from coded_jax.types import Code, CodeShape, PyTree


def own_code(name: str, make: Callable[[CodeShape], Code], shape: CodeShape) -> Code:
    """Builds a code from a function and checks the shapes of what it computes.

    A decoder of the wrong shape would else go unnoticed, since merging the shares drops
    what is too much; and one that reads lost results would look as if nothing were
    lost. So its `decode` is given zeros in their place.

    Args:
      name: of the code, for errors.
      make: builds it.
      shape: the sizes.

    Raises:
      ValueError: the function gives no `Code`, or `encode` or `decode` gives arrays of
        other shapes than `Code` says.
    """
    code = make(shape)
    if not isinstance(code, Code):
        raise ValueError(
            f"code: {name} gives a {type(code).__name__}, a coded_jax.Code accepted"
        )
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)
    params = jax.eval_shape(code.init, key)
    batch = 2
    pieces = jax.ShapeDtypeStruct((shape.k, batch, *shape.piece), jnp.float32)
    features = jax.ShapeDtypeStruct((shape.n, batch, *shape.share), jnp.float32)
    available = jax.ShapeDtypeStruct((shape.n, batch), jnp.bool_)
    queries = jax.eval_shape(code.encode, params, pieces)
    _require_shape(name, "encode", queries, (shape.n, batch, *shape.piece))
    shares = jax.eval_shape(code.decode, params, features, available)
    _require_shape(name, "decode", shares, (shape.k, batch, *shape.share))

    def decode(params: PyTree, features: jax.Array, available: jax.Array) -> jax.Array:
        arrived = available[:, :, None, None, None]
        return code.decode(params, jnp.where(arrived, features, 0), available)

    return code._replace(decode=decode)


def _require_shape(
    name: str, function: str, output: PyTree, accepted: tuple[int, ...]
) -> None:
    shape = getattr(output, "shape", None)
    if shape != accepted:
        text = type(output).__name__ if shape is None else list(shape)
        raise ValueError(
            f"code: {function} of {name} gives {text} for {accepted[1]} images, "
            f"{list(accepted)} accepted"
        )
