"""Blends what the outputs of other pieces show into the estimate of a lost share.

A piece overlaps its neighbours, and so does the output of `F_Conv` for it: beside its
own share there is a margin of features that belong to the neighbours' shares. They are
not exact, since their receptive fields end where the piece does, and a split throws
them away. Where devices return them (`Traits.uncut`), they are a second view of a share
that was lost, sharp and near where it borders on one that arrived, for no work.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from coded_jax import splitting
from coded_jax.types import CodeShape, PyTree, SplitPlan

STEEPNESS = 4.0  # a weight is learned in fewer steps than by a plain logistic function


class Margins(NamedTuple):
    """Features of q shares of each image, from the outputs of other pieces.

    Attributes:
      features: `[q, B, M, M', D]`, their mean; zeros where there are none.
      covered: bool `[q, B, M, M', 1]` or `[q, 1, M, M', 1]`, where there are some.
    """

    features: jax.Array
    covered: jax.Array


def init(shape: CodeShape) -> PyTree:
    """Returns `[k, M, M']` for `blend`, where margins and other views weigh alike."""
    return jnp.zeros((shape.k, *shape.share[:2]))


def of_shares(
    plan: SplitPlan, outputs: jax.Array, available: jax.Array, shares: jax.Array
) -> Margins:
    """Takes the features of some shares from the outputs that arrived.

    Args:
      plan: of the split.
      outputs: `[k, B, h', w', D]`, of the data pieces; zeros where none arrived.
      available: bool `[k, B]` or `[k, 1]`.
      shares: int32 `[q, B]` or `[q, 1]`, which shares of each image.
    """
    arrived = available[:, :, None, None, None].astype(outputs.dtype)
    weights = jnp.broadcast_to(arrived, (*arrived.shape[:2], *outputs.shape[2:4], 1))
    total = count = jnp.zeros((), outputs.dtype)
    for i in range(plan.k):
        rows, columns = _place(plan, i)
        beside = ((0, 0), (rows.start, plan.rows.out - rows.stop))
        beside += ((columns.start, plan.columns.out - columns.stop), (0, 0))
        total += jnp.pad(outputs[i], beside)
        count += jnp.pad(weights[i], beside)
    mean = total / jnp.maximum(count, 1)
    take = lambda x: take_shares(splitting.shares(plan, x), shares)
    return Margins(take(mean), take(count) > 0)


def take_shares(shares: jax.Array, numbers: jax.Array) -> jax.Array:
    """Takes q of the k shares of each image.

    Args:
      shares: `[k, B, ...]`.
      numbers: int32 `[q, B]`, or `[q, 1]` for the same ones of all.

    Returns:
      `[q, B, ...]`.
    """
    if numbers.shape[1] == 1:
        return shares[numbers[:, 0]]
    index = numbers.reshape(*numbers.shape, *[1] * (shares.ndim - 2))
    return jnp.take_along_axis(shares, index, axis=0)


def blend(
    weights: jax.Array, margins: Margins, shares: jax.Array, other: jax.Array
) -> jax.Array:
    """Blends margins with another view of the shares, where there are any.

    Args:
      weights: `[k, M, M']`, as `init` gives them.
      margins: of `of_shares`.
      shares: int32 `[q, B]` or `[q, 1]`, which shares of each image.
      other: `[..., q, B, M, M', D]`.

    Returns:
      As `other`.
    """
    part = jax.nn.sigmoid(STEEPNESS * weights)[shares][..., None].astype(other.dtype)
    part = jnp.where(margins.covered, part, 0)
    lead = (1,) * (other.ndim - part.ndim)
    part, features = (x.reshape(lead + x.shape) for x in (part, margins.features))
    return other + part * (features - other)


def window_of(plan: SplitPlan, merged: jax.Array, piece: int) -> jax.Array:
    """Takes the place of a piece's output out of the whole features.

    Args:
      plan: of the split.
      merged: `[B, M*, M'*, D]`.
      piece: its number.

    Returns:
      `[B, h', w', D]`.
    """
    return merged[:, *_place(plan, piece)]


def _place(plan: SplitPlan, piece: int) -> list[slice]:
    """Returns rows and columns of a piece's output in the whole features."""
    places = zip((plan.rows, plan.columns), divmod(piece, plan.grid[1]), strict=True)
    firsts = [(int(axis.starts[i] // axis.stride), axis.outputs) for axis, i in places]
    return [slice(first, first + outputs) for first, outputs in firsts]
