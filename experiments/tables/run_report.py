"""The report of one finished run."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from coded_jax import data
from coded_jax.report import display, figures, model_figures
from coded_jax.report.display import blocks_text, lost_text, percent, spread
from coded_jax.runs import coded_model
from coded_jax.runs.reading import code_title
from coded_jax.runs.workdir import METRICS
from tables.finished_runs import read_current
from tables.frontier_tables import percent as optional_percent
from tables.pages import Page
from tables.result_tables import setup
from tables.sections import table

IMAGES = 4  # whose feature maps are shown


def report(path: Path, folder: Path, data_dir: str | None) -> dict[str, Any]:
    """Writes `report.md`, `report.html` and their figures.

    Args:
      path: a finished run's workdir; or its `results.json` or a copy of it, then
        without what needs the model.
      folder: where they are written.
      data_dir: see `data.load`.

    Returns:
      The content of `results.json`.

    Raises:
      ValueError: there is no finished run of this version, or the folder cannot be
        made.
    """
    results = read_current(path)
    page = Page(folder, display.title(results))
    page.add(table(("", ""), facts(results)))
    page.add("## Accuracy by lost results", table(*by_lost(results)))
    page.draw("losses", "accuracy by lost results", lambda: figures.losses(results))
    page.add("## Every erasure pattern", table(*by_pattern(results)))
    page.draw("accuracy", "accuracy by pattern", lambda: figures.accuracy(results))
    if (path / METRICS).exists():
        page.add("## Training")
        records = figures.read_metrics(path)
        page.draw("training", "training curves", lambda: figures.training(records))
    page.add("## Confidence", table(*confidence(results)))
    page.draw("confidence", "confidence", lambda: figures.confidence(results))
    page.add("## Cost of each device", devices(results), table(*stages(results)))
    page.add(table(*costs(results)))
    page.draw("costs", "work of the busiest device", lambda: figures.costs(results))
    add_model(page, path, results, data_dir)
    page.write()
    return results


def add_model(
    page: Page, path: Path, results: dict[str, Any], data_dir: str | None
) -> None:
    """What needs the model and the data, with the worst pattern of r lost results."""
    lost = worst_pattern(results)
    what = lost_text(lost, results["split"]["k"])
    page.add(f"## With the worst pattern: {what} lost")
    try:
        if not path.is_dir():
            raise ValueError(f"{path.name} given, a workdir accepted")
        model = coded_model.load(path, devices=1)
        test = data.load(results["dataset"], data_dir).test
    except (ValueError, OSError, ImportError) as error:
        page.add(f"*Left out (feature maps, confusion of errors): {error}*")
        return
    images = test.images[:IMAGES]
    page.draw(
        "features",
        "feature maps",
        lambda: model_figures.features(model, images, lost),
        caption="Red is lost. A picture has four channels, each of which has one scale "
        "in all pictures but those of parity pieces.",
    )
    page.draw(
        "confusion",
        "confusion of errors",
        lambda: model_figures.confusion(model, test, lost),
    )


def worst_pattern(results: dict[str, Any]) -> list[int]:
    """Of as many lost results as the code is made for, or else of the most tried."""
    r = results["split"]["r"]
    tried = [each for each in results["patterns"] if len(each["lost"]) <= r]
    return min(tried, key=lambda each: (-len(each["lost"]), each["accuracy"]))["lost"]


def facts(results: dict[str, Any]) -> list[list[str]]:
    """What was run, on what, and how long it took."""
    base, config, split = results["base"], results["config"], results["split"]
    seconds = results["timing"]["seconds"]
    times = ", ".join(f"{phase} {value:.0f} s" for phase, value in seconds.items())
    rows = {
        "base model": f"{config['base_model']}, **{percent(base['test_accuracy'])} %** "
        f"on the test split of {results['dataset']}",
        "code": code_title(config),
        "split": f"k={split['k']}, r={split['r']}, "
        f"{'x'.join(map(str, split['grid']))} pieces",
        "epochs": f"base {config['base_epochs']:g}, code {config['epochs']:g}",
        "seed": f"{results['seed']}; {config['seeds']} of the code",
        "time": times,
        "measured with": setup(results),
        "command": f"`{results['command']}`"
        if results["command"]
        else "none, `own.protect`",
    }
    return [[name, value] for name, value in rows.items()]


def by_lost(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row for the code and for each baseline: mean and
    worst, and in groups the answers that were decoded."""
    methods = {results["config"]["code"]: results["summary"]}
    methods |= results["baselines"]
    lost = list(results["summary"])
    grouped = results["config"]["split"] == "group"
    measures = ("mean", "worst", *["decoded"] * grouped)
    pairs = list(itertools.product(lost, measures))
    base = percent(results["base"]["test_accuracy"])
    rows = []
    for name, summary in methods.items():
        found = [(summary.get(l, {}), which) for l, which in pairs]
        cells = [spread(row, which) if which in row else "-" for row, which in found]
        rows.append([name, base, *cells])
    return ["code", "base", *(f"{l} lost, {which}" for l, which in pairs)], rows


def by_pattern(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row for every pattern."""
    rows = []
    for pattern in results["patterns"]:
        error = pattern["feature_mse"]  # None where there is no answer
        rows.append(
            [
                lost_text(pattern["lost"], results["split"]["k"]),
                spread(pattern, "accuracy"),
                percent(pattern["agreement"]),
                "-" if error is None else f"{error:.4g}",
            ]
        )
    return ["lost", "accuracy", "agreement with the base model", "feature mse"], rows


def confidence(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row for every number of lost results."""
    shown = {
        "ece": "calibration error",
        "ece_uncalibrated": "uncalibrated",
        "ece_decoded": "of decoded answers",
        "aurc": "mean error over all coverages",
    }
    rows = [
        [l, f"{found['temperature']:.2f}", *(optional_percent(found, x) for x in shown)]
        for l, found in results["confidence"].items()
    ]
    return ["lost", "temperature", *shown.values()], rows


def devices(results: dict[str, Any]) -> str:
    """Who does what."""
    split, found = results["split"], results["costs"]["code"]
    n = split["k"] + split["r"]
    return (
        f"Each of {n} devices computes one piece of every coded stage, "
        f"{found['piece'] / found['whole']:.3f} of the operations of the whole F_Conv. "
        "The busiest one also encodes, decodes, and computes the blocks that are not "
        "coded. All numbers are of one image, and but for the last column relative to "
        "the whole F_Conv."
    )


def stages(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row for each coded stage: what every device is given of it."""
    size = lambda shape: "x".join(map(str, shape))
    rows = [
        [
            blocks_text(stage["blocks"]),
            size(stage["piece_shape"]),
            size(stage["share_shape"]),
            f"{stage['work_fraction']:.3f}",
        ]
        for stage in results["split"]["stages"]
    ]
    return ["coded blocks", "piece", "share", "piece's part of the pixels"], rows


def costs(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings, and for each code the work for one image of a device, and of one that
    encodes and decodes besides."""
    rows = []
    for name, found in results["costs"].items():
        parts = [found[part] for part in figures.PARTS]
        rows.append(
            [
                results["config"]["code"] if name == "code" else name,
                *(f"{part / found['whole']:.3f}" for part in parts),
                f"{sum(parts) / found['whole']:.3f}",
                f"{sum(parts) / 1e6:.3g}",
            ]
        )
    return ["code", *figures.PARTS.values(), "busiest device", "Mflop"], rows
