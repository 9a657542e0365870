"""Weighted sums of pieces and of results: the linear parts of encoders and decoders.

A decoder's weights are of each image's own. As a matrix product of each image's
`[k, n]` weights with its results it is one of few rows and columns, for which XLA's CPU
backend is slow: 16 ms where these sums take 0.5 ms, and 10 ms where their gradients
take 3 (128 images, 8,192 values, k=2, n=3, 2 cores of an AMD EPYC, jax 0.10.2).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp


def piece_sums(weights: jax.Array, pieces: jax.Array) -> jax.Array:
    """Returns `sum_i weights[i, j] pieces[i]`, summed in float32.

    Not as a matrix product: of few rows and columns, it would be a pass of its own over
    all pieces, while sums are computed as the pieces are cut; and on TPUs its operands
    would be rounded to bfloat16.

    Args:
      weights: `[k, r]`.
      pieces: `[k, B, h, w, C]`.

    Returns:
      `[r, B, h, w, C]`, of the dtype of `pieces`.
    """
    parts = [piece.astype(jnp.float32) for piece in pieces]
    parity = [
        functools.reduce(jnp.add, map(jnp.multiply, column, parts))
        for column in weights.astype(jnp.float32).T
    ]
    return jnp.stack(parity).astype(pieces.dtype)


def weighted_sums(weights: jax.Array, values: jax.Array) -> jax.Array:
    """Returns `sum_j weights[b, i, j] values[j, b]`, summed in float32.

    It is a function of this module, as `jax.custom_vjp` is not: decoders are pickled
    with what they call, to be sent to other processes.

    Args:
      weights: `[B, k, n]`.
      values: `[n, B, ...]`.

    Returns:
      `[k, B, ...]`, of the dtype of `values`.
    """
    return _sums(weights, values)


@jax.custom_vjp
def _sums(weights: jax.Array, values: jax.Array) -> jax.Array:
    n, batch = values.shape[:2]
    columns = weights.astype(jnp.float32).T[..., None]  # [n, k, B, 1]
    flat = values.astype(jnp.float32).reshape(n, 1, batch, -1)
    total = functools.reduce(jnp.add, [columns[j] * flat[j] for j in range(n)])
    return total.reshape(-1, *values.shape[1:]).astype(values.dtype)


def _backward(saved: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    weights, values = saved
    flat = lambda x: x.astype(jnp.float32).reshape(*x.shape[:2], -1)
    products = flat(gradient)[:, None] * flat(values)[None]  # [k, n, B, ..]
    by_weights = products.sum(-1).transpose(2, 0, 1)
    by_values = _sums(weights.swapaxes(1, 2), gradient)
    return by_weights.astype(weights.dtype), by_values.astype(values.dtype)


_sums.defvjp(lambda *operands: (_sums(*operands), operands), _backward)


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
        both = jnp.concatenate([gram + jnp.eye(k), arrived], axis=1)
        # Gauss-Jordan elimination in plain array operations, as the matrix is positive
        # definite and small: JAX before 0.10 does not load LAPACK for exported files,
        # and crashes.
        for i, unit in enumerate(jnp.eye(k)):
            both -= jnp.outer(both[:, i] - unit, both[i] / both[i, i])
        return both[:, k:]

    weights = jax.vmap(solve, 1)(available).astype(features.dtype)
    weights = jnp.broadcast_to(weights, (features.shape[1], *weights.shape[1:]))
    return weighted_sums(weights, features)
