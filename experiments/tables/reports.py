"""Reports of finished runs and sweeps, in Markdown."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group

from coded_jax import data
from coded_jax.inference.costs import Cost
from coded_jax.report import canvas, model_figures, run_figures, run_tables
from coded_jax.report import sweep_tables as sweeps
from coded_jax.report.formatting import (
    blocks_text,
    mean_std,
    pattern_text,
    percent,
    run_text,
    size_text,
)
from coded_jax.report.table import Columns, Table, make
from coded_jax.runs.load import load
from coded_jax.runs.reading import base_accuracy, code_title, evaluated_part
from coded_jax.runs.workdir import METRICS, make_folder, read_metrics, write_atomically
from coded_jax.types import Split
from tables import stored
from tables.searches import first_cell
from tables.stored import read_current, section

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMAGES = 4  # whose feature maps are shown


class Page:
    """A report titled as given, part by part, in a folder that is made if need be.

    Raises:
      ValueError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, title: str) -> None:
        make_folder(folder, "output")
        self.folder = folder
        self._parts: list[str | Table] = [f"# {title}"]

    def add(self, *parts: str | Table) -> None:
        """Appends Markdown and tables; leaves out empty text."""
        self._parts += parts

    def draw(
        self, name: str, title: str, make: Callable[..., Figure], *args: Any, about=""
    ) -> None:
        """Appends the figure that `make` returns for `args`, and what it is about, or a
        line that says why `make` raised a ValueError, OSError or ImportError."""
        try:
            make(*args).savefig(self.folder / f"{name}.png", dpi=110)
        except (ValueError, OSError, ImportError) as error:
            self.add(f"*Left out ({title}): {error}*")
            return
        self.add(f"![{title}]({name}.png)", about)

    def write(self) -> None:
        """Writes `report.md`."""
        text = f"{section(*self._parts).text}\n"
        write_atomically(self.folder / "report.md", text)


def report_run(path: Path, folder: Path, data_dir: str | None) -> dict[str, Any]:
    """Writes `report.md` and its figures into a folder, and returns the results of a
    workdir; or of `results.json` or a copy of it, then without what needs the model.

    Raises:
      ValueError: there is no finished run of this version, or no such folder.
    """
    results = read_current(path)
    patterns = results["patterns"]
    page = Page(folder, run_text(results))
    page.add(facts(results))
    if results.get("values"):
        page.add("What is called accuracy is R^2, the coefficient of determination.")
    page.add("## Accuracy by lost results", run_tables.by_lost(results))
    page.draw("losses", "accuracy by lost results", run_figures.losses, results)
    by_pattern = run_tables.by_pattern(patterns, results["split"]["k"])
    meanings = run_tables.meanings_of_patterns(patterns)
    page.add("## Every erasure pattern", by_pattern, meanings)
    page.draw("accuracy", "accuracy by pattern", run_figures.accuracy, results)
    if (path / METRICS).exists():
        page.add("## Training")
        metrics = read_metrics(path)
        page.draw("training", "training curves", run_figures.training, metrics)
    if results["confidence"]:
        page.add("## Confidence", confidence(results))
        page.draw("confidence", "confidence", run_figures.confidence, results)
    page.add("## Cost of each device", *costs(results))
    page.draw("costs", "work of the busiest device", run_figures.costs, results)
    add_model(page, path, results, data_dir)
    page.write()
    return results


