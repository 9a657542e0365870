"""The outcome of a run as tables."""

from __future__ import annotations

from typing import Any

from rich.console import Group

from coded_jax.codes import entry_of
from coded_jax.report.formatting import (
    measure_text,
    pattern_text,
    percent,
    run_text,
    stages_text,
    with_deviation,
)
from coded_jax.report.table import Table, make, to_terminal
from coded_jax.runs.reading import base_accuracy, evaluated_part, read_cost

MOST_PATTERNS = 32
MOST_LOST = 5
"""Columns of the summary; all of it is in `results.json`."""
WHOLE = "whole image"
TAILS = {
    "tuned": "a second head, trained for each code, answers where a data piece is lost",
    "intact": "a second head, trained on exact features, answers where a data piece is "
    "lost",
}
"""Maps a setting of the tail, also of former versions, to a line that says who answers.
"""
PARTS = {
    "encode": "encoding",
    "piece": "its piece",
    "decode": "decoding",
    "uncoded": "blocks that are not coded",
}
"""Maps the parts of a cost, see `Cost.parts`, to what they are for."""

OF_IMAGES = {
    "mean_iou": "\naccuracy: of positions; mean IoU: intersection over union, mean of "
    "the classes",
    "psnr": "\naccuracy: the coefficient of determination R^2; agreement: likewise, "
    "with the\nsquared difference from the network's own values over the variance of "
    "the labels;\nPSNR: peak signal-to-noise ratio",
}
"""Maps a measure of answers that are images to a line that says what it is."""

MEASURES = {
    "mean": "mean",
    "worst": "worst",
    "decoded": "decoded",
    "mean_iou": "mean IoU",
    "worst_iou": "worst IoU",
    "mean_psnr": "mean PSNR, dB",
    "worst_psnr": "worst PSNR, dB",
}
"""Maps the measures of a summary to their names in tables."""


def tables(results: dict[str, Any]) -> Group:
    """Returns a heading, the code beside its baselines, and every erasure pattern.

    Args:
      results: the content of `results.json`, of this version.
    """
    config, split = results["config"], results["split"]
    seeds, stages = config["seeds"], split["stages"]
    lines = [run_text(results)]
    if split["coded_fraction"] < 1:
        coded = f"blocks {stages_text([stage['blocks'] for stage in stages])}"
        if config["split"] == "convolution":
            coded = f"the convolutions, in {len(stages)} rounds"
        share = f"{100 * split['coded_fraction']:.0f} % of the network's work"
        lines.append(f"coded are {coded}, which are {share}")
    measured = f"{evaluated_part(results)} {measure_name(results)}"
    deviations = f", mean ± standard deviation of {seeds} seeds" if seeds > 1 else ""
    lines += [
        "",
        f"{measured} in %, by how many results are lost{deviations}",
        "work: of the busiest device for one image, encoding and decoding included, "
        "over that of the network's convolutions on the whole image",
    ]
    devices = f"{split['k'] + split['r']} devices"
    meanings = [f"{WHOLE}: each of {devices} computes all, one is enough"]
    for name in methods_of(results):
        if meaning := entry_of(name).meaning:
            meanings.append(f"{name}: {meaning}")
    if tail := TAILS.get(config.get("tail", "")):
        meanings.append(tail)
    patterns, total = worst_patterns(results["patterns"]), len(results["patterns"])
    about_patterns = "every erasure pattern of the code"
    if len(patterns) < total:
        about_patterns = f"the {MOST_PATTERNS} worst of the code's {total} patterns"
    summary = to_terminal(by_lost(results, MOST_LOST), left=2, narrow=False)
    summary.columns[0].no_wrap = True
    meanings += [verdict(results), "", about_patterns, meanings_of_patterns(patterns)]
    every = to_terminal(by_pattern(patterns, split["k"]), narrow=False)
    return Group("\n".join(lines), summary, "\n".join(meanings), every)


def works(results: dict[str, Any]) -> dict[str, float]:
    """Returns the work of a device and of the client together, by code and baseline."""
    names = {"code": results["config"]["code"]}
    return {
        names.get(name, name): sum(read_cost(results, name).parts.values())
        for name in results["costs"]
    }


