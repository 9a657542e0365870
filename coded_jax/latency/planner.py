"""The choice of a code and a number of devices within a latency target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from coded_jax.checks import require
from coded_jax.codes.quorum import ALL_DATA, decodes, quorum_of
from coded_jax.inference.costs import Cost
from coded_jax.latency import simulation
from coded_jax.latency.simulation import Latencies, Machine
from coded_jax.latency.workloads import Workload
from coded_jax.runs.reading import ROUNDING, code_name, patterns_of, read_recovery
from coded_jax.runs.run_costs import read_cost

REQUESTS = 100_000


class Candidate(NamedTuple):
    """A code that could be chosen.

    Attributes:
      code: its name.
      workload: what it asks of the devices.
      accuracy: float64 `[2^n]`, of each set of results that arrived, at
        `sum(arrived * 2^i)`; NaN for those that were not tried.
    """

    code: str
    workload: Workload
    accuracy: np.ndarray


class Forecast(NamedTuple):
    """Latency and accuracy of a candidate within a target.

    Attributes:
      code: its name.
      k, r, n: data pieces, pieces sent beside them, and devices.
      rounds: trips to the devices.
      work: of a device in all of them, as a fraction of the whole `F_Conv`.
      p50, p99, p999: seconds within which that share of requests is complete.
      answered: share of requests that are complete within the target.
      accuracy: expected; a request that is not complete by then counts as wrong.
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


def candidate_of(results: dict[str, Any], name: str = "code") -> Candidate:
    """Returns a code of a finished run as a candidate.

    Args:
      results: the content of its `results.json`.
      name: `"code"`, or one of the run's baselines.

    Raises:
      ValueError: the run has no such code or does not say what it costs, splits no
        images, or lost other devices in every stage; or the code has no parity, yet
        answers always.
    """
    cost = _require_planned(results, name)
    config, split = results["config"], results["split"]
    rule = read_recovery(results, name)
    k, r = split["k"], split["r"]
    quorum = quorum_of(rule.suffices, k, k + r)
    redundant = quorum != ALL_DATA
    # Without parity no number of results ends the wait of a code that answers always.
    fits = redundant or not rule.answers_always
    require("name", name, fits, "a code with parity")
    code = config["code"] if name == "code" else name
    patterns = patterns_of(results, code) or []
    accepted = "a code whose patterns this run has kept"
    require("name", name, len(patterns) > 0, accepted)
    accuracy = simulation.accuracy_table(patterns, k + r)
    if not redundant:
        # Its parity pieces are blank: nobody sends them, nor waits for them.
        r, accuracy = 0, np.r_[np.full(2**k - 1, np.nan), accuracy[-1]]
    if not decodes(quorum):  # what matrices of copies count for is no work
        rounds = tuple(trip._replace(decode_flops=0.0) for trip in cost.rounds)
        cost = cost._replace(rounds=rounds)
    workload = Workload(quorum, k, r, cost, systematic=rule.systematic)
    return Candidate(code_name(config, code), workload, accuracy)


def _require_planned(results: dict[str, Any], name: str) -> Cost:
    """Returns the cost of a code that can be planned with."""
    config = results["config"]
    fits = config["split"] != "group"
    require("split", config["split"], fits, "image or convolution")
    losses, stages = config["stage_losses"], results["split"]["stages"]
    require("stage_losses", losses, len(stages) == 1 or losses == "held", "held")
    return read_cost(results, name)


def exact_candidate(code: str, workload: Workload, accuracy: float) -> Candidate:
    """Returns a candidate that computes the features themselves, as copies do.

    Args:
      code: its name.
      workload: what it asks of the devices.
      accuracy: of the base model, which is that of every complete request.
    """
    return Candidate(code, workload, np.full(2**workload.n, accuracy))


def rank(
    key: jax.Array,
    candidates: Sequence[Candidate],
    machine: Machine,
    target_seconds: float,
    *,
    max_devices: int | None = None,
    requests: int = REQUESTS,
) -> list[Forecast]:
    """Ranks candidates by their expected accuracy within a latency target.

    Where that is the same to `reading.ROUNDING`, fewer devices are better, and then
    less work of each.

    Args:
      key: of the draws, which are the same for all.
      candidates: to choose from.
      machine: the devices, and how often they fail.
      target_seconds: in which a request must be complete.
      max_devices: candidates that need more are left out.
      requests: simulated; the standard error of `answered` is at most
        `1 / (2 sqrt(requests))`, but for differences between forecasts much smaller.

    Returns:
      A forecast for each, the best one first.

    Raises:
      ValueError: no candidate has few enough devices, `target_seconds` is not positive,
        or a request is complete with results that were not tried.
    """
    require("target_seconds", target_seconds, target_seconds > 0, "more than 0")
    require("candidates", candidates, len(candidates) > 0, "one or more")
    least = min(candidate.workload.n for candidate in candidates)
    most = math.inf if max_devices is None else max_devices
    require("max_devices", most, least <= most, f"{least} or more")
    chosen = {str(i): c for i, c in enumerate(candidates) if c.workload.n <= most}
    workloads = {place: candidate.workload for place, candidate in chosen.items()}
    n = max(workload.n for workload in workloads.values())
    latencies = simulation.simulate(key, n, requests, machine, workloads)
    forecasts = [
        _forecast(candidate, latencies[place], target_seconds)
        for place, candidate in chosen.items()
    ]
    merit = lambda row: (-round(row.accuracy / ROUNDING), row.n, row.work)
    return sorted(forecasts, key=merit)


def _forecast(candidate: Candidate, latencies: Latencies, target: float) -> Forecast:
    statistics, workload = simulation.summary(latencies.seconds), candidate.workload
    complete = (latencies.seconds <= target) & (latencies.seconds < np.inf)
    return Forecast(
        candidate.code,
        workload.k,
        workload.r,
        workload.n,
        rounds=len(workload.cost.rounds),
        work=workload.cost.device_flops / workload.cost.whole_flops,
        p50=statistics["p50"],
        p99=statistics["p99"],
        p999=statistics["p99.9"],
        answered=float(np.mean(complete)),
        accuracy=simulation.accuracy_within(latencies, target, candidate.accuracy),
    )
