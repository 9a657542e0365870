"""A map of who answers first, as heat maps that are read at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coded_jax.latency.conditions import AXES
from coded_jax.latency.maps import QUANTILES
from coded_jax.latency.strategies import (
    EXACT,
    HEDGED,
    LEARNED,
    ONE,
    REPLICATED,
    UNCODED,
    WHOLE,
)
from coded_jax.report import canvas

COLOURS = {
    ONE: "#d9d9d9",
    UNCODED: "#9ecae1",
    HEDGED: "#4292c6",
    WHOLE: "#c7e9c0",
    REPLICATED: "#74c476",
    EXACT: "#fdae6b",
    LEARNED: "#fb6a4a",
}
"""Colours by family of strategies."""

LEAST_WIDTH = 11.5  # inches that the title needs
NOBODY = "none accurate enough"
PREFIXES = {1e12: "T", 1e9: "G", 1e6: "M", 1e3: "k", 1.0: "", 1e-3: "m", 1e-6: "µ"}


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
    axes = figure.subplots(1, len(QUANTILES), sharey=True)
    seen: list[str] = []
    for axis, quantile in zip(axes, QUANTILES, strict=True):
        seen += _draw_quantile(axis, content, quantile)
        axis.set_title(f"{quantile} of the latency", fontsize=10)
        axis.set_xlabel(AXES[plane["x"]], fontsize=9)
    axes[0].set_ylabel(AXES[plane["y"]], fontsize=9)
    shown = [name for name in (*COLOURS, NOBODY) if name in seen]
    patches = [_patch(COLOURS.get(name, "white")) for name in shown]
    figure.suptitle(title(content), fontsize=10)
    figure.legend(
        patches, shown, loc="outside lower center", ncols=len(shown), fontsize=9
    )
    canvas.save(figure, path, 90)


def _draw_quantile(axes: Any, content: dict[str, Any], quantile: str) -> list[str]:
    """Draws one map, and returns the names of its colours."""
    plane, seen = content["question"]["plane"], []
    for name, point in content["points"].items():
        i, j = map(int, name.split(","))
        best = point[quantile]
        family = NOBODY
        if best["winner"] is not None:
            family = content["strategies"][best["winner"]]["family"]
        seen.append(family)
        axes.add_patch(_patch(COLOURS.get(family, "white"), (i - 0.5, j - 0.5)))
        axes.text(i, j, lead_text(best), ha="center", va="center", fontsize=7)
    for axis, name in ((axes.xaxis, "x"), (axes.yaxis, "y")):
        values = plane[f"{name}_values"]
        texts = [tick_text(plane[name], value) for value in values]
        axis.set_ticks(range(len(values)), texts, fontsize=7)
    axes.tick_params(axis="x", rotation=90)
    axes.set_xlim(-0.5, len(plane["x_values"]) - 0.5)
    axes.set_ylim(-0.5, len(plane["y_values"]) - 0.5)
    return seen


def _patch(colour: str, corner: tuple[float, float] = (0.0, 0.0)) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, 1, 1, facecolor=colour, edgecolor="white", linewidth=0.5)


def lead_text(best: dict[str, Any]) -> str:
    """Returns the lead of a winner in %; empty where nobody or nobody else is there."""
    lead = best.get("lead")
    if lead is None:
        return ""
    return f"{100 * lead:.0f}" if lead < 9.995 else ">999"


def title(content: dict[str, Any]) -> str:
    """Returns the network, the devices, and the conditions that are fixed."""
    question = content["question"]
    margin = f"{100 * question['margin']:g} point"
    return (
        f"{question['network']} on {question['n']} devices: who answers first within "
        f"{margin if question['margin'] == 0.01 else f'{margin}s'} of the network's "
        "accuracy, and by how many % before the next family\n"
        f"{fixed_text(question['plane'])}"
    )


def fixed_text(plane: dict[str, Any]) -> str:
    """Returns the conditions that are fixed, in words."""
    return conditions_text(plane["fixed"], (plane["x"], plane["y"]))


def conditions_text(values: dict[str, Any], axes: Sequence[str] = ()) -> str:
    """Returns conditions in words.

    Args:
      values: the fields of `Conditions`.
      axes: names of those that are left out.
    """
    straggling = f"{values['straggling']} straggling"
    drawn = "round" if values["each_round"] else "request"
    if values["straggling"] != "trace" and "tail" not in axes:
        straggling += f", tail {values['tail']:g}"
    texts = {
        "bandwidth": f"{with_prefix(values['bandwidth'])}B/s",
        "link": f"{with_prefix(values['link'])}s a round trip",
        "message": f"{with_prefix(values['message'])}s a message",
        "speed": f"devices of {with_prefix(values['speed'])}flop/s",
        "client": f"client {values['client']:g} times as fast as a device",
        "straggling": straggling,
        "failure": f"{100 * values['failure']:g} % of devices fail in a {drawn}",
    }
    if not values["each_round"]:
        texts["drawn"] = "devices are slow or dead for a whole request"
    return "; ".join(text for name, text in texts.items() if name not in axes)


def tick_text(axis: str, value: float) -> str:
    """Returns a value of an axis, a probability in %."""
    if axis == "failure":
        return f"{100 * value:.2g} %"
    if axis in ("client", "tail"):
        return f"{value:.2g}"
    return with_prefix(value)


def with_prefix(number: float) -> str:
    """Returns a number with its unit's prefix, as `1.5 M`, without one near 1."""
    if 0.01 <= number < 1000 or number == 0:
        return f"{number:.3g} "
    for unit, prefix in PREFIXES.items():
        if number >= unit:
            return f"{number / unit:.3g} {prefix}"
    return f"{number:.1e} "
