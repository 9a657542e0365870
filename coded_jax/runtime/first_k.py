"""The first k of n: one request, from images to logits, on workers that may be lost.

In every coded stage all pieces are sent out, results are taken as they come, and the
stage is decoded as soon as the code can: at once where all data pieces arrived, or else
from any k results (`parts.enough`). Nobody waits for the rest.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.pipeline import answered
from coded_jax.runtime import parts
from coded_jax.runtime.faults import Disturbance, Fault, Faults
from coded_jax.runtime.pool import Call, Pool
from coded_jax.serving import CodedModel

SHORTFALLS = ("error", "degrade")
HEDGED = 1_234_577  # so that a piece sent again meets other faults than at first
LOOK = 0.2  # seconds between looks whether the engine is being closed


class NotEnoughResults(RuntimeError):
    """Fewer results arrived by the deadline than the code needs."""


class Closed(RuntimeError):
    """The service was closed before the answer."""


class Outcome(NamedTuple):
    """What came of one request.

    Attributes:
      logits: float32 `[B, classes]`.
      available: bool `[S, n, 1]`, the results that each coded stage was decoded from.
      used: of every coded stage, the workers they came from.
      degraded: whether in some stage too few had arrived.
      seconds: of the phases `encode`, `wait` and `decode`.
    """

    logits: jax.Array
    available: np.ndarray
    used: tuple[tuple[int, ...], ...]
    degraded: bool
    seconds: dict[str, float]


class FirstK:
    """Answers requests with the first results that are enough.

    Args:
      model: the coded inference.
      pool: its n workers.
      shortfall: where fewer results arrive by the deadline than the code needs,
        `"error"` or `"degrade"`: an answer from what there is. Without any result there
        is none.
      hedge_after: seconds after which a missing piece is sent once more, to a worker
        that has finished its own; never if None.
      faults: what workers meet on purpose.
    """

    def __init__(
        self,
        model: CodedModel,
        pool: Pool,
        shortfall: str = "error",
        hedge_after: float | None = None,
        faults: Faults | None = None,
    ) -> None:
        if shortfall not in SHORTFALLS:
            raise ValueError(
                f"shortfall: {shortfall!r} given, {list(SHORTFALLS)} accepted"
            )
        if hedge_after is not None and not hedge_after >= 0:
            raise ValueError(f"hedge_after: {hedge_after} given, 0 or more accepted")
        # One device each: pieces are spread by the pool.
        self._pipeline = model.pipeline._replace(mesh=None)
        self._front = jax.local_devices()[0]
        self._frozen, self._params = jax.device_put(
            (model.frozen, model.params), self._front
        )
        self._pieces = parts.pieces(self._pipeline)
        self.pool, self._shortfall = pool, shortfall
        self._hedge_after, self._faults = hedge_after, faults
        self._disturbance: Disturbance | None = None
        self._faults_of(0)  # refuses those of another number of workers
        self._closed = threading.Event()

    def infer(
        self, number: int, images: Any, end: float, without: Collection[int] = ()
    ) -> Outcome:
        """Logits of images.

        Args:
          number: of the request, which its faults are drawn from.
          images: uint8 `[B, H, W, C]`.
          end: the deadline, in seconds of `time.monotonic`.
          without: workers that are not to be used.

        Raises:
          NotEnoughResults: see `shortfall`; or of a code that waits for all data
            pieces.
          Closed: by `close`, meanwhile.
        """
        pipeline = self._pipeline
        variables = self._frozen, self._params
        seconds = {"encode": 0.0, "wait": 0.0, "decode": 0.0}
        coded = len(pipeline.codings)
        available = np.zeros((coded, pipeline.n, 1), bool)
        faults = [self._faults_of(number + again) for again in (0, HEDGED)]
        used, degraded = [], False

        begun = time.monotonic()
        found = jax.block_until_ready(parts.start(pipeline, *variables, images))
        seconds["encode"] = time.monotonic() - begun
        for s in range(coded):
            begun = time.monotonic()
            limit = end
            if self._shortfall == "degrade":  # the stages after it need some time, too
                limit = begun + (end - begun) / (coded - s)
            stage = _Round(self, s, found, limit, without, faults)
            shares = stage.gather()
            degraded |= not stage.enough
            used.append(tuple(sorted({w for _, w in shares.values()})))
            available[s, list(shares)] = True
            seconds["wait"] += time.monotonic() - begun

            begun = time.monotonic()
            blank = self._blank(s, len(found[0]))
            given = tuple(shares.get(i, (blank, i))[0] for i in range(pipeline.n))
            found = parts.advance(pipeline, s, *variables, given, available)
            found = jax.block_until_ready(found)
            seconds["decode"] += time.monotonic() - begun
        if degraded and not np.all(answered(pipeline, jnp.asarray(available))):
            raise NotEnoughResults("the code has no answer without all data pieces")
        return Outcome(found, available, tuple(used), degraded, seconds)

    def warm_up(self, images: Any) -> None:
        """Lets the front end and every worker compile what a batch such as this needs.

        Raises:
          RuntimeError: a worker is not up, or cannot compute.
        """
        self.pool.wait_until_ready()
        pipeline, variables = self._pipeline, (self._frozen, self._params)
        available = np.ones((len(pipeline.codings), pipeline.n, 1), bool)
        found = parts.start(pipeline, *variables, images)
        for s, pieces in enumerate(self._pieces):
            self.pool.compute_everywhere(list(map(Call, pieces, found)))
            shares = (self._blank(s, len(found[0])),) * pipeline.n
            found = parts.advance(pipeline, s, *variables, shares, available)
        jax.block_until_ready(found)

    def begin_disturbance(self) -> None:
        """Lets workers be killed and frozen from now on, as `faults` says."""
        if self._faults is not None:
            self._disturbance = Disturbance(self._faults, self.pool.workers)

    def close(self) -> None:
        """Ends requests in flight with `Closed`, and all workers."""
        self._closed.set()
        if self._disturbance is not None:
            self._disturbance.close()
        self.pool.close()

    def _blank(self, coded: int, batch: int) -> jax.Array:
        """In the place of a share that has not arrived."""
        shape = (batch, *self._pieces[coded][0].share)
        return jax.device_put(np.zeros(shape, self._pipeline.dtype), self._front)

    def _faults_of(self, number: int) -> list[Fault]:
        if self._faults is None:
            return [Fault()] * self._pipeline.n
        return self._faults.of_request(number, self._pipeline.n)


class _Round:
    """One coded stage of one request: sends the pieces, takes what comes."""

    def __init__(self, engine, coded, queries, limit, without, faults) -> None:
        self._engine, self._coded, self._queries = engine, coded, queries
        self._limit, self._faults = limit, faults
        self._inbox: queue.SimpleQueue = queue.SimpleQueue()
        self._over = threading.Event()
        pipeline = engine._pipeline
        self._code, self._k = pipeline.codings[coded].code, pipeline.k
        pieces = parts.sent(self._code, self._k, pipeline.n)
        self._pending = [(i, i) for i in pieces if i not in without]
        self._again: dict[int, int] = {}  # pieces sent once more, and where to
        self.shares: dict[int, tuple[jax.Array, int]] = {}

    @property
    def enough(self) -> bool:
        return parts.enough(self._code, self._k, self.shares)

    def gather(self) -> dict[int, tuple[jax.Array, int]]:
        """Shares by piece, each with the worker that it came from."""
        begun = time.monotonic()
        after = self._engine._hedge_after
        hedge = float("inf") if after is None else begun + after
        for piece, worker in self._pending:
            self._send(piece, worker, self._faults[0])
        try:
            while not self.enough:
                now = time.monotonic()
                if now >= self._limit or not self._hopeful():
                    return self._fall_short(now - begun)
                if now >= hedge:
                    self._send_again()
                soon = min(self._limit, hedge if hedge > now else self._limit)
                self._take(min(soon - now, LOOK))
            while self._take(0):  # what has come in the meantime is of use, too
                pass
        finally:
            self._over.set()
            for piece, worker in self._pending:
                if piece not in self.shares:
                    self._engine.pool.count_loss(worker, "late")
        return self.shares

    def _send(self, piece: int, worker: int, faults: list[Fault]) -> None:
        told = self._engine._pieces[self._coded][piece]
        self._engine.pool.send(
            worker,
            Call(told, self._queries[piece], faults[worker]),
            lambda result: self._inbox.put((piece, worker, result)),
            lambda: not self._over.is_set(),
        )

    def _take(self, timeout: float) -> bool:
        """The next result, if one comes within that time."""
        if self._engine._closed.is_set():
            raise Closed("the service was closed before the answer")
        try:
            piece, worker, result = self._inbox.get(timeout > 0, timeout or None)
        except queue.Empty:
            return False
        self._pending.remove((piece, worker))
        if isinstance(result, BaseException):
            return True
        shape = (
            len(self._queries[piece]),
            *self._engine._pieces[self._coded][piece].share,
        )
        if result.shape != shape or not _finite(result):
            self._engine.pool.count_loss(worker, "bad")
            return True
        share = jax.device_put(result, self._engine._front)
        self.shares.setdefault(piece, (share, worker))
        return True

    def _hopeful(self) -> bool:
        """Whether it is worth to wait: for enough, or for anything if that will do."""
        if self._engine._shortfall == "degrade":
            return bool(self._pending)
        expected = {*self.shares, *(piece for piece, _ in self._pending)}
        return parts.enough(self._code, self._k, expected)

    def _send_again(self) -> None:
        """Missing pieces, each once, to workers that have finished their own."""
        idle = [worker for _, worker in self.shares.values()]
        idle = [worker for worker in idle if worker not in self._again.values()]
        missing = {piece for piece, _ in self._pending} - {*self.shares, *self._again}
        for piece, worker in zip(sorted(missing), idle, strict=False):
            self._again[piece] = worker
            self._pending.append((piece, worker))
            self._send(piece, worker, self._faults[1])

    def _fall_short(self, waited: float) -> dict[int, tuple[jax.Array, int]]:
        degrade = self._engine._shortfall == "degrade" and not self._code.waits
        if degrade and self.shares:
            return self.shares
        needed = "all data pieces" if self._code.blank else f"k={self._k}"
        raise NotEnoughResults(
            f"stage {self._coded}: results {sorted(self.shares)} of "
            f"{self._engine._pipeline.n} arrived within {waited:.3g} s, which is not "
            f"enough for a code that needs {needed}"
        )


def _finite(share: Any) -> bool:
    if isinstance(share, np.ndarray):
        return bool(np.isfinite(share).all())
    return bool(_all_finite(share))


_all_finite = jax.jit(lambda x: jnp.isfinite(x).all())
