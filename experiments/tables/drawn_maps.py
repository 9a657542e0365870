"""A map of who answers first, as rows of text and as heat maps read at a glance."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coded_jax.latency.machines import AXES
from coded_jax.latency.maps import QUANTILES
from coded_jax.latency.strategies import FAMILIES, late_text
from coded_jax.report import canvas
from coded_jax.report.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Rectangle

NOBODY = "none accurate enough"
SHADES = ("#d9d9d9", "#9ecae1", "#4292c6", "#c7e9c0", "#74c476", "#fdae6b", "#fb6a4a")
COLOURS = {**dict(zip(FAMILIES, SHADES, strict=True)), NOBODY: "white"}
"""Colours by family of strategies."""
LEAST_WIDTH = 11.5  # inches that the title needs
PREFIXES = {1e12: "T", 1e9: "G", 1e6: "M", 1e3: "k", 1.0: "", 1e-3: "m", 1e-6: "µ"}


def rows(content: dict[str, Any]) -> Table:
    """Returns a row for each quantile and family that is first somewhere, with points
    and leads in %.

    Args:
      content: of `maps.draw_up`.
    """
    cells, strategies = [], content["strategies"]
    points = list(content["points"].values())
    for quantile in QUANTILES:
        won = collections.defaultdict(list)
        for best in (point[quantile] for point in points):
            place = best["winner"]
            won["none" if place is None else strategies[place]["family"]].append(best)
        for family in (*FAMILIES, "none"):
            if not (wins := won[family]):
                continue
            names = [_name(strategies[x["winner"]]) for x in wins if family != "none"]
            most = statistics.mode(names) if names else ""
            leads = [100 * x["lead"] for x in wins if x.get("lead") is not None]
            share = f"{100 * len(wins) / len(points):.0f} %"
            lengths = (statistics.median(leads), max(leads)) if leads else ()
            texts = [f"{x:.0f}" for x in lengths] or ["-", "-"]
            cells.append([quantile, family, share, *texts, most])
    headers = ("", "first", "points", "lead %, median", "lead %, most", "most often")
    return Table(headers, cells)


def _name(strategy: dict[str, Any]) -> str:
    """Returns a strategy's code and sizes, as `mds k=4 r=2, 2x2`, and when a hedged one
    sends again."""
    if strategy["k"] + strategy["r"] == 1:
        return strategy["code"]
    code = f"{strategy['code']} k={strategy['k']} r={strategy['r']}"
    late = late_text(strategy.get("late"))
    return ", ".join(filter(None, [code, strategy["pieces"], late]))


def draw(path: Path, content: dict[str, Any]) -> None:
    """Draws a map for each quantile: the colour is the family of the winner, the number
    how many % longer the best of the other families takes.

    Args:
      path: of the picture.
      content: of `maps.draw_up`.

    Raises:
      ImportError: matplotlib is missing.
    """
    plane = content["question"]["plane"]
    columns, rows = len(plane["x_values"]), len(plane["y_values"])
    width = max(3 * (0.42 * columns + 0.5) + 0.6, LEAST_WIDTH)
    figure = canvas.new_figure(width, 0.34 * rows + 1.9)
    panels = figure.subplots(1, len(QUANTILES), sharey=True)
    seen: set[str] = set()
    for axes, quantile in zip(panels, QUANTILES, strict=True):
        seen |= _draw_quantile(axes, content, quantile)
        axes.set_title(f"{quantile} of the latency", fontsize=10)
        axes.set_xlabel(AXES[plane["x"]], fontsize=9)
    panels[0].set_ylabel(AXES[plane["y"]], fontsize=9)
    shown = [family for family in COLOURS if family in seen]
    figure.suptitle(title(content), fontsize=10)
    figure.legend(
        [_cell(family) for family in shown],
        shown,
        loc="outside lower center",
        ncols=len(shown),
        fontsize=9,
    )
    canvas.save(figure, path, 90)


def _draw_quantile(axes: Axes, content: dict[str, Any], quantile: str) -> set[str]:
    """Draws one map, and returns the families that are first somewhere."""
    plane, seen = content["question"]["plane"], set()
    for name, point in content["points"].items():
        (i, j), best = map(int, name.split(",")), point[quantile]
        place, lead = best["winner"], best.get("lead")
        family = NOBODY if place is None else content["strategies"][place]["family"]
        seen.add(family)
        axes.add_patch(_cell(family, (i - 0.5, j - 0.5)))
        text = "" if lead is None else f"{100 * lead:.0f}" if lead < 9.995 else ">999"
        axes.text(i, j, text, ha="center", va="center", fontsize=7)
    for axis, name in ((axes.xaxis, "x"), (axes.yaxis, "y")):
        values = plane[f"{name}_values"]
        texts = [tick_text(plane[name], value) for value in values]
        axis.set_ticks(range(len(values)), texts, fontsize=7)
    axes.tick_params(axis="x", rotation=90)
    axes.set_xlim(-0.5, len(plane["x_values"]) - 0.5)
    axes.set_ylim(-0.5, len(plane["y_values"]) - 0.5)
    return seen


def _cell(family: str, corner: tuple[float, float] = (0.0, 0.0)) -> Rectangle:
    from matplotlib.patches import Rectangle

    style = {"facecolor": COLOURS[family], "edgecolor": "white", "linewidth": 0.5}
    return Rectangle(corner, 1, 1, **style)


def title(content: dict[str, Any]) -> str:
    """Returns the network, the devices, and the conditions that are fixed."""
    question, plane = content["question"], content["question"]["plane"]
    points = "point" if question["margin"] == 0.01 else "points"
    return (
        f"{question['network']} on {question['n']} devices: who answers first within "
        f"{100 * question['margin']:g} {points} of the network's accuracy, and by how "
        "many % before the next family\n"
        f"{conditions_text(plane['fixed'], (plane['x'], plane['y']))}"
    )


def conditions_text(values: dict[str, Any], axes: Sequence[str]) -> str:
    """Returns conditions in words.

    Args:
      values: the fields of `Conditions`.
      axes: names of those that are left out.
    """
    drawn = "round" if values["each_round"] else "request"
    has_tail = values["straggling"] != "trace" and "tail" not in axes
    tail = f", tail {values['tail']:g}" if has_tail else ""
    texts = {
        "bandwidth": f"{with_prefix(values['bandwidth'])}B/s",
        "link": f"{with_prefix(values['link'])}s a round trip",
        "message": f"{with_prefix(values['message'])}s a message",
        "speed": f"devices of {with_prefix(values['speed'])}flop/s",
        "client": f"client {values['client']:g} times as fast as a device",
        "straggling": f"{values['straggling']} straggling{tail}",
        "failure": f"{100 * values['failure']:g} % of devices fail in a {drawn}",
    }
    if not values["each_round"]:
        texts["drawn"] = "devices are slow or dead for a whole request"
    return "; ".join(text for name, text in texts.items() if name not in axes)


def tick_text(axis: str, value: float) -> str:
    """Returns a value of an axis, a probability in %."""
    if axis == "failure":
        return f"{100 * value:.2g} %"
    return f"{value:.2g}" if axis in ("client", "tail") else with_prefix(value)


def with_prefix(number: float) -> str:
    """Returns a number with its unit's prefix, as `1.5 M`, without one near 1."""
    if 0.01 <= number < 1000 or number == 0:
        return f"{number:.3g} "
    for unit, prefix in PREFIXES.items():
        if number >= unit:
            return f"{number / unit:.3g} {prefix}"
    return f"{number:.1e} "
