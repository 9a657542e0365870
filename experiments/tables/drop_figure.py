"""Pictures of codes on deep networks: points below the base over what they cost."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from coded_jax.inference.costs import Cost
from coded_jax.report import canvas
from coded_jax.runs.reading import base_accuracy
from coded_jax.runs.run_costs import read_cost
from tables import drop_tables

COLUMNS = 3
LEAST = 0.1  # points; below it the axis is linear
COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:purple")
MARKERS = "oXv*sD<P>"  # as many as have no divisor in common with the colours

OURS = "systematic smaller / sharpen"
WHOLE = "the whole image on each of r + 1 devices"
COPIES = "copies of each piece on r + 1 devices, or sending again"
EXACT = "exact code of every convolution of the same blocks"
# Of the others colours and markers are drawn from those above, in turn.
LOOKS = {
    **{OURS: ("black", "^"), WHOLE: ("tab:red", "o"), COPIES: ("tab:red", "s")},
    EXACT: ("tab:red", "D"),
}


class Axis(NamedTuple):
    """What a picture has along its horizontal axes, and from where on these are
    logarithmic in a panel that has more."""

    text: str
    most: float


class Point(NamedTuple):
    """A code or another way to survive losses, in the panel of a network and a size.

    Attributes:
      kind: of its line in the legend; what is drawn alike in all panels.
      costs: along the axes of `PICTURES`.
      mean, worst: points lost with r results lost.
      variant: whether another one of its kind is wider, or has no second tail.
      curve: the blocks that a trained code without a second tail has coded; points of
        a kind with the same ones are joined.
    """

    kind: str
    costs: tuple[float, float]
    mean: float = 0.0
    worst: float = 0.0
    variant: bool = False
    curve: str = ""


PICTURES = {
    "drops.png": Axis("work of a device and the client, of the whole image's", 3),
    "drops_price.png": Axis("code's work, % of the coded blocks'", 25),
}


def draw(folder: Path, runs: Sequence[dict[str, Any]]) -> None:
    """Draws pictures with a panel for each network and size of code: the drop with r
    results lost, from the mean up to the worst pattern, in `drops.png` over all work of
    a device and the client, in `drops_price.png` over the code's own. Copies of the
    whole image and of pieces, and exact codes of the same blocks, which lose nothing,
    are there too, and the whole network on smaller images.

    Args:
      folder: of the PNG files.
      runs: the contents of their `results.json`.

    Raises:
      ImportError: matplotlib is missing.
    """
    groups = [*drop_tables.grouped(runs).values()]
    points = [[*_points_of(group)] for group in groups]
    kinds = dict.fromkeys(point.kind for panel in points for point in panel)
    looks = zip(itertools.cycle(COLOURS), itertools.cycle(MARKERS), strict=False)
    others = [kind for kind in kinds if kind not in LOOKS]
    styles = {**LOOKS, **dict(zip(others, looks, strict=False))}
    rows = math.ceil(len(groups) / COLUMNS)
    for number, (name, axis) in enumerate(PICTURES.items()):
        figure = canvas.new_figure(14, 1.6 + 3.6 * rows)
        panels = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
        handles: dict[str, Any] = {}
        for axes, group, shown in zip(panels, groups, points, strict=False):
            for point in shown:
                place = (point.costs[number], point.mean, point.worst - point.mean)
                handle = _draw_point(axes, place, styles[point.kind], point.variant)
                if not point.variant or point.kind not in handles:
                    handles[point.kind] = handle
            _draw_curves(axes, number, shown, styles)
            _finish(axes, axis, group)
        for axes in panels[len(groups) :]:
            axes.remove()
        figure.legend(
            [handles[kind] for kind in kinds],
            [*kinds],
            loc="outside upper center",
            ncols=COLUMNS,
            fontsize=9,
        )
        canvas.save(figure, folder / name, dpi=80)


def _draw_point(
    axes: Any, place: tuple[float, float, float], look: tuple[str, str], variant: bool
) -> Any:
    """Draws a mean, and a line from it up to the worst pattern; returns both."""
    x, mean, above = place
    colour, marker = look
    style = {"color": colour, "marker": marker, "markersize": 6}
    if variant:
        style["markerfacecolor"] = "white"
    return axes.errorbar(x, mean, [[0], [max(0, above)]], linestyle="none", **style)


def _draw_curves(
    axes: Any,
    number: int,
    shown: Sequence[Point],
    styles: dict[str, tuple[str, str]],
) -> None:
    """Joins the means of codes that differ in their widths, by what these cost on the
    axis of that number."""
    curves: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for point in (point for point in shown if point.curve):
        places = curves.setdefault((point.kind, point.curve), [])
        places.append((point.costs[number], point.mean))
    for (kind, _), places in curves.items():
        axes.plot(*zip(*sorted(places), strict=True), color=styles[kind][0], lw=0.8)


def _finish(axes: Any, axis: Axis, group: Sequence[dict[str, Any]]) -> None:
    """Gives a panel its scales and its words."""
    largest, _ = drop_tables.largest_of(group)
    lost = largest["split"]["r"]
    axes.set_yscale("symlog", linthresh=LEAST)
    axes.set_ylim(-LEAST / 5, 100)
    most = axes.dataLim.x1
    if most > axis.most:
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(-0.2, 1.5 * most)
    else:
        axes.set_xlim(left=-most / 30)
    axes.set_xlabel(axis.text, fontsize=8)
    axes.set_ylabel(f"points lost with {lost} lost, mean up to worst", fontsize=8)
    title = drop_tables.title_of(largest).replace(", base", ",\nbase")
    axes.set_title(title, loc="left", fontsize=8)


def _points_of(runs: Sequence[dict[str, Any]]) -> Iterator[Point]:
    """Yields what the panel of a network and a size of code has."""
    largest, smaller = drop_tables.largest_of(runs)
    yield Point(WHOLE, (1.0, 0.0))
    for cut in drop_tables.cuts_of(runs):
        parts = read_cost(cut, "code").parts
        yield Point(COPIES, (parts["piece"] + parts["uncoded"], 0.0))
        if (same := drop_tables.same_blocks_cost(cut)) is not None:
            yield Point(EXACT, _costs(same))
    for trials in smaller:
        lost = largest["split"]["r"]
        price = drop_tables.smaller_price(trials[0], largest)
        accuracy = drop_tables.smaller_accuracy(trials, largest, lost)
        yield Point(
            "the whole network on {}x{}".format(*trials[0]["image_shape"]),
            (price.device + price.client, 0.0),
            *_drops(base_accuracy(largest), accuracy),
        )
    codes = [
        (results, name, _kind(results["config"], name))
        for results in runs
        if results not in itertools.chain(*smaller)
        for name in drop_tables.codes_of(results)
    ]
    widest: dict[str, float] = {}
    for results, name, kind in codes:
        widest[kind] = max(read_cost(results, name).price, widest.get(kind, 0))
    for results, name, kind in codes:
        accuracy = drop_tables.codes_of(results)[name][str(results["split"]["r"])]
        base, cost = base_accuracy(results), read_cost(results, name)
        mean, worst = _drops(base, accuracy)
        narrow = cost.price < widest[kind]
        second = results["config"].get("tail", "frozen") != "frozen"
        joined = "" if second else drop_tables.blocks(results)
        yield Point(kind, _costs(cost), mean, worst, narrow or second, joined)


def _drops(base: float, accuracy: dict[str, float]) -> tuple[float, ...]:
    """Returns the points lost in the mean and in the worst pattern."""
    return tuple(100 * (base - accuracy[x]) for x in ("mean", "worst"))


def _costs(cost: Cost) -> tuple[float, float]:
    """Returns all work and the code's own, as the axes have them."""
    return sum(cost.parts.values()), 100 * cost.price


def _kind(config: dict[str, Any], name: str) -> str:
    """Returns the name of a code without its widths and what else a recipe has."""
    kind, _, _ = drop_tables.label(config, name).partition(", ")
    kind = re.sub(r" \d+", "", kind)
    apart = {"convolution": ", every convolution", "group": ", groups of images"}
    return kind + apart.get(config["split"], "")
