"""Tables of many codes on one base model: accuracy, work, failures, confidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coded_jax.codes import LEARNED, NO_PARITY
from coded_jax.report import table
from coded_jax.report.formatting import (
    pattern_text,
    percent,
    size_text,
    stages_text,
    with_deviation,
)
from coded_jax.report.sweep_tables import trials_text
from coded_jax.runs.reading import code_name, patterns_of
from tables import points, stored, targets
from tables.points import Point
from tables.stored import Content, Section
from tables.targets import NONE

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


class Lost(NamedTuple):
    """A learned code with so many results lost, beside all runs of the table."""

    run: Content
    lost: str
    runs: list[Content]

    def percent(self, measure: str) -> str:
        """Returns a measure of confidence in percent, or by how many points `mean` or
        `worst` are below the base; `-` where it was not taken."""
        measures = self.run["summary"][self.lost] | self.run["confidence"][self.lost]
        value, deviation = measures[measure], measures.get(f"{measure}_std", 0.0)
        if value is None:
            return NONE
        if measure in ("mean", "worst"):
            value = self.run["base"]["test_accuracy"] - value
        # Rounded first, so that there is no -0.00 and no deviation of 0.00.
        return with_deviation(round(100 * value, 2) + 0.0, round(100 * deviation, 2))

    def risk(self, coverage: float) -> str:
        """Returns the error among that part of the answers, the surest, in percent."""
        curve = self.run["confidence"][self.lost]["curve"]
        return percent(np.interp(coverage, curve["coverage"], curve["risk"]))


def read(paths: Sequence[str | Path], measured: str = NONE) -> list[Point]:
    """Returns all codes of the runs with one base model, by devices and work.

    Args:
      paths: workdirs of finished runs, or copies of their `results.json`.
      measured: `history` for runs of former versions; a field of their contents.

    Raises:
      ValueError: see `stored.read_runs`; or two runs differ on one code.
    """
    runs = [{**x, "measured": measured} for x in stored.read_runs(paths)]
    codes = points.distinct(runs)
    some = {point.n: point for point in codes}
    codes += [points.whole_image(point, runs[0]) for point in some.values()]
    return sorted(codes, key=lambda point: (point.n, point.work))


def learned(codes: Sequence[Point]) -> list[Lost]:
    """Returns the learned codes of the runs, each with 0 to r lost results."""
    runs = [*{id(point.run): point.run for point in codes}.values()]
    return [
        Lost(run, lost, runs)
        for run in runs
        if run["config"]["code"] == LEARNED
        for lost in run["confidence"]
        if int(lost) <= run["split"]["r"]
    ]


def most_lost(point: Point, codes: Sequence[Point]) -> int:
    """Returns the losses that all codes on as many devices are made for, or 1."""
    return max(1, min(x.r for x in peers(point, codes) if x.n == point.n))


def peers(point: Point, codes: Sequence[Point]) -> list[Point]:
    """Returns the codes that a code is compared with: former ones with former ones."""
    measured = lambda x: x.run.get("measured")
    return [x for x in codes if measured(x) == measured(point)]


def _of_blocks(point: Point) -> str:
    blocks = f" of blocks {stages_text(point.stages)}" if point.stages else ""
    return f" of every convolution{blocks}" if point.split == "convolution" else blocks


def pieces_text(point: Point) -> str:
    """Returns the pieces of a code, and the blocks that it codes."""
    if point.split == "group":
        return f"group of {point.k}{_of_blocks(point)}"
    pieces = size_text(point.grid) if point.grid else str(point.k)
    return f"{pieces}{_of_blocks(point)}"


def label(point: Point) -> str:
    """Returns a code, the blocks that it codes, k and r: for a legend or a cell."""
    return f"{point.code}{_of_blocks(point)} ({point.k}, {point.r})"


def short_name(point: Point) -> str:
    """Returns the name of a code in the short tables."""
    if point.code == "mds" and all(x[point.r] == x[0] for x in point.worst):
        return "exact code of every convolution"
    return SHOWN.get(point.code, point.code)


def accuracy_text(point: Point, lost: int, measure: str = "accuracy") -> str:
    """Returns the accuracy of a code with so many lost results over its seeds."""
    seeds = getattr(point, measure)
    return trials_text([seed[lost] for seed in seeds if lost < len(seed)])


def overall_text(point: Point, failure: float) -> str:
    """Returns the expected accuracy of a code over its seeds."""
    return trials_text(points.overall(point, failure), digits=3)


def against_no_parity(of: Lost) -> str:
    """Returns the patterns of up to r losses in which a code is better than the same
    decoder without parity, `15 of 18, not in ...`; nothing without such a run."""

    def decoder(run: Content) -> list[Any]:
        split, config = run["split"], run["config"]
        sizes = [split["k"], split["r"], split["grid"], config["stages"]]
        return [*sizes, config["recipe"], code_name(config, NO_PARITY)]

    same = [other for other in of.runs if decoder(other) == decoder(of.run)]
    rivals = [*filter(None, (patterns_of(other, NO_PARITY) for other in same))]
    k, r = (of.run["split"][x] for x in "kr")
    if not rivals or int(of.lost) != r:
        return ""
    worse, total = points.no_better(of.run["patterns"], rivals[0], k, r)
    exceptions = ", ".join(
        f"{pattern_text(ours['lost'], k)} ({percent(ours['accuracy'])}, without "
        f"{percent(theirs['accuracy'])})"
        for ours, theirs in worse
    )
    better = f"{total - len(worse)} of {total}"
    return f"{better}, not in {exceptions}" if exceptions else better


CODE: table.Columns = {
    "n": lambda x: str(x.n),
    "code": lambda x: x.code,
    "k, r": lambda x: f"{x.k}, {x.r}",
    "pieces": pieces_text,
    "work": lambda x: f"{x.work:.2f}",
    "encode": lambda x: f"{x.cost.parts['encode']:.2f}",
    "piece": lambda x: f"{x.cost.parts['piece']:.2f}",
    "decode": lambda x: f"{x.cost.parts['decode']:.2f}",
    "not coded": lambda x: f"{x.cost.parts['uncoded']:.2f}",
    "rounds": lambda x: str(x.rounds),
    "kB": lambda x: f"{x.bytes / 1e3:.2f}",
    "0 lost": partial(accuracy_text, lost=0),
}
"""Columns of a code, see `columns`."""
CONFIDENCE: table.Columns = {
    "code": lambda x: code_name(x.run["config"], LEARNED),
    "k, r": lambda x: f"{x.run['split']['k']}, {x.run['split']['r']}",
    "lost": lambda x: x.lost,
    "drop from the base, mean": lambda x: x.percent("mean"),
    "worst pattern": lambda x: x.percent("worst"),
    "target": lambda x: targets.frontier(x.run, x.lost),
    "ECE": lambda x: x.percent("ece"),
    "uncalibrated": lambda x: x.percent("ece_uncalibrated"),
    "ECE of decoded answers": lambda x: x.percent("ece_decoded"),
    "error at coverage 0.9": lambda x: x.risk(0.9),
    "error at coverage 0.98": lambda x: x.risk(0.98),
    "patterns better than without parity": against_no_parity,
    "note": lambda x: x.run.get("note", ""),
}
"""Columns of learned codes by lost results: how far they are below the base model, and
how well they know it."""


def columns(codes: Sequence[Point], failures: Sequence[float]) -> table.Columns:
    """Returns the columns of all codes of some runs, for these failures."""
    middle = failures[len(failures) // 2]

    def beaten_by(point: Point) -> str:
        if not points.overall(point, middle):
            return NONE
        better = points.beaten_by(point, peers(point, codes), middle)
        return label(better) if better else ""

    made = {**CODE}
    for lost in range(1, 1 + max(most_lost(point, codes) for point in codes)):
        made[f"{lost} lost, mean"] = partial(accuracy_text, lost=lost)
        made[f"{lost} lost, worst"] = partial(accuracy_text, lost=lost, measure="worst")
    made |= {f"A({f:g})": partial(overall_text, failure=f) for f in failures}
    return made | {f"beaten at {middle:g} by": beaten_by}


def heading(run: Content) -> str:
    """Returns data, network and base of the runs of a table, and what work means."""
    worker = "network" if run["config"]["split"] == "group" else "F_Conv"
    return (
        f"{run['dataset']}, {run['config']['base_model']}, base "
        f"{percent(run['base']['test_accuracy'])} %; work is that of a device and of "
        f"the client for one image, over the whole {worker}; A(f) is the accuracy "
        "where each result of a round is lost with probability f"
    )


def section(
    name: str, chooses: Callable[[Point], bool] = lambda point: True
) -> Section:
    """Returns a short table of the present codes that `chooses` accepts, and long ones
    of all and of former versions' codes; folder and files have the same name."""
    paths = lambda folder: sorted((stored.RESULTS / folder).glob("*.json"))
    present, former = read(paths(name)), []
    if old := paths(f"{stored.HISTORY}/{name}"):
        former = read(old, stored.HISTORY)
    rows, losses = present + former, learned(present) + learned(former)
    first: table.Columns = {"measured": lambda x: x.run["measured"]}
    last = stored.origins(lambda x: x.run)
    codes = table.make({**first, **columns(rows, FAILURES), **last}, rows)
    confidences = table.make({**first, **CONFIDENCE, **last}, losses)
    of_losses = "learned code and number of losses"
    short: table.Columns = {
        "code": short_name,
        **{header: CODE[header] for header in ("k, r", "work")},
        "lost": lambda x: str(most_lost(x, present)),
        "mean": lambda x: accuracy_text(x, most_lost(x, present)),
        "worst": lambda x: accuracy_text(x, most_lost(x, present), "worst"),
        "A(0.05)": partial(overall_text, failure=0.05),
    }
    return stored.section(
        table.make(short, filter(chooses, present)),
        f"{heading(present[0].run)}.",
        files={
            f"{name}.csv": (codes, "code"),
            f"{name}_confidence.csv": (confidences, of_losses),
        },
        contents=[point.run for point in present],
    )


SECTIONS = {
    "frontier": lambda: section("frontier", lambda x: x.n == 6 and x.code in SHOWN),
    "cheap": lambda: section("cheap"),
}
