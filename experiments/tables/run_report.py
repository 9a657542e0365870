"""The report of one finished run."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from coded_jax import data
from coded_jax.inference.costs import Cost
from coded_jax.report import model_figures, run_figures, run_tables
from coded_jax.report.formatting import (
    blocks_text,
    measure_text,
    pattern_text,
    percent,
    run_text,
    size_text,
)
from coded_jax.runs.load import load
from coded_jax.runs.reading import base_accuracy, code_title, evaluated_part
from coded_jax.runs.workdir import METRICS
from coded_jax.types import Split
from tables.finished_runs import read_current
from tables.frontier_tables import Table, optional_percent
from tables.markdown import table
from tables.pages import Page
from tables.stored import machine_text, software_text

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
    figure_of = lambda make: lambda: make(results)
    page = Page(folder, run_text(results))
    page.add(table(("", ""), facts(results)))
    if results.get("values"):
        page.add("What is called accuracy is R^2, the coefficient of determination.")
    page.add("## Accuracy by lost results", table(*by_lost(results)))
    page.draw("losses", "accuracy by lost results", figure_of(run_figures.losses))
    page.add("## Every erasure pattern", table(*by_pattern(results)))
    page.draw("accuracy", "accuracy by pattern", figure_of(run_figures.accuracy))
    if (path / METRICS).exists():
        page.add("## Training")
        records = run_figures.read_metrics(path)
        page.draw("training", "training curves", lambda: run_figures.training(records))
    if results["confidence"]:
        page.add("## Confidence", table(*confidence(results)))
        page.draw("confidence", "confidence", figure_of(run_figures.confidence))
    page.add("## Cost of each device", devices(results), table(*stages(results)))
    page.add(table(*costs(results)))
    page.draw("costs", "work of the busiest device", figure_of(run_figures.costs))
    add_model(page, path, results, data_dir)
    page.write()
    return results


def add_model(
    page: Page, path: Path, results: dict[str, Any], data_dir: str | None
) -> None:
    """Appends what needs the model and the data, with the worst pattern of r losses."""
    lost = worst_pattern(results)
    page.add(
        f"## With the worst pattern: {pattern_text(lost, results['split']['k'])} lost"
    )
    try:
        if not path.is_dir():
            raise ValueError(f"{path.name} given, a workdir accepted")
        model = load(path, devices=1)
        test = data.load(
            results["dataset"], data_dir, results["config"].get("image_size")
        ).test
    except (ValueError, OSError, ImportError) as error:
        page.add(f"*Left out (pictures that the model makes): {error}*")
        return
    images = test.images[:IMAGES]
    page.draw(
        "features",
        "feature maps",
        lambda: model_figures.features(model, images, lost),
        caption="Red is lost. A picture has four channels, each of which has one scale "
        "in all pictures but those of parity pieces.",
    )
    if results.get("positions"):
        shown = Split(images, test.labels[:IMAGES])
        page.draw(
            "answers",
            "answers with losses",
            lambda: model_figures.answers(model, shown, lost),
            caption="Red in the last column: positions with another answer than "
            "without losses, or how far values are from those, of the labels' range. "
            "White labels do not count, and red answers are none; of two or more than "
            "three channels the first is shown.",
        )
    if not model.values:
        page.draw(
            "confusion",
            "confusion of errors",
            lambda: model_figures.confusion(model, test, lost),
        )


def worst_pattern(results: dict[str, Any]) -> list[int]:
    """Returns the least accurate of the patterns with most losses, r at most."""
    r = results["split"]["r"]
    patterns = [p for p in results["patterns"] if len(p["lost"]) <= r]
    return min(patterns, key=lambda p: (-len(p["lost"]), p["accuracy"]))["lost"]


def facts(results: dict[str, Any]) -> list[list[str]]:
    """Returns settings, machine and times of the run, a row each."""
    config, split = results["config"], results["split"]
    seconds = results["timing"]["seconds"]
    times = ", ".join(f"{phase} {value:.0f} s" for phase, value in seconds.items())
    rows = {
        "base model": f"{config['base_model']}, "
        f"**{percent(base_accuracy(results))} %** "
        f"on the {evaluated_part(results)} split of {results['dataset']}",
        "code": code_title(config),
        "split": f"k={split['k']}, r={split['r']}, {size_text(split['grid'])} pieces",
        "epochs": f"base {config['base_epochs']:g}, code {config['epochs']:g}",
        "seed": f"{results['seed']}; {config['seeds']} of the code",
        "time": times,
        "measured with": f"{software_text(results)} on {machine_text(results)}",
        "command": f"`{results['command']}`"
        if results["command"]
        else "none, `coded_jax.protect`",
    }
    return [[name, value] for name, value in rows.items()]


def by_lost(results: dict[str, Any]) -> Table:
    """Returns a row for the code and for each baseline: mean and worst by lost results,
    and in groups the accuracy of decoded answers."""
    columns = list(
        itertools.product(results["summary"], run_tables.measures_of(results))
    )
    base = percent(base_accuracy(results))
    rows = [
        [name, base, *(run_tables.cell(summary, *column) for column in columns)]
        for name, summary in run_tables.methods_of(results).items()
    ]
    names = (f"{l} lost, {run_tables.MEASURES[measure]}" for l, measure in columns)
    return ["code", "base", *names], rows


def by_pattern(results: dict[str, Any]) -> Table:
    """Returns a row for every erasure pattern."""
    names = run_tables.of_images(results["patterns"][0])
    rows = [
        [
            pattern_text(pattern["lost"], results["split"]["k"]),
            measure_text(pattern, "accuracy"),
            *run_tables.of_images(pattern).values(),
            percent(pattern["agreement"]),
            run_tables.error_text(pattern["feature_mse"]),
        ]
        for pattern in results["patterns"]
    ]
    columns = ["lost", "accuracy", *names]
    return [*columns, "agreement with the base model", "feature mse"], rows


def confidence(results: dict[str, Any]) -> Table:
    """Returns a row for every number of lost results."""
    measures = {
        "ece": "calibration error",
        "ece_uncalibrated": "uncalibrated",
        "ece_decoded": "of decoded answers",
        "aurc": "mean error over all coverages",
    }
    rows = [
        [
            l,
            f"{calibration['temperature']:.2f}",
            *(optional_percent(calibration, x) for x in measures),
        ]
        for l, calibration in results["confidence"].items()
    ]
    return ["lost", "temperature", *measures.values()], rows


def devices(results: dict[str, Any]) -> str:
    """Returns a paragraph on what each device computes."""
    split, cost = results["split"], results["costs"]["code"]
    n = split["k"] + split["r"]
    return (
        f"Each of {n} devices computes one piece of every coded stage, "
        f"{cost['piece'] / cost['whole']:.3f} of the operations of the whole F_Conv. "
        "The client encodes, decodes, and computes the blocks that are not coded. All "
        "numbers are of one image, and relative to the whole F_Conv but for the last "
        "columns: all operations, trips to the devices, and what a device receives and "
        "returns in them."
    )


def stages(results: dict[str, Any]) -> Table:
    """Returns a row for each coded stage: the part of it that a device has."""
    rows = [
        [
            blocks_text(stage["blocks"]),
            size_text(stage["piece_shape"]),
            size_text(stage["share_shape"]),
            f"{stage['work_fraction']:.3f}",
        ]
        for stage in results["split"]["stages"]
    ]
    return ["coded blocks", "piece", "share", "piece's part of the pixels"], rows


def _moved(cost: dict[str, Any]) -> list[str]:
    """Returns rounds and kB of a cost; `-` of runs from before they were kept."""
    if "rounds" not in cost:
        return ["-", "-"]
    record = Cost.from_json(cost)
    kilobytes = (record.bytes_in + record.bytes_out) / 1e3
    return [str(len(record.rounds)), f"{kilobytes:.3g}"]


def costs(results: dict[str, Any]) -> Table:
    """Returns a row for each code: the operations for one image by their purpose."""
    rows = []
    for name, cost in results["costs"].items():
        parts = [cost[part] for part in run_figures.PARTS]
        rows.append(
            [
                results["config"]["code"] if name == "code" else name,
                *(f"{part / cost['whole']:.3f}" for part in parts),
                f"{sum(parts) / cost['whole']:.3f}",
                f"{sum(parts) / 1e6:.3g}",
                *_moved(cost),
            ]
        )
    return [
        "code",
        *run_figures.PARTS.values(),
        "together",
        "Mflop",
        "rounds",
        "kB",
    ], rows
