"""What the front end computes of a coded inference, and what its workers do.

    start     images -> queries of the first coded stage        front end
    work      a query -> its share                              one worker
    advance   shares that arrived -> queries of the next        front end
              coded stage, or at last logits

A worker has the frozen network and nothing of the code, but for codes whose parity
pieces have networks of their own. Any worker can compute any piece, of any code: which
blocks, and where the share is cut out, it is told with the piece.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax import splitting
from coded_jax.inference.pipeline import Pipeline, answers, pixels
from coded_jax.inference.stages import Stage, compute, queries, recover
from coded_jax.types import Code, PyTree, chain


class Piece(NamedTuple):
    """What a worker is told of a piece, beside its pixels.

    Attributes:
      blocks: of the base model, the first and the last one that compute it.
      index: data piece `0..k-1` or parity piece `k..n-1`.
      offset: first row and column of the share in what the blocks make of the piece.
      share: `(M, M', D)`.
    """

    blocks: tuple[int, int]
    index: int
    offset: tuple[int, int]
    share: tuple[int, int, int]


Work = Callable[[Piece, Any], jax.Array]
"""`(piece, query [B, h, w, C]) -> share [B, M, M', D]`."""


@functools.partial(jax.jit, static_argnums=0)
def start(
    pipeline: Pipeline, frozen: PyTree, params: PyTree, images: jax.Array
) -> tuple[jax.Array, ...]:
    """Queries of the first coded stage.

    Args:
      pipeline: the functions.
      frozen, params: of the base model and of its codes.
      images: uint8 `[B, H, W, C]`; B is a multiple of the pipeline's `group`.

    Returns:
      n of `[B, h, w, C]`, where B counts groups.
    """
    if pipeline.group > 1:
        _, height, *rest = images.shape
        images = images.reshape(-1, pipeline.group * height, *rest)
    return _onward(pipeline, frozen, params, pixels(pipeline, images), 0, 0)


@functools.partial(jax.jit, static_argnums=(0, 1))
def advance(
    pipeline: Pipeline,
    coded: int,
    frozen: PyTree,
    params: PyTree,
    shares: tuple[jax.Array, ...],
    available: jax.Array,
) -> tuple[jax.Array, ...] | jax.Array:
    """Decodes a stage, and goes on to the next one.

    Args:
      pipeline: the functions.
      coded: which of the coded stages, from 0.
      frozen, params: of the base model and of its codes.
      shares: n of `[B, M, M', D]`; anything for those that did not arrive.
      available: bool `[S, n, 1]`, what arrived in this stage and those before it; of
        the later ones nothing is looked at.

    Returns:
      Queries as of `start`; after the last coded stage logits float32
      `[B * g, classes]`, NaN where there is no answer.
    """
    places = [i for i, stage in enumerate(pipeline.stages) if stage.coding]
    stage = pipeline.stages[places[coded]]
    x = recover(stage, params[coded], jnp.stack(shares), available[coded])
    if coded + 1 < len(places):
        return _onward(pipeline, frozen, params, x, places[coded] + 1, coded + 1)
    for stage in pipeline.stages[places[coded] + 1 :]:
        x = compute(stage, frozen, x)
    found = answers(pipeline, frozen, x.astype(jnp.float32), available)
    return found.reshape(-1, found.shape[-1])


def _onward(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    x: jax.Array,
    at: int,
    coded: int,
) -> tuple[jax.Array, ...]:
    """From the stage number `at` through uncoded ones to a coded one's queries."""
    for stage in pipeline.stages[at:]:
        if stage.coding:
            return tuple(queries(stage, params[coded], x))
        x = compute(stage, frozen, x)
    raise AssertionError("there is one more coded stage")


def pieces(pipeline: Pipeline) -> list[list[Piece]]:
    """The n pieces of every coded stage."""
    found = []
    for stage in pipeline.stages:
        if stage.coding:
            plan, code = stage.coding
            copied = code.copied or (*range(plan.k), *[None] * pipeline.r)
            offsets = splitting.cut_offsets(plan, copied)
            found.append(
                [
                    Piece(stage.blocks, i, offset, plan.share_shape)
                    for i, offset in enumerate(offsets)
                ]
            )
    return found


def make_work(pipeline: Pipeline, frozen: PyTree, params: PyTree) -> Work:
    """What a worker does, on the device that holds the variables.

    Args:
      pipeline: of the code whose parity networks it has, if there are any.
      frozen, params: of the base model and of that code.
    """
    coded = [stage for stage in pipeline.stages if stage.coding]
    stages = {stage.blocks: stage._replace(coding=None) for stage in coded}
    codings = zip(coded, pipeline.codings, strict=True)
    workers = {stage.blocks: coding.code.worker for stage, coding in codings}
    own: dict[tuple[tuple[int, int], int], PyTree] = {}  # networks, when needed

    def stage_of(blocks: tuple[int, int]) -> Stage:
        if blocks not in stages:
            first, last = blocks
            chained = chain(pipeline.base.blocks[first - 1 : last])
            stages[blocks] = Stage(chained, blocks)
        return stages[blocks]

    def variables(blocks: tuple[int, int], index: int) -> PyTree:
        worker = workers.get(blocks)
        if worker is None or index < pipeline.k:
            return frozen
        if (blocks, index) not in own:
            place = [stage.blocks for stage in coded].index(blocks)
            every = worker(params[place], frozen)
            own[blocks, index] = jax.tree.map(lambda x: x[index - pipeline.k], every)
        return own[blocks, index]

    def work(piece: Piece, query: Any) -> jax.Array:
        stage = stage_of(piece.blocks)
        offset = np.asarray(piece.offset, np.int32)
        mine = variables(piece.blocks, piece.index)
        return _share(stage, piece.share[:2], mine, query, offset)

    return work


@functools.partial(jax.jit, static_argnums=(0, 1))
def _share(
    stage: Stage,
    shape: tuple[int, int],
    variables: PyTree,
    query: jax.Array,
    offset: np.ndarray,
) -> jax.Array:
    outputs = compute(stage, variables, query)
    sizes = (len(outputs), *shape, outputs.shape[-1])
    return jax.lax.dynamic_slice(outputs, (0, offset[0], offset[1], 0), sizes)


def query_shapes(pipeline: Pipeline, batch: int) -> list[tuple[int, ...]]:
    """Of every coded stage, that of one query, for `batch` images."""
    size = batch // pipeline.group
    return [(size, *coding.plan.piece_shape) for coding in pipeline.codings]


def sent(code: Code, k: int, n: int) -> range:
    """The pieces that are computed at all: not the blank ones."""
    return range(k if code.blank else n)


def enough(code: Code, k: int, arrived: Collection[int]) -> bool:
    """Whether the results that arrived are what the code waits for.

    All data pieces always are. Otherwise any k, but of a code with copies one of every
    piece; without parity nothing replaces a data piece.
    """
    if code.blank:
        return set(range(k)) <= set(arrived)
    if code.copied is not None and None not in code.copied:
        return held(code, arrived) >= set(range(k))
    return len(arrived) >= k


def held(code: Code, arrived: Collection[int]) -> set[int | None]:
    """Pieces whose results, or copies of them, have arrived; None for mixtures."""
    copied = code.copied or ()
    return {copied[i] if i < len(copied) else i for i in arrived}
