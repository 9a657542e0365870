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
    with_deviation,
)
from coded_jax.runs.config import Config
from coded_jax.runs.reading import base_accuracy, total_work, work_of

MOST_PATTERNS = 32
MOST_LOST = 5
"""Columns of the summary; all of it is in `results.json`."""
WHOLE = "whole image"
MEANINGS = {
    "learned": "parity pieces and what decodes them, both trained",
    "no_parity": "as learned, but without parity pieces: its decoder guesses",
    "parity_model": "sums of pieces, on networks that are trained for them",
    "uncoded": "no code, and no answer where a piece is lost",
    "zero_fill": "no code, zeros in place of what is lost",
    "mean_fill": "no code, the training images' mean in place of what is lost",
    "replication": "copies of the pieces",
    "mds": "the Reed-Solomon code, which is exact for linear networks",
    "addition": "sums of the pieces",
    "berrut": "pieces on a rational curve",
    "spline": "pieces on splines",
}
"""Maps a code of the registry to a line that says what it is to a newcomer."""
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
    split, seeds = results["split"], config["seeds"]
    deviations = f", mean ± standard deviation of {seeds} seeds" if seeds > 1 else ""
    heading = [run_text(results), *_coded_part(results), ""]
    part = config["evaluated"]
    measure = measure_name(results)
    heading.append(f"{part} {measure} in %, by how many results are lost{deviations}")
    if works(results):
        heading.append(
            "work: of the busiest device for one image, encoding and decoding "
            "included, over that of the network's convolutions on the whole image"
        )
    patterns = worst_patterns(results["patterns"])
    measures = [name for name in OF_IMAGES if name in patterns[0]]
    heading_of_patterns = "every erasure pattern of the code"
    if len(patterns) < len(results["patterns"]):
        heading_of_patterns = (
            f"the {MOST_PATTERNS} worst of the code's {len(results['patterns'])} "
            "patterns"
        )
    meanings = [
        f"{name}: {MEANINGS[name]}" for name in methods_of(results) if name in MEANINGS
    ]
    if config["tail"] in TAILS:
        meanings.append(TAILS[config["tail"]])
    if works(results):
        n = _devices(results)
        meanings.insert(0, f"{WHOLE}: each of {n} devices computes all, one is enough")
    return Group(
        "\n".join(heading),
        _summary_table(results),
        "\n".join([*meanings, *verdict(results)]),
        "",
        f"{heading_of_patterns}\n"
        "agreement: with the network's own answers; feature mse: error of its features"
        f"{''.join(OF_IMAGES[name] for name in measures)}",
        _pattern_table(patterns, split["k"]),
    )


def works(results: dict[str, Any]) -> dict[str, float]:
    """Returns the work of the busiest device by code, as `frontier.Point.work`; of
    the code and of each baseline, or of none in results that have no costs."""
    return {
        results["config"]["code"] if name == "code" else name: total_work(costs)
        for name, costs in results.get("costs", {}).items()
    }


def _devices(results: dict[str, Any]) -> int:
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
    if measure not in row:
        return "-"
    if measure.endswith("psnr"):
        return with_deviation(row[measure], row.get(f"{measure}_std", 0.0))
    return measure_text(row, measure)


def _coded_part(results: dict[str, Any]) -> list[str]:
    """Returns a line on the part of the network that devices share, if it is a part."""
    split = results["split"]
    if split.get("coded_fraction", 1) == 1:
        return []
    coded = f"blocks {stages_text([stage['blocks'] for stage in split['stages']])}"
    if results["config"]["split"] == "convolution":
        coded = f"the convolutions, in {len(split['stages'])} rounds"
    share = 100 * split["coded_fraction"]
    return [f"coded are {coded}, which are {share:.0f} % of the network's work"]


def _summary_table(results: dict[str, Any]) -> Table:
    """Returns the accuracies and the work of the whole image, the code, the baselines;
    without work, and then without the whole image, if the results have no costs."""
    lost_counts = list(results["summary"])[:MOST_LOST]
    work = works(results)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("code", no_wrap=True)
    table.add_column("pattern")
    for column in [*(f"{l} lost" for l in lost_counts), *["work"] * bool(work)]:
        table.add_column(column, justify="right")
    if work:
        exact, n = percent(base_accuracy(results)), _devices(results)
        cells = (exact if int(l) < n else "-" for l in lost_counts)
        table.add_row(WHOLE, "any", *cells, "1.00")
    measures = measures_of(results)
    for name, summary in methods_of(results).items():
        cost = f"{work[name]:.2f}" if name in work else ""
        for measure in measures:
            first = measure == measures[0]
            cells = [cell(summary, l, measure) for l in lost_counts]
            cells += [cost if first else ""] * bool(work)
            table.add_row(name if first else "", MEASURES[measure], *cells)
    return table


def _pattern_table(patterns: list[dict[str, Any]], k: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("lost")
    names = of_images(patterns[0])
    for column in ("accuracy", *names, "agreement", "feature mse"):
        table.add_column(column, justify="right")
    for pattern in patterns:
        table.add_row(
            pattern_text(pattern["lost"], k),
            percent(pattern["accuracy"]),
            *of_images(pattern).values(),
            percent(pattern["agreement"]),
            error_text(pattern["feature_mse"]),
        )
    return table


def of_images(pattern: dict[str, Any]) -> dict[str, str]:
    """Returns texts of a pattern's measures that only answers that are images have, by
    their names in tables."""
    texts = {}
    if "mean_iou" in pattern:
        texts["mean IoU"] = percent(pattern["mean_iou"])
    if "psnr" in pattern:
        texts["PSNR"] = f"{pattern['psnr']:.1f} dB"
    return texts


def error_text(feature_mse: float | None) -> str:
    """Returns the error of the features, `-` where a pattern has no answer."""
    return "-" if feature_mse is None else f"{feature_mse:.4g}"
