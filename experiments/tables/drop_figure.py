"""Pictures of codes on deep networks: points below the base over what they cost."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coded_jax.report import canvas
from coded_jax.runs.reading import base_accuracy
from coded_jax.runs.run_costs import read_cost
from tables import drop_tables

AXES = (
    "code's work, % of the coded blocks'",
    "work of a device and the client, of the whole image's",
)
LEAST = 0.1  # points; below it the axis is linear
MOST = (15, 3)  # of both; if one does more, the axis is logarithmic
COLOURS = ("tab:blue", "tab:orange", "tab:green", "black")
MARKERS = "osD^vX*P>"  # as many as have no divisor in common with the colours


def draw(path: Path, runs: Sequence[dict[str, Any]]) -> None:
    """Draws a row of two panels for each network and size of code: the drop with r
    results lost, from the mean up to the worst pattern, over the code's own work and
    over all work of a device and the client. Copies of the whole image and of pieces,
    and exact codes of the same blocks, which lose nothing, are there too, and the whole
    network on smaller images.

    Args:
      path: of the PNG file.
      runs: the contents of their `results.json`.

    Raises:
      ImportError: matplotlib is missing.
    """
    groups = drop_tables.grouped(runs)
    codes = [code for group in groups.values() for code in _codes_of(group)]
    kinds = [_kind(label) for *_, label in codes]
    styles = {
        kind: {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKERS[number % len(MARKERS)],
        }
        for number, kind in enumerate(dict.fromkeys(kinds))
    }
    figure = canvas.new_figure(14, 4.5 * len(groups))
    rows = figure.subplots(len(groups), 2, squeeze=False, sharey="row")
    for row, members in zip(rows, groups.values(), strict=True):
        _draw_group(row, members, styles)
    canvas.save(figure, path, dpi=100)


def _draw_group(
    row: Sequence[Any],
    runs: Sequence[dict[str, Any]],
    styles: dict[str, dict[str, str]],
) -> None:
    """Draws the two panels of a network and size of code; `styles` are by `_kind`."""
    largest, smaller = drop_tables.largest_of(runs)
    codes = _codes_of(runs)
    widest: dict[str, float] = {}
    for results, name, label in codes:
        price = read_cost(results, name).price
        widest[_kind(label)] = max(price, widest.get(_kind(label), 0))
    for results, name, label in codes:
        style = {**styles[_kind(label)], "label": label}
        if read_cost(results, name).price < widest[_kind(label)]:
            style["markerfacecolor"] = "white"
        _draw_code(row, results, name, style)
    lost = runs[0]["split"]["r"]
    exact = {f"the whole image on each of {lost + 1} devices": (0, 1.0)}
    if largest["config"]["split"] == "image":
        parts = read_cost(largest, "code").parts
        copies = f"copies of each piece on {lost + 1} devices, or sending again"
        exact[copies] = (0, parts["piece"] + parts["uncoded"])
        convolutions = drop_tables.same_blocks_cost(largest)
        if convolutions is not None:
            total = sum(convolutions.parts.values())
            label = "exact code of every convolution of the same blocks"
            exact[label] = (100 * convolutions.price, total)
    for marker, (label, costs) in zip("x+1", exact.items(), strict=False):
        for axes, x in zip(row, costs, strict=True):
            axes.plot(x, 0, marker, color="tab:red", label=label)
    for results in smaller:
        mean, worst = drop_tables.smaller_drop(results, largest, lost)
        price = drop_tables.smaller_price(results, largest)
        style = {"color": "tab:red", "marker": "2"}
        style["label"] = "the whole network on {}x{}".format(*results["image_shape"])
        for axes, x in zip(row, (0, price.device + price.client), strict=True):
            axes.errorbar(x, mean, [[0], [worst - mean]], **style)
    for axes, text, most in zip(row, AXES, MOST, strict=True):
        axes.set_yscale("symlog", linthresh=LEAST)
        axes.set_ylim(-LEAST / 5, 100)
        axes.set_xlabel(text)
        if axes.get_xlim()[1] > most:
            axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(left=-most / 50)
    row[0].set_title(drop_tables.title_of(largest), loc="left")
    row[0].set_ylabel(f"points lost with {lost} lost, mean up to worst")
    row[1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))


def _codes_of(
    runs: Sequence[dict[str, Any]],
) -> list[tuple[dict[str, Any], str, str]]:
    """Returns every code of a network and size with its run, its name and its label."""
    _, smaller = drop_tables.largest_of(runs)
    codes = []
    for results in (x for x in runs if x not in smaller):
        for name in drop_tables.codes_of(results):
            label = drop_tables.label(results["config"], name)
            if results["config"]["split"] == "convolution":
                label += f", {drop_tables.blocks(results)}"
            codes.append((results, name, label))
    return codes


def _kind(label: str) -> str:
    """Returns a code's label without its width: what is drawn alike in all panels."""
    return re.sub(r" \d+", "", label)


def _draw_code(
    row: Sequence[Any], results: dict[str, Any], name: str, style: dict[str, str]
) -> None:
    accuracy = drop_tables.codes_of(results)[name][str(results["split"]["r"])]
    mean, worst = (
        100 * (base_accuracy(results) - accuracy[x]) for x in ("mean", "worst")
    )
    cost = read_cost(results, name)
    costs = (100 * cost.price, sum(cost.parts.values()))
    for axes, x in zip(row, costs, strict=True):
        axes.errorbar(x, mean, [[0], [max(0, worst - mean)]], **style)
