"""The outcome of a run for people: a table and plots."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table

from coded_jax.codes import LEARNED, NO_PARITY
from coded_jax.workdir import METRICS

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
        f"{results['dataset']}, {config['base_model']}, k={split['k']} r={split['r']}, "
        f"{_code(config)}\n"
        f"base model: {percent(results['base']['test_accuracy'])} % on the test split; "
        f"each of {split['k'] + split['r']} devices does {split['work_fraction']:.3f} "
        f"of {_coded(split)}\n\n"
        "test accuracy in %, over all patterns of that many lost results"
        f"{_seeds(config)}"
    )
    title = "every erasure pattern of the code"
    patterns = _worst(results["patterns"])
    if len(patterns) < len(results["patterns"]):
        title = f"the {MOST_PATTERNS} worst of the code's {len(results['patterns'])} "
        title += "patterns"
    by_lost = _summary_table(results)
    return Group(heading, by_lost, title, _pattern_table(patterns, split["k"]))


def _code(config: dict[str, Any]) -> str:
    if config["code"] not in (LEARNED, NO_PARITY):
        return f"{config['code']} code"
    return (
        f"{config['recipe']} recipe, {config['encoder']} encoder, "
        f"{config['decoder']} decoder"
    )


def _seeds(config: dict[str, Any]) -> str:
    seeds = config["seeds"]
    return f", mean ± standard deviation of {seeds} seeds" if seeds > 1 else ""


def _worst(patterns: list[dict[str, Any]]) -> list[dict[str, Any]]:
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


def plot(folder: Path, results: dict[str, Any]) -> list[Path]:
    """Draws `accuracy.png`, `training.png` and `confidence.png` into the workdir.

    Args:
      folder: the workdir, with its `metrics.jsonl`.
      results: the content of `results.json`.

    Raises:
      ImportError: matplotlib is missing; the `plot` extra brings it.
    """
    try:
        # Its start-up notes are of no use to the reader of a run.
        logging.getLogger("matplotlib").setLevel(logging.WARNING)
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need: pip install 'coded_jax[plot]'") from error

    patterns = _worst(results["patterns"])
    figure = Figure(figsize=(1.5 + 0.5 * len(patterns), 6), layout="constrained")
    axes = figure.add_subplot()
    labels = [lost_text(p["lost"], results["split"]["k"]) for p in patterns]
    values = [100 * p["accuracy"] for p in patterns]
    axes.bar(labels, values, color=[f"C{len(p['lost'])}" for p in patterns])
    base = 100 * results["base"]["test_accuracy"]
    axes.axhline(base, color="black", linestyle="--", label=f"base {base:.2f}")
    lowest = min(values)
    if zero_fill := results["baselines"].get("zero_fill"):
        worst = 100 * min(row["worst"] for row in zero_fill.values())
        lowest = min(lowest, worst)
        axes.axhline(
            worst, color="grey", linestyle=":", label=f"worst zero-fill {worst:.2f}"
        )
    axes.set(ylim=(max(0, lowest - 2), 100), ylabel="test accuracy, %")
    axes.tick_params(axis="x", rotation=90)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1))
    figure.savefig(folder / "accuracy.png", dpi=120)

    figure = Figure(figsize=(9, 4), layout="tight")
    losses, scores = figure.subplots(1, 2)
    for phase, records in _by_phase(folder / METRICS).items():
        epochs = [r for r in records if "validation_accuracy" in r]
        losses.plot(
            [r["step"] for r in records], [r["loss"] for r in records], label=phase
        )
        scores.plot(
            [r["step"] for r in epochs],
            [100 * r["validation_accuracy"] for r in epochs],
            ".-",
            label=phase,
        )
    losses.set(yscale="log", xlabel="step", ylabel="training loss")
    scores.set(xlabel="step", ylabel="validation accuracy, %")
    if losses.lines:
        losses.legend()
    figure.savefig(folder / "training.png", dpi=120)

    figure = Figure(figsize=(6, 4), layout="tight")
    axes = figure.add_subplot()
    for l, found in results["confidence"].items():
        curve = found["curve"]
        risk = [100 * x for x in curve["risk"]]
        label = f"{l} lost, calibration error {percent(found['ece'])}"
        axes.plot([100 * x for x in curve["coverage"]], risk, label=label)
    axes.set(xlabel="answers given, the surest first, %", ylabel="wrong among them, %")
    axes.legend()
    figure.savefig(folder / "confidence.png", dpi=120)
    return [folder / f"{name}.png" for name in ("accuracy", "training", "confidence")]


def _by_phase(path: Path) -> dict[str, list[dict[str, Any]]]:
    phases: dict[str, list[dict[str, Any]]] = {}
    if not path.exists():  # nothing was trained
        return phases
    for line in path.read_text().splitlines():
        record = json.loads(line)
        phases.setdefault(record["phase"], []).append(record)
    return phases
