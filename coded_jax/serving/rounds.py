"""One coded stage of one request: sends the pieces, and takes what comes."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.serving import parts
from coded_jax.serving.faults import Fault
from coded_jax.serving.parts import Piece
from coded_jax.serving.pool import Pool
from coded_jax.serving.workers import Call
from coded_jax.types import Code

LOOK = 0.2  # seconds between looks whether the service is being closed


class NotEnoughResults(RuntimeError):
    """Fewer results arrived by the deadline than the code needs."""


class Closed(RuntimeError):
    """The service was closed before the answer."""


class Rules(NamedTuple):
    """How long a round waits, and what for.

    Attributes:
      limit: in seconds of `time.monotonic`.
      degrade: whether anything will do that has arrived by then.
      hedge_after: seconds after which missing pieces are sent again; never if None.
      without: workers that are not used.
      faults: what each worker meets on purpose, at first, and with a piece sent again.
      closed: whether the service is being closed.
    """

    limit: float
    degrade: bool
    hedge_after: float | None
    without: Collection[int]
    faults: Sequence[Sequence[Fault]]
    closed: Callable[[], bool]


class Round:
    """Collects the shares of one stage.

    Args:
      pool: the workers.
      code: of the stage.
      k: data pieces.
      pieces: n, what workers are told of each.
      queries: n of `[B, h, w, C]`.
      rules: when it ends.

    Attributes:
      shares: `[B, M, M', D]` by piece, each with the worker that it came from.
    """

    def __init__(
        self,
        pool: Pool,
        code: Code,
        k: int,
        pieces: Sequence[Piece],
        queries: Sequence[jax.Array],
        rules: Rules,
    ) -> None:
        self._pool, self._code, self._k = pool, code, k
        self._pieces, self._queries, self._rules = pieces, queries, rules
        self._inbox: queue.SimpleQueue = queue.SimpleQueue()
        self._over = threading.Event()
        self._sent = parts.sent(code, k, len(pieces))
        self._pending = [(i, i) for i in self._sent if i not in rules.without]
        self._again: dict[int, int] = {}  # pieces sent once more, and where to
        self.shares: dict[int, tuple[Any, int]] = {}

    @property
    def enough(self) -> bool:
        """Whether the code can decode what has arrived."""
        return parts.enough(self._code, self._k, self.shares)

    def gather(self) -> None:
        """Returns when the shares are enough, or else at the limit.

        Raises:
          NotEnoughResults: they are not, and what there is will not do.
          Closed: the service was closed meanwhile.
        """
        begun, limit = time.monotonic(), self._rules.limit
        after = self._rules.hedge_after
        hedge = float("inf") if after is None else begun + after
        for piece, worker in self._pending:
            self._send(piece, worker, self._rules.faults[0])
        try:
            while not self.enough:
                now = time.monotonic()
                if now >= limit or not self._hopeful():
                    return self._fall_short()
                if now >= hedge:
                    self._send_again()
                soon = min(limit, hedge if hedge > now else limit)
                self._take(min(soon - now, LOOK))
            while self._take(0):  # what has come in the meantime is of use, too
                pass
        finally:
            self._over.set()
            for piece, worker in self._pending:
                if piece not in self.shares:
                    self._pool.count_loss(worker, "late")

    def _send(self, piece: int, worker: int, faults: Sequence[Fault]) -> None:
        self._pool.send(
            worker,
            Call(self._pieces[piece], self._queries[piece], faults[worker]),
            lambda result: self._inbox.put((piece, worker, result)),
            lambda: not self._over.is_set(),
        )

    def _take(self, timeout: float) -> bool:
        """The next result, if one comes within that time."""
        if self._rules.closed():
            raise Closed("the service was closed before the answer")
        try:
            piece, worker, result = self._inbox.get(timeout > 0, timeout or None)
        except queue.Empty:
            return False
        self._pending.remove((piece, worker))
        if isinstance(result, BaseException):
            return True
        shape = (len(self._queries[piece]), *self._pieces[piece].share)
        if result.shape != shape or not _finite(result):
            self._pool.count_loss(worker, "bad")
            return True
        self.shares.setdefault(piece, (result, worker))
        return True

    def _hopeful(self) -> bool:
        """Whether it is worth to wait: for enough, or for anything if that will do."""
        expected = {piece for piece, _ in self._pending}
        if self._rules.hedge_after is not None and (self.shares or self._pending):
            expected |= {*self._sent} - {*self._again}  # by who is idle then
        if self._rules.degrade:
            return bool(expected - {*self.shares})
        expected |= {*self.shares}
        return parts.enough(self._code, self._k, expected)

    def _send_again(self) -> None:
        """Missing pieces, each once, to workers that have finished their own; also what
        has failed, or whose worker is not used."""
        idle = [worker for _, worker in self.shares.values()]
        idle = [worker for worker in idle if worker not in self._again.values()]
        missing = {*self._sent} - {*self.shares, *self._again}
        for piece, worker in zip(sorted(missing), idle, strict=False):
            self._again[piece] = worker
            self._pending.append((piece, worker))
            self._send(piece, worker, self._rules.faults[-1])

    def _fall_short(self) -> None:
        if self._rules.degrade and self.shares and not self._code.waits:
            return
        needed = "all data pieces" if self._code.blank else f"k={self._k}"
        raise NotEnoughResults(
            f"results {sorted(self.shares)} of {len(self._pieces)} arrived in time, "
            f"which is not enough for a code that needs {needed}"
        )


def _finite(share: Any) -> bool:
    if isinstance(share, np.ndarray):
        return bool(np.isfinite(share).all())
    return bool(_all_finite(share))


_all_finite = jax.jit(lambda x: jnp.isfinite(x).all())
