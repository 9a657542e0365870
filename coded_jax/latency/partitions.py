"""Stages into which the blocks of a CNN are cut, by the work that their overlaps cost.

A longer stage is one round for more blocks, and its pieces overlap more. So there are
several cuts that are worth a comparison, and none that is the best for all links.
"""

from __future__ import annotations

import functools
import math

import jax

from coded_jax.splitting.plan import make_plan
from coded_jax.types import BaseModel, PyTree, chain

Stages = tuple[tuple[int, int], ...]

OVERHEADS = (0.25, 0.75, 2.0)
"""Limits what the pieces of a stage compute twice, as a part of the stage."""


def partitions(
    base: BaseModel,
    variables: PyTree,
    image_shape: tuple[int, int, int],
    grid: tuple[int, int],
) -> list[Stages]:
    """Returns cuts into stages, of which each can be split by `grid`.

    A cut begins a stage at the first block that can be split, ends it before the block
    with which its pieces would compute more of it twice than one of `OVERHEADS`, and
    goes on so. Each is there with all its stages and with the first alone; blocks in no
    stage are computed whole by the client.

    Args:
      base: the CNN.
      variables: arrays or shapes (`jax.ShapeDtypeStruct`).
      image_shape: `(H, W, C)`.
      grid: pieces along rows and columns.

    Returns:
      Stages by their first and last block, counted from 1; each cut once, none without
      stages.
    """
    shapes, x = [], jax.ShapeDtypeStruct((1, *image_shape), "float32")
    for block in base.blocks:
        shapes.append(x.shape[1:])
        x = jax.eval_shape(block, variables, x)

    @functools.cache
    def overhead(first: int, last: int) -> float:
        f_conv = chain(base.blocks[first - 1 : last])
        try:
            plan = make_plan(f_conv, variables, shapes[first - 1], grid)
        except ValueError:  # too few rows, or a piece is the whole image
            return math.inf
        return plan.work_fraction * plan.k - 1

    def cut(most: float) -> Stages:
        stages, first = [], 1
        while first <= len(base.blocks):
            last = first
            while last <= len(base.blocks) and overhead(first, last) <= most:
                last += 1
            if last > first:
                stages.append((first, last - 1))
            first = max(last, first + 1)
        return tuple(stages)

    cuts = [stages for most in OVERHEADS for stages in (cut(most), cut(most)[:1])]
    return [stages for stages in dict.fromkeys(cuts) if stages]


def grid_of(k: int) -> tuple[int, int]:
    """Returns the rows and columns of k pieces that are most alike, as (3, 2) of 6."""
    columns = max(i for i in range(1, math.isqrt(k) + 1) if k % i == 0)
    return k // columns, columns
