"""Compares all codes on one base model: accuracy against work and against failures.

    python experiments/frontier.py --output=runs/frontier runs/frontier_lenet5_*

Arguments are workdirs of finished runs, or copies of their `results.json`, with the
same base model; `A(f)` needs runs with a `--tried` of at least the devices less one.
Prints a table, and writes `frontier.json` and `frontier.png`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from rich.console import Console
from tables import frontier, points
from tables.points import Point

from coded_jax.checks import require
from coded_jax.cli.command_line import command, run
from coded_jax.report import canvas, table
from coded_jax.report.formatting import mean_std, stages_text
from coded_jax.runs.workdir import make_folder, write_atomically

OUTPUT = flags.DEFINE_string("output", None, "folder of frontier.json and .png")
FAILURE = flags.DEFINE_multi_float(
    "failure", frontier.FAILURES, "probability that a device's result is lost"
)


def write(folder: Path, codes: Sequence[Point], failures: Sequence[float]) -> None:
    """Writes `frontier.json` and `frontier.png`; the folder is made if need be.

    Raises:
      ValueError: the folder cannot be made or written to.
      ImportError: matplotlib is missing; then only the JSON is written.
    """
    make_folder(folder, "output")
    records = []
    for point in codes:
        overall = {str(f): points.overall(point, f) for f in failures}
        record = {
            "cost": point.cost.to_json(),
            "grid": frontier.pieces_text(point._replace(stages=())),
            "stages": stages_text(point.stages),
            "work": point.work,
            "overall": {f: mean_std(x) if x else None for f, x in overall.items()},
        }
        records.append(point._replace(run={})._asdict() | record)
    run = codes[0].run
    content = {"dataset": run["dataset"], "base": run["base"], "points": records}
    write_atomically(folder / "frontier.json", json.dumps(content, indent=1) + "\n")
    draw(folder / "frontier.png", codes, failures)


def draw(path: Path, codes: Sequence[Point], failures: Sequence[float]) -> None:
    """Draws errors for each number of devices: with results lost (mean up to worst) and
    at a failure probability over the work; and over that probability.

    Raises:
      ImportError: matplotlib is missing.
    """
    counts = sorted({point.n for point in codes})
    figure = canvas.new_figure(18, 5 * len(counts))
    middle = failures[len(failures) // 2]
    panels = figure.subplots(len(counts), 3, squeeze=False)
    work = "work of a device and the client, of the whole image's"
    shown = [10 ** (-3 + i / 20) for i in range(55)]
    error = lambda values: 100 - 100 * mean_std(values)[0]
    for n, (left, centre, right) in zip(counts, panels, strict=True):
        own = [point for point in codes if point.n == n]
        lost = frontier.most_lost(own[0], own)
        for i, point in enumerate(own):
            style = {"color": f"C{i % 10}", "marker": "osD^vX*P"[i // 10 % 8]}
            if all(len(seed) > lost for seed in point.accuracy):
                mean = error([seed[lost] for seed in point.accuracy])
                worst = error([seed[lost] for seed in point.worst])
                left.errorbar(point.work, mean, [[0], [worst - mean]], **style)
            errors = []
            if overall := points.overall(point, middle):
                deviation = 100 * mean_std(overall)[1]
                centre.errorbar(point.work, error(overall), deviation, **style)
                errors = [error(points.overall(point, f)) for f in shown]
            style |= {"label": frontier.label(point), "markevery": 6, "ms": 4}
            right.plot(shown[: len(errors)], errors, **style)
        losses = f"{lost} lost, mean up to worst"
        left.set(xlabel=work, ylabel=f"error with {losses}, %")
        centre.set(xlabel=work, ylabel=f"100 - A({middle:g}), %", title=f"{n} devices")
        right.set(xlabel="failure probability f", ylabel="100 - A(f), %")
        for axes in (left, centre, right):
            axes.set(xscale="log", yscale="log")
        right.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=100)


@command(arguments=True)
def main(argv: list[str]) -> None:
    for failure in FAILURE.value:
        require("failure", failure, 0 <= failure <= 1, "0..1")
    codes = frontier.read(argv[1:])
    shown = [table.make(frontier.columns(codes, FAILURE.value), codes)]
    if learned := frontier.learned(codes):
        shown.append(table.make(frontier.CONFIDENCE, learned))
    console = Console(width=None if sys.stdout.isatty() else 200)
    tables = map(table.to_terminal, shown)
    console.print(frontier.heading(codes[0].run), *tables, sep="\n", highlight=False)
    if OUTPUT.value is not None:
        write(Path(OUTPUT.value), codes, FAILURE.value)


if __name__ == "__main__":
    run(main)
