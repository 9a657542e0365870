"""Gathering the results of one coded stage, until they suffice or time is up."""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.codes import quorum
from coded_jax.inference.pipeline import Results
from coded_jax.inference.stages import CodedStage
from coded_jax.service.byzantine import detection
from coded_jax.service.byzantine.detection import StageCheck
from coded_jax.service.pool import Call, Pool
from coded_jax.types import Code, Kept, PyTree

LOOK = 0.2  # seconds between looks whether the service is being closed


class NotEnoughResults(RuntimeError):
    """Fewer results arrived by the deadline than the code needs."""


class WrongResults(RuntimeError):
    """The results contradict each other, and none is found to blame."""


class Closed(RuntimeError):
    """The service was closed before the response."""


class Judge(NamedTuple):
    """Compares results of one coded stage of one request with each other.

    Attributes:
      stage: the functions.
      check: of the stage.
      params: of its code.
      kept: what the front end keeps of the request.
      blank: zeros, in the place of results that did not arrive.
    """

    stage: CodedStage
    check: StageCheck
    params: PyTree
    kept: Kept
    blank: jax.Array

    def can_judge(self, pieces: Collection[int]) -> bool:
        """Returns whether there are more results than needed, to be compared."""
        places = np.asarray(self.check.places)
        return places[sum(2**piece for piece in pieces)] >= 0

    def contradict(self, shares: Mapping[int, Any]) -> bool:
        """Returns whether, for some image, a share differs from its prediction."""
        return bool(np.any(self._ask(detection.inspect, shares).suspicious))

    def culprit(self, shares: Mapping[int, Any]) -> int | None:
        """Returns the piece that is named for most of the suspicious images."""
        named = self._ask(detection.name_culprit, shares)
        suspicious = self._ask(detection.inspect, shares).suspicious
        piece = detection.culprit_of_request(suspicious, named)
        return None if piece == detection.UNNAMED else piece

    def _ask(self, function: Callable[..., Any], shares: Mapping[int, Any]) -> Any:
        """Calls a function of `detection` with the results that arrived."""
        n = self.check.means.shape[0]
        # As in the warm-up, or else each pattern of what arrived compiles anew.
        slots = tuple(shares.get(i, self.blank) for i in range(n))
        results = Results(jax.device_put(slots, self.blank.sharding), self.kept)
        available = np.array([piece in shares for piece in range(n)])
        return function(self.stage, self.check, self.params, results, available)


class Arrived(NamedTuple):
    """A result that arrived.

    Attributes:
      share: `[B, M, M', D]`.
      place: in the pool, to which its piece was sent.
      worker: number of the worker that computed it.
    """

    share: Any
    place: int
    worker: int


