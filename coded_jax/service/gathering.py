"""Gathering the results of one coded stage, until they suffice or time is up."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.codes import quorum
from coded_jax.service.engine import Closed, NotEnoughResults, WrongResults
from coded_jax.service.pool import Call, Pool
from coded_jax.types import Code

LOOK = 0.2  # seconds between looks whether the service is being closed


class Judge(Protocol):
    """Compares results of one coded stage of one request with each other."""

    def can_judge(self, pieces: Collection[int]) -> bool:
        """Returns whether there are more results than needed, to be compared."""
        ...

    def contradict(self, shares: Mapping[int, Any]) -> bool:
        """Returns whether some share differs from its prediction by the others."""
        ...

    def culprit(self, shares: Mapping[int, Any]) -> int | None:
        """Returns the piece without which the others agree; None if none is found."""
        ...


class Rules(NamedTuple):
    """Conditions on which waiting for results ends.

    Attributes:
      limit: on the clock of `time.monotonic`.
      degrade: whether at the limit any results will do.
      hedge_after: seconds after which missing pieces are sent again; never if None.
      without: places that are not used.
      closed: whether the service is being closed.
      judge: what results are checked by; they are believed if None.
      check_wait: seconds that more results than are needed are waited for, to check.
    """

    limit: float
    degrade: bool
    hedge_after: float | None
    without: Collection[int]
    closed: Callable[[], bool]
    judge: Judge | None = None
    check_wait: float = 0.0


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


class Gathering:
    """Collects the shares of one coded stage of one request.

    Args:
      pool: the workers.
      code: the code of the stage.
      k: number of data pieces.
      calls: n calls, one for each piece.
      rules: when to stop.
      order: the place of each piece in the pool.

    Attributes:
      shares: from piece to its result, of those that arrived and were not found wrong.
      checked: whether they were compared with each other, and agree.
      wrong: workers whose results the others contradict.
    """

    def __init__(
        self,
        pool: Pool,
        code: Code,
        k: int,
        calls: Sequence[Call],
        rules: Rules,
        order: Sequence[int] | None = None,
    ) -> None:
        self._pool, self._code, self._k = pool, code, k
        self._calls, self._rules = calls, rules
        self._inbox: queue.SimpleQueue = queue.SimpleQueue()
        self._over = threading.Event()
        self._sent = quorum.sent(code.quorum, k, len(calls))
        places = [*range(len(calls))] if order is None else order
        own = {places[piece] for piece in self._sent}
        self._pending = [  # piece and place
            (piece, places[piece])
            for piece in self._sent
            if places[piece] not in rules.without
        ]
        # Places without a piece of their own.
        self._spare = sorted({*range(len(pool))} - own - {*rules.without})
        self._hedged: set[int] = set()  # pieces that were sent again
        self._answered: dict[int, None] = {}  # places, in the order of their results
        self._failed: set[int] = set()  # places that are sent no other piece
        self._hedge_at = float("inf")
        self.shares: dict[int, Arrived] = {}
        self.checked = False
        self.wrong: tuple[int, ...] = ()

    @property
    def enough(self) -> bool:
        """Returns whether the code can decode from the shares that arrived."""
        return quorum.suffices(self._code.quorum, self._k, self.shares)

    def run(self) -> None:
        """Waits until the shares are enough and checked, or the time is over.

        Raises:
          NotEnoughResults: they are not enough, and a degraded response is not wanted
            or not possible.
          WrongResults: they contradict each other, and none is found to blame.
          Closed: the service was closed meanwhile.
        """
        if self._rules.hedge_after is not None:
            self._hedge_at = time.monotonic() + self._rules.hedge_after
        for piece, place in self._pending:
            self._send(place, self._calls[piece])
        try:
            self._wait_for_enough()
            if self._rules.judge is not None:
                self._check(self._rules.judge)
        finally:
            self._over.set()
            for piece, place in self._pending:
                if piece not in self.shares:
                    self._pool.count_loss(self._pool.holder(place), "late")

    def _wait_for_enough(self) -> None:
        """Takes results until they are enough, or else until the limit."""
        limit = self._rules.limit
        while not self.enough:
            now = time.monotonic()
            if now >= limit or not self._hopeful():
                self._take_all()  # results that arrived by now count
                some = self._rules.degrade and self.shares
                if self.enough or (some and self._code.traits.answers_always):
                    return
                needed = quorum.in_words(self._code.quorum, self._k)
                raise NotEnoughResults(
                    f"results {sorted(self.shares)} of {len(self._calls)} arrived in "
                    f"time, which is not enough for a code that needs {needed}"
                )
            if now >= self._hedge_at:
                self._hedge()
            soon = min(limit, self._hedge_at if self._hedge_at > now else limit)
            self._take(min(soon - now, LOOK))
        self._take_all()  # results that arrived in the meantime help, too

    def _check(self, judge: Judge) -> None:
        """Compares the results, and leaves out those that the others contradict."""
        limit = min(time.monotonic() + self._rules.check_wait, self._rules.limit)
        while {piece for piece, _ in self._pending} - {*self.shares}:
            if (left := limit - time.monotonic()) <= 0:
                break
            self._take(min(left, LOOK))
        self._take_all()
        while judge.can_judge(self.shares):
            shares = {piece: result.share for piece, result in self.shares.items()}
            if not judge.contradict(shares):
                self.checked = True
                return
            piece = judge.culprit(shares)
            if piece is None:
                raise WrongResults(
                    f"results {sorted(shares)} of {len(self._calls)} contradict each "
                    "other, and do not say which one is wrong"
                )
            worker = self.shares.pop(piece).worker
            self.wrong += (worker,)
            self._pool.count_loss(worker, "wrong")
            self._wait_for_enough()

    def _send(self, place: int, call: Call) -> None:
        piece = call.piece.index
        self._pool.send(
            place,
            call,
            lambda result, worker: self._inbox.put((piece, place, worker, result)),
            lambda: not self._over.is_set(),
        )

    def _take(self, timeout: float) -> bool:
        """Takes the next result, and returns whether one arrived within the timeout."""
        if self._rules.closed():
            raise Closed("the service was closed before the response")
        try:
            arrived = self._inbox.get(timeout > 0, timeout or None)
        except queue.Empty:
            return False
        piece, place, worker, result = arrived
        self._pending.remove((piece, place))
        call = self._calls[piece]
        shape = (len(call.query), *call.piece.share)
        if isinstance(result, BaseException):
            self._failed.add(place)
        elif result.shape != shape or not _finite(result):
            self._pool.count_loss(worker, "bad")
        else:
            self._answered[place] = None  # also if another was first with this piece
            self.shares.setdefault(piece, Arrived(result, place, worker))
        return True

    def _take_all(self) -> None:
        """Takes all results that have arrived."""
        while self._take(0):
            pass

    def _hopeful(self) -> bool:
        """Returns whether enough results, or any if these will do, may yet arrive."""
        expected = {piece for piece, _ in self._pending}
        if self._rules.hedge_after is not None and (self._pending or self._idle()):
            expected |= {*self._sent} - self._hedged  # from workers idle by then
        if self._rules.degrade:
            return bool(expected - {*self.shares})
        return quorum.suffices(self._code.quorum, self._k, expected | {*self.shares})

    def _hedge(self) -> None:
        """Sends missing pieces again, each once, to places with nothing left to do.

        Among them are pieces that failed, and those of workers that are not used.
        """
        missing = {*self._sent} - {*self.shares, *self._hedged}
        for piece, place in zip(sorted(missing), self._idle(), strict=False):
            self._hedged.add(piece)
            self._pending.append((piece, place))
            self._send(place, self._calls[piece]._replace(attempt=1))

    def _idle(self) -> list[int]:
        """Returns the places with nothing left to do, those without a piece first."""
        others = dict.fromkeys([*self._spare, *self._answered])
        busy = {place for _, place in self._pending} | self._failed
        return [place for place in others if place not in busy]


def _finite(share: Any) -> bool:
    if isinstance(share, np.ndarray):
        return bool(np.isfinite(share).all())
    return bool(_all_finite(share))


_all_finite = jax.jit(lambda x: jnp.isfinite(x).all())
