"""Comparison of strategies on the same devices: which is first, which is most accurate.

A lost answer counts as wrong, and so does one that comes after a target, if there is
one. All strategies meet the same draws.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from coded_jax.checks import require
from coded_jax.latency import simulation
from coded_jax.latency.machines import Conditions, Machine
from coded_jax.latency.simulation import QUANTILES, Workload
from coded_jax.latency.strategies import FAMILIES, HEDGED, UNCODED, Strategy
from coded_jax.runs.reading import ROUNDING

REQUESTS = 100_000
TIE = 0.01
"""Part of a latency below which a difference is none: the simpler family is first."""
PILOT = 10_000
"""Requests by which strategies are chosen that are worth more of them."""


class Forecast(NamedTuple):
    """Latency and accuracy of a strategy.

    Attributes:
      place: of the strategy among those that are compared.
      strategy: with its hedges.
      seconds: within which that share of requests is complete, by the names of
        `QUANTILES`; infinite if it never is.
      answered: share of requests that are complete within the target.
      accuracy: expected; a request that is not complete by then counts as wrong.
    """

    place: int
    strategy: Strategy
    seconds: dict[str, float]
    answered: float
    accuracy: float


class First(NamedTuple):
    """The strategy that answers first, and by how much.

    Attributes:
      winner: the first one, or one that is as fast by `TIE` and of a simpler family.
      runner_up: the fastest one of another family, but not hedged pieces where the same
        without hedges are as fast; None if there is none.
      lead: the runner-up's extra time as a part of the winner's time; infinite if there
        is none.
    """

    winner: Forecast
    runner_up: Forecast | None
    lead: float


def forecasts(
    key: jax.Array,
    strategies: Sequence[Strategy],
    machine: Machine,
    *,
    places: Iterable[int] | None = None,
    target: float = math.inf,
    requests: int = REQUESTS,
) -> list[Forecast]:
    """Simulates strategies on the same draws.

    Args:
      key: of the draws.
      strategies: to be compared, one or more.
      machine: the devices, their links and the client.
      places: of the strategies that are simulated, one or more; all by default.
      target: seconds in which a request must be complete.
      requests: simulated; the standard error of `answered` is at most
        `1 / (2 sqrt(requests))`, but for differences between forecasts much smaller.

    Raises:
      ValueError: a request is complete with results that were not tried.
    """
    usual = usual_seconds(machine)
    hedged = {
        i: _with_hedges(strategies[i], machine, usual)
        for i in (range(len(strategies)) if places is None else places)
    }
    workloads = [strategy.workload for strategy in hedged.values()]
    n = max(workload.n for workload in workloads)
    completed = simulation.simulate(key, n, requests, machine, workloads)
    rows = []
    for (place, strategy), own in zip(hedged.items(), completed, strict=True):
        in_time = (own.seconds <= target) & np.isfinite(own.seconds)
        counts = np.bincount(own.available[in_time], minlength=len(strategy.accuracy))
        sets = np.flatnonzero(counts)
        accuracy = float(counts[sets] @ strategy.accuracy[sets]) / requests
        tried = "one whose runs tried all results that occur"
        require("strategy", strategy.text, not math.isnan(accuracy), tried)
        summary = simulation.summary(own.seconds)
        seconds = {name: summary[name] for name in QUANTILES}
        answered = float(np.mean(in_time))
        rows.append(Forecast(place, strategy, seconds, answered, accuracy))
    return rows


def fastest(
    rows: Sequence[Forecast], quantile: str, least_accuracy: float
) -> dict[str, Forecast]:
    """Returns the fastest strategy of each family that is accurate enough.

    Args:
      rows: of `forecasts`.
      quantile: a name of `QUANTILES`, of which the seconds count.
      least_accuracy: in [0, 1], of the expected accuracy.

    Returns:
      Those of `rows` by family, the fastest first; none of families of which nobody is
      accurate enough, or answers so many.
    """
    best: dict[str, Forecast] = {}
    for row in sorted(rows, key=lambda row: row.seconds[quantile]):
        if row.accuracy >= least_accuracy and row.seconds[quantile] < math.inf:
            best.setdefault(row.strategy.family, row)
    return best


def first(
    rows: Sequence[Forecast], quantile: str, least_accuracy: float
) -> First | None:
    """Returns the strategy that answers first among those that are accurate enough;
    None where there is none. See `fastest`."""
    families = fastest(rows, quantile, least_accuracy)
    if not families:
        return None
    seconds = {family: row.seconds[quantile] for family, row in families.items()}
    longest = (1 + TIE) * min(seconds.values())
    as_fast = [family for family in families if seconds[family] <= longest]
    simplest = min(as_fast, key=FAMILIES.index)
    winner = families.pop(simplest)
    if simplest == UNCODED:  # hedged it is never slower
        families.pop(HEDGED, None)
    second = next(iter(families.values()), None)
    later = second.seconds[quantile] if second else math.inf
    return First(winner, second, max(0.0, later / seconds[simplest] - 1))


def rank(rows: Sequence[Forecast]) -> list[Forecast]:
    """Sorts forecasts by their expected accuracy within the target, the best first.

    Where that is the same to `reading.ROUNDING`, fewer devices are better, and then
    less work of each.
    """

    def merit(row: Forecast) -> tuple[float, ...]:
        work = row.strategy.workload.cost.device_flops
        return -round(row.accuracy / ROUNDING), row.strategy.n, work

    return sorted(rows, key=merit)


def shortlist(strategies: Sequence[Strategy], machine: Machine) -> list[int]:
    """Returns the places of strategies that are worth a long simulation.

    Of those of one family with one k and r and the same accuracies, whose requests are
    complete with the same results, those that take the least at p50, p99 or p99.9 of a
    short one.

    Args:
      strategies: to choose from.
      machine: the devices.
    """
    rows = forecasts(jax.random.key(1), strategies, machine, requests=PILOT)
    of_kinds: dict[tuple, int] = {}
    for name in QUANTILES:
        for row in sorted(rows, key=lambda row: row.seconds[name]):
            own = row.strategy
            kind = (name, own.family, own.sizes, own.accuracy.tobytes())
            of_kinds.setdefault(kind, row.place)
    return sorted({*of_kinds.values()})


def compare(
    key: jax.Array,
    strategies: Sequence[Strategy],
    conditions: Conditions,
    *,
    least_accuracy: float,
    requests: int,
) -> dict[str, Any]:
    """Compares strategies at a point of a map.

    Args:
      key: of the draws; the same at all points, so that borders are smooth.
      strategies: of one network.
      conditions: of the point.
      least_accuracy: expected accuracy that a strategy must have to be compared.
      requests: simulated.

    Returns:
      By the names of `QUANTILES`: `winner` and `runner_up`, places in `strategies`, of
      the fastest strategy and the fastest of another family, None where there is none;
      their `seconds`; `lead`, how much longer the runner-up takes; and `families`,
      place, seconds and expected accuracy of the best of each.
    """
    machine = conditions.machine(strategies[0].workload.cost.whole_flops)
    places = shortlist(strategies, machine)
    rows = forecasts(key, strategies, machine, places=places, requests=requests)
    four_digits = lambda number: float(f"{number:.4g}")
    point: dict[str, Any] = {}
    for quantile in QUANTILES:
        families = {
            family: [
                row.place,
                four_digits(row.seconds[quantile]),
                round(row.accuracy, 5),
            ]
            for family, row in fastest(rows, quantile, least_accuracy).items()
        }
        point[quantile] = {"winner": None, "families": families}
        if best := first(rows, quantile, least_accuracy):
            winner, second, lead = best
            point[quantile] |= {
                "winner": winner.place,
                "seconds": four_digits(winner.seconds[quantile]),
                "runner_up": second.place if second else None,
                "lead": four_digits(lead) if second else None,
            }
    return point


def usual_seconds(machine: Machine) -> float:
    """Returns the median of a device's seconds for the whole `F_Conv`."""
    draws = machine.compute.sample(jax.random.key(0), (10_001,))
    return float(np.median(np.asarray(draws)))


def _with_hedges(strategy: Strategy, machine: Machine, usual: float) -> Strategy:
    """Returns a hedged strategy with the seconds after which a piece is sent again, the
    usual time of each round times `late`."""
    if strategy.late is None:
        return strategy
    rounds = round_seconds(strategy.workload, machine, usual)
    hedges = tuple(strategy.late * sum(parts.values()) for parts in rounds)
    hedged = dataclasses.replace(strategy.workload, hedge_after=hedges)
    return strategy._replace(workload=hedged)


def round_seconds(
    workload: Workload, machine: Machine, usual: float
) -> list[dict[str, float]]:
    """Returns the seconds of each round whose devices are all as usual: those of
    `devices`, of the `link`, and of the `client`'s messages, up to the first result.

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
            "client": machine.message * (workload.queries + 1),
        }
        for trip in cost.rounds
    ]
