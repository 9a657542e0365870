"""Shows what codes on deep networks lose and cost: points below the base, work, memory.

    python experiments/drops.py --output=runs/drops runs/deep/vgg16_*

Arguments are workdirs of finished runs, or copies of their `results.json`. Prints a
table for each network and size of code: devices, encoding and decoding of r lost
results in percent of the coded blocks' work on one whole image (where more are lost,
`sharpen` decodes again), work of a device and of the client, bytes, rounds and memory;
the drop from the base (mean and worst pattern) for every number of lost results, and of
the other losses that the run has tried (`--other_stage_losses`). Beside the runs stands
what loses nothing: the whole image on r + 1 devices, copies of each piece, pieces of
which a missing one is sent once more, and exact codes of every convolution in the same
blocks. With `--output` it writes pictures: the drops over all work in `drops.png`, over
the code's own in `drops_price.png`.
"""

from __future__ import annotations

import itertools
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from rich.console import Console
from tables import deep
from tables.deep import Entry
from tables.finished_runs import read_current

from coded_jax.checks import require
from coded_jax.cli.command_line import command, run
from coded_jax.inference.costs import Cost
from coded_jax.report import canvas, table
from coded_jax.runs.workdir import make_folder

OUTPUT = flags.DEFINE_string("output", None, "folder of the pictures")
COLUMNS = 3
LEAST = 0.1  # points; below it the axis is linear
COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:purple")
MARKERS = "oXv*sD<P>"  # as many as have no divisor in common with the colours
LOSSLESS = {
    "no code: the whole image": "no code: the whole image",
    "no code: copies": "no code: copies",
    "no code: what is missing": "no code: sent once more",
}
"""Beginnings of names, and the lines of the legend that they are."""
LOOKS = {
    "systematic smaller / sharpen": ("black", "^"),
    "no code: the whole image": ("tab:red", "o"),
    "no code: copies": ("tab:red", "s"),
    "no code: sent once more": ("tab:red", "P"),
    "exact code of every convolution": ("tab:red", "D"),
}
"""Colours and markers; those of other kinds are drawn in turn."""


class Picture(NamedTuple):
    """A picture: its horizontal axis, a function of an entry's cost, and the value
    from which on a panel's axis is logarithmic."""

    text: str
    of: Callable[[Cost], float]
    most: float


WORK = Picture(
    "work of a device and the client, of the whole image's",
    lambda cost: sum(cost.parts.values()),
    3,
)
PRICE = Picture(
    "code's work, % of the coded blocks'", lambda cost: 100 * cost.price, 25
)
PICTURES = {"drops.png": WORK, "drops_price.png": PRICE}


def kind_of(entry: Entry) -> str:
    """Returns the line of an entry in the legend, without widths and recipe."""
    name, _, _ = entry.name.partition(", ")
    for start, kind in LOSSLESS.items():
        if name.startswith(start):
            return kind
    if entry.name.endswith("(counted)"):
        return "exact code of every convolution"
    kind = re.sub(r" \d+(?= |$)", "", name)
    apart = {"convolution": ", every convolution", "group": ", groups of images"}
    return kind + (apart.get(entry.run["config"]["split"], "") * bool(entry.runs))


def draw(folder: Path, groups: Sequence[Sequence[dict[str, Any]]]) -> None:
    """Draws each of `PICTURES` with a panel for each network and size of code: points
    lost with r results lost, from the mean up to the worst pattern.

    Raises:
      ImportError: matplotlib is missing.
    """
    panels = [deep.entries(group) for group in groups]
    kinds = [*dict.fromkeys(kind_of(x) for panel in panels for x in panel)]
    looks = zip(itertools.cycle(COLOURS), itertools.cycle(MARKERS), strict=False)
    others = [kind for kind in kinds if kind not in LOOKS]
    styles = {**LOOKS, **dict(zip(others, looks, strict=False))}
    rows = math.ceil(len(groups) / COLUMNS)
    for name, picture in PICTURES.items():
        figure = canvas.new_figure(14, 1.6 + 3.6 * rows)
        grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
        handles: dict[str, Any] = {}
        for axes, group, panel in zip(grid, groups, panels, strict=False):
            for entry in panel:
                kind = kind_of(entry)
                handles[kind] = draw_entry(axes, picture, entry, styles[kind])
            finish(axes, picture, group)
        for axes in grid[len(groups) :]:
            axes.remove()
        figure.legend(
            [handles[kind] for kind in kinds],
            kinds,
            loc="outside upper center",
            ncols=COLUMNS,
            fontsize=9,
        )
        canvas.save(figure, folder / name, dpi=80)


def draw_entry(axes: Any, picture: Picture, entry: Entry, look: tuple[str, str]) -> Any:
    """Draws a mean and a line from it up to the worst pattern, hollow with a second
    tail; returns both."""
    texts = entry.with_r_lost("mean"), entry.with_r_lost("worst")
    mean, worst = (float(text.split()[0]) for text in texts)
    colour, marker = look
    style = {"color": colour, "marker": marker, "markersize": 6}
    if entry.runs and entry.run["config"].get("tail", "frozen") != "frozen":
        style["markerfacecolor"] = "white"
    above = [[0], [max(0, worst - mean)]]
    x = picture.of(entry.cost)
    return axes.errorbar(x, mean, above, linestyle="none", **style)


def finish(axes: Any, picture: Picture, group: Sequence[dict[str, Any]]) -> None:
    """Gives a panel its scales and its words."""
    lost = group[0]["split"]["r"]
    axes.set_yscale("symlog", linthresh=LEAST)
    axes.set_ylim(-LEAST / 5, 100)
    most = axes.dataLim.x1
    if most > picture.most:
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(-0.2, 1.5 * most)
    else:
        axes.set_xlim(left=-most / 30)
    axes.set_xlabel(picture.text, fontsize=8)
    axes.set_ylabel(f"points lost with {lost} lost, mean up to worst", fontsize=8)
    title = deep.title_of(group).replace(", base", ",\nbase")
    axes.set_title(title, loc="left", fontsize=8)


@command(arguments=True)
def main(argv: list[str]) -> None:
    require("runs", argv[1:], bool(argv[1:]), "workdirs of finished runs")
    runs = [read_current(Path(path)) for path in argv[1:]]
    console = Console(width=None if sys.stdout.isatty() else 300)
    for title, shown in deep.tables(runs):
        console.print(title, table.to_terminal(shown), sep="\n", highlight=False)
    if OUTPUT.value is not None:
        folder = Path(OUTPUT.value)
        make_folder(folder, "output")
        draw(folder, deep.grouped(runs))


if __name__ == "__main__":
    run(main)
