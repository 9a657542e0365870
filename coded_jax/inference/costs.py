"""Costs of a coded inference: operations and bytes, of the client and of a device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from coded_jax.codes import erasures
from coded_jax.inference.pipeline import Pipeline
from coded_jax.inference.stages import CodedStage, Segment
from coded_jax.splitting import SplitPlan
from coded_jax.types import Block, PyTree

Shape = tuple[int, ...]


class Cost(NamedTuple):
    """The cost of one inference for one image, whatever the strategy.

    Every strategy has one such record: uncoded, hedged, replicated, coded by stages or
    by convolutions, or the whole image on every device.

    Attributes:
      device_flops: floating point operations of the busiest device.
      client_flops: of whoever splits, encodes, decodes and runs what is not coded.
      bytes_in, bytes_out: that the busiest device receives and returns, in all rounds.
      rounds: how often the client sends pieces and waits for results.
    """

    device_flops: float
    client_flops: float
    bytes_in: int
    bytes_out: int
    rounds: int


class StageCost(NamedTuple):
    """The cost of a coded stage, or of blocks that are computed whole, for one image.

    Attributes:
      blocks: first and last, counted from 1.
      plan: how the stage is split; None if it is computed whole.
      input_shape: `(H, W, C)`.
      output_shape: `(M*, M'*, D)`.
      flops: floating point operations of the whole stage, without those of its code.
      piece_flops: of one piece on one device; as `flops` without a plan.
      bytes_in, bytes_out: that one device receives and returns; 0 without a plan.
      encode_flops, decode_flops: of its code, where results are lost; 0 without one.
    """

    blocks: tuple[int, int]
    plan: SplitPlan | None
    input_shape: Shape
    output_shape: Shape
    flops: float
    piece_flops: float
    bytes_in: int = 0
    bytes_out: int = 0
    encode_flops: float = 0.0
    decode_flops: float = 0.0


def stage_costs(
    pipeline: Pipeline, variables: PyTree, image_shape: tuple[int, int, int]
) -> list[StageCost]:
    """Computes the costs of all blocks of a pipeline, in their order.

    Args:
      pipeline: the coded inference.
      variables: of the base model; arrays or shapes (`jax.ShapeDtypeStruct`).
      image_shape: `(H, W, C)` of an input.
    """
    costs, shape = [], tuple(image_shape)
    itemsize = jnp.dtype(pipeline.dtype).itemsize

    def add(part: Segment | CodedStage) -> None:
        nonlocal shape
        if part.blocks is None:
            return
        out = jax.eval_shape(part.f_conv, variables, _image(shape)).shape[1:]
        flops = count_flops(part.f_conv, variables, shape)
        cost = StageCost(part.blocks, None, shape, out, flops, flops)
        if isinstance(part, CodedStage):
            plan, code_cost = part.plan, code_flops(pipeline, part)
            cost = cost._replace(
                plan=plan,
                piece_flops=count_flops(part.f_conv, variables, plan.piece_shape),
                bytes_in=itemsize * math.prod(plan.piece_shape),
                bytes_out=itemsize * math.prod(plan.share_shape),
                encode_flops=code_cost[0],
                decode_flops=code_cost[1],
            )
        costs.append(cost)
        shape = out

    for stage in pipeline.stages:
        add(stage.before)
        add(stage)
    add(pipeline.after)
    return costs


def total_cost(costs: Sequence[StageCost]) -> Cost:
    """Adds the costs of the stages of one inference in which results are lost."""
    coded = [cost for cost in costs if cost.plan]
    return Cost(
        device_flops=sum(cost.piece_flops for cost in coded),
        client_flops=sum(
            cost.encode_flops + cost.decode_flops if cost.plan else cost.flops
            for cost in costs
        ),
        bytes_in=sum(cost.bytes_in for cost in coded),
        bytes_out=sum(cost.bytes_out for cost in coded),
        rounds=len(coded),
    )


def code_flops(pipeline: Pipeline, stage: CodedStage) -> tuple[float, float]:
    """Counts the operations of encoding, and of decoding where results are lost.

    Decoding by matrices counts what the worst pattern of at most r losses needs, for
    that needs no copies and no zeros; a decoder network counts as it is.
    """
    plan, code = stage.plan, stage.code
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
    """Counts the floating point operations of `f` on one image of `shape`, as XLA does.

    It is of the program before optimisation; products with padding are left out.
    """
    return _flops(f, variables, _image(shape))


def _flops(f: Callable[..., PyTree], *args: PyTree) -> float:
    # As on an accelerator: on CPUs some convolutions are larger products of zeros.
    lowered = jax.jit(f).trace(*args).lower(lowering_platforms=("cuda",))
    return float(lowered.cost_analysis().get("flops", 0))  # type: ignore


def coded_fraction(costs: Sequence[StageCost]) -> float:
    """Returns the coded stages' share of the `flops` of all."""
    return sum(c.flops for c in costs if c.plan) / sum(c.flops for c in costs)


def work_fraction(costs: Sequence[StageCost]) -> float:
    """Returns what a device computes of the coded stages, as a share of their area.

    For several stages, the mean of their `SplitPlan.work_fraction` by `flops`.
    """
    coded = [cost for cost in costs if cost.plan]
    done = sum(cost.flops * cost.plan.work_fraction for cost in coded)  # type: ignore
    return done / sum(cost.flops for cost in coded)


def _image(shape: Shape) -> jax.ShapeDtypeStruct:
    return _floats(1, *shape)


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
