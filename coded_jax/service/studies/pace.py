"""Machines of given speeds, for which processes of one machine stand.

Everything is slowed by one rule, that of the simulator: the computation of a worker and
of the client takes its part of the seconds of the whole `F_Conv`, by operations, and
what is sent takes as long as the bandwidth makes it. Whether a machine is slow, late or
dead is drawn as the simulator draws it, from the same key: so a request meets on real
workers what it meets in the simulation.
"""

from __future__ import annotations

import math
import time
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np

from coded_jax.inference.costs import Cost
from coded_jax.inference.stages import Sent
from coded_jax.latency.machines import Draws, Machine, draws
from coded_jax.runs.coded_model import CodedModel
from coded_jax.service.faults import Fault
from coded_jax.service.first_k import NEVER, FirstK
from coded_jax.service.pool import Call, Pool


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

    def of_request(self, number: int, n: int, attempt: int = 0) -> list[Fault]:
        """Returns the faults of n workers in the first stage of a request."""
        return [
            self._fault(number, 0, worker, worker if attempt else None)
            for worker in range(n)
        ]

    def of_call(self, call: Call, worker: int, n: int) -> Fault:
        """Returns the fault of worker `worker` of n in a call; none in a warm-up."""
        if call.request is None:
            return Fault()
        # A piece that is sent again meets its own second draw, whoever computes it.
        again = call.piece.index if call.attempt else None
        return self._fault(call.request, call.stage, worker, again)

    def _fault(self, number: int, stage: int, worker: int, again: int | None) -> Fault:
        """Returns the fault of a worker with its own piece, or with one that is sent
        again."""
        draws, trip = self._draws[stage], self._cost.rounds[stage]
        compute, late = draws.compute[worker, number], draws.delay[worker, number]
        if math.isinf(late):  # dead, for any piece
            return Fault(kind="raise")
        if again is not None:
            compute = draws.compute_again[again, number]
            late = draws.delay_again[again, number]
        work = trip.device_flops / self._cost.whole_flops
        there, back = self._machine.ways(trip)
        least = work * float(compute) + float(late)
        return Fault(least=least, there=there, back=back, over=self._over[number])


class PacedFirstK(FirstK):
    """The first k of n, with a client that computes no faster than it is told to.

    Args:
      model: the coded inference.
      pool: its workers.
      cost: of the model.
      client: seconds that the client takes for the whole `F_Conv`.
      hedges: seconds after which a missing piece is sent once more, of all rounds or of
        each; None for never.
    """

    def __init__(
        self,
        model: CodedModel,
        pool: Pool,
        cost: Cost,
        client: float,
        hedges: float | tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(model, pool)
        every = isinstance(hedges, tuple)
        after = NEVER if hedges is None else hedges
        self._hedges = [*hedges] if every else [after] * len(cost.rounds)
        self._cost, self._per_flop = cost, client / cost.whole_flops

    def _encode(self, images: Any) -> Sent:
        started = time.monotonic()
        sent = super()._encode(images)
        # What the client computes between the rounds comes here, all of it.
        flops = self._cost.client_flops + self._cost.rounds[0].encode_flops
        self._wait_for(started, flops)
        return sent

    def _decode(
        self, stage: int, shares: dict[int, Any], begun: Sent, available: np.ndarray
    ) -> Any:
        started = time.monotonic()
        decoded = super()._decode(stage, shares, begun, available)
        code, trip = self._pipeline.stages[stage].code, self._cost.rounds[stage]
        whole = code.systematic and available[stage, : self._pipeline.k].all()
        flops = 0.0 if whole else trip.decode_flops
        if stage + 1 < len(self._cost.rounds):
            flops += self._cost.rounds[stage + 1].encode_flops
        self._wait_for(started, flops)
        return decoded

    def _wait_for(self, begun: float, flops: float) -> None:
        """Sleeps until the client can have computed so much."""
        rest = begun + flops * self._per_flop - time.monotonic()
        if rest > 0:
            time.sleep(rest)
