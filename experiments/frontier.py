"""Compares all codes on one base model: accuracy against work and against failures.

    python experiments/frontier.py --output=runs/frontier runs/frontier_lenet5_*

Arguments are workdirs of finished runs, or copies of their `results.json`, with the
same base model; `A(f)` needs runs with a `--tried` of at least the devices less one.
Prints a table, and writes `frontier.json` and `frontier.png`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from absl import app, flags
from rich import box
from rich.console import Console
from rich.table import Table
from tables.frontier_tables import (
    FAILURES,
    against_no_parity,
    all_tables,
    heading_of,
    label,
    most_lost,
    read,
)

from coded_jax.cli.command_line import parse_flags
from coded_jax.report import figures, frontier
from coded_jax.report.frontier import Point
from coded_jax.runs.workdir import make_folder, write_atomically

OUTPUT = flags.DEFINE_string("output", None, "folder of frontier.json and .png")
FAILURE = flags.DEFINE_multi_float(
    "failure", FAILURES, "probability that a device's result is lost"
)


def plot(path: Path, points: list[Point]) -> None:
    """Errors per number of devices: with results lost, mean and worst pattern, and at a
    failure probability against the work; and against the failure probability.

    Raises:
      ImportError: matplotlib is missing.
    """
    counts = sorted({point.n for point in points})
    figure = figures.new_figure(18, 5 * len(counts))
    axes = figure.subplots(len(counts), 3, squeeze=False)
    middle = FAILURE.value[len(FAILURE.value) // 2]
    failures = [10 ** (-3 + i / 20) for i in range(55)]
    error = lambda values: 100 - 100 * frontier.mean_std(values)[0]
    for n, (left, centre, right) in zip(counts, axes, strict=True):
        lost = most_lost(points, n)
        for i, point in enumerate(p for p in points if p.n == n):
            style = {"color": f"C{i % 10}", "marker": "osD^vX*P"[i // 10 % 8]}
            if all(len(seed) > lost for seed in point.accuracy):
                mean = error([seed[lost] for seed in point.accuracy])
                worst = error([seed[lost] for seed in point.worst])
                left.errorbar(point.work, mean, [[0], [worst - mean]], **style)
            if overall := frontier.overall(point, middle):
                deviation = 100 * frontier.mean_std(overall)[1]
                centre.errorbar(point.work, error(overall), deviation, **style)
                errors = [error(frontier.overall(point, f)) for f in failures]
                right.plot(
                    failures, errors, label=label(point), markevery=6, ms=4, **style
                )
            else:
                right.plot([], label=label(point), **style)
        work = "work of the busiest device, of the whole image's"
        left.set(xlabel=work, ylabel=f"error with {lost} lost, mean up to worst, %")
        centre.set(xlabel=work, ylabel=f"100 - A({middle:g}), %", title=f"{n} devices")
        right.set(xlabel="failure probability f", ylabel="100 - A(f), %")
        for each in (left, centre, right):
            each.set(xscale="log", yscale="log")
        right.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=100)


def main(argv: list[str]) -> None:
    try:
        for failure in FAILURE.value:
            if not 0 <= failure <= 1:
                raise ValueError(f"failure: {failure} given, 0..1 accepted")
        points, runs = read(argv[1:])
    except ValueError as error:
        sys.exit(f"error: {error}")
    tables = all_tables(points, runs, FAILURE.value)
    console = Console(width=None if sys.stdout.isatty() else 200)
    shown = [Table(*headings, box=box.SIMPLE_HEAD) for headings, _ in tables]
    for table, (_, rows) in zip(shown, tables, strict=True):
        for row in rows:
            table.add_row(*row)
    lines = [heading_of(runs[0]), *shown, *against_no_parity(runs)]
    console.print(*lines, sep="\n", highlight=False)
    try:
        if OUTPUT.value is not None:
            write(Path(OUTPUT.value), points, runs[0])
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")


def write(folder: Path, points: list[Point], results: dict[str, Any]) -> None:
    """Writes `frontier.json` and `frontier.png`.

    Raises:
      ValueError: the folder cannot be made or written to.
      ImportError: matplotlib is missing; then only the JSON is written.
    """
    make_folder(folder, "output")
    content = {
        "dataset": results["dataset"],
        "base": results["base"],
        "points": [
            {
                **point._asdict(),
                "work": point.work,
                "overall": {
                    str(f): frontier.mean_std(overall) if overall else None
                    for f in FAILURE.value
                    for overall in [frontier.overall(point, f)]
                },
            }
            for point in points
        ],
    }
    write_atomically(folder / "frontier.json", json.dumps(content, indent=1) + "\n")
    plot(folder / "frontier.png", points)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
