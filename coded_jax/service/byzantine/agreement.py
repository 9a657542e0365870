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
import numpy as np

from coded_jax import splitting
from coded_jax.codes.quorum import pieces_of
from coded_jax.inference.pipeline import Results
from coded_jax.inference.stages import CodedStage, end_stage, shares_of
from coded_jax.types import PyTree, apart

STATISTICS = 3


class Directions(NamedTuple):
    """The means and bases of a `StageCheck`."""

    means: Any
    bases: Any


class Observed(NamedTuple):
    """Results, and what the code makes of the others.

    Attributes:
      own: float32 `[n, B, c]`, coordinates of the results.
      decoded: float32 `[n, B, c]`, those of the shares that are decoded from the other
        results; zeros where none is.
      largest: float32 `[n, B]`, the largest difference of values of the two; infinite
        where none is decoded.
    """

    own: Any
    decoded: Any
    largest: Any


def observe(
    stage: CodedStage,
    params: PyTree,
    directions: Directions,
    results: Results,
    arrived: jax.Array,
) -> Observed:
    """Compares every result with what is decoded from the others.

    Args:
      stage: the coded stage.
      params: of its code.
      directions: in which results are looked at.
      results: whose features are zeros for what did not arrive.
      arrived: bool `[n]`.
    """
    shares = shares_of(stage, results.features)
    predicted, known = _predict(stage, params, results, arrived)
    largest = jnp.abs(shares - predicted).max(axis=(2, 3, 4)).astype(jnp.float32)
    decoded = coordinates(directions, predicted)
    return Observed(
        coordinates(directions, shares),
        jnp.where(known[:, None, None], decoded, 0),
        jnp.where(known[:, None], largest, jnp.inf),
    )


def _predict(
    stage: CodedStage, params: PyTree, results: Results, arrived: jax.Array
) -> tuple[jax.Array, np.ndarray]:
    """Decodes every result from the others.

    Of data pieces that is their share. Where queries are weighted sums of pieces,
    results are those sums of shares; so what is decoded is encoded again.

    Returns:
      `[n, B, M, M', D]`, and bool `[n]`, whether the code makes something of it.
    """
    features, kept = results
    n, batch = features.shape[:2]
    sums = _encodes_shares(stage, params, features)
    copies = range(n) if sums else pieces_of(stage.code.quorum, stage.plan.k, n)
    left_out = np.array([i for i in range(n) if copies[i] is not None])
    others = arrived[None] & ~jnp.eye(n, dtype=bool)[jnp.array(left_out)]
    available = jnp.repeat(others.T, batch, axis=1)  # [n, m B]
    repeated = jnp.concatenate([features] * len(left_out), axis=1)
    guide = kept[: stage.code.traits.guided]
    guide = tuple(jnp.concatenate([x] * len(left_out)) for x in guide)
    decoded_stage = end_stage(
        stage, params, repeated, available, guide, unconditional=True
    )
    decoded = splitting.shares(stage.plan, apart(decoded_stage)[0])
    if sums:
        decoded = stage.code.encode(params, decoded)
    decoded = decoded.reshape(len(decoded), -1, batch, *decoded.shape[2:])
    shares = [jnp.zeros_like(decoded[0, 0])] * n
    for m, i in enumerate(left_out):
        shares[i] = decoded[copies[i], m]
    return jnp.stack(shares), np.isin(np.arange(n), left_out)


def _encodes_shares(stage: CodedStage, params: PyTree, features: jax.Array) -> bool:
    """Returns whether the encoder can encode shares as it encodes pieces: it only
    weighs pieces, without learned parameters or a network."""
    n, batch = features.shape[:2]
    shape = (stage.plan.k, batch, *stage.plan.share_shape)
    shares = jax.ShapeDtypeStruct(shape, features.dtype)
    try:
        encoded = jax.eval_shape(stage.code.encode, params, shares)
    except (TypeError, ValueError):  # of a user's own, for one shape
        return False
    return not jax.tree.leaves(params) and encoded.shape == (n, *shape[1:])


def roots(shares: jax.Array) -> jax.Array:
    """Returns signed square roots, float32 `[n, B, d]`: of values that have more spread
    the larger they are, as behind a ReLU, these have about the same."""
    flat = shares.reshape(*shares.shape[:2], -1).astype(jnp.float32)
    return jnp.sign(flat) * jnp.sqrt(jnp.abs(flat))


def coordinates(directions: Directions, shares: jax.Array) -> jax.Array:
    """Returns the coordinates of results.

    Args:
      directions: q of them.
      shares: `[n, B, M, M', D]`.

    Returns:
      float32 `[n, B, c]`: along the q directions; where these are fewer than the values
      of a share, also the logarithm of what they leave out, and c is `q + 1`.
    """
    means, bases = directions
    centred = roots(shares) - means[:, None]
    along = jnp.einsum("nbd,ndq->nbq", centred, bases)
    if bases.shape[1] == bases.shape[2]:
        return along
    left = jnp.square(centred).sum(-1) - jnp.square(along).sum(-1)
    energy = jnp.log(jnp.maximum(left, 0) / bases.shape[1] + 1e-6)
    return jnp.concatenate([along, energy[..., None]], axis=-1)


def regressors(hidden: Any, own: Any, decoded: Any, others: Any) -> jax.Array:
    """Returns the inputs of the regression of one result, float32 `[B, p + H]`.

    Args:
      hidden: see `StageCheck`.
      own: float32 `[n, B, c]`, the coordinates of all results.
      decoded: float32 `[B, c]`, what the code makes of it.
      others: bool `[n]`, the other results that arrived.
    """
    used = jnp.where(others[:, None, None], own, 0)
    used = jnp.moveaxis(used, 0, 1).reshape(len(decoded), -1)
    ones = jnp.ones((len(decoded), 1), used.dtype)
    inputs = jnp.concatenate([used, decoded, ones], axis=-1)
    return jnp.concatenate([inputs, jax.nn.relu(inputs @ hidden)], axis=-1)


def statistics(whitener: Any, alone: Any, own: Any, left: Any) -> jax.Array:
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
