"""A map of who answers first: its points, kept on the disk as they are compared."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from coded_jax.latency.plane import Plane, compare
from coded_jax.latency.strategies import HEDGED, ONE, Strategy
from coded_jax.runs import provenance, workdir

PAUSE = 5.0  # seconds between writings


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
      `plane.compare`.
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


def log_values(first: float, last: float, points: int) -> tuple[float, ...]:
    """Returns numbers with even ratios, of three digits."""
    steps = [i / max(points - 1, 1) for i in range(points)]
    logs = [math.log(first) + step * math.log(last / first) for step in steps]
    return tuple(float(f"{math.exp(x):.3g}") for x in logs)
