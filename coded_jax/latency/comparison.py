"""Comparison of strategies on the same devices: which is first, which is most accurate.

A lost answer counts as wrong, and so does one that comes after a target, if there is
one. All strategies meet the same draws.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from coded_jax.checks import require
from coded_jax.latency import simulation
from coded_jax.latency.simulation import Latencies, Machine
from coded_jax.latency.strategies import FAMILIES, HEDGED, UNCODED, Strategy
from coded_jax.latency.workloads import Workload
from coded_jax.runs.reading import ROUNDING

REQUESTS = 100_000
SHORTLIST = 1
TIE = 0.01
"""Part of a latency below which a difference is none: the simpler family is first."""
PILOT = 10_000
"""Requests by which strategies are chosen that are worth more of them."""


class Forecast(NamedTuple):
    """Latency and accuracy of a strategy.

    Attributes:
      strategy: with its hedges.
      seconds: within which that share of requests is complete, by the names of
        `simulation.QUANTILES`; infinite if it never is.
      answered: share of requests that are complete within the target.
      accuracy: expected; a request that is not complete by then counts as wrong.
    """

    strategy: Strategy
    seconds: dict[str, float]
    answered: float
    accuracy: float


class First(NamedTuple):
    """The strategy that answers first, and by how much.

    Attributes:
      winner: place of the first one, or of one that is as fast by `TIE` and of a
        simpler family.
      runner_up: place of the fastest one of another family, but not of hedged pieces
        where the same without hedges is as fast; None if there is none.
      seconds, runner_up_seconds: of both; infinite where there is none.
    """

    winner: int
    runner_up: int | None
    seconds: float
    runner_up_seconds: float

    @property
    def lead(self) -> float:
        """Returns the lead: the runner-up's extra time as a part of the winner's time;
        infinite if there is none."""
        return max(0.0, self.runner_up_seconds / self.seconds - 1)


def forecasts(
    key: jax.Array,
    strategies: Sequence[Strategy],
    machine: Machine,
    *,
    target: float = math.inf,
    requests: int = REQUESTS,
) -> list[Forecast]:
    """Simulates strategies on the same draws.

    Args:
      key: of the draws.
      strategies: to be compared.
      machine: the devices, their links and the client.
      target: seconds in which a request must be complete.
      requests: simulated; the standard error of `answered` is at most
        `1 / (2 sqrt(requests))`, but for differences between forecasts much smaller.

    Raises:
      ValueError: there is no strategy, `target` is not positive, or a request is
        complete with results that were not tried.
    """
    require("strategies", strategies, len(strategies) > 0, "one or more")
    require("target", target, target > 0, "more than 0")
    usual = usual_seconds(machine)
    placed = [_with_hedges(strategy, machine, usual) for strategy in strategies]
    works = {str(i): s.workload for i, s in enumerate(placed) if s.workload}
    n = max((workload.n for workload in works.values()), default=0)
    latencies = simulation.simulate(key, n, requests, machine, works)
    alone = Latencies(
        np.full(requests, machine.client, np.float32), np.zeros(requests, np.int32)
    )
    rows = []
    for i, strategy in enumerate(placed):
        own = latencies.get(str(i), alone)
        in_time = (own.seconds <= target) & (own.seconds < np.inf)
        summary = simulation.summary(own.seconds)
        quantiles = {name: summary[name] for name in simulation.QUANTILES}
        accuracy = simulation.accuracy_within(own, target, strategy.accuracy)
        rows.append(Forecast(strategy, quantiles, float(np.mean(in_time)), accuracy))
    return rows


def first(
    rows: Sequence[Forecast], quantile: str, least_accuracy: float
) -> First | None:
    """Returns the strategy that answers first among those that are accurate enough.

    Args:
      rows: of `forecasts`.
      quantile: a name of `simulation.QUANTILES`, of which the seconds count.
      least_accuracy: in [0, 1], of the expected accuracy.

    Returns:
      Places in `rows`; None where nobody is accurate enough and answers so many.
    """
    seconds = [row.seconds[quantile] for row in rows]
    fastest: dict[str, int] = {}  # of each family
    for i in sorted(range(len(rows)), key=seconds.__getitem__):
        if rows[i].accuracy >= least_accuracy and seconds[i] < math.inf:
            fastest.setdefault(rows[i].strategy.family, i)
    if not fastest:
        return None
    longest = (1 + TIE) * min(seconds[i] for i in fastest.values())
    winning = next(
        f for f in FAMILIES if f in fastest and seconds[fastest[f]] <= longest
    )
    winner = fastest.pop(winning)
    if winning == UNCODED:  # hedged it is never slower
        fastest.pop(HEDGED, None)
    second = min(fastest.values(), key=seconds.__getitem__, default=None)
    later = math.inf if second is None else seconds[second]
    return First(winner, second, seconds[winner], later)


def rank(rows: Sequence[Forecast]) -> list[Forecast]:
    """Sorts forecasts by their expected accuracy within the target, the best first.

    Where that is the same to `reading.ROUNDING`, fewer devices are better, and then
    less work of each.
    """

    def merit(row: Forecast) -> tuple[float, ...]:
        work = row.strategy.workload.cost.device_flops if row.strategy.workload else 0
        return -round(row.accuracy / ROUNDING), row.strategy.n, work

    return sorted(rows, key=merit)


def shortlist(
    strategies: Sequence[Strategy], machine: Machine, most: int = SHORTLIST
) -> list[int]:
    """Returns the places of strategies that are worth a long simulation.

    Of those of one family with one k and r and the same accuracies, whose requests are
    complete with the same results, those that take the least at p50, p99 or p99.9 of a
    short one.

    Args:
      strategies: to choose from.
      machine: the devices.
      most: of each kind, for each of these.
    """
    rows = forecasts(jax.random.key(1), strategies, machine, requests=PILOT)
    alike: dict[tuple, list[int]] = {}
    for i, strategy in enumerate(strategies):
        kind = (strategy.family, strategy.sizes, strategy.accuracy.tobytes())
        alike.setdefault(kind, []).append(i)
    chosen: set[int] = set()
    for kind in alike.values():
        for name in ("p50", "p99", "p99.9"):
            chosen |= {*sorted(kind, key=lambda i: rows[i].seconds[name])[:most]}
    return sorted(chosen)


def usual_seconds(machine: Machine) -> float:
    """Returns the median of a device's seconds for the whole `F_Conv`."""
    draws = machine.compute.sample(jax.random.key(0), (10_001,))
    return float(np.median(np.asarray(draws)))


