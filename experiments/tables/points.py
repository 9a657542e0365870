"""Accuracy of codes against their work, and against failures of devices."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from coded_jax.codes import entry_of
from coded_jax.inference.costs import Cost
from coded_jax.runs.reading import ROUNDING, code_name, read_cost

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
      run: the content of its `results.json`.
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
    run: dict[str, Any] = {}

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
        return self.cost.total.bytes_in + self.cost.total.bytes_out

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


def beaten_by(point: Point, others: Sequence[Point], failure: float) -> Point | None:
    """Returns the most accurate of the points that are better at a failure probability;
    None if none is, or if `point` was not tried with all losses.

    Better is, on as many devices and with no more work, more accurate, or as accurate
    with less work.
    """

    def merit(candidate: Point) -> tuple[float, float]:
        return statistics.fmean(overall(candidate, failure)), -candidate.work

    if not overall(point, failure):
        return None
    tried = [x for x in others if x.n == point.n and overall(x, failure)]
    better = [x for x in tried if x.work <= point.work and merit(x) > merit(point)]
    return max(better, key=merit, default=None)


def points(results: dict[str, Any]) -> list[Point]:
    """Returns the code and the baselines of a run, of its `results.json`."""
    config, split, codes = results["config"], results["split"], []
    for name in results["costs"]:
        summary = results["summary"] if name == "code" else results["baselines"][name]
        seeds = [seed.values() for seed in results["seeds"].get(name, [summary])]
        codes.append(
            Point(
                code=code_name(config, config["code"] if name == "code" else name),
                k=split["k"],
                r=split["r"],
                grid=tuple(split["grid"]) if config["split"] == "image" else None,
                stages=tuple(map(tuple, config["stages"] or ())),
                cost=read_cost(results, name),
                accuracy=[[row["mean"] for row in rows] for rows in seeds],
                worst=[[row["worst"] for row in rows] for rows in seeds],
                split=config["split"],
                run=results,
            )
        )
    return codes


def distinct(runs: Sequence[dict[str, Any]]) -> list[Point]:
    """Returns the codes of several runs, of `results.json`, each once.

    Raises:
      ValueError: two runs have other results for one code; of one that is not trained
        they may differ by `ROUNDING`.
    """
    codes: dict[tuple, Point] = {}
    for results in runs:
        for point in points(results):
            name = (point.code, point.k, point.r, point.grid, point.split, point.stages)
            first = codes.setdefault(name, point)
            slack = 0.0 if entry_of(point.code).trained else ROUNDING
            for a, b in ((first.accuracy, point.accuracy), (first.worst, point.worst)):
                if (
                    np.shape(a) != np.shape(b)
                    or np.abs(np.subtract(a, b)).max() > slack
                ):
                    raise ValueError(
                        f"runs: two of {name} given, with other results each"
                    )
    return [*codes.values()]


def no_better(
    ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]], k: int, r: int
) -> tuple[list[tuple[dict[str, Any], dict[str, Any]]], int]:
    """Returns the outcomes of both codes in the patterns in which ours is no more
    accurate, and how many patterns were compared: those that lose a data piece and at
    most r results, and were tried with both."""
    rivals = {tuple(outcome["lost"]): outcome for outcome in theirs}
    compared = lambda lost: (
        lost in rivals and len(lost) <= r and min(lost, default=k) < k
    )
    pairs = [
        (own, rivals[lost]) for own in ours if compared(lost := tuple(own["lost"]))
    ]
    worse = [pair for pair in pairs if pair[0]["accuracy"] <= pair[1]["accuracy"]]
    return worse, len(pairs)


def whole_image(point: Point, run: dict[str, Any]) -> Point:
    """Returns the point without a split, for the network and the devices of another:
    each of n devices computes the whole image, and one is enough."""
    n, by_lost = point.n, [[run["base"]["test_accuracy"]] * point.n]
    cost = point.cost.on_every_device(n)
    return Point(WHOLE, 1, n - 1, (1, 1), (), cost, by_lost, by_lost, run=run)
