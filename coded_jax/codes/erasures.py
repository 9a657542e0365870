"""Erasure patterns: which of the n results are lost."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.checks import is_integer, require

Pattern = tuple[int, ...]
"""Indices of the lost results, ascending: data pieces `0..k-1`, parity `k..n-1`."""

DRAWS = ("counts", "patterns")
"""Draws of patterns in training, see `odds_of_harmful`."""


def patterns(n: int, l: int) -> list[Pattern]:
    """Returns all `C(n, l)` patterns of l lost results out of n, in lexical order."""
    return list(itertools.combinations(range(n), l))


def patterns_up_to(n: int, r: int) -> list[Pattern]:
    """Returns all patterns of at most `r` lost results, fewest first."""
    return [pattern for l in range(r + 1) for pattern in patterns(n, l)]


def pattern_of(lost: Iterable[int], n: int) -> Pattern:
    """Returns the erasure pattern of lost results that a caller names, ascending.

    Raises:
      ValueError: one is no index in `0..n-1`, or stands twice.
    """
    items = tuple(lost)
    indices = {int(i) for i in items if is_integer(i) and 0 <= i < n}
    accepted = f"distinct indices in 0..{n - 1}"
    require("lost", items, len(indices) == len(items), accepted)
    return tuple(sorted(indices))


def available(lost: Iterable[int], n: int) -> np.ndarray:
    """Returns bool `[n, 1]`, True where a result arrived; see `pattern_of`."""
    mask = np.ones((n, 1), bool)
    mask[list(pattern_of(lost, n))] = False
    return mask


def zero_lost(features: jax.Array, available: jax.Array) -> jax.Array:
    """Puts zeros where no result arrived (section III-B), whatever stands there.

    Args:
      features: `[n, B, M, M', D]`.
      available: bool `[n, B]` or `[n, 1]`.
    """
    # Never a product: NaN * 0 is NaN.
    return jnp.where(available[:, :, None, None, None], features, 0)


def sample(
    key: jax.Array, n: int, most: int, batch: int, beyond: float = 0.0
) -> jax.Array:
    """Draws a pattern for each example: `i ~ U{0..most}`, then `i` of all `n`.

    Section III-C of the paper, with the draw made per example and parity included.

    Args:
      key: of the draws.
      n: results.
      most: results lost, at most.
      batch: B.
      beyond: this part of the examples has `i ~ U{most+1..n-1}`.

    Returns:
      Bool `[n, B]`, True where the result arrived.
    """
    count_key, order_key = jax.random.split(key)
    count = jax.random.randint(count_key, (1, batch), 0, most + 1)
    if beyond:
        of_examples, of_counts = jax.random.split(jax.random.fold_in(key, 2))
        more = jax.random.randint(of_counts, (1, batch), most + 1, n)
        count = jnp.where(
            jax.random.bernoulli(of_examples, beyond, (1, batch)), more, count
        )
    # Ranks of independent uniforms are a uniform permutation.
    order = jax.random.uniform(order_key, (n, batch)).argsort(axis=0).argsort(axis=0)
    return jnp.asarray(order >= count)


def harmful(k: int, n: int, most: int) -> list[Pattern]:
    """Returns all patterns of at most `most` lost results that lose a data piece."""
    return [p for p in patterns_up_to(n, most) if p and p[0] < k]


def odds_of_harmful(
    k: int,
    n: int,
    most: int,
    draws: str = "counts",
    weights: Mapping[Pattern, float] | None = None,
    beyond: float = 0.0,
) -> dict[Pattern, float]:
    """Returns the odds of the `harmful` patterns, for `sample_patterns`.

    From the others a systematic code learns nothing, since it decodes nothing.

    Args:
      k: data pieces.
      n: results.
      most: results lost, at most; 1 or more.
      draws: `"counts"`, the number of lost results uniform in `1..most`, then the
        pattern uniform among those; or `"patterns"`, all patterns alike.
      weights: how many times as often some patterns are drawn.
      beyond: this part of the examples loses `most + 1..n - 1` results, all these
        numbers alike.
    """
    odds = {p: float((weights or {}).get(p, 1)) for p in harmful(k, n, most)}
    if draws == "counts":
        odds = _all_counts_alike(odds)
    if beyond:
        more = [p for p in harmful(k, n, n - 1) if len(p) > most]
        odds_of_more = _all_counts_alike(dict.fromkeys(more, 1.0))
        total, total_of_more = sum(odds.values()), sum(odds_of_more.values())
        scale = beyond / (1 - beyond) * total / total_of_more
        odds |= {pattern: scale * p for pattern, p in odds_of_more.items()}
    return odds


def sample_patterns(
    key: jax.Array, odds: Mapping[Pattern, float], n: int, batch: int
) -> jax.Array:
    """Draws one of some patterns for each example.

    Args:
      key: of the draws.
      odds: of each pattern; their sum may be any.
      n: results.
      batch: B.

    Returns:
      Bool `[n, B]`, True where the result arrived.
    """
    masks = np.stack([available(pattern, n)[:, 0] for pattern in odds])
    logits = jnp.log(jnp.asarray(list(odds.values())))
    drawn = jax.random.categorical(key, logits, shape=(batch,))
    return jnp.asarray(masks)[drawn].T


def _all_counts_alike(odds: dict[Pattern, float]) -> dict[Pattern, float]:
    """Divides odds so that all numbers of lost results are as likely."""
    counts = collections.Counter(map(len, odds))
    return {pattern: p / counts[len(pattern)] for pattern, p in odds.items()}


def moved_roles(available: jax.Array) -> jax.Array:
    """Returns the pieces that arrive if lost devices compute parity in the next stage.

    Devices whose result arrived in the stage before compute the first pieces of the
    next one, in their order; the others compute the last ones, which are parity. So a
    device that stays away costs a data piece in the first stage only.

    Args:
      available: bool `[S, n, ...]`, the devices whose results arrive in each stage.

    Returns:
      Bool `[S, n, ...]`, the pieces whose results arrive.
    """
    order = jnp.argsort(~available[:-1], axis=1, stable=True)
    later = jnp.take_along_axis(available[1:], order, axis=1)
    return jnp.concatenate([available[:1], later])


def in_stages(lost: Pattern, n: int, stages: int) -> jax.Array:
    """Returns a mask of the results that arrive, where a pattern holds in all stages.

    Args:
      lost: the pattern.
      n: results of each stage.
      stages: S, how many there are.

    Returns:
      Bool `[S, n, 1]`.
    """
    return jnp.broadcast_to(jnp.asarray(available(lost, n)), (stages, n, 1))


def drawn_in_stages(
    key: jax.Array, lost: Pattern, n: int, stages: int, rows: jax.Array
) -> jax.Array:
    """Returns masks where later stages lose as many results, drawn for every image.

    Args:
      key: of the draws.
      lost: the pattern of the first stage.
      n: results of each stage.
      stages: S, how many there are.
      rows: int32 `[B]`, the numbers of the images.

    Returns:
      Bool `[S, n, B]`.
    """
    first = jnp.broadcast_to(available(lost, n), (1, n, len(rows)))

    def draw(row: jax.Array) -> jax.Array:
        order = jax.random.uniform(jax.random.fold_in(key, row), (stages - 1, n))
        return order.argsort(axis=1).argsort(axis=1) >= len(lost)

    return jnp.concatenate([first, jax.vmap(draw, out_axes=2)(rows)])


def begin_in_stages(
    key: jax.Array, lost: Pattern, n: int, stages: int, rows: jax.Array
) -> jax.Array:
    """Returns masks of a pattern that holds from one stage on, drawn for every image.

    Arguments and result are those of `drawn_in_stages`; all stages are as likely.
    """
    later = jnp.arange(stages)[:, None] >= beginnings(key, stages, rows)[None]
    return jnp.asarray(available(lost, n))[None] | ~later[:, None]


def beginnings(key: jax.Array, stages: int, rows: jax.Array) -> jax.Array:
    """Returns the stage, from 0 on, in which the losses of every image begin.

    Args:
      key: of the draws.
      stages: S, how many there are.
      rows: int32 `[B]`, the numbers of the images.

    Returns:
      int32 `[B]`.
    """
    draw = lambda row: jax.random.randint(jax.random.fold_in(key, row), (), 0, stages)
    return jax.vmap(draw)(rows)
