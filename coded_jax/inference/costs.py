"""Costs of a coded inference: operations and bytes, of the client and of a device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from coded_jax.codes import erasures, quorum
from coded_jax.inference.operations import count_operations, operations_and_output
from coded_jax.inference.pipeline import Pipeline
from coded_jax.inference.stages import CodedStage
from coded_jax.splitting import Plan, ViewPlan
from coded_jax.types import BaseModel, Block, PyTree, apart

Shape = tuple[int, ...]


class Round(NamedTuple):
    """One trip to the devices and back, for one image: a coded stage, or a layer.

    Attributes:
      device_flops: floating point operations of the busiest device.
      bytes_in, bytes_out: that it receives and returns.
      encode_flops: of the client, before anything is sent.
      decode_flops: of the client, where results are lost.
    """

    device_flops: float
    bytes_in: float = 0
    bytes_out: float = 0
    encode_flops: float = 0.0
    decode_flops: float = 0.0


class Cost(NamedTuple):
    """The cost of one inference of one image, whatever the strategy.

    Every strategy has one such record: uncoded, hedged, replicated, coded by stages or
    by convolutions, or the whole image on every device. Plan, frontier, simulator,
    planner, latency study and reports read it.

    Attributes:
      rounds: in their order; each begins when the one before has ended.
      client_flops: of the blocks that the client computes whole, between the rounds.
      whole: the whole `F_Conv` in one round on one device, which returns logits.
      devices: those that have pieces, or stand by for lost ones.
      memory: bytes that a code adds to the network: its parameters, and the second copy
        of the tail if there is one.
      second_tail: operations of the client for the blocks after the last coded stage,
        which are added if each image has a mask of its own, since both tails are
        computed then; 0 without a second tail.
    """

    rounds: tuple[Round, ...]
    client_flops: float
    whole: Round
    devices: int
    memory: float = 0.0
    second_tail: float = 0.0

    @property
    def whole_flops(self) -> float:
        """Operations of the whole `F_Conv`."""
        return self.whole.device_flops

    @property
    def total(self) -> Round:
        """Returns the sums of all rounds."""
        return Round(*map(sum, zip(Round(0), *self.rounds, strict=True)))

    @property
    def device_flops(self) -> float:
        """Operations of the busiest device, in all rounds."""
        return self.total.device_flops

    @property
    def client_total(self) -> float:
        """Operations of the client: its blocks, its encoders, and its decoders, where
        results are lost in all rounds."""
        return self.client_flops + self._coding

    @property
    def _coding(self) -> float:
        return self.total.encode_flops + self.total.decode_flops

    @property
    def coded_flops(self) -> float:
        """Operations of the coded blocks on one whole image."""
        return self.whole_flops - self.client_flops

    @property
    def price(self) -> float:
        """Operations of encoding and decoding, over those of the coded blocks."""
        return self._coding / self.coded_flops

    @property
    def parts(self) -> dict[str, float]:
        """Returns work as fractions of the whole `F_Conv`: the client encodes, a device
        computes its pieces, the client decodes, and computes what is not coded."""
        flops = {
            "encode": self.total.encode_flops,
            "piece": self.device_flops,
            "decode": self.total.decode_flops,
            "uncoded": self.client_flops,
        }
        return {part: value / self.whole_flops for part, value in flops.items()}

    def to_json(self) -> dict[str, Any]:
        """Returns the record as `results.json` has it, with the sums of all rounds."""
        return {
            "whole": self.whole_flops,
            "uncoded": self.client_flops,
            "piece": self.device_flops,
            "encode": self.total.encode_flops,
            "decode": self.total.decode_flops,
            "devices": self.devices,
            "memory": self.memory,
            "second_tail": self.second_tail,
            "whole_bytes": [self.whole.bytes_in, self.whole.bytes_out],
            "rounds": [trip._asdict() for trip in self.rounds],
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Cost:
        """Returns the record that `to_json` has written."""
        return cls(
            rounds=tuple(Round(**trip) for trip in fields["rounds"]),
            client_flops=fields["uncoded"],
            whole=Round(fields["whole"], *fields["whole_bytes"]),
            devices=fields["devices"],
            memory=fields.get("memory", 0.0),
            second_tail=fields.get("second_tail", 0.0),
        )

    def on_every_device(self, devices: int) -> Cost:
        """Returns the cost of the whole image on each of some devices, of which the
        first one answers; or on a single one."""
        return Cost((self.whole,), 0.0, self.whole, devices)


class StageCost(NamedTuple):
    """The cost of a coded stage, or of blocks that are computed whole, for one image.

    Attributes:
      blocks: first and last, counted from 1.
      input_shape: `(H, W, C)`.
      output_shape: `(M*, M'*, D)`.
      flops: floating point operations of the whole stage, without those of its code.
      plan: how the stage is split; None if it is computed whole.
      trip: what a coded stage costs; None if it is computed whole.
    """

    blocks: tuple[int, int]
    input_shape: Shape
    output_shape: Shape
    flops: float
    plan: Plan | None = None
    trip: Round | None = None


def stage_costs(
    pipeline: Pipeline, variables: PyTree, image_shape: tuple[int, int, int]
) -> list[StageCost]:
    """Computes the costs of all blocks of a pipeline, in their order.

    Args:
      pipeline: the coded inference.
      variables: of the base model; arrays or shapes (`jax.ShapeDtypeStruct`).
      image_shape: `(H, W, C)` of an input.
    """
    costs, state = [], _image(image_shape)
    itemsize = jnp.dtype(pipeline.dtype).itemsize
    parts = [part for stage in pipeline.stages for part in (stage.before, stage)]
    for part in (*parts, pipeline.after):
        if part.blocks is None:
            continue
        before = state
        flops, state = operations_and_output(part.f_conv, variables, before)
        shape, out = (apart(s)[0].shape[1:] for s in (before, state))
        cost = StageCost(part.blocks, shape, out, flops)
        if isinstance(part, CodedStage):
            piece, (encode, decode) = part.plan.piece_shape, code_flops(pipeline, part)
            sent = 1 if _sends_pixels(pipeline, part) else itemsize
            trip = Round(
                device_flops=count_flops(part.f_conv, variables, piece),
                bytes_in=sent * math.prod(piece),
                bytes_out=itemsize * math.prod(part.result_shape),
                encode_flops=encode,
                decode_flops=decode,
            )
            cost = cost._replace(plan=part.plan, trip=trip)
        costs.append(cost)
    return costs


def cost_of(
    pipeline: Pipeline, variables: PyTree, image_shape: tuple[int, int, int]
) -> Cost:
    """Computes the cost of a pipeline's inferences, for one image.

    Args:
      pipeline: the coded inference.
      variables: of the base model; arrays or shapes (`jax.ShapeDtypeStruct`).
      image_shape: `(H, W, C)` of an image.
    """
    images, (height, width, channels) = pipeline.images_per_input, image_shape
    inputs = (images * height, width, channels)
    stages = stage_costs(pipeline, variables, inputs)
    pixel = 1 if pipeline.image_dtype == "uint8" else jnp.dtype(pipeline.dtype).itemsize
    quorums = [stage.code.quorum for stage in pipeline.stages]
    devices = max(len(quorum.sent(own, pipeline.k, pipeline.n)) for own in quorums)
    # Where parity moves, whoever has no piece takes a lost one's in the next stage.
    answers = all(stage.code.traits.answers_always for stage in pipeline.stages)
    if pipeline.coding.parity_moves and answers and len(pipeline.stages) > 1:
        devices = pipeline.n
    copy, after = pipeline.tail_copy, stages[-1]
    params = jax.eval_shape(pipeline.init, jax.random.key(0))
    leaves = jax.tree.leaves(pipeline.of_stages(params))
    memory = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    return Cost(
        rounds=tuple(_shared(cost.trip, images) for cost in stages if cost.trip),
        client_flops=sum(cost.flops for cost in stages if not cost.trip) / images,
        # Not the sum of all blocks: single convolutions are padded for their pieces.
        whole=_shared(whole_round(pipeline.base, variables, inputs, pixel), images),
        devices=devices,
        memory=float(memory + (copy.bytes if copy else 0)),
        second_tail=after.flops / images if copy and not after.trip else 0.0,
    )


def whole_round(
    base: BaseModel, variables: PyTree, image_shape: Shape, pixel: int = 1
) -> Round:
    """Returns the round in which one device computes a whole image.

    It computes the head too, whose operations count for nobody, and returns logits.

    Args:
      base: the CNN.
      variables: arrays or shapes (`jax.ShapeDtypeStruct`).
      image_shape: `(H, W, C)`.
      pixel: bytes of a value of the image.
    """
    image = _image(image_shape)
    flops, features = operations_and_output(base.f_conv, variables, image)
    logits = jax.eval_shape(base.head, variables, features)
    return Round(flops, pixel * math.prod(image_shape), 4 * math.prod(logits.shape))


def _shared(trip: Round, images: int) -> Round:
    """Returns a round for one of the images that share it."""
    return Round(*(value / images for value in trip))


def code_flops(pipeline: Pipeline, stage: CodedStage) -> tuple[float, float]:
    """Counts the operations of encoding, and of decoding where results are lost.

    A code of matrices counts what its best implementation needs, for the worst pattern
    of at most r losses: no product with 0 or 1, and nothing for what has arrived. A
    network counts as it is.
    """
    plan, code = stage.plan, stage.code
    k, n = pipeline.k, pipeline.n
    params = jax.eval_shape(code.init, jax.random.key(0))
    if code.traits.flops.encode is None:
        pieces = _floats(k if plan.exact else n, 1, *plan.piece_shape)
        encode = count_operations(code.encode, params, pieces)
    else:
        encode = float(code.traits.flops.encode * math.prod(plan.piece_shape))
    if code.traits.flops.decode is not None:
        patterns = erasures.patterns_up_to(n, pipeline.r)
        most = max(code.traits.flops.decode(pattern) for pattern in patterns)
        return encode, float(most * math.prod(plan.share_shape))
    features = _floats(n, 1, *stage.result_shape)
    available = jax.ShapeDtypeStruct((n, 1), jnp.bool_)
    guide = (_floats(k, 1, *plan.piece_shape),) if code.traits.guided else ()
    return encode, count_operations(code.decode, params, features, available, *guide)


def count_flops(f: Block, variables: PyTree, shape: Shape) -> float:
    """Counts the floating point operations of `f` on one image of `shape`, see
    `operations.count_operations`."""
    return count_operations(f, variables, _image(shape))


def _sends_pixels(pipeline: Pipeline, stage: CodedStage) -> bool:
    """Returns whether the devices can be sent pixels of a byte, to be normalised there:
    copies of pieces of the images, not mixtures; or views of them."""
    copies = quorum.pieces_of(stage.code.quorum, pipeline.k, pipeline.n)
    sent = quorum.sent(stage.code.quorum, pipeline.k, pipeline.n)
    is_first = stage is pipeline.stages[0] and stage.before.blocks is None
    pixels = pipeline.image_dtype == "uint8"
    views = isinstance(stage.plan, ViewPlan)
    copied = views or all(copies[i] is not None for i in sent)
    return is_first and pixels and copied


def coded_fraction(costs: Sequence[StageCost]) -> float:
    """Returns the coded stages' share of the `flops` of all."""
    return sum(c.flops for c in costs if c.plan) / sum(c.flops for c in costs)


def work_fraction(costs: Sequence[StageCost]) -> float:
    """Returns the part of the coded stages' area that a device computes.

    For several stages, the mean of their `SplitPlan.work_fraction` by `flops`.
    """
    coded = [(cost.flops, cost.plan.work_fraction) for cost in costs if cost.plan]
    done = sum(flops * fraction for flops, fraction in coded)
    return done / sum(flops for flops, _ in coded)


def _image(shape: Shape) -> jax.ShapeDtypeStruct:
    return _floats(1, *shape)


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