def add_model(
    page: Page, path: Path, results: dict[str, Any], data_dir: str | None
) -> None:
    """Appends what needs the model and the data, with the worst pattern of r losses."""
    k, r = results["split"]["k"], results["split"]["r"]
    patterns = [p for p in results["patterns"] if len(p["lost"]) <= r]
    lost = min(patterns, key=lambda p: (-len(p["lost"]), p["accuracy"]))["lost"]
    page.add(f"## With the worst pattern: {pattern_text(lost, k)} lost")
    try:
        if not path.is_dir():
            raise ValueError(f"{path.name} given, a workdir accepted")
        model = load(path, devices=1)
        size = results["config"].get("image_size")
        test = data.load(results["dataset"], data_dir, size).test
    except (ValueError, OSError, ImportError) as error:
        page.add(f"*Left out (pictures that the model makes): {error}*")
        return
    shown = Split(test.images[:IMAGES], test.labels[:IMAGES])
    page.draw(
        *("features", "feature maps"),
        *(model_figures.features, model, shown.images, lost),
        about="Red is lost. A picture has four channels, each of which has one scale "
        "in all pictures but those of parity pieces.",
    )
    if results.get("positions"):
        page.draw(
            *("answers", "answers with losses"),
            *(model_figures.answers, model, shown, lost),
            about="Red in the last column: positions with another answer than without "
            "losses, or how far values are from those, of the labels' range. White "
            "labels do not count, and red answers are none; of two or more than three "
            "channels the first is shown.",
        )
    if not model.values:
        make = model_figures.confusion
        page.draw("confusion", "confusion of errors", make, model, test, lost)


def facts(results: dict[str, Any]) -> Table:
    """Returns settings, machine and times of the run, a row each."""
    config, split, command = results["config"], results["split"], results["command"]
    seconds = results["timing"]["seconds"].items()
    base = f"**{percent(base_accuracy(results))} %**"
    part = f"the {evaluated_part(results)} split of {results['dataset']}"
    machine = f"{stored.software_text(results)} on {stored.machine_text(results)}"
    rows = {
        "base model": f"{config['base_model']}, {base} on {part}",
        "code": code_title(config),
        "split": f"k={split['k']}, r={split['r']}, {size_text(split['grid'])} pieces",
        "epochs": f"base {config['base_epochs']:g}, code {config['epochs']:g}",
        "seed": f"{results['seed']}; {config['seeds']} of the code",
        "time": ", ".join(f"{phase} {value:.0f} s" for phase, value in seconds),
        "measured with": machine,
        "command": f"`{command}`" if command else "none, `coded_jax.protect`",
    }
    return Table(("", ""), [*rows.items()])


def confidence(results: dict[str, Any]) -> Table:
    """Returns a row for every number of lost results."""
    by_lost = results["confidence"]
    of = lambda name: lambda lost: run_tables.cell(by_lost, lost, name)
    columns = {
        "lost": str,
        "temperature": lambda lost: f"{by_lost[lost]['temperature']:.2f}",
        "calibration error": of("ece"),
        "uncalibrated": of("ece_uncalibrated"),
        "of decoded answers": of("ece_decoded"),
        "mean error over all coverages": of("aurc"),
    }
    return make(columns, by_lost)


STAGES: Columns = {
    "coded blocks": lambda x: blocks_text(x["blocks"]),
    "piece": lambda x: size_text(x["piece_shape"]),
    "share": lambda x: size_text(x["share_shape"]),
    "piece's part of the pixels": lambda x: f"{x['work_fraction']:.3f}",
}
COSTS: Columns = {
    **{
        text: lambda x, part=part: f"{x.parts[part]:.3f}"
        for part, text in run_tables.PARTS.items()
    },
    "together": lambda x: f"{sum(x.parts.values()):.3f}",
    "Mflop": lambda x: f"{sum(x.parts.values()) * x.whole_flops / 1e6:.3g}",
    "rounds": lambda x: str(len(x.rounds)),
    "kB": lambda x: f"{(x.total.bytes_in + x.total.bytes_out) / 1e3:.3g}",
}


