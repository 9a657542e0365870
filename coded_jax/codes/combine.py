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
    weights = weights.astype(jnp.float32)
    parts = [piece.astype(jnp.float32) for piece in pieces]
    parity = [
        functools.reduce(jnp.add, map(jnp.multiply, column, parts))
        for column in weights.T
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


def _forward(weights: jax.Array, values: jax.Array) -> tuple:
    return _sums(weights, values), (weights, values)


def _backward(saved: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    weights, values = saved
    flat = lambda x: x.astype(jnp.float32).reshape(*x.shape[:2], -1)
    products = flat(gradient)[:, None] * flat(values)[None]  # [k, n, B, ..]
    by_weights = products.sum(-1).transpose(2, 0, 1)
    by_values = _sums(weights.swapaxes(1, 2), gradient)
    return by_weights.astype(weights.dtype), by_values.astype(values.dtype)


_sums.defvjp(_forward, _backward)
