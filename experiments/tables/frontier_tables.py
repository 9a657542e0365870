"""Tables of many codes on one base model: accuracy, work, failures, confidence."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from coded_jax.codes import LEARNED, NO_PARITY
from coded_jax.report import frontier
from coded_jax.report.formatting import (
    pattern_text,
    size_text,
    stages_text,
    with_deviation,
)
from coded_jax.report.frontier import Point
from coded_jax.runs.reading import code_name, patterns_of
from tables import markdown, stored, targets
from tables.finished_runs import read_runs

COVERAGES = (0.9, 0.98)
FAILURES = [0.01, 0.05, 0.2]

Table = tuple[list[str], list[list[str]]]
"""Headings, and rows of cells."""


def read(arguments: list[str]) -> tuple[list[Point], list[dict[str, Any]]]:
    """Returns all codes of the runs, by devices and work, and the runs' results.

    Raises:
      ValueError: see `read_runs`; or two runs differ on one code.
    """
    runs = read_runs(arguments)
    codes = frontier.distinct(runs)
    base = runs[0]["base"]["test_accuracy"]
    some = {point.n: point for point in codes}
    wholes = [frontier.whole_image(point, base) for point in some.values()]
    return sorted([*codes, *wholes], key=lambda point: (point.n, point.work)), runs


def seeds_text(values: list[float], digits: int = 2) -> str:
    """Returns mean and standard deviation over seeds, in percent; `-` for no value."""
    if not values:
        return "-"
    mean, deviation = frontier.mean_std(values)
    return with_deviation(100 * mean, 100 * deviation, digits)


def optional_percent(measures: dict[str, float | None], name: str) -> str:
    """Returns a measure and its deviation over seeds, in percent; `-` for None."""
    fraction = measures.get(name)
    if fraction is None:
        return "-"
    value = f"{100 * fraction:.2f}".replace("-0.00", "0.00")
    deviation = f"{100 * (measures.get(f'{name}_std') or 0):.2f}"
    return value if deviation == "0.00" else f"{value} ± {deviation}"


def pieces_text(point: Point) -> str:
    """Returns how images are made into pieces, and the coded blocks."""
    pieces = size_text(point.grid) if point.grid else str(point.k)
    if point.split == "group":
        pieces = f"group of {point.k}"
    return pieces + _of_blocks(point)


def _of_blocks(point: Point) -> str:
    blocks = f" of blocks {stages_text(point.stages)}" if point.stages else ""
    return f" of every convolution{blocks}" if point.split == "convolution" else blocks


def label(point: Point) -> str:
    """Returns a code, the blocks that it codes, k and r: for a legend or a cell."""
    return f"{point.code}{_of_blocks(point)} ({point.k}, {point.r})"


def most_lost(points: list[Point], n: int) -> int:
    """Returns how many losses all codes on n devices are made for, 1 or more."""
    return max(1, min(p.r for p in points if p.n == n))


def codes_table(
    points: list[Point], failures: list[float], noted: Collection[str] = ()
) -> Table:
    """Returns a row for each code.

    Args:
      points: all codes.
      failures: probabilities of `A(f)`.
      noted: labels of those that have a note.
    """
    most = max(most_lost(points, n) for n in {p.n for p in points})
    middle = failures[len(failures) // 2]
    headings = ["n", "code", "k, r", "pieces", "work"]
    headings += ["encode + piece + decode + not coded", "rounds", "kB"]
    headings += [f"{l} lost, mean (worst)" if l else "0 lost" for l in range(most + 1)]
    headings += [f"A({f:g})" for f in failures] + [f"beaten at {middle:g} by"]
    rows = []
    for point in points:
        better = frontier.beaten_by(point, points, middle)
        beaten = label(better) if better else ""
        by_lost = [seeds_text([seed[0] for seed in point.accuracy])]
        by_lost += [
            f"{seeds_text([seed[l] for seed in point.accuracy if l < len(seed)])} "
            f"({seeds_text([seed[l] for seed in point.worst if l < len(seed)])})"
            for l in range(1, most + 1)
        ]
        rows.append(
            [
                str(point.n),
                point.code + (f" {stored.MARK}" if label(point) in noted else ""),
                f"{point.k}, {point.r}",
                pieces_text(point),
                f"{point.work:.2f}",
                " + ".join(f"{x:.2f}" for x in point.cost.parts.values()),
                str(point.rounds),
                f"{point.bytes / 1e3:.2f}",
                *by_lost,
                *(seeds_text(frontier.overall(point, f), 3) for f in failures),
                beaten if frontier.overall(point, middle) else "-",
            ]
        )
    return headings, rows


def confidence_table(runs: list[dict[str, Any]]) -> Table:
    """Returns a row for each learned code and number of lost results: how much less
    accurate it is than the base model, and how well it knows that."""
    headings = ["code", "k, r", "lost", "drop from the base, mean", "worst pattern"]
    headings += ["target", "ECE", "uncalibrated", "ECE of decoded answers"]
    headings += [f"error at coverage {coverage:g}" for coverage in COVERAGES]
    rows = []
    for results in (r for r in runs if r["config"]["code"] == LEARNED):
        split, base = results["split"], results["base"]["test_accuracy"]
        lost_counts = [str(l) for l in range(split["r"] + 1)]
        for l in (l for l in lost_counts if l in results["confidence"]):
            calibration, summary = results["confidence"][l], results["summary"][l]
            drop = {**summary, **{x: base - summary[x] for x in ("mean", "worst")}}
            code = code_name(results["config"], LEARNED)
            row = [code + stored.mark(results), f"{split['k']}, {split['r']}", l]
            row += [optional_percent(drop, x) for x in ("mean", "worst")]
            row += [targets.frontier(results, code, int(l))]
            row += [
                optional_percent(calibration, x) for x in ("ece", "ece_uncalibrated")
            ]
            row += [optional_percent(calibration, "ece_decoded")]
            curve = calibration["curve"]
            risks = np.interp(COVERAGES, curve["coverage"], curve["risk"])
            row += [f"{100 * risk:.2f}" for risk in risks]
            rows.append(row)
    return headings, rows


def against_no_parity(runs: list[dict[str, Any]]) -> list[str]:
    """Returns a line for each learned code whose decoder some run has without parity:
    the patterns in which that is as good."""
    lines = []
    for results in (r for r in runs if r["config"]["code"] == LEARNED):
        rivals = list(_patterns_without_parity(results, runs))
        if not rivals:
            continue
        config, (k, r) = results["config"], (results["split"][x] for x in "kr")
        worse, total = frontier.no_better(results["patterns"], rivals[0], k, r)
        if not total:
            continue
        exceptions = ", ".join(
            f"{pattern_text(ours['lost'], k)} "
            f"({100 * ours['accuracy']:.2f}, without {100 * theirs['accuracy']:.2f})"
            for ours, theirs in worse
        )
        lines.append(
            f"{code_name(config, LEARNED)} ({k}, {r}): better than without parity in "
            f"{total - len(worse)} of the {total} patterns that lose a data piece, and "
            f"at most {r} results{', not in ' if worse else ''}{exceptions}"
        )
    return lines


def _patterns_without_parity(results: dict[str, Any], runs: list[dict[str, Any]]):
    """Yields the patterns of the same decoder without parity, from all runs."""
    config, split = results["config"], results["split"]
    for other in (results, *runs):
        alike = (
            all(other["split"][key] == split[key] for key in ("k", "r", "grid"))
            and all(other["config"][key] == config[key] for key in ("stages", "recipe"))
            and code_name(other["config"], NO_PARITY) == code_name(config, NO_PARITY)
        )
        if alike and (patterns := patterns_of(other, NO_PARITY)):
            yield patterns


def heading(results: dict[str, Any]) -> str:
    """Returns what all rows have in common, from one of the runs."""
    config, base = results["config"], 100 * results["base"]["test_accuracy"]
    worker = "network" if config["split"] == "group" else "F_Conv"
    return (
        f"{results['dataset']}, {config['base_model']}, base {base:.2f} %; "
        f"work is that of a device and of the client for one image, over the whole "
        f"{worker}; kB are what a device receives and returns, in all rounds; A(f) is "
        "the accuracy where each result of a round is lost with probability f"
    )


def all_tables(
    points: list[Point], runs: list[dict[str, Any]], failures: list[float]
) -> list[Table]:
    """Returns each table that has rows."""
    tables = codes_table(points, failures, noted(runs)), confidence_table(runs)
    return [table for table in tables if table[1]]


def noted(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns the runs that have a note, by the labels of their codes."""
    return {
        label(frontier.points(results)[0]): results
        for results in runs
        if "note" in results
    }


def history(table: str) -> str:
    """Returns the rows of a table that are history; see `section`."""
    folder = stored.history_of(table)
    return "No rows: all are above." if folder is None else section(table, folder)


def section(table: str, folder: Path | None = None) -> str:
    """Returns the codes of all runs of a table, as a section of a document.

    Args:
      table: a folder of stored results.
      folder: of the runs; that of `stored.folder_of` if it is not given.

    Raises:
      ValueError: see `read`.
    """
    folder = folder or stored.folder_of(table)
    points, runs = read(sorted(map(str, folder.glob("*.json"))))
    parts = [f"{heading(runs[0])}."]
    parts += [markdown.table(*table) for table in all_tables(points, runs, FAILURES)]
    if lines := against_no_parity(runs):
        parts.append("\n".join(f"- {line}" for line in lines))
    if notes := stored.notes(noted(runs)):
        parts.append("\n".join(notes))
    parts.append(stored.origin_text(runs))
    return stored.with_history("\n\n".join(parts), folder, runs)