def _with_hedges(strategy: Strategy, machine: Machine, usual: float) -> Strategy:
    """Returns a hedged strategy with the seconds after which a piece is sent again: its
    own, or the usual time of each round times `late`."""
    workload = strategy.workload
    if strategy.family != HEDGED or workload is None:
        return strategy
    usually = [sum(parts.values()) for parts in round_seconds(workload, machine, usual)]
    after, late = strategy.after, strategy.late
    hedges = tuple(late * x if after is None else after for x in usually)
    hedged = dataclasses.replace(workload, hedge_after=hedges)
    return strategy._replace(workload=hedged)


def round_seconds(
    workload: Workload, machine: Machine, usual: float
) -> list[dict[str, float]]:
    """Returns the seconds of each round whose devices are all as usual: those of
    `devices`, of the `link`, and of the client's `messages`, up to the first result.

    Args:
      workload: what is computed.
      machine: the devices.
      usual: seconds of a device for the whole `F_Conv`.
    """
    cost = workload.cost
    return [
        {
            "devices": usual * trip.device_flops / cost.whole_flops,
            "link": (trip.bytes_in + trip.bytes_out) / machine.bandwidth + machine.link,
            "messages": machine.message * (workload.queries + 1),
        }
        for trip in cost.rounds
    ]
