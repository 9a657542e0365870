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
        "strategies": [_to_json(strategy) for strategy in strategies],
        "code": provenance.code_version() if keep else None,
        "points": {},
        "seconds": 0.0,
    }
    content = json.loads(json.dumps(content))  # tuples are lists there
    former = _read(path)
    same = ("question", "strategies", "code")
    known = former and content["code"] is not None
    if known and all(former.get(name) == content[name] for name in same):
        content = former
    whole = next(s for s in strategies if s.family == ONE and s.workload)
    assert whole.workload is not None
    flops, written = whole.workload.cost.whole_flops, time.monotonic()
    least = question.accuracy - question.margin
    key = jax.random.key(question.seed)
    try:
        for i, j, conditions in question.plane.points():
            start = time.monotonic()
            if (name := f"{i},{j}") not in content["points"]:
                content["points"][name] = compare(
                    key, strategies, conditions, flops, least, question.requests
                )
                content["seconds"] += time.monotonic() - start
            advance()
            if time.monotonic() - written > PAUSE:
                _write(path, content)
                written = time.monotonic()
    finally:
        _write(path, content)
    return content


def _to_json(strategy: Strategy) -> dict[str, Any]:
    work = strategy.workload
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
    if work is None:
        return fields
    cost, names = work.cost, {"piece": "device", "uncoded": "client"}
    shares = {
        names.get(part, part): float(f"{share:.4g}")
        for part, share in cost.parts.items()
    }
    return fields | {
        "whole_flops": cost.whole_flops,
        "work": shares,
        "bytes_in": cost.bytes_in,
        "bytes_out": cost.bytes_out,
        "rounds": len(cost.rounds),
    }


def _read(path: Path) -> dict[str, Any] | None:
    """Returns the content of a file that a stopped process has written, or None."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _write(path: Path, content: dict[str, Any]) -> None:
    workdir.write_atomically(path, json.dumps(content))


def log_values(first: float, last: float, points: int) -> tuple[float, ...]:
    """Returns numbers with even ratios, of three digits."""
    steps = [i / max(points - 1, 1) for i in range(points)]
    logs = [math.log(first) + step * math.log(last / first) for step in steps]
    return tuple(float(f"{math.exp(x):.3g}") for x in logs)
