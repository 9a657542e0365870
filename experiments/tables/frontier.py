"""Tables of many codes on one base model: accuracy, work, failures, confidence."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coded_jax.codes import LEARNED, NO_PARITY
from coded_jax.report import frontier, table
from coded_jax.report.formatting import (
    pattern_text,
    size_text,
    stages_text,
    with_deviation,
)
from coded_jax.report.frontier import Point
from coded_jax.report.table import Column
from coded_jax.runs.reading import code_name, patterns_of
from tables import finished_runs, sections, stored, targets
from tables.sections import Section

COVERAGES = (0.9, 0.98)
FAILURES = [0.01, 0.05, 0.2]
SHOWN = {
    "replication": "copies of pieces",
    "mds": "sums of pieces",
    "whole image on each": "whole image on each",
    "systematic smaller / sharpen 128": "our default",
    "no_parity sharpen 128": "our default without parity",
    "systematic linear / mlp 128": "our cheap code",
    "systematic strided 64 / mlp 1024": "our expensive code",
    "no_parity mlp 1024": "our expensive code without parity",
    "paper mlp / mlp": "the paper's MLP pair",
    "paper conv / conv": "the paper's Conv pair",
}
"""Codes of LeNet-5's short table, and what they are."""
EXACT = "exact code of every convolution"

Content = dict[str, Any]


class Row(NamedTuple):
    """A code among others on as many devices.

    Attributes:
      point: the code.
      points: all codes that it is compared with.
      run: the run that has tried it.
    """

    point: Point
    points: list[Point]
    run: Content


class Lost(NamedTuple):
    """A learned code with so many results lost, beside all runs of the table."""

    run: Content
    lost: str
    runs: list[Content]

    def drop(self, measure: str) -> str:
        """Returns points below the base, `0.10 ± 0.01`; `mean` or `worst`."""
        summary = self.run["summary"][self.lost]
        value = self.run["base"]["test_accuracy"] - summary[measure]
        return _percent({measure: value, f"{measure}_std": _std(summary, measure)})(
            measure
        )

    def measure(self, name: str) -> str:
        """Returns a measure of confidence in percent, `-` where there is none."""
        return _percent(self.run["confidence"][self.lost])(name)

    def risk(self, coverage: float) -> str:
        """Returns the error among that part of the answers, the surest, in percent."""
        curve = self.run["confidence"][self.lost]["curve"]
        return f"{100 * np.interp(coverage, curve['coverage'], curve['risk']):.2f}"


def _std(summary: Content, name: str) -> float:
    return summary.get(f"{name}_std") or 0.0


def _percent(measures: Content) -> Callable[[str], str]:
    def text(name: str) -> str:
        if measures.get(name) is None:
            return "-"
        value = with_deviation(100 * measures[name], 100 * _std(measures, name))
        return value.replace("-0.00", "0.00").replace(" ± 0.00", "")

    return text


def read(paths: Sequence[str | Path]) -> list[Row]:
    """Returns all codes of the runs with one base model, by devices and work.

    Raises:
      ValueError: see `finished_runs.read_runs`; or two runs differ on one code.
    """
    runs = finished_runs.read_runs(list(map(str, paths)))
    codes = frontier.distinct(runs)
    some = {point.n: point for point in codes}
    base = runs[0]["base"]["test_accuracy"]
    codes += [frontier.whole_image(point, base) for point in some.values()]
    points = sorted(codes, key=lambda point: (point.n, point.work))
    tried = [(point.accuracy, run) for run in runs for point in frontier.points(run)]
    of = lambda point: next((r for a, r in tried if a == point.accuracy), runs[0])
    return [Row(point, points, of(point)) for point in points]


def seeds_text(values: list[float], digits: int = 2) -> str:
    """Returns mean and standard deviation over seeds, in percent; `-` for no value."""
    if not values:
        return "-"
    mean, deviation = frontier.mean_std(values)
    return with_deviation(100 * mean, 100 * deviation, digits)


def _of_blocks(point: Point) -> str:
    blocks = f" of blocks {stages_text(point.stages)}" if point.stages else ""
    return f" of every convolution{blocks}" if point.split == "convolution" else blocks


def pieces_text(row: Row) -> str:
    """Returns the pieces of a code, and the blocks that it codes."""
    point = row.point
    pieces = size_text(point.grid) if point.grid else str(point.k)
    pieces = f"group of {point.k}" if point.split == "group" else pieces
    return pieces + _of_blocks(point)


