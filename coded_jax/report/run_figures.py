"""The outcome of a run in figures; they need the `plot` extra."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coded_jax.report.canvas import new_figure
from coded_jax.report.formatting import pattern_text, percent
from coded_jax.report.run_tables import (
    PARTS,
    measure_name,
    methods_of,
    worst_patterns,
)
from coded_jax.runs import workdir
from coded_jax.runs.reading import base_accuracy, evaluated_part

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(folder: Path, results: dict[str, Any]) -> None:
    """Draws `accuracy.png`, `training.png` and, of classes, `confidence.png` into a
    workdir.

    Args:
      folder: the workdir, with its `metrics.jsonl`.
      results: the content of `results.json`.

    Raises:
      ImportError: matplotlib is missing.
    """
    curves = training(workdir.read_metrics(folder))
    figures = {"accuracy.png": accuracy(results), "training.png": curves}
    if results["confidence"]:
        figures["confidence.png"] = confidence(results)
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=120)


def accuracy(results: dict[str, Any]) -> Figure:
    """Draws a bar for every erasure pattern, or the worst ones, and the base model."""
    patterns = worst_patterns(results["patterns"])
    figure = new_figure(2.5 + 0.5 * len(patterns), 5)
    axes = figure.add_subplot()
    labels = [pattern_text(p["lost"], results["split"]["k"]) for p in patterns]
    values, deviations = _percents(patterns, "accuracy")
    axes.bar(labels, values, color=[f"C{len(p['lost'])}" for p in patterns])
    if any(deviations):
        axes.errorbar(labels, values, deviations, fmt="none", color="black", capsize=2)
    lowest = min(values)
    if zero_fill := results["baselines"].get("zero_fill"):
        worst = 100 * min(row["worst"] for row in zero_fill.values())
        lowest = min(lowest, worst)
        label = f"worst zero-fill {worst:.2f}"
        axes.axhline(worst, color="grey", linestyle=":", label=label)
    _base_line(axes, results)
    bottom = lowest - 2 if lowest < 0 else max(0, lowest - 2)
    axes.set(ylim=(bottom, 100), ylabel=_measured(results))
    axes.tick_params(axis="x", rotation=90)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


def losses(results: dict[str, Any]) -> Figure:
    """Draws mean and worst accuracy over the number of lost results, of all codes."""
    figure = new_figure(10, 4.5)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, measure in zip(panels, ("mean", "worst"), strict=True):
        for i, (name, summary) in enumerate(methods_of(results).items()):
            values, deviations = _percents(summary.values(), measure)
            axes.errorbar(
                [int(l) for l in summary],
                values,
                deviations,
                capsize=2,
                label=name,
                color=f"C{i % 10}",
                marker="osD^v"[i // 10 % 5],
                linewidth=1.2 if i else 2.5,
                zorder=2 if i else 3,
            )
        _base_line(axes, results)
        axes.set(title=f"{measure} over the patterns", xlabel="lost results")
        axes.set_xticks([int(l) for l in results["summary"]])
        axes.grid(alpha=0.3)
    panels[0].set(ylabel=_measured(results))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")
    return figure


def _percents(
    rows: Iterable[dict[str, float]], measure: str
) -> tuple[list[float], list[float]]:
    """Returns a measure of each row and its deviation over seeds, in percent."""
    pairs = [(100 * row[measure], 100 * row.get(f"{measure}_std", 0)) for row in rows]
    return [value for value, _ in pairs], [deviation for _, deviation in pairs]


def _base_line(axes: Axes, results: dict[str, Any]) -> None:
    base = 100 * base_accuracy(results)
    axes.axhline(base, color="black", linestyle="--", label=f"base {base:.2f}")


def _measured(results: dict[str, Any]) -> str:
    """Returns the label of an axis of accuracies."""
    return f"{evaluated_part(results)} {measure_name(results)}, %"


def training(metrics: list[dict[str, Any]]) -> Figure:
    """Draws training losses and validation accuracies over the step.

    Args:
      metrics: the lines of a run, from `workdir.read_metrics`.
    """
    figure = new_figure(10, 4)
    losses, scores = figure.subplots(1, 2)
    for phase in dict.fromkeys(line["phase"] for line in metrics):
        lines = [line for line in metrics if line["phase"] == phase]
        epochs = [line for line in lines if "validation_accuracy" in line]
        of = lambda name, lines: np.array([line[name] for line in lines])
        losses.plot(of("step", lines), of("loss", lines), label=phase)
        accuracies = 100 * of("validation_accuracy", epochs)
        scores.plot(of("step", epochs), accuracies, ".-", label=phase)
    losses.set(yscale="log", xlabel="step", ylabel="training loss")
    scores.set(xlabel="step", ylabel="validation accuracy or R^2, %")
    for axes in (losses, scores):
        axes.grid(alpha=0.3)
    if metrics:
        losses.legend()
    return figure


def confidence(results: dict[str, Any]) -> Figure:
    """Draws the errors among the answers that are given, the surest first."""
    figure = new_figure(6.5, 4)
    axes = figure.add_subplot()
    for l, calibration in results["confidence"].items():
        curve = calibration["curve"]
        risk = [100 * x for x in curve["risk"]]
        label = f"{l} lost, calibration error {percent(calibration['ece'])}"
        axes.plot([100 * x for x in curve["coverage"]], risk, label=label)
    axes.set(xlabel="answers given, the surest first, %", ylabel="wrong among them, %")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def costs(results: dict[str, Any]) -> Figure:
    """Draws the operations of the busiest device for one image by their purpose.

    The busiest device encodes, computes a piece and decodes.
    """
    by_code, code = results["costs"], results["config"]["code"]
    figure = new_figure(10, 1.3 + 0.35 * len(by_code))
    axes = figure.add_subplot()
    names = [code if name == "code" else name for name in by_code]
    total = np.zeros(len(by_code))
    for part, label in PARTS.items():
        work = np.array([cost[part] / cost["whole"] for cost in by_code.values()])
        axes.barh(names, work, left=total, label=label)
        total += work
    for name, work in zip(names, total, strict=True):
        axes.text(work, name, f" {work:.2f}", va="center")
    axes.axvline(1, color="black", linestyle="--", label="the whole image")
    axes.set(xlim=(0, 1.1 * max(1, *total)), xlabel="work, of the whole F_Conv")
    axes.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=len(PARTS) + 1)
    return figure
