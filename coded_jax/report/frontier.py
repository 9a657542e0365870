"""Which code is the best choice: accuracy against work, and against failures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from coded_jax.codes import entry_of
from coded_jax.report.display import blocks_text
from coded_jax.runs.reading import ROUNDING, code_name, work_of
from coded_jax.runs.workdir import EXTENT

WHOLE = "whole image on each"


class Point(NamedTuple):
    """One code on n devices.

    Attributes:
      code: its name.
      k, r: data and parity pieces; k is 1 where each device has the whole image.
      grid: pieces along height and width, or `group` of k images.
      stages: the coded blocks, as `1-2, 3-4`; empty where all blocks are one stage.
      encode, piece, decode, uncoded: work for one image, as fractions of the whole
        `F_Conv`; uncoded are blocks in no stage.
      accuracy: for every seed, the mean over all patterns of `0, 1, ...` lost results.
      worst: of the worst pattern, likewise.
    """

    code: str
    k: int
    r: int
    grid: str
    stages: str
    encode: float
    piece: float
    decode: float
    uncoded: float
    accuracy: list[list[float]]
    worst: list[list[float]]

    @property
    def n(self) -> int:
        """All results."""
        return self.k + self.r

    @property
    def work(self) -> float:
        """Of the busiest device: it encodes, computes a piece, decodes, and computes
        what is not coded."""
        return self.encode + self.piece + self.decode + self.uncoded


def overall_accuracy(accuracies: Sequence[float], n: int, failure: float) -> float:
    """`A(f) = sum_l C(n, l) f^l (1 - f)^(n - l) A_l`, the expected accuracy.

    That of Kosaian et al. (2019) has two terms, of nothing and of something lost.

    Args:
      accuracies: `A_0` to `A_(n-1)`, or more; where all results are lost there is no
        answer, which is never correct.
      n: devices.
      failure: probability f that a device's result is lost, each by itself.
    """
    return sum(
        math.comb(n, l) * failure**l * (1 - failure) ** (n - l) * accuracy
        for l, accuracy in enumerate(accuracies[:n])
    )


def overall(point: Point, failure: float) -> list[float]:
    """`overall_accuracy` for every seed; none of a run that tried fewer losses."""
    return [
        overall_accuracy(each, point.n, failure)
        for each in point.accuracy
        if len(each) >= point.n
    ]


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and standard deviation with `S - 1` degrees of freedom, 0 for one value."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return statistics.fmean(values), deviation


def beaten_by(point: Point, others: Sequence[Point], failure: float) -> Point | None:
    """The most accurate of `others` on as many devices, of no more work than `point`,
    that is more accurate at this failure probability, or as accurate with less work;
    None if there is none, or if not all losses were tried with `point`."""

    def merit(each: Point) -> tuple[float, float]:
        return statistics.fmean(overall(each, failure)), -each.work

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
    """The code and the baselines of one run.

    Args:
      results: the content of its `results.json`.
    """
    config, split = results["config"], results["split"]
    grid = "x".join(map(str, split["grid"]))
    grid = f"group of {split['k']}" if config["split"] == "group" else grid
    stages = ", ".join(blocks_text(stage["blocks"]) for stage in split["stages"])
    stages = stages if config["stages"] else ""
    found = []
    for name, costs in results["costs"].items():
        summary = results["summary"] if name == "code" else results["baselines"][name]
        seeds = results["seeds"].get(name, [summary])
        accuracy, worst = (
            [[row[which] for row in seed.values()] for seed in seeds]
            for which in ("mean", "worst")
        )
        label = code_name(config, config["code"] if name == "code" else name)
        work = work_of(costs)
        sizes = (split["k"], split["r"], grid, stages)
        found.append(Point(label, *sizes, accuracy=accuracy, worst=worst, **work))
    return found


def distinct(runs: Sequence[dict[str, Any]]) -> list[Point]:
    """The codes of several runs, each once.

    Variants of one code are told apart by the settings in which their runs differ. One
    that is not trained has none: results that differ by `ROUNDING` are the same.

    Args:
      runs: the contents of their `results.json`.

    Raises:
      ValueError: two runs with the same settings say something else of the same code.
    """
    same: dict[tuple, list[tuple[Point, dict[str, Any]]]] = {}
    for results in runs:
        for point in points(results):
            name = (point.code, point.k, point.r, point.grid, point.stages)
            variants = same.setdefault(name, [])
            if not any(_same(point, other) for other, _ in variants):
                variants.append((point, results["config"]))
    found = []
    for name, variants in same.items():
        settings = [
            {key: value for key, value in config.items() if key not in EXTENT}
            for _, config in variants
        ]
        differing = [
            key
            for key in settings[0]
            if any(each.get(key) != settings[0][key] for each in settings)
            and entry_of(name[0]).trained
        ]
        labels = [
            ", ".join(f"{key}={each.get(key)}" for key in differing)
            for each in settings
        ]
        if len(set(labels)) < len(labels):
            raise ValueError(f"runs: two of {name} given, with other results each")
        found += [
            point._replace(code=f"{point.code} {label}".rstrip())
            for (point, _), label in zip(variants, labels, strict=True)
        ]
    return found


def _same(a: Point, b: Point) -> bool:
    if entry_of(a.code).trained or len(a.accuracy[0]) != len(b.accuracy[0]):
        return a == b
    pairs = zip(a.accuracy[0] + a.worst[0], b.accuracy[0] + b.worst[0], strict=True)
    return all(abs(x - y) <= ROUNDING for x, y in pairs)


def no_better(
    ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]], k: int, r: int
) -> tuple[list[tuple[dict[str, Any], dict[str, Any]]], int]:
    """Where a code is no more accurate than another one.

    Args:
      ours, theirs: outcomes of patterns.
      k, r: data and parity pieces.

    Returns:
      The outcomes of both there, and how many patterns were compared: those that lose a
      data piece and at most r results, and were tried with both.
    """
    found = {tuple(outcome["lost"]): outcome for outcome in theirs}
    pairs = [
        (each, found[tuple(each["lost"])])
        for each in ours
        if tuple(each["lost"]) in found
        and len(each["lost"]) <= r
        and any(i < k for i in each["lost"])
    ]
    worse = [pair for pair in pairs if pair[0]["accuracy"] <= pair[1]["accuracy"]]
    return worse, len(pairs)


def whole_image(n: int, base_accuracy: float) -> Point:
    """No split at all: each of n devices computes everything, and one is enough."""
    each = [[base_accuracy] * n]
    return Point(WHOLE, 1, n - 1, "1x1", "", 0.0, 1.0, 0.0, 0.0, each, each)
