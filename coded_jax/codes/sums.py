"""Sums of pieces as parity pieces, and the shares that their results let expect."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from coded_jax.codes.combine import weighted_sums


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


def solve_definite(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """Returns `matrix^-1 right` by Gauss-Jordan elimination, in plain array operations.

    An exported file then has no calls of LAPACK, which JAX before 0.10 does not load
    for one: it crashes.

    Args:
      matrix: `[k, k]`, positive definite, so that no pivot is sought; k is small.
      right: `[k, m]`.
    """
    k = len(matrix)
    both = jnp.concatenate([matrix, right], axis=1)
    for i, unit in enumerate(jnp.eye(k)):
        row = both[i] / both[i, i]
        both -= jnp.outer(both[:, i] - unit, row)
    return both[:, k:]


def linear_estimate(
    sums: jax.Array, features: jax.Array, available: jax.Array
) -> jax.Array:
    """Estimates shares by ridge regression on what arrived (Hoerl and Kennard 1970).

    `(G'AG + I)^-1 G'A y` with `G = [I; sums']`, `A` the erasures and `y` the results:
    parity results are taken for the same sums of shares, which holds for a linear
    `F_Conv` alone. So the ridge is large, and the estimate is never exact. From data
    results only, lost shares are estimated as zero.

    Args:
      sums: `[k, r]`, weights of the pieces in each parity piece.
      features: `[n, B, M, M', D]`, zeros where no result arrived.
      available: bool `[n, B]` or `[n, 1]`.

    Returns:
      `[k, B, M, M', D]`; only that of lost shares is of use.
    """
    k = len(sums)
    sums = sums.astype(jnp.float32)  # a linear system is not solved in 16 bits
    generator = jnp.concatenate([jnp.eye(k), sums.T])

    def solve(available: jax.Array) -> jax.Array:
        arrived = generator.T * available[None]
        gram = jnp.matmul(arrived, generator, precision="highest")
        return solve_definite(gram + jnp.eye(k), arrived)

    weights = jax.vmap(solve, 1)(available).astype(features.dtype)
    weights = jnp.broadcast_to(weights, (features.shape[1], *weights.shape[1:]))
    return weighted_sums(weights, features)
