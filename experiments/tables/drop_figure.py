"""Pictures of codes on deep networks: points below the base over all work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coded_jax.report import canvas
from coded_jax.runs.reading import base_accuracy
from coded_jax.runs.run_costs import read_cost
from tables import drop_tables

LEAST = 0.1  # points; below it the axis is linear
MOST = 3  # times the whole image's work; if one does more, the axis is logarithmic
COLOURS = ("tab:blue", "tab:orange", "tab:green", "black")
MARKERS = "osD^vX*P>"  # as many as have no divisor in common with the colours


def draw(path: Path, runs: Sequence[dict[str, Any]]) -> None:
    """Draws a panel for each network and size of code: the drop with r results lost,
    from the mean up to the worst pattern, over the work of a device and the client;
    and the whole image on several devices, which loses nothing. Runs with smaller
    images, which have no code, are left out.

    Args:
      path: of the PNG file.
      runs: the contents of their `results.json`.

    Raises:
      ImportError: matplotlib is missing.
    """
    groups = drop_tables.grouped(runs)
    figure = canvas.new_figure(10, 4.5 * len(groups))
    panels = figure.subplots(len(groups), 1, squeeze=False)[:, 0]
    for axes, members in zip(panels, groups.values(), strict=True):
        number = 0
        largest, smaller = drop_tables.largest_of(members)
        for results in (x for x in members if x not in smaller):
            for name, summary in drop_tables.codes_of(results).items():
                style = {"color": COLOURS[number % len(COLOURS)]}
                style["marker"] = MARKERS[number % len(MARKERS)]
                _draw_code(axes, results, name, summary, style)
                number += 1
        lost = members[0]["split"]["r"]
        whole = f"the whole image on each of {lost + 1} devices"
        axes.plot(1, 0, "x", color="tab:red", label=whole)
        axes.set(
            title=drop_tables.title_of(largest),
            xlabel="work of a device and the client, of the whole image's",
            ylabel=f"points lost with {lost} lost, mean up to worst",
        )
        axes.set_yscale("symlog", linthresh=LEAST)
        axes.set_ylim(-LEAST / 5, 100)
        if axes.get_xlim()[1] > MOST:
            axes.set_xscale("log")
        else:
            axes.set_xlim(left=0)
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    canvas.save(figure, path, dpi=100)


def _draw_code(
    axes: Any,
    results: dict[str, Any],
    name: str,
    summary: dict[str, Any],
    style: dict[str, str],
) -> None:
    accuracy = summary[str(results["split"]["r"])]
    mean, worst = (
        100 * (base_accuracy(results) - accuracy[x]) for x in ("mean", "worst")
    )
    work = sum(read_cost(results, name).parts.values())
    label = drop_tables.label(results["config"], name)
    if results["config"]["split"] == "convolution":
        label += ", every convolution"
    axes.errorbar(work, mean, [[0], [max(0, worst - mean)]], label=label, **style)
