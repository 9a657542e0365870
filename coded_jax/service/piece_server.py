"""Computes pieces with the frozen network, in a worker's process.

It is all that the process imports, so that a worker that has died is soon back.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading

import jax.numpy as jnp
import numpy as np

from coded_jax.cpu_kernels import lowering
from coded_jax.devices import startup
from coded_jax.inference.pipeline import Pipeline
from coded_jax.service import parts
from coded_jax.types import PyTree

GROUPS = {"signal": "control", "live": "life"}
"""Methods of the actor that do not wait for a computation, by Ray's groups of them."""


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
        self._compute_piece = parts.make_compute(pipeline, *variables)
        stages = [*zip(pipeline.stages, parts.pieces(pipeline), strict=True)]
        for batch in self._batches:
            inputs = batch // pipeline.images_per_input
            for stage, pieces in stages:
                query = np.zeros((inputs, *stage.plan.piece_shape), self._dtype)
                for piece in pieces:
                    self._compute_piece(piece, query)

    def compute(self, piece: list, shape: list[int], query: bytes) -> bytes | str:
        """Returns the bytes of a share; or a string, the error of the computation."""
        blocks, index, offset, share = piece
        target = parts.Piece(tuple(blocks), index, tuple(offset), tuple(share))
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
