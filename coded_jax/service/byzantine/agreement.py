"""Agreement of each result with what the others predict of it.

Every result is left out in turn and predicted from the others: by the code, which
decodes its share as if it had been lost, and from there by a regression. `a` is the
squared distance of the result from this prediction, `b` that from the mean of all
images, both Mahalanobis distances in c coordinates. Three statistics say whether it is
another one than it should be:

    log((c + a) / (c + b))   whether the others predict it better than nothing does:
                             the ratio of two likelihoods of Student's t, with c
                             degrees of freedom. An odd image is far in both;
    log(1 + a / c)           whether they predict it at all;
    max |e_j| / sqrt(a / c)  whether a single value stands out, where e_j is what
                             differs, given all other values of the result.

Where a code is exact, the only statistic is the largest difference from the prediction.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from coded_jax import splitting
from coded_jax.codes.quorum import pieces_of
from coded_jax.inference.pipeline import Results
from coded_jax.inference.stages import CodedStage, end_stage, shares_of
from coded_jax.service.byzantine.check import StageCheck
from coded_jax.types import PyTree, apart

STATISTICS = 3


class Predictions(NamedTuple):
    """Shares that the code decodes from the other results.

    Attributes:
      shares: `[n, B, M, M', D]`; zeros where it makes nothing.
      known: for each result whether it makes something.
    """

    shares: jax.Array
    known: tuple[bool, ...]


def predict(
    stage: CodedStage, params: PyTree, results: Results, arrived: jax.Array
) -> Predictions:
    """Decodes every result from the others.

    Of data pieces that is their share. Where queries are weighted sums of pieces,
    results are those sums of shares; so what is decoded is encoded again.

    Args:
      stage: the coded stage.
      params: of its code.
      results: whose features are zeros for what did not arrive.
      arrived: bool `[n]`.
    """
    features, kept = results
    n, batch = features.shape[:2]
    copies = pieces_of(stage.code.quorum, stage.plan.k, n)
    sums = _encodes_shares(stage, params, features)
    known = tuple(sums or i is not None for i in copies)
    left_out = [i for i in range(n) if known[i]]
    others = arrived[None] & ~jnp.eye(n, dtype=bool)[jnp.array(left_out)]
    available = jnp.repeat(others.T, batch, axis=1)  # [n, m B]
    repeated = jnp.tile(features, (1, len(left_out), *[1] * (features.ndim - 2)))
    guide = [
        jnp.tile(x, (len(left_out), 1, 1, 1)) for x in kept[: stage.code.traits.guided]
    ]
    decoded_stage = end_stage(
        stage, params, repeated, available, tuple(guide), unconditional=True
    )
    merged = apart(decoded_stage)[0]
    decoded = splitting.shares(stage.plan, merged)
    if sums:
        decoded = stage.code.encode(params, decoded)
    decoded = decoded.reshape(len(decoded), len(left_out), batch, *decoded.shape[2:])
    own = {i: decoded[i if sums else copies[i], m] for m, i in enumerate(left_out)}
    blank = jnp.zeros_like(decoded[0, 0])
    return Predictions(jnp.stack([own.get(i, blank) for i in range(n)]), known)


def _encodes_shares(stage: CodedStage, params: PyTree, features: jax.Array) -> bool:
    """Returns whether the encoder can encode shares as it encodes pieces: it only
    weighs pieces, without learned parameters or a network."""
    if jax.tree.leaves(params):
        return False
    shape = (features.shape[1], *stage.plan.share_shape)
    shares = jax.ShapeDtypeStruct((stage.plan.k, *shape), features.dtype)
    try:
        encoded = jax.eval_shape(stage.code.encode, params, shares)
    except (TypeError, ValueError):  # of a user's own, for one shape
        return False
    return encoded.shape == (len(features), *shape)


def roots(shares: jax.Array) -> jax.Array:
    """Returns signed square roots, float32 `[n, B, d]`: of values that have more spread
    the larger they are, as behind a ReLU, these have about the same."""
    flat = shares.reshape(*shares.shape[:2], -1).astype(jnp.float32)
    return jnp.sign(flat) * jnp.sqrt(jnp.abs(flat))


def coordinates(means: jax.Array, bases: jax.Array, shares: jax.Array) -> jax.Array:
    """Returns the coordinates of results.

    Args:
      means, bases: see `StageCheck`.
      shares: `[n, B, M, M', D]`.

    Returns:
      float32 `[n, B, c]`: along the q directions; where these are fewer than the values
      of a share, also the logarithm of what they leave out, and c is `q + 1`.
    """
    centred = roots(shares) - means[:, None]
    along = jnp.einsum("nbd,ndq->nbq", centred, bases)
    if bases.shape[1] == bases.shape[2]:
        return along
    left = jnp.square(centred).sum(-1) - jnp.square(along).sum(-1)
    energy = jnp.log(jnp.maximum(left, 0) / bases.shape[1] + 1e-6)
    return jnp.concatenate([along, energy[..., None]], axis=-1)


class Difference(NamedTuple):
    """Coordinates of results, and their differences from predictions.

    Attributes:
      coordinates: float32 `[n, B, c]`, of the results.
      left: float32 `[n, B, c]`, after the regression.
      largest: float32 `[n, B]`, of the values themselves, from what the code predicts.
    """

    coordinates: jax.Array
    left: jax.Array
    largest: jax.Array


def statistics(whitener: Any, alone: Any, own: jax.Array, left: jax.Array) -> jax.Array:
    """Computes the statistics of one result.

    Args:
      whitener, alone: float32 `[c, c]`, see `StageCheck`.
      own: float32 `[B, c]`, its coordinates.
      left: float32 `[B, c]`, what the others do not predict of them.

    Returns:
      float32 `[T, B]`.
    """
    white = left @ whitener
    a = jnp.square(white).sum(-1)
    b = jnp.square(own @ alone).sum(-1)
    c = left.shape[-1]
    single = jnp.abs(white @ whitener.T) / jnp.linalg.norm(whitener, axis=-1)[None]
    outstanding = single.max(-1) / jnp.sqrt(a / c + 1e-6)
    return jnp.stack([jnp.log((c + a) / (c + b)), jnp.log1p(a / c), outstanding])


def difference(
    check: StageCheck,
    place: jax.Array,
    stage: CodedStage,
    params: PyTree,
    results: Results,
    *,
    arrived: jax.Array,
) -> Difference:
    """Computes what differs from predictions.

    Args:
      check: of the stage.
      place: of the results that arrived, in `StageCheck.places`.
      stage, params, results, arrived: as of `predict`.
    """
    predicted = predict(stage, params, results, arrived)
    shares = shares_of(stage, results.features)
    own = coordinates(check.means, check.bases, shares)
    decoded = coordinates(check.means, check.bases, predicted.shares)
    n, batch, c = own.shape
    others = arrived[None] & ~jnp.eye(n, dtype=bool)
    of_others = jnp.where(others[:, None, :, None], jnp.moveaxis(own, 0, 1)[None], 0)
    decoded = jnp.where(jnp.array(predicted.known)[:, None, None], decoded, 0)
    ones = jnp.ones((n, batch, 1), own.dtype)
    parts = [of_others.reshape(n, batch, n * c), decoded, ones]
    inputs = expanded(check.hidden, jnp.concatenate(parts, axis=-1))
    left = own - jnp.einsum("nbp,npc->nbc", inputs, check.weights[place])
    return Difference(own, left, largest_difference(shares, predicted.shares))


def expanded(hidden: Any, inputs: Any) -> jax.Array:
    """Returns inputs `[..., p]` with H hidden values behind them, `[..., p + H]`."""
    return jnp.concatenate([inputs, jax.nn.relu(inputs @ hidden)], axis=-1)


def largest_difference(shares: jax.Array, predicted: jax.Array) -> jax.Array:
    """Returns the largest difference of values of each result, `[n, B]`."""
    return jnp.abs(shares - predicted).max(axis=(2, 3, 4)).astype(jnp.float32)
