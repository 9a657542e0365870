"""A map of who answers first over two conditions that vary.

Its points are compared one by one, and kept on the disk as they are.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from coded_jax.latency import comparison
from coded_jax.latency.machines import Conditions
from coded_jax.latency.strategies import Strategy
from coded_jax.runs import provenance, workdir

QUANTILES = ("p50", "p99", "p99.9")
REQUESTS = 50_000
"""Simulated at a point: 50 of them are slower than p99.9."""
PAUSE = 5.0  # seconds between writings


class Plane(NamedTuple):
    """Points of two conditions.

    Attributes:
      x, y: names in `machines.AXES`.
      x_values, y_values: of the points, ascending.
      fixed: the other conditions.
    """

    x: str
    x_values: tuple[float, ...]
    y: str
    y_values: tuple[float, ...]
    fixed: Conditions

    def points(self) -> Iterator[tuple[str, Conditions]]:
        """Yields the place of every point, along x and y as `3,0`, and its conditions.

        Raises:
          ValueError: a value is out of range.
        """
        for j, y in enumerate(self.y_values):
            for i, x in enumerate(self.x_values):
                values: dict[str, Any] = {self.x: x, self.y: y}
                yield f"{i},{j}", dataclasses.replace(self.fixed, **values)


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
    asked = {
        "question": question.to_json(),
        "strategies": [strategy.to_json() for strategy in strategies],
        "code": provenance.code_version() if keep else None,
    }
    asked = json.loads(json.dumps(asked))  # tuples are lists there
    try:
        former = json.loads(path.read_text())
    except (OSError, ValueError):  # there is none, or it is of a stopped process
        former = {}
    content: dict[str, Any] = {**asked, "points": {}, "seconds": 0.0}
    if asked["code"] and asked == {name: former.get(name) for name in asked}:
        content = former
    write = lambda: workdir.write_atomically(path, json.dumps(content))
    flops, written = strategies[0].workload.cost.whole_flops, time.monotonic()
    key, least = jax.random.key(question.seed), question.accuracy - question.margin
    try:
        for place, conditions in question.plane.points():
            start = time.monotonic()
            if place not in content["points"]:
                content["points"][place] = compare(
                    key,
                    strategies,
                    conditions,
                    whole_flops=flops,
                    least_accuracy=least,
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


def compare(
    key: jax.Array,
    strategies: Sequence[Strategy],
    conditions: Conditions,
    *,
    whole_flops: float,
    least_accuracy: float,
    requests: int,
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
      their `seconds`; `lead`, how much longer the runner-up takes; and `families`,
      place, seconds and expected accuracy of the best of each.
    """
    machine = conditions.machine(whole_flops)
    places = comparison.shortlist(strategies, machine)
    chosen = [strategies[place] for place in places]
    rows = comparison.forecasts(key, chosen, machine, requests=requests)
    point = {}
    for quantile in QUANTILES:
        families = {}
        fastest = comparison.fastest(rows, quantile, least_accuracy)
        for family, i in fastest.items():
            seconds, accuracy = rows[i].seconds[quantile], rows[i].accuracy
            families[family] = [places[i], _short(seconds), round(accuracy, 5)]
        first = comparison.first(rows, quantile, least_accuracy)
        point[quantile] = {"winner": None, "families": families}
        if first is None:
            continue
        second = first.runner_up
        point[quantile] |= {
            "winner": places[first.winner],
            "seconds": _short(first.seconds),
            "runner_up": None if second is None else places[second],
            "lead": None if second is None else _short(first.lead),
        }
    return point


def _short(number: float) -> float:
    """Returns a number with four digits."""
    return float(f"{number:.4g}")
