"""The outcome of a run as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table

from coded_jax.report.formatting import (
    measure_text,
    pattern_text,
    percent,
    run_text,
    stages_text,
)

MOST_PATTERNS = 32
MOST_LOST = 5
"""Columns of the summary; all of it is in `results.json`."""


def tables(results: dict[str, Any]) -> Group:
    """Returns a heading, the code beside its baselines, and every erasure pattern.

    Args:
      results: the content of `results.json`.
    """
    split, seeds = results["split"], results["config"]["seeds"]
    deviations = f", mean ± standard deviation of {seeds} seeds" if seeds > 1 else ""
    heading = (
        f"{run_text(results)}\n"
        f"base model: {percent(results['base']['test_accuracy'])} % on the test split; "
        f"each of {split['k'] + split['r']} devices does {split['work_fraction']:.3f} "
        f"of {_coded_part(split)}\n\n"
        f"test accuracy in %, over all patterns of that many lost results{deviations}"
    )
    patterns = worst_patterns(results["patterns"])
    heading_of_patterns = "every erasure pattern of the code"
    if len(patterns) < len(results["patterns"]):
        heading_of_patterns = (
            f"the {MOST_PATTERNS} worst of the code's {len(results['patterns'])} "
            "patterns"
        )
    return Group(
        heading,
        _summary_table(results),
        heading_of_patterns,
        _pattern_table(patterns, split["k"]),
    )


def worst_patterns(patterns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns all outcomes of patterns or, of too many, the least accurate first."""
    if len(patterns) <= MOST_PATTERNS:
        return patterns
    return sorted(patterns, key=lambda p: p["accuracy"])[:MOST_PATTERNS]


def methods_of(results: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Returns the summaries of a run's code and of its baselines, by their names."""
    return {results["config"]["code"]: results["summary"], **results["baselines"]}


def measures_of(results: dict[str, Any]) -> list[str]:
    """Returns the measures of accuracy that a run has."""
    decoded = results["config"]["split"] == "group"  # apart from those that arrived
    return ["mean", "worst", *["decoded"] * decoded]


def cell(summary: dict[str, dict[str, float]], lost: str, measure: str) -> str:
    """Returns a measure at a number of lost results, `-` where it was not taken."""
    row = summary.get(lost, {})
    return measure_text(row, measure) if measure in row else "-"


def _coded_part(split: dict[str, Any]) -> str:
    """Returns the part of the base model that the devices share."""
    if split["coded_fraction"] == 1:
        return "its work"
    stages = stages_text([stage["blocks"] for stage in split["stages"]])
    share = 100 * split["coded_fraction"]
    return f"blocks {stages}, which are {share:.0f} % of its work"


def _summary_table(results: dict[str, Any]) -> Table:
    lost_counts = list(results["summary"])[:MOST_LOST]
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("code")
    table.add_column("pattern")
    for l in lost_counts:
        table.add_column(f"{l} lost", justify="right")
    measures = measures_of(results)
    for name, summary in methods_of(results).items():
        for label, measure in zip((name, "", ""), measures, strict=False):
            cells = (cell(summary, l, measure) for l in lost_counts)
            table.add_row(label, measure, *cells)
    return table


def _pattern_table(patterns: list[dict[str, Any]], k: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("lost")
    for column in ("accuracy", "agreement", "feature mse"):
        table.add_column(column, justify="right")
    for pattern in patterns:
        table.add_row(
            pattern_text(pattern["lost"], k),
            percent(pattern["accuracy"]),
            percent(pattern["agreement"]),
            error_text(pattern["feature_mse"]),
        )
    return table


def error_text(feature_mse: float | None) -> str:
    """Returns the error of the features, `-` where a pattern has no answer."""
    return "-" if feature_mse is None else f"{feature_mse:.4g}"
