"""What a plan costs: arithmetic and bytes of every stage, whole and on one device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from coded_jax.pipeline import Pipeline
from coded_jax.splitting import SplitPlan
from coded_jax.types import Block, PyTree

Shape = tuple[int, ...]


class StageCost(NamedTuple):
    """One stage, for one image.

    Attributes:
      blocks: first and last, from 1 on.
      plan: how it is split; None if it is computed whole.
      input_shape: `(H, W, C)`.
      output_shape: `(M*, M'*, D)`.
      flops: of the whole stage, floating point operations; its code not counted.
      piece_flops: of one piece on one device; as `flops` without a plan.
      bytes_in, bytes_out: that one device receives and returns; 0 without a plan.
    """

    blocks: tuple[int, int]
    plan: SplitPlan | None
    input_shape: Shape
    output_shape: Shape
    flops: float
    piece_flops: float
    bytes_in: int
    bytes_out: int


def stage_costs(
    pipeline: Pipeline, variables: PyTree, image_shape: tuple[int, int, int]
) -> list[StageCost]:
    """The costs of all stages of a pipeline.

    Args:
      pipeline: the coded inference.
      variables: of the base model; arrays or `jax.ShapeDtypeStruct`s.
      image_shape: `(H, W, C)`.
    """
    costs, shape = [], tuple(image_shape)
    itemsize = jnp.dtype(pipeline.dtype).itemsize
    for stage in pipeline.stages:
        plan = stage.coding and stage.coding.plan
        out = jax.eval_shape(stage.f_conv, variables, _image(shape)).shape[1:]
        flops = piece_flops = count_flops(stage.f_conv, variables, shape)
        moved = (0, 0)
        if plan:
            piece_flops = count_flops(stage.f_conv, variables, plan.piece_shape)
            moved = tuple(
                itemsize * math.prod(sizes)
                for sizes in (plan.piece_shape, plan.share_shape)
            )
        costs.append(
            StageCost(stage.blocks, plan, shape, out, flops, piece_flops, *moved)
        )
        shape = out
    return costs


def count_flops(f: Block, variables: PyTree, shape: Shape) -> float:
    """Floating point operations of `f` on one image of `shape`, by XLA's count.

    It is of the program before optimisation; products with padding are left out.
    """
    # As on an accelerator: on CPUs some convolutions are larger products of zeros.
    traced = jax.jit(f).trace(variables, _image(shape))
    cost = traced.lower(lowering_platforms=("cuda",)).cost_analysis()
    return float(cost["flops"])  # type: ignore


def coded_fraction(costs: Sequence[StageCost]) -> float:
    """The coded stages' share of the `flops` of all."""
    return sum(c.flops for c in costs if c.plan) / sum(c.flops for c in costs)


def work_fraction(costs: Sequence[StageCost]) -> float:
    """What a device computes of the coded stages, as a share of their area.

    For several stages, the mean of their `SplitPlan.work_fraction` by `flops`.
    """
    coded = [cost for cost in costs if cost.plan]
    done = sum(cost.flops * cost.plan.work_fraction for cost in coded)  # type: ignore
    return done / sum(cost.flops for cost in coded)


def _image(shape: Shape) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *shape), jnp.float32)
