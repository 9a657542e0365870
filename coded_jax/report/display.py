"""The outcome of a run for people, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table

from coded_jax.runs.reading import code_title

MOST_PATTERNS = 32
MOST_LOST = 5
"""Columns of the table; all of it is in `results.json`."""


def blocks_text(blocks: Sequence[int]) -> str:
    """First and last block of a stage, as `1-2`, or `3` if they are the same."""
    return "-".join(map(str, sorted(set(blocks))))


def percent(fraction: float) -> str:
    """`0.98765` as `98.77`."""
    return f"{100 * fraction:.2f}"


def spread(summary: dict[str, float], which: str) -> str:
    """A mean of seeds in percent, with its standard deviation where there are some."""
    deviation = summary.get(f"{which}_std", 0.0)
    text = percent(summary[which])
    return f"{text} ± {percent(deviation)}" if deviation else text


def report(results: dict[str, Any]) -> Group:
    """The outcome as text: a heading, the code beside its baselines, every pattern.

    Args:
      results: the content of `results.json`.
    """
    split, config = results["split"], results["config"]
    heading = (
        f"{title(results)}\n"
        f"base model: {percent(results['base']['test_accuracy'])} % on the test split; "
        f"each of {split['k'] + split['r']} devices does {split['work_fraction']:.3f} "
        f"of {_coded(split)}\n\n"
        "test accuracy in %, over all patterns of that many lost results"
        f"{_seeds(config)}"
    )
    which = "every erasure pattern of the code"
    patterns = worst_patterns(results["patterns"])
    if len(patterns) < len(results["patterns"]):
        which = f"the {MOST_PATTERNS} worst of the code's {len(results['patterns'])} "
        which += "patterns"
    by_lost = _summary_table(results)
    return Group(heading, by_lost, which, _pattern_table(patterns, split["k"]))


def title(results: dict[str, Any]) -> str:
    """Data set, network, sizes and code of a run in a line."""
    split, network = results["split"], results["config"]["base_model"]
    sizes = f"k={split['k']} r={split['r']}"
    code = code_title(results["config"])
    return f"{results['dataset']}, {network}, {sizes}, {code}"


def _seeds(config: dict[str, Any]) -> str:
    seeds = config["seeds"]
    return f", mean ± standard deviation of {seeds} seeds" if seeds > 1 else ""


def worst_patterns(patterns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All of them, or if they are too many the worst, worst first."""
    if len(patterns) <= MOST_PATTERNS:
        return patterns
    return sorted(patterns, key=lambda p: p["accuracy"])[:MOST_PATTERNS]


def _coded(split: dict[str, Any]) -> str:
    """What the devices share: all of the base model's blocks, or some stages."""
    if split["coded_fraction"] == 1:
        return "its work"
    stages = ", ".join(blocks_text(stage["blocks"]) for stage in split["stages"])
    share = 100 * split["coded_fraction"]
    return f"blocks {stages}, which are {share:.0f} % of its work"


def _summary_table(results: dict[str, Any]) -> Table:
    config = results["config"]
    methods = {config["code"]: results["summary"], **results["baselines"]}
    shown = list(results["summary"])[:MOST_LOST]
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("code")
    table.add_column("pattern")
    for l in shown:
        table.add_column(f"{l} lost", justify="right")
    measures = ("mean", "worst", *["decoded"] * (config["split"] == "group"))
    for name, summary in methods.items():
        for label, which in zip((name, "", ""), measures, strict=False):
            cells = (
                spread(summary[l], which) if which in summary[l] else "-" for l in shown
            )
            table.add_row(label, which, *cells)
    return table


def _pattern_table(patterns: list[dict[str, Any]], k: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("lost")
    for column in ("accuracy", "agreement", "feature mse"):
        table.add_column(column, justify="right")
    for pattern in patterns:
        error = pattern["feature_mse"]  # None where there is no answer
        table.add_row(
            lost_text(pattern["lost"], k),
            percent(pattern["accuracy"]),
            percent(pattern["agreement"]),
            "-" if error is None else f"{error:.4g}",
        )
    return table


def lost_text(lost: list[int], k: int) -> str:
    """Pieces by name: `data 0, parity 0`."""
    names = [f"data {i}" if i < k else f"parity {i - k}" for i in lost]
    return ", ".join(names) or "none"
