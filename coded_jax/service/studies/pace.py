"""Machines of given speeds, for which processes of one machine stand.

Everything is slowed by one rule, that of the simulator: the computation of a worker and
of the client takes its part of the seconds of the whole `F_Conv`, by operations, and
what is sent takes as long as the bandwidth makes it. Whether a machine is slow, late or
dead is drawn as the simulator draws it, from the same key: so a request meets on real
workers what it meets in the simulation.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np

from coded_jax.inference.costs import Cost
from coded_jax.inference.stages import Sent
from coded_jax.latency.machines import Draws, Machine, draws
from coded_jax.runs.coded_model import CodedModel
from coded_jax.service.engine import Engine, Inference
from coded_jax.service.faults import Fault
from coded_jax.service.gathering import NotEnoughResults
from coded_jax.service.pool import Call, Pool

IDLE = 0.0005  # seconds between looks whether all workers are idle


class Pace:
    """Machines that the workers of a pool stand for, in the place of `Faults`.

    Args:
      machine: the machines that the workers stand for.
      cost: of the strategy that uses them.
      key: of the draws.
      n: machines that are drawn, at least as many as workers.
      requests: R, numbered from 0.
    """

    def __init__(
        self, machine: Machine, cost: Cost, key: jax.Array, n: int, requests: int
    ) -> None:
        self._machine, self._cost = machine, cost
        rounds = len(cost.rounds)
        # As `simulation.simulate` draws its first requests.
        draws_of = draws(jax.random.fold_in(key, 0), n, requests, machine, rounds)
        every = lambda drawn: np.broadcast_to(np.asarray(drawn), (n, requests))
        self._draws = [Draws(*map(every, draws_of(stage))) for stage in range(rounds)]
        self._over = [Future() for _ in range(requests)]

    def end(self, number: int) -> None:
        """Lets the workers go that are still busy with a request that is over."""
        self._over[number].set_result(None)

    def of_call(self, call: Call, worker: int, n: int) -> Fault:
        """Returns the fault of worker `worker` of n in a call; none in a warm-up."""
        if (request := call.request) is None:
            return Fault()
        drawn, trip = self._draws[call.stage], self._cost.rounds[call.stage]
        if np.isinf(drawn.delay[worker, request]):  # dead, for any piece
            return Fault(kind="raise")
        compute = drawn.compute[worker, request]
        if call.attempt:  # by the piece's own second draw, whoever computes it
            compute = drawn.compute_again[call.piece.index, request]
        least = trip.device_flops / self._cost.whole_flops * compute
        there, back = self._machine.ways(trip)
        over = self._over[request]
        return Fault(least=float(least), there=there, back=back, over=over)


class PacedFirstK(Engine):
    """The first k of n, with a client that computes no faster than it is told to.

    Args:
      model: the coded inference.
      pool: its workers.
      cost: of the model.
      client: seconds that the client takes for the whole `F_Conv`.
      hedges: for each round, seconds after which a missing piece is sent once more;
        never if empty.
    """

    def __init__(
        self,
        model: CodedModel,
        pool: Pool,
        cost: Cost,
        client: float = 0.0,
        hedges: tuple[float, ...] = (),
    ) -> None:
        super().__init__(model, pool)
        self._hedges = [*hedges] or self._hedges
        self._cost, self._per_flop = cost, client / cost.whole_flops

    def _encode(self, images: Any) -> Sent:
        # What the client computes between the rounds comes here, all of it.
        with self._slowed(self._cost.client_flops + self._cost.rounds[0].encode_flops):
            return super()._encode(images)

    def _decode(
        self, stage: int, shares: dict[int, Any], begun: Sent, available: np.ndarray
    ) -> Any:
        systematic = self._pipeline.stages[stage].code.systematic
        whole = systematic and available[stage, : self._pipeline.k].all()
        flops = 0.0 if whole else self._cost.rounds[stage].decode_flops
        # It also encodes for the next round, if there is one.
        flops += sum(x.encode_flops for x in self._cost.rounds[stage + 1 : stage + 2])
        with self._slowed(flops):
            return super()._decode(stage, shares, begun, available)

    @contextlib.contextmanager
    def _slowed(self, flops: float) -> Iterator[None]:
        """Sleeps at the end, until the client can have computed so much."""
        end = time.monotonic() + flops * self._per_flop
        yield
        time.sleep(max(end - time.monotonic(), 0))


def send_one_by_one(
    engine: PacedFirstK,
    images: np.ndarray,
    deadline: float,
    without: Collection[int] = (),
    ended: Callable[[int], None] = lambda number: None,
) -> tuple[np.ndarray, dict[int, Inference]]:
    """Sends requests of one image each, each when all workers are idle again: so they
    are independent, as the simulated ones are.

    Args:
      engine: whose workers meet faults or not.
      images: `[R, H, W, C]`.
      deadline: seconds, after which a request is lost.
      without: workers that are not used.
      ended: called with the number of each request when it is over.

    Returns:
      float64 `[R]` seconds, infinite for lost requests, rounded to microseconds; and
      inferences by number, of those that were not lost.

    Raises:
      RuntimeError: a worker does not become idle within the deadline.
    """
    engine.warm_up(1)
    seconds, inferences = np.full(len(images), np.inf), dict[int, Inference]()
    for i in range(len(images)):
        limit = time.monotonic() + deadline
        while not engine.pool.idle:
            if time.monotonic() > limit:
                raise RuntimeError(f"a worker is not idle within {deadline:g} s")
            time.sleep(IDLE)
        begun, own = time.monotonic(), images[i : i + 1]
        with contextlib.suppress(NotEnoughResults):
            inferences[i] = engine.infer(i, own, begun + deadline, without)
            seconds[i] = time.monotonic() - begun
        ended(i)
    return seconds.round(6), inferences
