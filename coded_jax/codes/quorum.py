"""The decision whether the results that arrived suffice: read by every engine.

Inference, serving and the simulator ask these functions, so that they
stop waiting at the same result.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.types import Quorum

NAMES = ("any_k", "one_of_each", "all_data")
"""Of the quorums of codes; `one_of_sets` is chosen for a model, see `one_of_sets`."""

ANY_K = Quorum("any_k")
"""Any k of the n results; the first k queries are the data pieces."""

ALL_DATA = Quorum("all_data")
"""Suffices with all k data pieces; nothing else is sent."""


def quorum_of(name: str, k: int, n: int) -> Quorum:
    """Returns the quorum of that name, as `results.json` has it."""
    return next(q for q in (ANY_K, one_of_each(k, n), ALL_DATA) if q.name == name)


def one_of_sets(sets: Iterable[Collection[int]]) -> Quorum:
    """Returns the quorum of all results of one of some sets; sets that contain another
    one are left out."""
    every = sorted({tuple(sorted(own)) for own in sets}, key=len)
    least: list[tuple[int, ...]] = []
    for own in every:
        if not any({*other} <= {*own} for other in least):
            least.append(own)
    return Quorum("one_of_sets", sets=tuple(least))


def any_k_mixtures(n: int) -> Quorum:
    """Returns the quorum of any k of n results that are all mixtures of the pieces."""
    return Quorum("any_k", (None,) * n)


def one_of_each(k: int, n: int) -> Quorum:
    """Returns the quorum of one copy of each data piece, where query i is `i mod k`."""
    return Quorum("one_of_each", tuple(i % k for i in range(n)))


def decodes(quorum: Quorum) -> bool:
    """Returns whether a missing data piece is decoded from other results."""
    return quorum.name in ("any_k", "one_of_sets")


def sent(quorum: Quorum, k: int, n: int) -> range:
    """Returns the queries that are sent at all, of n."""
    return range(k if quorum.name == ALL_DATA.name else n)


def pieces_of(quorum: Quorum, k: int, n: int) -> tuple[int | None, ...]:
    """Returns the data piece that each of n queries is a copy of; None for mixtures."""
    return quorum.copies or (*range(k), *[None] * (n - k))


def held(quorum: Quorum, k: int, arrived: Collection[int]) -> set[int]:
    """Returns the data pieces of which a result has arrived."""
    if quorum.copies is None:
        return {i for i in arrived if i < k}
    copies = {quorum.copies[i] for i in arrived}
    return {piece for piece in copies if piece is not None}


def suffices(quorum: Quorum, k: int, arrived: Collection[int]) -> bool:
    """Returns whether results are enough to stop waiting.

    Args:
      quorum: of the code.
      k: data pieces.
      arrived: indices of the results.
    """
    if quorum.sets:
        return any({*own} <= {*arrived} for own in quorum.sets)
    alternatives = _alternatives(quorum, k)
    if alternatives is None:
        return len(arrived) >= k
    return all(any(i in arrived for i in copies) for copies in alternatives)


def suffices_where(quorum: Quorum, k: int, available: Any) -> Any:
    """Returns, as `suffices`, whether results are enough, for many inferences at once.

    Args:
      quorum: of the code.
      k: data pieces.
      available: bool `[n, ...]`, an array of NumPy or JAX, True for what arrived.

    Returns:
      Bool `[...]`.
    """
    if quorum.sets:
        whole = [available[np.array(own)].all(axis=0) for own in quorum.sets]
        return functools.reduce(operator.or_, whole)
    alternatives = _alternatives(quorum, k)
    if alternatives is None:
        return available.sum(axis=0) >= k
    return functools.reduce(
        operator.and_,
        [
            functools.reduce(operator.or_, [available[i] for i in c])
            for c in alternatives
        ],
    )


def waiting_time(quorum: Quorum, k: int, times: Sequence[jax.Array]) -> jax.Array:
    """Returns the time at which the results begin to suffice.

    It is the k-th order statistic where any k results do, and else the maximum over the
    data pieces of the minimum over their copies, or of sets the minimum over these of
    the maximum over their results.

    Args:
      quorum: of the code.
      k: data pieces.
      times: of each query that is sent `[R]`, of R requests; infinite if never.

    Returns:
      `[R]`.
    """
    if quorum.sets:
        latest = lambda own: functools.reduce(jnp.maximum, [times[i] for i in own])
        return functools.reduce(jnp.minimum, map(latest, quorum.sets))
    alternatives = _alternatives(quorum, k)
    if alternatives is None:
        return smallest(times, k)
    first = [functools.reduce(jnp.minimum, [times[i] for i in c]) for c in alternatives]
    return functools.reduce(jnp.maximum, first)


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


def in_words(quorum: Quorum, k: int) -> str:
    """Returns the results that suffice, in words, for errors."""
    return {
        "any_k": f"any {k} results",
        "one_of_each": f"one copy of each of {k} pieces",
        "all_data": f"all {k} data pieces",
        "one_of_sets": f"all results of one of {len(quorum.sets)} sets",
    }[quorum.name]


def _alternatives(quorum: Quorum, k: int) -> list[list[int]] | None:
    """Returns for each data piece the results of which one is needed; None where any k
    results suffice."""
    if decodes(quorum):
        return None
    copies = quorum.copies or tuple(range(k))
    return [[i for i, piece in enumerate(copies) if piece == j] for j in range(k)]
