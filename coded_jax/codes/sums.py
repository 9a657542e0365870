"""Sums of the pieces that the parity pieces of a systematic learned code start as."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def cosines(k: int, r: int) -> jax.Array:
    """Returns r orthonormal vectors `[k, r]` of the discrete cosine transform (II).

    As sums of k pieces they keep the pixels' variance; the first one is the addition
    code of ParM (Kosaian et al. 2019). Those from k on repeat or are zero.
    """
    i, j = jnp.arange(k)[:, None], jnp.arange(r)[None]
    basis = jnp.cos(jnp.pi * j * (2 * i + 1) / (2 * k))
    return basis * jnp.sqrt(jnp.where(j == 0, 1, 2) / k)


def powers(k: int, r: int) -> jax.Array:
    """Returns columns `i^j` of length 1 of a Vandermonde matrix, i in `1..k`: `[k, r]`.

    The first is that of `cosines`. No weight is negative: a sum of pieces looks more
    like a piece than a difference does, of which a ReLU after a convolution keeps half.
    """
    columns = jnp.arange(1.0, k + 1)[:, None] ** jnp.arange(r)[None]
    return columns / jnp.linalg.norm(columns, axis=0, keepdims=True)


SUMS = {"cosine": cosines, "power": powers}
"""`(k, r) -> [k, r]`, the initial weights of the pieces in each parity piece."""