def costs(results: dict[str, Any]) -> tuple[str, Table, Table]:
    """Returns the costs of a run: a paragraph, the part of each coded stage that
    a device has, and the operations of each code for one image by their purpose."""
    split = results["split"]
    records = {x: Cost.from_json(cost) for x, cost in results["costs"].items()}
    text = (
        f"Each of {split['k'] + split['r']} devices computes one piece of every coded "
        f"stage, {records['code'].parts['piece']:.3f} of the operations of the whole "
        "F_Conv. The client encodes, decodes, and computes the blocks that are not "
        "coded. All numbers are of one image, and relative to the whole F_Conv but for "
        "the last columns: all operations, trips to the devices, and what a device "
        "receives and returns in them."
    )
    names = {"code": results["config"]["code"]}
    columns = {"code": lambda x: names.get(x, x)} | {
        header: lambda x, cell=cell: cell(records[x]) for header, cell in COSTS.items()
    }
    return text, make(STAGES, split["stages"]), make(columns, records)


def report_sweep(path: Path, folder: Path) -> Group:
    """Writes `report.md` and its figure into a folder, and returns the same table of a
    sweep's folder for a terminal.

    Raises:
      ValueError: there is no sweep, or the folder cannot be made.
    """
    sweep = sweeps.read(path)
    link = lambda cell: os.path.relpath(path / "cells" / cell.name, folder)
    linked = {"folder": lambda cell: f"[{cell.name}](<{link(cell)}>)"}
    errors, finished = sweep.content["failed"], {cell.name for cell in sweep.cells}
    left_out = "\n".join(
        f"- `{x}` {f'failed: {errors[x]}' if x in errors else 'has not run'}"
        for x in sweep.content["cells"]
        if x not in finished
    )
    made_by = setup(sweep)
    page = Page(folder, f"Sweep {path.resolve().name}")
    page.add(made_by)
    if sweep.cells:
        full = make({**sweeps.columns(sweep), **linked}, sweep.cells)
        page.add("## Cells", first_cell(sweep), full)
        page.draw("cells", "accuracy by cell", figure, sweep)
    page.add("## Cells without results" * bool(left_out), left_out)
    page.write()
    return Group(sweeps.terminal(sweep), *filter(None, [left_out, made_by]))


def setup(sweep: sweeps.Sweep) -> str:
    """Returns machine, seeds, time and command of the measurements."""
    command = f"`{sweep.content['command']}`"
    rows = [row for cell in sweep.cells for own in cell.trials.values() for row in own]
    if not rows:
        return f"No cell has finished: {command}"
    seeds = ", ".join(sorted({row["seed"] for row in rows}))
    trials = len({row["trial"] for row in rows})
    parts = {row.get("evaluated") or "test" for row in rows}
    scored = ", on the validation part" if parts == {"validation"} else ""
    return (
        f"{stored.origin_text([sweep.content])} Seed {seeds}, {trials} "
        f"trial{'s' if trials > 1 else ''} each, in {sweep.content['seconds']:.0f} s "
        f"of training and evaluation{scored}: {command}"
    )


def figure(sweep: sweeps.Sweep) -> Figure:
    """Draws mean and worst accuracy of every cell with the most lost results.

    Raises:
      ImportError: matplotlib is missing.
    """
    cells = sweep.cells
    drawn = canvas.new_figure(3 + 0.6 * len(cells), 4.5)
    axes, places = drawn.add_subplot(), range(len(cells))
    for measure, marker in (("mean", "o"), ("worst", "v")):
        by_cell = [[100 * x for x in cell.of(measure)] for cell in cells]
        means, deviations = zip(*map(mean_std, by_cell), strict=True)
        axes.errorbar(places, means, deviations, fmt=marker, capsize=3, label=measure)
    bases = [cell.of("base_accuracy")[0] for cell in cells]
    axes.plot(places, [100 * base for base in bases], "k_", ms=18, label="base")
    axes.set_xticks(places, [sweeps.label(cell, sweep) for cell in cells])
    axes.tick_params(axis="x", rotation=90)
    axes.set_xlim(-0.7, len(cells) - 0.3)
    flags = sweeps.varied(sweep.content)
    varied = "cell" if sweeps.is_wide(sweep) else ", ".join(flags)
    axes.set(xlabel=varied, ylabel="accuracy, %")
    axes.grid(alpha=0.3)
    drawn.legend(loc="outside right upper")
    return drawn
