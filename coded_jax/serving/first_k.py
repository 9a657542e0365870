"""The first k of n: one request, from images to logits, on workers that may be lost.

In every coded stage all pieces are sent out, results are taken as they come, and the
stage is decoded as soon as the code can: at once where all data pieces arrived, or else
from any k results (`parts.enough`). Nobody waits for the rest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.inference.pipeline import answered
from coded_jax.runs.coded_model import CodedModel
from coded_jax.serving import parts
from coded_jax.serving.faults import Disturbance, Fault, Faults
from coded_jax.serving.pool import Pool
from coded_jax.serving.rounds import NotEnoughResults, Round, Rules
from coded_jax.serving.workers import Call

SHORTFALLS = ("error", "degrade")
HEDGED = 1_234_577  # so that a piece sent again meets other faults than at first


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
        self.disturbance: Disturbance | None = None
        self._decoding = [0.0] * len(self._pieces)  # seconds of each stage
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
        faults = [self._faults_of(number)]
        if self._hedge_after is not None:
            faults.append(self._faults_of(number + HEDGED))
        degrade = self._shortfall == "degrade"
        used, degraded = [], False

        begun = time.monotonic()
        found = jax.block_until_ready(parts.start(pipeline, *variables, images))
        seconds["encode"] = time.monotonic() - begun
        for s in range(coded):
            begun = time.monotonic()
            limit = end - sum(self._decoding[s:])
            if degrade:  # the stages after it need some time, too
                limit = begun + (limit - begun) / (coded - s)
            service = self._faults.service[s : s + 1] if self._faults else ()
            met = tuple(_later(each, sum(service)) for each in faults)
            code, closed = pipeline.codings[s].code, self._closed.is_set
            rules = Rules(limit, degrade, self._hedge_after, without, met, closed)
            stage = Round(self.pool, code, pipeline.k, self._pieces[s], found, rules)
            stage.gather()
            degraded |= not stage.enough
            used.append(tuple(sorted({w for _, w in stage.shares.values()})))
            available[s, list(stage.shares)] = True
            seconds["wait"] += time.monotonic() - begun

            begun = time.monotonic()
            blank = self._blank(s, len(found[0]))
            given = [stage.shares.get(i, (blank, i))[0] for i in range(pipeline.n)]
            given = tuple(jax.device_put(given, self._front))
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
            sent = parts.sent(pipeline.codings[s].code, pipeline.k, pipeline.n)
            self.pool.compute_everywhere([Call(pieces[i], found[i]) for i in sent])
            shares = (self._blank(s, len(found[0])),) * pipeline.n
            for _ in range(2):  # the first time with compilation
                begun = time.monotonic()
                answer = parts.advance(pipeline, s, *variables, shares, available)
                jax.block_until_ready(answer)
            self._decoding[s] = max(self._decoding[s], time.monotonic() - begun)
            found = answer
        answered(pipeline, jnp.asarray(available))

    def begin_disturbance(self) -> None:
        """Lets workers be killed and frozen from now on, as `faults` says."""
        if self._faults is not None:
            self.disturbance = Disturbance(self._faults, self.pool.workers)

    def close(self) -> None:
        """Ends requests in flight with `Closed`, and all workers."""
        self._closed.set()
        if self.disturbance is not None:
            self.disturbance.close()
        self.pool.close()

    def _blank(self, coded: int, batch: int) -> jax.Array:
        """In the place of a share that has not arrived."""
        shape = (batch, *self._pieces[coded][0].share)
        return jax.device_put(np.zeros(shape, self._pipeline.dtype), self._front)

    def _faults_of(self, number: int) -> list[Fault]:
        if self._faults is None:
            return [Fault()] * len(self.pool)
        return self._faults.of_request(number, len(self.pool))


def _later(faults: list[Fault], seconds: float) -> list[Fault]:
    return [fault._replace(delay=fault.delay + seconds) for fault in faults]