def label(point: Point) -> str:
    """Returns a code, the blocks that it codes, k and r: for a legend or a cell."""
    return f"{point.code}{_of_blocks(point)} ({point.k}, {point.r})"


def most_lost(points: Sequence[Point], n: int) -> int:
    """Returns the number of losses that all codes on n devices are made for, or 1."""
    return max(1, min(p.r for p in points if p.n == n))


def accuracy_text(row: Row, lost: int, measure: str = "accuracy") -> str:
    """Returns the accuracy of a code with so many lost results over its seeds."""
    seeds = getattr(row.point, measure)
    return seeds_text([seed[lost] for seed in seeds if lost < len(seed)])


def overall_text(row: Row, failure: float) -> str:
    """Returns `A(f)` of a code over its seeds; `-` where not all losses were tried."""
    return seeds_text(frontier.overall(row.point, failure), 3)


def beaten_text(row: Row, failure: float) -> str:
    """Returns the best code that beats another one, `-` where it is not known."""
    if not frontier.overall(row.point, failure):
        return "-"
    better = frontier.beaten_by(row.point, row.points, failure)
    return label(better) if better else ""


def columns(rows: Sequence[Row], failures: Sequence[float]) -> list[Column]:
    """Returns the columns of all codes of some runs, for these failures."""
    points = rows[0].points
    most = max(most_lost(points, n) for n in {p.n for p in points})
    middle = failures[len(failures) // 2]
    part = lambda name: lambda row: f"{row.point.cost.parts[name]:.2f}"
    of = functools.partial
    return [
        Column("n", lambda row: str(row.point.n)),
        Column("code", lambda row: row.point.code),
        Column("k, r", lambda row: f"{row.point.k}, {row.point.r}"),
        Column("pieces", pieces_text),
        Column("work", lambda row: f"{row.point.work:.2f}"),
        *(Column(name, part(name)) for name in ("encode", "piece", "decode")),
        Column("not coded", part("uncoded")),
        Column("rounds", lambda row: str(row.point.rounds)),
        Column("kB", lambda row: f"{row.point.bytes / 1e3:.2f}"),
        Column("0 lost", of(accuracy_text, lost=0)),
        *(
            Column(f"{lost} lost, {name}", of(accuracy_text, lost=lost, measure=field))
            for lost in range(1, most + 1)
            for name, field in (("mean", "accuracy"), ("worst", "worst"))
        ),
        *(Column(f"A({f:g})", of(overall_text, failure=f)) for f in failures),
        Column(f"beaten at {middle:g} by", of(beaten_text, failure=middle)),
    ]


CONFIDENCE = (
    Column("code", lambda x: code_name(x.run["config"], LEARNED)),
    Column("k, r", lambda x: f"{x.run['split']['k']}, {x.run['split']['r']}"),
    Column("lost", lambda x: x.lost),
    Column("drop from the base, mean", lambda x: x.drop("mean")),
    Column("worst pattern", lambda x: x.drop("worst")),
    Column(
        "target",
        lambda x: targets.frontier(
            x.run, code_name(x.run["config"], LEARNED), int(x.lost)
        ),
    ),
    Column("ECE", lambda x: x.measure("ece")),
    Column("uncalibrated", lambda x: x.measure("ece_uncalibrated")),
    Column("ECE of decoded answers", lambda x: x.measure("ece_decoded")),
    *(Column(f"error at coverage {c:g}", lambda x, c=c: x.risk(c)) for c in COVERAGES),
    Column("patterns better than without parity", lambda x: against_no_parity(x)),
    Column("note", lambda x: x.run.get("note", "")),
)
"""Columns of learned codes by lost results: how far they are below the base model, and
how well they know it."""


def learned(rows: Sequence[Row]) -> list[Lost]:
    """Returns the learned codes of the runs, each with 0 to r lost results."""
    runs = [*{id(row.run): row.run for row in rows}.values()]
    return [
        Lost(run, str(lost), runs)
        for run in runs
        if run["config"]["code"] == LEARNED
        for lost in range(run["split"]["r"] + 1)
        if str(lost) in run["confidence"]
    ]


def against_no_parity(of: Lost) -> str:
    """Returns the patterns of up to r losses in which a code is better than the same
    decoder without parity, `15 of 18, not in ...`; nothing without such a run."""
    run, (k, r) = of.run, (of.run["split"][x] for x in "kr")
    rival = next((p for other in of.runs if (p := _without_parity(run, other))), None)
    if rival is None or int(of.lost) != r:
        return ""
    worse, total = frontier.no_better(run["patterns"], rival, k, r)
    exceptions = ", ".join(
        f"{pattern_text(ours['lost'], k)} ({100 * ours['accuracy']:.2f}, without "
        f"{100 * theirs['accuracy']:.2f})"
        for ours, theirs in worse
    )
    better = f"{total - len(worse)} of {total}"
    return f"{better}, not in {exceptions}" if exceptions else better


def _without_parity(run: Content, other: Content) -> list[Content] | None:
    """Returns the patterns of the same decoder without parity, if a run has them."""
    same = all(other["split"][x] == run["split"][x] for x in ("k", "r", "grid"))
    same &= all(other["config"][x] == run["config"][x] for x in ("stages", "recipe"))
    names = [code_name(x["config"], NO_PARITY) for x in (run, other)]
    same &= names[0] == names[1]
    return patterns_of(other, NO_PARITY) if same else None


def heading(run: Content) -> str:
    """Returns data, network and base of the runs of a table, and what work means."""
    worker = "network" if run["config"]["split"] == "group" else "F_Conv"
    return (
        f"{run['dataset']}, {run['config']['base_model']}, base "
        f"{100 * run['base']['test_accuracy']:.2f} %; work is that of a device and of "
        f"the client for one image, over the whole {worker}; A(f) is the accuracy "
        "where each result of a round is lost with probability f"
    )


def short_name(point: Point) -> str:
    """Returns the name of a code in the short tables."""
    exact = all(worst[point.r] == worst[0] for worst in point.worst)
    name = SHOWN.get(point.code, point.code)
    return EXACT if point.code == "mds" and exact else name


def of_lenet5(point: Point) -> bool:
    """Returns whether a code is in LeNet-5's short table: of six devices."""
    return point.n == 6 and point.code in SHOWN


def lost_of(row: Row) -> int:
    """Returns the lost results of a row of the short tables, see `most_lost`."""
    return most_lost(row.points, row.point.n)


def section(
    name: str, folders: Sequence[str], chooses: Callable[[Point], bool]
) -> Section:
    """Returns a short table of some present codes, and two long ones of all.

    Args:
      name: of the CSV files.
      folders: of stored results, present ones first.
      chooses: which codes are in the short table.
    """
    codes: list[list[str]] = []
    confidences: list[list[str]] = []
    present: list[Row] = []
    first = lambda folder: Column(
        "measured", lambda _: "history" if "history" in folder else "-"
    )
    headers: tuple[Sequence[str], Sequence[str]] = ((), ())
    for folder in folders:
        rows = read(sorted((stored.RESULTS / folder).glob("*.json")))
        present = present or rows
        origin = [Column(c.header, lambda r, c=c: c.text(r.run)) for c in stored.ORIGIN]
        long = table.make([first(folder), *columns(rows, FAILURES), *origin], rows)
        sure = table.make([first(folder), *CONFIDENCE, *origin], learned(rows))
        codes, confidences = codes + [*long.rows], confidences + [*sure.rows]
        headers = (long.headers, sure.headers)
    short = table.make(SHORT, [row for row in present if chooses(row.point)])
    files = {
        f"{name}.csv": table.Table(headers[0], codes),
        f"{name}_confidence.csv": table.Table(headers[1], confidences),
    }
    links = [
        sections.linked(file, long, what)
        for (file, long), what in zip(
            files.items(), ("code", "learned code and number of losses"), strict=True
        )
    ]
    caption = f"{heading(present[0].run)}."
    origin_line = stored.origin_text(row.run for row in present)
    parts = [table.to_markdown(short), caption, *links, origin_line]
    return Section("\n\n".join(parts), files)


SHORT = (
    Column("code", lambda row: short_name(row.point)),
    Column("k, r", lambda row: f"{row.point.k}, {row.point.r}"),
    Column("work", lambda row: f"{row.point.work:.2f}"),
    Column("lost", lambda row: str(lost_of(row))),
    Column("mean", lambda row: accuracy_text(row, lost_of(row))),
    Column("worst", lambda row: accuracy_text(row, lost_of(row), "worst")),
    Column("A(0.05)", lambda row: overall_text(row, 0.05)),
)
SECTIONS: dict[str, Callable[[], Section]] = {
    "frontier": functools.partial(
        section, "frontier", ("frontier", "history/frontier"), of_lenet5
    ),
    "cheap": functools.partial(section, "cheap", ("cheap",), lambda point: True),
}
