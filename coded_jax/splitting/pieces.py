"""Cutting images into overlapping pieces, and merging the features; see `plan`."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from coded_jax.checks import require_shape, require_type
from coded_jax.types import SplitPlan


def split(plan: SplitPlan, images: jax.Array) -> jax.Array:
    """Cuts images into the overlapping pieces of a plan.

    Args:
      plan: from `make_plan`.
      images: `[B, H, W, C]`.

    Returns:
      `[k, B, h, w, C]`, of the same dtype.

    Raises:
      ValueError: the images do not have the plan's shape.
    """
    require_type("plan", plan, SplitPlan, "a SplitPlan, as of make_plan,")
    rows, columns = plan.rows, plan.columns
    require_shape("images", images, "B", rows.size, columns.size, plan.channels)
    return jnp.stack(
        [
            images[:, i : i + rows.window, j : j + columns.window]
            for i in rows.starts
            for j in columns.starts
        ]
    )


def cut(
    plan: SplitPlan, outputs: jax.Array, copied: Sequence[int | None] | None = None
) -> jax.Array:
    """Cuts each share out of the output of `f_conv` on its piece.

    Args:
      plan: the split.
      outputs: `[m, B, h, w, D]`.
      copied: for each output, the data piece that it was computed from; None for a
        mixture of pieces, which is cut as an interior data piece is. If None, the
        outputs are those of the k data pieces, then of mixtures.

    Returns:
      `[m, B, M, M', D]`.
    """
    if copied is None:
        copied = (*range(plan.k), *[None] * (len(outputs) - plan.k))
    offsets = cut_offsets(plan, copied)
    height, width = plan.rows.share, plan.columns.share
    if len(set(offsets)) == 1:
        i, j = offsets[0]
        return outputs[:, :, i : i + height, j : j + width]
    return jnp.stack(
        [
            output[:, i : i + height, j : j + width]
            for output, (i, j) in zip(outputs, offsets, strict=True)
        ]
    )


def cut_offsets(plan: SplitPlan, copied: Sequence[int | None]) -> list[tuple[int, int]]:
    """Returns first row and column of each share in the output of its piece."""
    offsets = [(i, j) for i in plan.rows.cuts for j in plan.columns.cuts]
    return [offsets[plan.interior if i is None else i] for i in copied]


def merge(plan: SplitPlan, shares: jax.Array) -> jax.Array:
    """Joins the shares of the features, dropping the surplus.

    Args:
      plan: from `make_plan`.
      shares: `[k, B, M, M', D]`.

    Returns:
      `[B, M*, M'*, D]`.

    Raises:
      ValueError: the shares do not have the plan's shape.
    """
    require_type("plan", plan, SplitPlan, "a SplitPlan, as of make_plan,")
    require_shape("shares", shares, plan.k, "B", *plan.share_shape)
    rows, columns = plan.grid
    strips = []
    for i in range(rows):
        strip = [shares[i * columns + j] for j in range(columns)]
        strip[-1] = strip[-1][:, :, plan.columns.surplus :]
        strips.append(jnp.concatenate(strip, axis=2))
    strips[-1] = strips[-1][:, plan.rows.surplus :]
    return jnp.concatenate(strips, axis=1)


def shares(plan: SplitPlan, merged: jax.Array) -> jax.Array:
    """Cuts `[B, M*, M'*, D]` features into `[k, B, M, M', D]` shares.

    `merge` is the inverse.
    """
    return jnp.stack(
        [
            merged[:, i : i + plan.rows.share, j : j + plan.columns.share]
            for i in plan.rows.firsts
            for j in plan.columns.firsts
        ]
    )
