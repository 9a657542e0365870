"""The protocol between a pool and its workers."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

from coded_jax.service.parts import Piece


class WorkerLost(RuntimeError):
    """The worker ended before it delivered a result."""


class Call(NamedTuple):
    """One piece of one request, for one worker.

    Attributes:
      piece: the blocks to compute, and where the share lies in their output.
      query: `[B, h, w, C]`.
      request: number of the request; None for a warm-up.
      stage: number of the coded stage, from 0.
      attempt: 0, or 1 for a hedged call: the same piece sent once more.
    """

    piece: Piece
    query: Any
    request: int | None = None
    stage: int = 0
    attempt: int = 0


class Worker(Protocol):
    """One device, or one process that has a device."""

    def compute(self, call: Call) -> Future:
        """Returns the share `[B, M, M', D]` to come.

        Calls are computed one after the other. The future fails with `WorkerLost` if
        the worker ended, or with the exception that the computation raised.
        """
        ...

    def probe(self) -> Future:
        """Returns a future that is done as soon as the worker can compute: with the
        number of its process, None if it is none."""
        ...

    def watch(self) -> Future:
        """Returns a future that is done as soon as the worker has ended."""
        ...

    def replace(self) -> None:
        """Ends the worker, even one that hangs, and starts it anew."""
        ...

    def close(self) -> None:
        """Ends the worker."""
        ...
