"""What the pool asks of a worker."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

from coded_jax.serving.faults import Fault
from coded_jax.serving.parts import Piece


class WorkerLost(RuntimeError):
    """The worker that was to compute a piece is gone."""


class Call(NamedTuple):
    """One piece for a worker: see `parts.Work`."""

    piece: Piece
    query: Any
    fault: Fault = Fault()


class Worker(Protocol):
    """One device, or one process that has a device."""

    def compute(self, call: Call) -> Future:
        """Its share; fails with `WorkerLost` if the worker ended, or with whatever the
        computation raised. Calls are computed one after the other."""
        ...

    def probe(self) -> Future:
        """Done when the worker is able to compute, at once if it is."""
        ...

    def replace(self) -> None:
        """Ends it, whatever it does, and starts it anew."""
        ...

    def disturb(self, kind: str) -> None:
        """Kills (`"kill"`) or freezes (`"freeze"`) it, on purpose."""
        ...

    def close(self) -> None:
        """Ends it."""
        ...
