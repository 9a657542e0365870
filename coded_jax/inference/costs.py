"""What a plan costs: arithmetic and bytes of every stage, whole and on one device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from coded_jax.codes import erasures
from coded_jax.inference.pipeline import Pipeline
from coded_jax.inference.stages import Coding
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
      encode_flops, decode_flops: of its code, where results are lost; 0 without one.
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
    encode_flops: float = 0.0
    decode_flops: float = 0.0


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
        bytes_in = bytes_out = 0
        if plan:
            piece_flops = count_flops(stage.f_conv, variables, plan.piece_shape)
            bytes_in = itemsize * math.prod(plan.piece_shape)
            bytes_out = itemsize * math.prod(plan.share_shape)
        code = code_flops(pipeline, stage.coding) if stage.coding else (0.0, 0.0)
        costs.append(
            StageCost(
                stage.blocks,
                plan,
                shape,
                out,
                flops,
                piece_flops,
                bytes_in,
                bytes_out,
                encode_flops=code[0],
                decode_flops=code[1],
            )
        )
        shape = out
    return costs


def code_flops(pipeline: Pipeline, coding: Coding) -> tuple[float, float]:
    """Of encoding, and of decoding where results are lost, for one image.

    Decoding by matrices counts what the worst pattern of at most r losses needs, for
    that needs no copies and no zeros; a decoder network counts as it is.
    """
    plan, code = coding
    k, n = pipeline.k, pipeline.n
    params = jax.eval_shape(code.init, jax.random.key(0))
    encode = _flops(code.encode, params, _floats(k, 1, *plan.piece_shape))
    if code.decode_flops is not None:
        patterns = erasures.patterns_up_to(n, pipeline.r)
        most = max(code.decode_flops(pattern) for pattern in patterns)
        return encode, float(most * math.prod(plan.share_shape))
    features = _floats(n, 1, *plan.share_shape)
    available = jax.ShapeDtypeStruct((n, 1), jnp.bool_)
    return encode, _flops(code.decode, params, features, available)


def count_flops(f: Block, variables: PyTree, shape: Shape) -> float:
    """Floating point operations of `f` on one image of `shape`, by XLA's count.

    It is of the program before optimisation; products with padding are left out.
    """
    return _flops(f, variables, _image(shape))


def _flops(f: Callable[..., PyTree], *args: PyTree) -> float:
    # As on an accelerator: on CPUs some convolutions are larger products of zeros.
    lowered = jax.jit(f).trace(*args).lower(lowering_platforms=("cuda",))
    return float(lowered.cost_analysis().get("flops", 0))  # type: ignore


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
    return _floats(1, *shape)


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
