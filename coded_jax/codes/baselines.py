"""What a code must beat: nothing at all, and its own decoder without parity."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from coded_jax.codes.learned import zero_lost
from coded_jax.types import Code, CodeShape, PyTree


def _blank_parity(pieces: jax.Array, r: int) -> jax.Array:
    return jnp.concatenate([pieces, jnp.zeros((r, *pieces.shape[1:]), pieces.dtype)])


def zero_fill(shape: CodeShape, code: Code | None = None) -> Code:
    """No code: lost shares stay zero. Its parity pieces are blank and never used.

    Args:
      shape: the sizes.
      code: any, since nothing is kept of it.
    """

    def decode(params: PyTree, features: jax.Array, available: jax.Array) -> jax.Array:
        return zero_lost(features[: shape.k], available[: shape.k])

    return Code(
        init=lambda key: {},
        encode=lambda params, pieces: _blank_parity(pieces, shape.r),
        decode=decode,
        systematic=True,
    )


def no_parity(shape: CodeShape, code: Code) -> Code:
    """`code` without its encoder, and the parity results withheld from its decoder.

    What it reaches comes from the redundancy of the images alone. A systematic code's
    sums stay among the parameters, without any effect.
    """
    is_data = jnp.arange(shape.n)[:, None] < shape.k

    def init(key: jax.Array) -> PyTree:
        return {k: v for k, v in code.init(key).items() if k != "encoder"}

    def decode(params: PyTree, features: jax.Array, available: jax.Array) -> jax.Array:
        return code.decode(params, features, available & is_data)

    def encode(params: PyTree, pieces: jax.Array) -> jax.Array:
        return _blank_parity(pieces, shape.r)

    return Code(init, encode, decode, code.systematic)