@dataclasses.dataclass(eq=False)
class Gathering:
    """Collects the shares of one coded stage of one request.

    Args:
      pool: the workers.
      calls: n calls, one for each piece.
      places: of the pieces in the pool.
      code: of the stage.
      k: number of data pieces.
      limit: when the wait ends, on the clock of `time.monotonic`.
      closed: whether the service is being closed.
      degrade: whether at the limit any results will do.
      hedge_after: seconds after which missing pieces are sent again; infinite if never.
      without: places that are not used.
      judge: what results are checked by; they are believed if None.
      check_wait: seconds that more results than are needed are waited for, to check.

    Attributes:
      shares: from piece to its result, of those that arrived and were not found wrong.
      checked: whether they were compared with each other, and agree.
      wrong: workers whose results the others contradict.
    """

    pool: Pool
    calls: Sequence[Call]
    places: Sequence[int]
    code: Code
    k: int
    limit: float
    closed: Callable[[], bool]
    degrade: bool = False
    hedge_after: float = float("inf")
    without: Collection[int] = ()
    judge: Judge | None = None
    check_wait: float = 0.0

    def __post_init__(self) -> None:
        self.shares: dict[int, Arrived] = {}
        self.wrong: tuple[int, ...] = ()
        self.checked = False
        self._inbox: queue.SimpleQueue = queue.SimpleQueue()
        self._over = threading.Event()
        sent = quorum.sent(self.code.quorum, self.k, len(self.calls))
        self._own = {piece: self.places[piece] for piece in sent}
        self._pending: list[tuple[int, int]] = []  # pieces, and to where they were sent
        # Places with nothing to do: at first those without a piece of their own.
        own = self._own.values()
        self._idle = sorted({*range(len(self.pool))} - {*own, *self.without})
        self._unhedged = {*sent}  # pieces that were not sent again
        self._hedge_at = float("inf")

    def _suffice(self, pieces: Collection[int]) -> bool:
        return quorum.suffices(self.code.quorum, self.k, pieces)

    @property
    def enough(self) -> bool:
        """Returns whether the code can decode from the shares that arrived."""
        return self._suffice(self.shares)

    @property
    def workers(self) -> tuple[int, ...]:
        """Returns the workers whose results arrived, by number."""
        return tuple(sorted({result.worker for result in self.shares.values()}))

    def run(self) -> None:
        """Waits until the shares are enough and checked, or the time is over.

        Raises:
          NotEnoughResults: they are not enough, and a degraded response is not wanted
            or not possible.
          WrongResults: they contradict each other, and none is found to blame.
          Closed: the service was closed meanwhile.
        """
        self._hedge_at = time.monotonic() + self.hedge_after
        for piece, place in self._own.items():
            if place not in self.without:
                self._send(piece, place)
        try:
            self._wait_for_enough()
            if self.judge is not None:
                self._check(self.judge)
        finally:
            self._over.set()
            for piece, place in self._pending:
                if piece not in self.shares:
                    self.pool.count_loss(self.pool.holder(place), "late")

    def _wait_for_enough(self) -> None:
        """Takes results until they are enough, or else until the limit."""
        self._wait(lambda: self.enough or not self._hopeful(), self.limit)
        some = self.degrade and self.shares and self.code.traits.answers_always
        if not (self.enough or some):
            needed = quorum.in_words(self.code.quorum, self.k)
            raise NotEnoughResults(
                f"results {sorted(self.shares)} of {len(self.calls)} arrived in "
                f"time, which is not enough for a code that needs {needed}"
            )

    def _wait(self, over: Callable[[], bool], limit: float) -> None:
        """Takes results until the wait is over or time is up, and then all others that
        have arrived meanwhile, which help, too."""
        while not over() and (now := time.monotonic()) < limit:
            if now >= self._hedge_at:
                self._hedge()
            hedge = self._hedge_at - now if now < self._hedge_at else LOOK
            self._take(min(limit - now, hedge, LOOK))
        while self._take(0):
            pass

    def _check(self, judge: Judge) -> None:
        """Compares the results, and leaves out those that the others contradict."""
        limit = min(time.monotonic() + self.check_wait, self.limit)
        missing = lambda: {piece for piece, _ in self._pending} - {*self.shares}
        self._wait(lambda: not missing(), limit)
        while judge.can_judge(self.shares):
            shares = {piece: result.share for piece, result in self.shares.items()}
            if not judge.contradict(shares):
                self.checked = True
                return
            piece = judge.culprit(shares)
            if piece is None:
                raise WrongResults(
                    f"results {sorted(shares)} of {len(self.calls)} contradict each "
                    "other, and do not say which one is wrong"
                )
            worker = self.shares.pop(piece).worker
            self.wrong += (worker,)
            self.pool.count_loss(worker, "wrong")
            self._wait_for_enough()

    def _send(self, piece: int, place: int, attempt: int = 0) -> None:
        self._pending.append((piece, place))
        self.pool.send(
            place,
            self.calls[piece]._replace(attempt=attempt),
            lambda result, worker: self._inbox.put((piece, place, worker, result)),
            lambda: not self._over.is_set(),
        )

    def _take(self, timeout: float) -> bool:
        """Takes the next result, and returns whether one arrived within the timeout."""
        if self.closed():
            raise Closed("the service was closed before the response")
        try:
            arrived = self._inbox.get(timeout > 0, timeout or None)
        except queue.Empty:
            return False
        piece, place, worker, result = arrived
        self._pending.remove((piece, place))
        if isinstance(result, BaseException):
            return True
        call = self.calls[piece]
        if result.shape != (len(call.query), *call.piece.share) or not _finite(result):
            self.pool.count_loss(worker, "bad")
        else:
            self._idle.append(place)  # also if another was first with this piece
            self.shares.setdefault(piece, Arrived(result, place, worker))
        return True

    def _hopeful(self) -> bool:
        """Returns whether enough results, or any if these will do, may yet arrive."""
        expected = {piece for piece, _ in self._pending}
        if self._hedge_at < float("inf") and (self._pending or self._idle):
            expected |= self._unhedged  # from workers idle by then
        if self.degrade:
            return bool(expected - {*self.shares})
        return self._suffice(expected | {*self.shares})

    def _hedge(self) -> None:
        """Sends missing pieces again, each once, to places with nothing left to do.

        Among them are pieces that failed, and those of workers that are not used.
        """
        for piece in sorted(self._unhedged - {*self.shares})[: len(self._idle)]:
            self._unhedged.remove(piece)
            self._send(piece, self._idle.pop(0), attempt=1)


def _finite(share: Any) -> bool:
    if isinstance(share, np.ndarray):
        return bool(np.isfinite(share).all())
    return bool(_all_finite(share))


_all_finite = jax.jit(lambda x: jnp.isfinite(x).all())
