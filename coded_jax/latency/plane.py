"""A plane of conditions, two of which vary: who answers first at each of its points."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax

from coded_jax.checks import require
from coded_jax.latency import comparison
from coded_jax.latency.conditions import AXES, Conditions
from coded_jax.latency.strategies import FAMILIES, ONE, UNCODED, Strategy

QUANTILES = ("p50", "p99", "p99.9")
REQUESTS = 50_000
"""Simulated at a point: 50 of them are slower than p99.9."""


class Plane(NamedTuple):
    """Points of two conditions.

    Attributes:
      x, y: names in `AXES`.
      x_values, y_values: of the points, ascending.
      fixed: the other conditions.
    """

    x: str
    x_values: tuple[float, ...]
    y: str
    y_values: tuple[float, ...]
    fixed: Conditions

    def check(self) -> None:
        """Raises a ValueError unless it has two axes with values that are accepted."""
        for name in (self.x, self.y):
            require("axis", name, name in AXES, f"one of {list(AXES)}")
        require("y", self.y, self.y != self.x, "another axis than x")
        if self.fixed.straggling == "trace":
            accepted = "an x and a y other than tail with straggling=trace"
            require("axis", "tail", "tail" not in (self.x, self.y), accepted)
        for _ in self.points():
            pass

    def points(self) -> Iterator[tuple[int, int, Conditions]]:
        """Yields the place of every point, along x and y, and its conditions."""
        for j, y in enumerate(self.y_values):
            for i, x in enumerate(self.x_values):
                values: dict[str, Any] = {self.x: x, self.y: y}
                yield i, j, dataclasses.replace(self.fixed, **values)


def compare(
    key: jax.Array,
    strategies: Sequence[Strategy],
    conditions: Conditions,
    whole_flops: float,
    least_accuracy: float,
    requests: int = REQUESTS,
) -> dict[str, Any]:
    """Compares strategies at a point.

    Args:
      key: of the draws; the same at all points, so that borders are smooth.
      strategies: of one network.
      conditions: of the point.
      whole_flops: operations of the network's whole `F_Conv`.
      least_accuracy: expected accuracy that a strategy must have to be compared.
      requests: simulated.

    Returns:
      By the names of `QUANTILES`: `winner` and `runner_up`, places in `strategies`, of
      the fastest strategy and the fastest of another family, None where there is none;
      their `seconds`; `lead`, how much longer the runner-up takes; `over_uncoded`, how
      much longer the best takes that neither repeats nor codes anything; and
      `families`, place, seconds and expected accuracy of the best of each.
    """
    machine = conditions.machine(whole_flops)
    places = comparison.shortlist(strategies, machine)
    chosen = [strategies[place] for place in places]
    rows = comparison.forecasts(key, chosen, machine, requests=requests)
    point = {}
    for quantile in QUANTILES:
        families = {}
        for family in FAMILIES:
            own = [i for i, row in enumerate(rows) if row.strategy.family == family]
            best = comparison.first([rows[i] for i in own], quantile, least_accuracy)
            if best is not None:
                i = own[best.winner]
                accuracy = round(rows[i].accuracy, 5)
                families[family] = [places[i], _short(best.seconds), accuracy]
        first = comparison.first(rows, quantile, least_accuracy)
        if first is None:
            point[quantile] = {"winner": None, "families": families}
            continue
        plain = [families[x][1] for x in (ONE, UNCODED) if x in families]
        second = first.runner_up
        point[quantile] = {
            "winner": places[first.winner],
            "seconds": _short(first.seconds),
            "runner_up": None if second is None else places[second],
            "lead": None if second is None else _short(first.lead),
            "over_uncoded": _short(min(plain) / first.seconds - 1) if plain else None,
            "families": families,
        }
    return point


def _short(number: float) -> float:
    """Returns a number with four digits."""
    return float(f"{number:.4g}")
