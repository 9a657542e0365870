"""The programs of a coded inference that is spread over workers.

    encode_images   images -> queries of the first coded stage      front end
    compute         a query -> its share                            one worker
    decode_stage    shares that arrived -> queries of the next      front end
                    coded stage, or after the last one logits

What later blocks need beside a stage's output stays at the front end (`types.State`). A
worker has the frozen network and nothing of the code, but for codes whose parity pieces
have networks of their own. Any worker computes any piece of any code: its blocks
and the place of its share are sent along with it.

This is all that a worker's process imports, so that one that has died is soon back.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax import splitting
from coded_jax.codes import quorum
from coded_jax.cpu_kernels import lowering
from coded_jax.data.groups import answers_of_images, inputs_of_images
from coded_jax.devices import startup
from coded_jax.inference import stages
from coded_jax.inference.pipeline import Pipeline, classify, inputs_of
from coded_jax.inference.stages import Segment, Sent
from coded_jax.types import Kept, PyTree, chain


class Piece(NamedTuple):
    """A piece without its pixels.

    Attributes:
      blocks: of the base model, the first and the last one that compute it.
      index: data piece `0..k-1` or parity piece `k..n-1`.
      offset: first row and column of the share in the blocks' output for the piece.
      share: `(M, M', D)`, or all of the output, `(h', w', D)`, of a code that is uncut.
    """

    blocks: tuple[int, int]
    index: int
    offset: tuple[int, int]
    share: tuple[int, int, int]


ComputePiece = Callable[[Piece, Any], jax.Array]
"""`(piece, query [B, h, w, C]) -> share [B, M, M', D]`."""
GROUPS = {"signal": "control", "live": "life"}
"""Methods of the actor that do not wait for a computation, by Ray's groups of them."""


@functools.partial(jax.jit, static_argnums=0)
def encode_images(
    pipeline: Pipeline, frozen: PyTree, params: PyTree, images: jax.Array
) -> Sent:
    """Computes the queries of the first coded stage.

    Args:
      pipeline: the functions.
      frozen, params: of the base model and of its codes.
      images: `[B, H, W, C]` of the pipeline's `image_dtype`; B is a multiple of its
        `images_per_input`.
    """
    x = inputs_of(pipeline, inputs_of_images(pipeline, images))
    return _one_by_one(stages.begin_stage(pipeline.stages[0], frozen, params[0], x))


def _one_by_one(sent: Sent) -> Sent:
    """Makes each query an array of its own, to be sent by itself."""
    return sent._replace(queries=tuple(sent.queries))


@functools.partial(jax.jit, static_argnums=(0, 1))
def decode_stage(
    pipeline: Pipeline,
    coded: int,
    frozen: PyTree,
    params: PyTree,
    shares: tuple[jax.Array, ...],
    available: jax.Array,
    kept: Kept = (),
) -> Sent | jax.Array:
    """Decodes a stage, and goes on to the next one.

    Args:
      pipeline: the functions.
      coded: number of the stage, from 0.
      frozen, params: of the base model and of its codes.
      shares: n of `[B, M, M', D]`; anything for those that did not arrive.
      available: bool `[S, n, 1]`, the results that arrived in this stage and those
        before it; of the later ones nothing is looked at.
      kept: what the stage began with beside its queries.

    Returns:
      What the next stage begins with; after the last coded stage logits float32
      `[images, classes]`, NaN where there is no answer.
    """
    stage, own = pipeline.stages[coded], params[coded]
    state = stages.end_stage(stage, own, jnp.stack(shares), available[coded], kept)
    if coded + 1 < len(pipeline.stages):
        following = pipeline.stages[coded + 1]
        return _one_by_one(
            stages.begin_stage(following, frozen, params[coded + 1], state)
        )
    answers = classify(pipeline, frozen, params, state, available)[1]
    return answers_of_images(pipeline, answers)


def pieces(pipeline: Pipeline) -> list[list[Piece]]:
    """Returns the n pieces of each coded stage."""
    every = []
    for stage in pipeline.stages:
        copies = quorum.pieces_of(stage.code.quorum, pipeline.k, pipeline.n)
        offsets = splitting.cut_offsets(stage.plan, copies)
        if stage.code.traits.uncut:
            offsets = [(0, 0)] * len(offsets)
        shape, numbered = stage.result_shape, enumerate(offsets)
        every.append([Piece(stage.blocks, i, own, shape) for i, own in numbered])
    return every