def verdict(results: dict[str, Any]) -> str:
    """Returns a sentence on what the code costs and gives, beside the whole image on
    each device."""
    name, most = results["config"]["code"], results["split"]["r"]
    work = works(results)[name]
    busiest = f"{name} takes its busiest device {work:.2f}"
    if work >= 1:
        parts = read_cost(results, "code").parts
        largest = max(parts, key=parts.__getitem__)
        dearest = f"{parts[largest]:.2f} of it for {PARTS[largest]}"
        return (
            f"{busiest} times the work of the whole image, {dearest}: here, compute "
            "the whole image on each device instead."
        )
    summary = results["summary"].items()
    worst = [row["worst"] for lost, row in summary if 0 < int(lost) <= most]
    if not worst:
        return f"{busiest} of the work of the whole image."
    points = f"{100 * (base_accuracy(results) - min(worst)):.2f} points"
    losses = "one result" if most == 1 else f"up to {most} results"
    return (
        f"{busiest} of the work of the whole image, and the worst loss of {losses} "
        f"{points} of {measure_name(results)}."
    )


def measure_name(results: dict[str, Any]) -> str:
    """Returns the name of what is called accuracy in results."""
    return "R^2" if results.get("values") else "accuracy"


def worst_patterns(patterns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns all outcomes of patterns or, of too many, the least accurate first."""
    if len(patterns) <= MOST_PATTERNS:
        return patterns
    return sorted(patterns, key=lambda p: p["accuracy"])[:MOST_PATTERNS]


def methods_of(results: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Returns the summaries of a run's code and of its baselines, by their names."""
    return {results["config"]["code"]: results["summary"], **results["baselines"]}


def measures_of(results: dict[str, Any]) -> list[str]:
    """Returns the measures of accuracy that a run has, of `MEASURES`."""
    known = {name for row in results["summary"].values() for name in row}
    if results["config"]["split"] != "group":  # in groups others arrived as they are
        known.discard("decoded")
    return [name for name in MEASURES if name in known]


def cell(summary: dict[str, dict[str, float]], lost: str, measure: str) -> str:
    """Returns a measure at a number of lost results, `-` where it was not taken."""
    row = summary.get(lost, {})
    if row.get(measure) is None:
        return "-"
    if measure.endswith("psnr"):
        return with_deviation(row[measure], row.get(f"{measure}_std", 0.0))
    return measure_text(row, measure)


def by_lost(results: dict[str, Any], most: int | None = None) -> Table:
    """Returns the accuracies and the work of the whole image, the code, the baselines.

    Args:
      results: the content of `results.json`.
      most: how many numbers of lost results have a column; all if not given.
    """
    lost_counts, work = [*results["summary"]][:most], works(results)
    n, exact = sum(results["split"][x] for x in "kr"), percent(base_accuracy(results))
    whole = [exact if int(lost) < n else "-" for lost in lost_counts]
    rows = [[WHOLE, "any", *whole, "1.00"]]
    for name, summary in methods_of(results).items():
        first = name, f"{work[name]:.2f}" if name in work else ""
        for measure in measures_of(results):
            cells = [cell(summary, lost, measure) for lost in lost_counts]
            rows.append([first[0], MEASURES[measure], *cells, first[1]])
            first = "", ""
    return Table(["code", "pattern", *(f"{l} lost" for l in lost_counts), "work"], rows)


def by_pattern(patterns: list[dict[str, Any]], k: int) -> Table:
    """Returns a row for each erasure pattern, with the measures that it has.

    Args:
      patterns: their outcomes, as in `results.json`.
      k: data pieces.
    """
    columns = {
        "lost": lambda x: pattern_text(x["lost"], k),
        "accuracy": lambda x: measure_text(x, "accuracy"),
        "mean IoU": lambda x: percent(x["mean_iou"]),
        "PSNR": lambda x: f"{x['psnr']:.1f} dB",
        "agreement": lambda x: percent(x["agreement"]),
        "feature mse": lambda x: (
            "-" if x["feature_mse"] is None else f"{x['feature_mse']:.4g}"
        ),
    }
    for header, measure in (("mean IoU", "mean_iou"), ("PSNR", "psnr")):
        if measure not in patterns[0]:
            del columns[header]
    return make(columns, patterns)


def meanings_of_patterns(patterns: list[dict[str, Any]]) -> str:
    """Returns lines on what the columns of `by_pattern` are."""
    return (
        "agreement: with the network's own answers; feature mse: error of its features"
        + "".join(line for name, line in OF_IMAGES.items() if name in patterns[0])
    )
