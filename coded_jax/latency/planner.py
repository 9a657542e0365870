"""Which code on how many devices answers best within a latency target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from coded_jax.latency import simulation
from coded_jax.latency.simulation import Machine
from coded_jax.latency.strategies import Round, Work, check
from coded_jax.runs.reading import ROUNDING, code_name, patterns_of

UNPLANNED = ("zero_fill", "mean_fill", "no_parity")
"""Codes without parity, for which no number of results is enough to stop waiting."""

NOT_SYSTEMATIC = ("berrut", "spline")
REQUESTS = 100_000


class Candidate(NamedTuple):
    """A code that could be chosen.

    Attributes:
      code: its name.
      work: what it asks of the devices.
      accuracy: float64 `[2^n]`, of each set of results that arrived, at
        `sum(arrived * 2^i)`; NaN for those that were not tried.
    """

    code: str
    work: Work
    accuracy: np.ndarray


class Row(NamedTuple):
    """A candidate within a target.

    Attributes:
      code: its name.
      k, r, n: data pieces, what is sent beside them, and devices.
      rounds: trips to the devices.
      work: of a device in all of them, as a fraction of the whole `F_Conv`.
      p50, p99, p999: seconds within which that share of requests is complete.
      answered: share of requests that are complete within the target.
      accuracy: expected, where what is not complete by then counts as wrong.
    """

    code: str
    k: int
    r: int
    n: int
    rounds: int
    work: float
    p50: float
    p99: float
    p999: float
    answered: float
    accuracy: float


def candidate(
    results: dict[str, Any],
    whole_seconds: float,
    encode_seconds: float | None = None,
    decode_seconds: float | None = None,
    name: str = "code",
) -> Candidate:
    """A code of a finished run.

    What was not measured is estimated by its operations, as if the client did as many
    in a second as a device does. The work of several stages, and the seconds of their
    code, are taken to be the same in each of them, since a run keeps their sums.

    Args:
      results: the content of its `results.json`.
      whole_seconds: that the client needs for the whole `F_Conv`.
      encode_seconds, decode_seconds: of all stages, if they were measured.
      name: `"code"`, or one of the run's baselines.

    Raises:
      ValueError: the run has no such code or does not say what it costs, splits no
        images, or lost other devices in every stage; the code has no parity; or
        `whole_seconds` is not positive.
    """
    fits = 0 < whole_seconds < math.inf
    check("whole_seconds", whole_seconds, fits, "more than 0")
    known = list(results.get("costs", ()))
    check("name", name, name in known, f"one of {known} with costs in this run")
    config, split, costs = results["config"], results["split"], results["costs"][name]
    check("split", config["split"], config["split"] == "image", "image")
    stages, losses = split["stages"], config["stage_losses"]
    check("stage_losses", losses, len(stages) == 1 or losses == "held", "held")
    code = config["code"] if name == "code" else name
    check("name", code, code not in UNPLANNED, "a code with parity")

    k, r = split["k"], split["r"]
    patterns = patterns_of(results, code) or []
    check("name", code, len(patterns) > 0, "a code whose patterns this run has kept")
    accuracy = simulation.accuracy_table(patterns, k + r)
    if code == "uncoded":
        # Its parity pieces are blank: nobody sends them, nor waits for them.
        r, accuracy = 0, np.r_[np.full(2**k - 1, np.nan), accuracy[-1]]
    strategy = code if code in ("uncoded", "replication") else "coded"

    seconds = {part: costs[part] / costs["whole"] * whole_seconds for part in costs}
    if encode_seconds is not None:
        seconds["encode"] = encode_seconds
    if decode_seconds is not None:
        seconds["decode"] = decode_seconds
    itemsize = 2 if config["precision"] == "bfloat16" else 4
    count = len(stages)
    rounds = tuple(
        Round(
            costs["piece"] / costs["whole"] / count,
            itemsize * sum(math.prod(stage[f"{x}_shape"]) for x in ("piece", "share")),
            seconds["encode"] / count,
            seconds["decode"] / count if strategy == "coded" else 0.0,
        )
        for stage in stages
    )
    paper = code == "learned" and config["recipe"] == "paper"
    systematic = not paper and code not in NOT_SYSTEMATIC
    own = seconds["uncoded"]
    work = Work(strategy, k, r, rounds, systematic=systematic, own=own)
    return Candidate(code_name(config, code), work, accuracy)


def exact(code: str, work: Work, accuracy: float) -> Candidate:
    """A way to compute the features themselves, as copies or hedged requests do.

    Args:
      code: its name.
      work: what it asks of the devices.
      accuracy: of the base model, which is that of every complete request.
    """
    return Candidate(code, work, np.full(2**work.n, accuracy))


def plan(
    key: jax.Array,
    candidates: Sequence[Candidate],
    machine: Machine,
    target_seconds: float,
    max_devices: int | None = None,
    requests: int = REQUESTS,
) -> list[Row]:
    """Ranks candidates by their expected accuracy within a latency target.

    Where that is the same to `frontier.ROUNDING`, fewer devices are better, and then
    less work of each.

    Args:
      key: of the draws, which are the same for all.
      candidates: to choose from.
      machine: what the devices are like, and how often they fail.
      target_seconds: in which a request must be complete.
      max_devices: those that need more are left out.
      requests: simulated; the standard error of `answered` is at most
        `1 / (2 sqrt(requests))`, but for differences between rows much smaller.

    Returns:
      A row for each, the best one first.

    Raises:
      ValueError: no candidate has few enough devices, `target_seconds` is not positive,
        or a result is complete in a way that was not tried.
    """
    check("target_seconds", target_seconds, target_seconds > 0, "more than 0")
    check("candidates", "none", len(candidates) > 0, "one or more")
    least = min(each.work.n for each in candidates)
    most = math.inf if max_devices is None else max_devices
    check("max_devices", most, least <= most, f"{least} or more")
    chosen = {str(i): c for i, c in enumerate(candidates) if c.work.n <= most}
    works = {place: each.work for place, each in chosen.items()}
    n = max(work.n for work in works.values())
    completed = simulation.simulate(key, n, requests, machine, works)
    rows = [_row(chosen[place], completed[place], target_seconds) for place in works]
    merit = lambda row: (-round(row.accuracy / ROUNDING), row.n, row.work)
    return sorted(rows, key=merit)


def _row(each: Candidate, completed: simulation.Completed, target: float) -> Row:
    told = simulation.summary(completed.seconds)
    return Row(
        each.code,
        each.work.k,
        each.work.r,
        each.work.n,
        len(each.work.rounds),
        sum(one.work for one in each.work.rounds),
        told["p50"],
        told["p99"],
        told["p99.9"],
        float(np.mean((completed.seconds <= target) & (completed.seconds < np.inf))),
        simulation.accuracy_within(completed, target, each.accuracy),
    )
