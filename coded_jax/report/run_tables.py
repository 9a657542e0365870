"""The outcome of a run as tables."""

from __future__ import annotations

import itertools
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
from coded_jax.runs.config import Config
from coded_jax.runs.reading import base_accuracy, total_work, work_of

MOST_PATTERNS = 32
MOST_LOST = 5
"""Columns of the summary; all of it is in `results.json`."""
WHOLE = "whole image"
TAILS = {
    "tuned": "a second head, trained for each code, answers where a data piece is lost",
    "intact": "a second head, trained on exact features, answers where a data piece is "
    "lost",
}
"""Maps a setting of the tail to a line that says who answers."""
PURPOSES = {
    "encode": "to encode",
    "piece": "for its piece",
    "decode": "to decode",
    "uncoded": "for blocks that are not coded",
}

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
      results: the content of `results.json`.
    """
    # Settings that a version of before did not have are as by default.
    config = {**Config().to_json(), **results["config"]}
    results = {**results, "config": config}
    split, seeds, n = results["split"], config["seeds"], devices_of(results)
    lines = [run_text(results)]
    if split.get("coded_fraction", 1) < 1:
        coded = f"blocks {stages_text([stage['blocks'] for stage in split['stages']])}"
        if config["split"] == "convolution":
            coded = f"the convolutions, in {len(split['stages'])} rounds"
        share = f"{100 * split['coded_fraction']:.0f} % of the network's work"
        lines.append(f"coded are {coded}, which are {share}")
    measured = f"{config['evaluated']} {measure_name(results)}"
    deviations = f", mean ± standard deviation of {seeds} seeds" if seeds > 1 else ""
    lines += ["", f"{measured} in %, by how many results are lost{deviations}"]
    meanings = [
        f"{name}: {meaning}"
        for name in methods_of(results)
        if (meaning := entry_of(name).meaning)
    ]
    if works(results):
        lines.append(
            "work: of the busiest device for one image, encoding and decoding "
            "included, over that of the network's convolutions on the whole image"
        )
        meanings.insert(0, f"{WHOLE}: each of {n} devices computes all, one is enough")
    if config["tail"] in TAILS:
        meanings.append(TAILS[config["tail"]])
    patterns, total = worst_patterns(results["patterns"]), len(results["patterns"])
    about_patterns = "every erasure pattern of the code"
    if len(patterns) < total:
        about_patterns = f"the {MOST_PATTERNS} worst of the code's {total} patterns"
    summary = to_terminal(by_lost(results, MOST_LOST), left=2, narrow=False)
    summary.columns[0].no_wrap = True
    return Group(
        "\n".join(lines),
        summary,
        "\n".join([*meanings, *verdict(results)]),
        "",
        f"{about_patterns}\n{meanings_of_patterns(patterns)}",
        to_terminal(by_pattern(patterns, split["k"]), narrow=False),
    )


def works(results: dict[str, Any]) -> dict[str, float]:
    """Returns the work of the busiest device by code, as `frontier.Point.work`; of
    the code and of each baseline, or of none in results that have no costs."""
    return {
        results["config"]["code"] if name == "code" else name: total_work(costs)
        for name, costs in results.get("costs", {}).items()
    }


def devices_of(results: dict[str, Any]) -> int:
    """Returns the number of devices of a run's codes."""
    return results["split"]["k"] + results["split"]["r"]


def verdict(results: dict[str, Any]) -> list[str]:
    """Returns a sentence on what the code costs and gives, beside the whole image on
    each device; none for results that have no costs."""
    name, work = results["config"]["code"], works(results)
    if name not in work:
        return []
    busiest = f"{name} takes its busiest device {work[name]:.2f}"
    if work[name] >= 1:
        parts = work_of(results["costs"]["code"])
        largest = max(parts, key=lambda part: parts[part])
        dearest = f"{parts[largest]:.2f} of it {PURPOSES[largest]}"
        return [
            f"{busiest} times the work of the whole image, {dearest}: here, compute "
            "the whole image on each device instead."
        ]
    most, base = results["split"]["r"], base_accuracy(results)
    by_lost = results["summary"].items()
    accuracies = [row["worst"] for l, row in by_lost if 0 < int(l) <= most]
    if not accuracies:
        return [f"{busiest} of the work of the whole image."]
    points = f"{100 * (base - min(accuracies)):.2f} points of {measure_name(results)}"
    losses = "one result" if most == 1 else f"up to {most} results"
    return [
        f"{busiest} of the work of the whole image, and the worst loss of {losses} "
        f"{points}."
    ]


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
    # In groups the accuracy of decoded answers is apart from those that arrived.
    left_out = set() if results["config"]["split"] == "group" else {"decoded"}
    known = {name for row in results["summary"].values() for name in row}
    return [name for name in MEASURES if name in known - left_out]


def cell(summary: dict[str, dict[str, float]], lost: str, measure: str) -> str:
    """Returns a measure at a number of lost results, `-` where it was not taken."""
    row = summary.get(lost, {})
    if row.get(measure) is None:
        return "-"
    if measure.endswith("psnr"):
        return with_deviation(row[measure], row.get(f"{measure}_std", 0.0))
    return measure_text(row, measure)


def by_lost(results: dict[str, Any], most: int | None = None) -> Table:
    """Returns the accuracies and the work of the whole image, the code, the baselines;
    without work, and then without the whole image, if the results have no costs.

    Args:
      results: the content of `results.json`.
      most: how many numbers of lost results have a column; all if not given.
    """
    lost_counts, work = [*results["summary"]][:most], works(results)
    methods, measures = methods_of(results), measures_of(results)
    is_first = lambda x: x[1] == measures[0]
    columns = {
        "code": lambda x: x[0] if is_first(x) else "",
        "pattern": lambda x: MEASURES[x[1]],
        **{
            f"{lost} lost": lambda x, lost=lost: cell(methods[x[0]], lost, x[1])
            for lost in lost_counts
        },
    }
    rows = []
    if work:
        exact = percent(base_accuracy(results))
        n = devices_of(results)
        cells = (exact if int(lost) < n else "-" for lost in lost_counts)
        rows.append([WHOLE, "any", *cells, "1.00"])
        has_work = lambda x: is_first(x) and x[0] in work
        columns["work"] = lambda x: f"{work[x[0]]:.2f}" if has_work(x) else ""
    table = make(columns, itertools.product(methods, measures))
    return Table(table.headers, [*rows, *table.rows])


def by_pattern(patterns: list[dict[str, Any]], k: int) -> Table:
    """Returns a row for each erasure pattern, with the measures that it has.

    Args:
      patterns: their outcomes, as in `results.json`.
      k: data pieces.
    """
    of_images = {
        "mean_iou": ("mean IoU", lambda x: percent(x["mean_iou"])),
        "psnr": ("PSNR", lambda x: f"{x['psnr']:.1f} dB"),
    }
    columns = {
        "lost": lambda x: pattern_text(x["lost"], k),
        "accuracy": lambda x: measure_text(x, "accuracy"),
        **dict(of_images[name] for name in of_images if name in patterns[0]),
        "agreement": lambda x: percent(x["agreement"]),
        "feature mse": lambda x: (
            "-" if x["feature_mse"] is None else f"{x['feature_mse']:.4g}"
        ),
    }
    return make(columns, patterns)


def meanings_of_patterns(patterns: list[dict[str, Any]]) -> str:
    """Returns lines on what the columns of `by_pattern` are."""
    return (
        "agreement: with the network's own answers; feature mse: error of its features"
        + "".join(line for name, line in OF_IMAGES.items() if name in patterns[0])
    )
