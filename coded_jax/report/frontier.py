"""Accuracy of codes against their work, and against failures of devices."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from coded_jax.codes import entry_of
from coded_jax.inference.costs import Cost
from coded_jax.runs.reading import ROUNDING, code_name, read_cost
from coded_jax.runs.workdir import EXTENT

WHOLE = "whole image on each"


class Point(NamedTuple):
    """One code on n devices.

    Attributes:
      code: its name.
      k, r: data and parity pieces; k is 1 where each device has the whole image.
      grid: pieces along height and width; None for groups of k images, and where each
        convolution has its own.
      stages: first and last block of each coded stage; empty where all blocks are one
        stage.
      cost: its record.
      accuracy: for every seed, the mean over all patterns of `0, 1, ...` lost results.
      worst: of the worst pattern, likewise.
      split: what is coded, see `CodeConfig`.
    """

    code: str
    k: int
    r: int
    grid: tuple[int, int] | None
    stages: tuple[tuple[int, int], ...]
    cost: Cost
    accuracy: list[list[float]]
    worst: list[list[float]]
    split: str = "image"

    @property
    def n(self) -> int:
        """Returns the number of results."""
        return self.k + self.r

    @property
    def work(self) -> float:
        """Work of a device and of the client together, as of `Cost.parts`."""
        return sum(self.cost.parts.values())

    @property
    def bytes(self) -> float:
        """Bytes that a device receives and returns for one image, in all rounds."""
        return self.cost.bytes_in + self.cost.bytes_out

    @property
    def rounds(self) -> int:
        """Trips to the devices and back."""
        return len(self.cost.rounds)


def overall_accuracy(
    accuracies: Sequence[float], n: int, failure: float, rounds: int = 1
) -> float:
    """Returns the expected accuracy `A(f)`, where each round loses results of its own.

    With `P_l` the probability that a round loses at most l of n results, it is
    `sum_l (P_l^S - P_(l-1)^S) A_l`: the round that loses most decides. For one round
    that is `sum_l C(n, l) f^l (1 - f)^(n - l) A_l`; that of Kosaian et al. (2019) has
    two terms, of nothing and of something lost.

    Args:
      accuracies: `A_0` to `A_(n-1)`, or more; where all results are lost there is no
        answer, which is never correct.
      n: devices.
      failure: probability f that a result is lost, each by itself.
      rounds: S, trips to the devices.
    """
    at_most, total = 0.0, 0.0
    for l, accuracy in enumerate(accuracies[:n]):
        before = at_most**rounds
        at_most += math.comb(n, l) * failure**l * (1 - failure) ** (n - l)
        total += (min(at_most, 1.0) ** rounds - before) * accuracy
    return total


def overall(point: Point, failure: float) -> list[float]:
    """Returns `overall_accuracy` of every seed that was tried with all losses."""
    return [
        overall_accuracy(by_lost, point.n, failure, point.rounds)
        for by_lost in point.accuracy
        if len(by_lost) >= point.n
    ]


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Returns mean and standard deviation (of `S - 1` degrees of freedom; 0 for one
    value)."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return statistics.fmean(values), deviation


def beaten_by(point: Point, others: Sequence[Point], failure: float) -> Point | None:
    """Returns the most accurate of the points that are better at a failure probability.

    Better is, on as many devices and with no more work, more accurate, or as accurate
    with less work.

    Args:
      point: that is compared.
      others: that may be better.
      failure: see `overall_accuracy`.

    Returns:
      None if no other is better, or if not all losses were tried with `point`.
    """

    def merit(candidate: Point) -> tuple[float, float]:
        return statistics.fmean(overall(candidate, failure)), -candidate.work

    if not overall(point, failure):
        return None
    better = [
        other
        for other in others
        if other.n == point.n
        and overall(other, failure)
        and other.work <= point.work
        and merit(other) > merit(point)
    ]
    return max(better, key=merit, default=None)


def points(results: dict[str, Any]) -> list[Point]:
    """Returns the code and the baselines of one run.

    Args:
      results: the content of its `results.json`.
    """
    config, split = results["config"], results["split"]
    grid = tuple(split["grid"]) if config["split"] == "image" else None
    stages = tuple(map(tuple, config["stages"] or ()))
    codes = []
    for name in results["costs"]:
        summary = results["summary"] if name == "code" else results["baselines"][name]
        seeds = results["seeds"].get(name, [summary])
        accuracy, worst = (
            [[row[measure] for row in seed.values()] for seed in seeds]
            for measure in ("mean", "worst")
        )
        codes.append(
            Point(
                code=code_name(config, config["code"] if name == "code" else name),
                k=split["k"],
                r=split["r"],
                grid=grid,
                stages=stages,
                accuracy=accuracy,
                worst=worst,
                cost=read_cost(results, name),
                split=config["split"],
            )
        )
    return codes


def distinct(runs: Sequence[dict[str, Any]]) -> list[Point]:
    """Returns the codes of several runs, each once.

    Variants of one code are told apart by the settings in which their runs differ. One
    that is not trained has none: results that differ by `ROUNDING` are the same.

    Args:
      runs: the contents of their `results.json`.

    Raises:
      ValueError: two runs with the same settings have other results for one code.
    """
    same: dict[tuple, list[tuple[Point, dict[str, Any]]]] = {}
    for results in runs:
        for point in points(results):
            name = (point.code, point.k, point.r, point.grid, point.split, point.stages)
            variants = same.setdefault(name, [])
            if not any(_same(point, other) for other, _ in variants):
                variants.append((point, results["config"]))
    return [
        point._replace(code=f"{point.code} {settings}".rstrip())
        for name, variants in same.items()
        for (point, _), settings in zip(
            variants, _differing_settings(name, [c for _, c in variants]), strict=True
        )
    ]


def _differing_settings(name: tuple, configs: list[dict[str, Any]]) -> list[str]:
    """Returns the settings in which runs of one code differ, as `key=value, ...`.

    Raises:
      ValueError: two of them differ in none.
    """
    differing = [
        key
        for key in configs[0]
        if key not in EXTENT
        and any(config.get(key) != configs[0][key] for config in configs)
        and entry_of(name[0]).trained  # others do not depend on them
    ]
    texts = [
        ", ".join(f"{key}={config.get(key)}" for key in differing) for config in configs
    ]
    if len(set(texts)) < len(texts):
        raise ValueError(f"runs: two of {name} given, with other results each")
    return texts


def _same(a: Point, b: Point) -> bool:
    if entry_of(a.code).trained or len(a.accuracy[0]) != len(b.accuracy[0]):
        return a == b
    pairs = zip(a.accuracy[0] + a.worst[0], b.accuracy[0] + b.worst[0], strict=True)
    return all(abs(x - y) <= ROUNDING for x, y in pairs)


def no_better(
    ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]], k: int, r: int
) -> tuple[list[tuple[dict[str, Any], dict[str, Any]]], int]:
    """Returns the patterns in which a code is no more accurate than another one.

    Args:
      ours, theirs: outcomes of patterns, as in `results.json`.
      k, r: data and parity pieces.

    Returns:
      The outcomes of both there, and how many patterns were compared: those that lose a
      data piece and at most r results, and were tried with both.
    """
    by_pattern = {tuple(outcome["lost"]): outcome for outcome in theirs}
    pairs = [
        (outcome, by_pattern[tuple(outcome["lost"])])
        for outcome in ours
        if tuple(outcome["lost"]) in by_pattern
        and len(outcome["lost"]) <= r
        and any(i < k for i in outcome["lost"])
    ]
    worse = [pair for pair in pairs if pair[0]["accuracy"] <= pair[1]["accuracy"]]
    return worse, len(pairs)


def whole_image(point: Point, base_accuracy: float) -> Point:
    """Returns the point without a split, for the network and the devices of another:
    each of n devices computes the whole image, and one is enough."""
    n = point.n
    by_lost = [[base_accuracy] * n]
    cost = point.cost.on_every_device(n)
    return Point(
        code=WHOLE,
        k=1,
        r=n - 1,
        grid=(1, 1),
        stages=(),
        cost=cost,
        accuracy=by_lost,
        worst=by_lost,
    )
