"""The k-th smallest of a few rows, elementwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp


def smallest(rows: Sequence[jax.Array], k: int) -> jax.Array:
    """Returns the elementwise k-th smallest `[R]` of n rows `[R]`.

    By exchanges of whole rows, since on CPUs XLA's sort along a short axis is slow.
    """
    ordered = list(rows)
    for low, high in sorting_network(len(ordered)):
        a, b = ordered[low], ordered[high]
        ordered[low], ordered[high] = jnp.minimum(a, b), jnp.maximum(a, b)
    return ordered[k - 1]


def sorting_network(n: int) -> Iterator[tuple[int, int]]:
    """Yields pairs of places to put in order, one after the other, to sort n values.

    Batcher's merge exchange (Knuth, volume 3, algorithm 5.2.2M): 12 pairs for n = 6.
    """
    p = 1
    while p < n:
        q = p
        while q:
            for j in range(q % p, n - q, 2 * q):
                for i in range(j, j + min(q, n - j - q)):
                    if i // (2 * p) == (i + q) // (2 * p):
                        yield i, i + q
            q //= 2
        p *= 2
