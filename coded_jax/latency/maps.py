"""A map of who answers first over two conditions that vary.

Its points are compared one by one, and kept on the disk as they are.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from coded_jax.checks import require
from coded_jax.latency import comparison
from coded_jax.latency.conditions import AXES, Conditions
from coded_jax.latency.strategies import FAMILIES, HEDGED, ONE, UNCODED, Strategy
from coded_jax.runs import provenance, workdir

QUANTILES = ("p50", "p99", "p99.9")
REQUESTS = 50_000
"""Simulated at a point: 50 of them are slower than p99.9."""
PAUSE = 5.0  # seconds between writings


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


class Question(NamedTuple):
    """The question that a map answers.

    Attributes:
      network: its name.
      n: devices.
      accuracy: of the network, in [0, 1].
      drop: that an answer loses in each stage of a learned code that was not trained;
        None where there is none of these.
      margin: by which the expected accuracy of a strategy may be lower.
      plane: the conditions.
      requests: simulated at each point.
      seed: of the draws.
    """

    network: str
    n: int
    accuracy: float
    drop: float | None
    margin: float
    plane: Plane
    requests: int
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as JSON has them."""
        plane = self.plane._asdict()
        plane["fixed"] = dataclasses.asdict(self.plane.fixed)
        return self._asdict() | {"plane": plane}


def draw_up(
    question: Question,
    strategies: Sequence[Strategy],
    path: Path,
    advance: Callable[[], None] = lambda: None,
    keep: bool = True,
) -> dict[str, Any]:
    """Compares the strategies at all points, and writes them to a file.

    Points that the file already has, of the same question and the same strategies, are
    not compared again, unless another version of the code, or code with uncommitted
    changes, has compared them; other points are replaced.

    Args:
      question: what is asked.
      strategies: of its network on its devices.
      path: of the file.
      advance: called after every point.
      keep: whether points that the file has are kept, and new ones are for later.

    Returns:
      The content of the file: `question`, `strategies`, `code`, the version that has
      compared them, and `points` by `"i,j"`, places along x and y, as of
      `compare`.
    """
    content: dict[str, Any] = {
        "question": question.to_json(),
        "strategies": [*map(_to_json, strategies)],
        "code": provenance.code_version() if keep else None,
        "points": {},
        "seconds": 0.0,
    }
    content = json.loads(json.dumps(content))  # tuples are lists there
    try:
        former = json.loads(path.read_text())
    except (OSError, ValueError):  # there is none, or it is of a stopped process
        former = {}
    same = ("question", "strategies", "code")
    if content["code"] and all(former.get(name) == content[name] for name in same):
        content = former
    write = lambda: workdir.write_atomically(path, json.dumps(content))
    whole = next(s for s in strategies if s.family == ONE and s.workload)
    assert whole.workload is not None
    flops, written = whole.workload.cost.whole_flops, time.monotonic()
    key = jax.random.key(question.seed)
    try:
        for i, j, conditions in question.plane.points():
            start = time.monotonic()
            if (name := f"{i},{j}") not in content["points"]:
                content["points"][name] = compare(
                    key,
                    strategies,
                    conditions,
                    whole_flops=flops,
                    least_accuracy=question.accuracy - question.margin,
                    requests=question.requests,
                )
                content["seconds"] += time.monotonic() - start
            advance()
            if time.monotonic() - written > PAUSE:
                write()
                written = time.monotonic()
    finally:
        write()
    return content


def _to_json(strategy: Strategy) -> dict[str, Any]:
    k, r = strategy.sizes
    fields: dict[str, Any] = {
        "family": strategy.family,
        "code": strategy.code,
        "k": k,
        "r": r,
        "pieces": strategy.pieces,
        "accuracy": float(f"{np.nanmean(strategy.accuracy):.6g}"),
    }
    if strategy.family == HEDGED:
        fields["late"] = strategy.late
    if strategy.workload is not None:
        cost, names = strategy.workload.cost, {"piece": "device", "uncoded": "client"}
        fields |= {
            "whole_flops": cost.whole_flops,
            "work": {
                names.get(part, part): float(f"{share:.4g}")
                for part, share in cost.parts.items()
            },
            "bytes_in": cost.bytes_in,
            "bytes_out": cost.bytes_out,
            "rounds": len(cost.rounds),
        }
    return fields


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


def log_values(first: float, last: float, points: int) -> tuple[float, ...]:
    """Returns numbers with even ratios, of three digits."""
    steps = [i / max(points - 1, 1) for i in range(points)]
    logs = [math.log(first) + step * math.log(last / first) for step in steps]
    return tuple(float(f"{math.exp(x):.3g}") for x in logs)
