"""The linear part of a systematic learned code, which its networks improve on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from coded_jax import splitting
from coded_jax.codes import margins, smaller
from coded_jax.codes.combine import piece_sums
from coded_jax.codes.learned_config import LearnedConfig
from coded_jax.codes.sums import SUMS, linear_estimate
from coded_jax.types import CodeShape, PyTree


class Estimate(NamedTuple):
    """Estimates of q shares of each image from the parity results.

    Attributes:
      shares: `[q, B, M, M', D]`, only that of lost shares is of use.
      views: `[q, r, B, M, M', D]`, what each parity result by itself says of it; zeros
        where it did not arrive.
    """

    shares: jax.Array
    views: jax.Array


class LinearPart(NamedTuple):
    """Parity pieces that are linear in the pieces, and estimates from their results.

    Attributes:
      init: `() -> params`, a dict.
      parity: `(params, pieces [k, B, h, w, C]) -> [r, B, h, w, C]`.
      estimate: `(params, features [n, B, M, M', D], available, shares) -> Estimate`,
        with zeros where no result arrived, and the numbers of the shares, int32
        `[q, B]` or `[q, 1]`.
    """

    init: Callable[[], dict[str, PyTree]]
    parity: Callable[[PyTree, jax.Array], jax.Array]
    estimate: Callable[[PyTree, jax.Array, jax.Array, jax.Array], Estimate]


def sums_of_pieces(shape: CodeShape, config: LearnedConfig) -> LinearPart:
    """Returns sums, learned as `{"sums": [k, r]}`, with `linear_estimate`."""

    def estimate(
        params: PyTree, features: jax.Array, available: jax.Array, shares: jax.Array
    ) -> Estimate:
        every = linear_estimate(params["sums"], features, available)
        parity = features[shape.k :]
        views = jnp.broadcast_to(parity, (len(shares), *parity.shape))
        return Estimate(margins.take_shares(every, shares), views)

    return LinearPart(
        lambda: {"sums": SUMS[config.sums](shape.k, shape.r)},
        lambda params, pieces: piece_sums(params["sums"], pieces),
        estimate,
    )


def smaller_image(shape: CodeShape, config: LearnedConfig) -> LinearPart:
    """Returns the whole image made smaller, learned as `{"taps": ...}`, see `smaller`.

    The estimate is the mean of what the parity results that arrived show of a share.
    """
    smaller.plan_of(shape)

    def estimate(
        params: PyTree, features: jax.Array, available: jax.Array, shares: jax.Array
    ) -> Estimate:
        views = smaller.stretched(shape, features[shape.k :], shares)
        arrived = available[shape.k :]
        weights = arrived / jnp.maximum(1, arrived.sum(axis=0, keepdims=True))
        weights = weights[None, ..., None, None, None].astype(views.dtype)
        return Estimate((weights * views).sum(axis=1), views)

    return LinearPart(
        lambda: {"taps": smaller.init(shape)},
        lambda params, pieces: smaller.parity(shape, params["taps"], pieces),
        estimate,
    )


def with_margins(shape: CodeShape, part: LinearPart) -> LinearPart:
    """Returns the part for devices that return whole outputs, `[n, B, h', w', D]`: what
    those of other pieces show of a share is blended with its estimate and views."""
    plan = smaller.plan_of(shape)

    def estimate(
        params: PyTree, results: jax.Array, available: jax.Array, shares: jax.Array
    ) -> Estimate:
        features = shares_of_results(shape, results)
        own = part.estimate(params, features, available, shares)
        data = slice(0, shape.k)
        beside = margins.of_shares(plan, results[data], available[data], shares)
        blended = lambda view: margins.blend(params["margins"], beside, view, shares)
        views = [blended(own.views[:, j]) for j in range(shape.r)]
        return Estimate(blended(own.shares), jnp.stack(views, axis=1))

    init = lambda: {**part.init(), "margins": margins.init(shape)}
    return LinearPart(init, part.parity, estimate)


def shares_of_results(shape: CodeShape, results: jax.Array) -> jax.Array:
    """Cuts the shares out of results that are whole outputs; others stay.

    Args:
      shape: the sizes.
      results: `[m, B, M, M', D]` or `[m, B, h', w', D]`, of all pieces or the first.

    Returns:
      `[m, B, M, M', D]`.
    """
    if results.shape[2:] == shape.share:
        return results
    return splitting.cut(smaller.plan_of(shape), results)


LINEAR_PARTS: dict[str, Callable[[CodeShape, LearnedConfig], LinearPart]] = {
    "sums": sums_of_pieces,
    "smaller": smaller_image,
}


def place_shares(
    shares: jax.Array, arrived: jax.Array, guesses: jax.Array, numbers: jax.Array
) -> jax.Array:
    """Puts guesses where shares did not arrive.

    Args:
      shares: `[k, B, M, M', D]`, zeros where they did not arrive.
      arrived: bool `[k, B]` or `[k, 1]`.
      guesses: `[q, B, M, M', D]`.
      numbers: int32 `[q, B]` or `[q, 1]`, the share that each guess is of.
    """
    out = shares
    which = jnp.arange(len(shares))[:, None]
    for guess, number in zip(guesses, numbers, strict=True):
        here = (which == number[None]) & ~arrived
        out = jnp.where(here[..., None, None, None], guess[None], out)
    return out
