"""The frontier as a JSON file and as a figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coded_jax.report import canvas, frontier
from coded_jax.report.formatting import stages_text
from coded_jax.report.frontier import Point
from coded_jax.runs.workdir import make_folder, write_atomically
from tables.frontier_tables import label, most_lost, pieces_text


def write(
    folder: Path, points: list[Point], results: dict[str, Any], failures: list[float]
) -> None:
    """Writes `frontier.json` and `frontier.png`.

    Args:
      folder: made if need be.
      points: all codes.
      results: the content of one run's `results.json`.
      failures: probabilities of `A(f)`.

    Raises:
      ValueError: the folder cannot be made or written to.
      ImportError: matplotlib is missing; then only the JSON is written.
    """
    make_folder(folder, "output")
    content = {
        "dataset": results["dataset"],
        "base": results["base"],
        "points": [_record(point, failures) for point in points],
    }
    write_atomically(folder / "frontier.json", json.dumps(content, indent=1) + "\n")
    draw(folder / "frontier.png", points, failures)


def _record(point: Point, failures: list[float]) -> dict[str, Any]:
    """Returns a point's fields, its work and its overall accuracies."""
    overall = {f: frontier.overall(point, f) for f in failures}
    return {
        **point._asdict(),
        "cost": point.cost.to_json(),
        "grid": pieces_text(point._replace(stages=())),
        "stages": stages_text(point.stages),
        "work": point.work,
        "overall": {
            str(f): frontier.mean_std(values) if values else None
            for f, values in overall.items()
        },
    }


def draw(path: Path, points: list[Point], failures: list[float]) -> None:
    """Draws errors for each number of devices: with results lost (mean and worst
    pattern) and at a failure probability over the work; and over that probability.

    Raises:
      ImportError: matplotlib is missing.
    """
    counts = sorted({point.n for point in points})
    figure = canvas.new_figure(18, 5 * len(counts))
    middle = failures[len(failures) // 2]
    for n, row in zip(
        counts, figure.subplots(len(counts), 3, squeeze=False), strict=True
    ):
        lost = most_lost(points, n)
        for i, point in enumerate(p for p in points if p.n == n):
            style = {"color": f"C{i % 10}", "marker": "osD^vX*P"[i // 10 % 8]}
            _draw_point(row, point, lost, middle, style)
        work = "work of a device and the client, of the whole image's"
        left, centre, right = row
        left.set(xlabel=work, ylabel=f"error with {lost} lost, mean up to worst, %")
        centre.set(xlabel=work, ylabel=f"100 - A({middle:g}), %", title=f"{n} devices")
        right.set(xlabel="failure probability f", ylabel="100 - A(f), %")
        for axes in row:
            axes.set(xscale="log", yscale="log")
        right.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=100)


def _draw_point(axes, point: Point, lost: int, failure: float, style: dict) -> None:
    """Draws one code in the three panels of its number of devices."""
    left, centre, right = axes
    failures = [10 ** (-3 + i / 20) for i in range(55)]
    error = lambda values: 100 - 100 * frontier.mean_std(values)[0]
    if all(len(seed) > lost for seed in point.accuracy):
        mean = error([seed[lost] for seed in point.accuracy])
        worst = error([seed[lost] for seed in point.worst])
        left.errorbar(point.work, mean, [[0], [worst - mean]], **style)
    if overall := frontier.overall(point, failure):
        deviation = 100 * frontier.mean_std(overall)[1]
        centre.errorbar(point.work, error(overall), deviation, **style)
        errors = [error(frontier.overall(point, f)) for f in failures]
        right.plot(failures, errors, label=label(point), markevery=6, ms=4, **style)
    else:
        right.plot([], label=label(point), **style)