def make_compute(pipeline: Pipeline, frozen: PyTree, params: PyTree) -> ComputePiece:
    """Makes the function of a worker, on the device that holds the variables.

    Args:
      pipeline: of the code whose parity networks it has, if there are any.
      frozen, params: of the base model and of that code.
    """
    segment = functools.cache(functools.partial(segment_of, pipeline))

    @functools.cache  # made when needed
    def variables(blocks: tuple[int, int], index: int) -> PyTree:
        for stage, own in zip(pipeline.stages, params, strict=False):
            worker = stage.code.traits.parity_worker
            if worker and stage.blocks == blocks and index >= pipeline.k:
                every = worker(own, frozen)
                return jax.tree.map(lambda x: x[index - pipeline.k], every)
        return frozen

    def compute_piece(piece: Piece, query: Any) -> jax.Array:
        offset = np.asarray(piece.offset, np.int32)
        mine = variables(piece.blocks, piece.index)
        return share(segment(piece.blocks), piece.share[:2], mine, query, offset)

    return compute_piece


def segment_of(pipeline: Pipeline, blocks: tuple[int, int]) -> Segment:
    """Returns blocks of the base model, those of a coded stage or others."""
    for stage in pipeline.stages:
        if stage.blocks == blocks:
            return Segment(stage.f_conv, blocks)
    first, last = blocks
    return Segment(chain(pipeline.base.blocks[first - 1 : last]), blocks)


@functools.partial(jax.jit, static_argnums=(0, 1))
def share(
    stage: Segment,
    shape: tuple[int, int],
    variables: PyTree,
    query: jax.Array,
    offset: np.ndarray,
) -> jax.Array:
    """Computes a piece, and cuts its share out.

    Args:
      stage: the blocks.
      shape: `(M, M')`.
      variables: of the base model.
      query: `[B, h, w, C]`.
      offset: int32 `[2]`, first row and column of the share.

    Returns:
      `[B, M, M', D]`.
    """
    outputs = stages.compute(stage, variables, query)
    sizes = (len(outputs), *shape, outputs.shape[-1])
    return jax.lax.dynamic_slice(outputs, (0, offset[0], offset[1], 0), sizes)


class PieceServer:
    """The actor: the frozen network in a worker's process.

    Args:
      batches: sizes of requests that it compiles before it answers.
      cache: folder of compiled programs, see `startup.keep_compilations`.
    """

    def __init__(self, batches: list[int], cache: str | None) -> None:
        self._batches, self._cache = batches, cache
        self._received: list[bytes] = []

    def receive(self, part: bytes) -> None:
        """Takes the next part of the pickled `(pipeline, frozen, params)`."""
        self._received.append(part)

    def ping(self) -> int:
        """Returns the number of its process, once it has compiled what was received."""
        if self._received:
            self._load(pickle.loads(b"".join(self._received)))
            self._received.clear()
        return os.getpid()

    def _load(self, model: tuple[Pipeline, PyTree, PyTree]) -> None:
        lowering.install()
        with contextlib.suppress(ValueError):  # of another machine's folder
            startup.keep_compilations(self._cache)
        pipeline, *variables = model
        self._dtype = jnp.dtype(pipeline.dtype)
        self._compute_piece = make_compute(pipeline, *variables)
        of_stages = [*zip(pipeline.stages, pieces(pipeline), strict=True)]
        for batch in self._batches:
            inputs = batch // pipeline.images_per_input
            for stage, own in of_stages:
                query = np.zeros((inputs, *stage.plan.piece_shape), self._dtype)
                for piece in own:
                    self._compute_piece(piece, query)

    def compute(self, piece: list, shape: list[int], query: bytes) -> bytes | str:
        """Returns the bytes of a share; or a string, the error of the computation."""
        blocks, index, offset, share = piece
        target = Piece(tuple(blocks), index, tuple(offset), tuple(share))
        try:
            array = np.frombuffer(query, self._dtype).reshape(shape)
            return np.asarray(self._compute_piece(target, array)).tobytes()
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    def signal(self, number: int) -> None:
        """Sends its process a signal."""
        os.kill(os.getpid(), number)

    def live(self) -> None:
        """Returns never: the call fails when the process ends."""
        threading.Event().wait()
