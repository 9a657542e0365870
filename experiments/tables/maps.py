"""Maps of who answers first, as tables and pictures; points measured on workers."""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from coded_jax.latency import simulation
from coded_jax.latency.machines import AXES
from coded_jax.latency.simulation import QUANTILES
from coded_jax.latency.strategies import FAMILIES, HEDGED, LEARNED, late_text
from coded_jax.report import canvas, table
from coded_jax.report.formatting import size_text
from coded_jax.report.table import Columns
from coded_jax.service.studies import map_check
from tables import stored
from tables.stored import Content, Section, section

if TYPE_CHECKING:
    from matplotlib.patches import Rectangle

MESSAGE = "message"
"""Names the part of a check with the client's seconds for a message."""
SAME = 0.15
"""Largest relative difference of quantiles that are said to agree."""
CLOSE = 0.1
"""Lead up to which the simulated winner may be another than the measured one."""
NONE = "none"
"""Stands for a family where no strategy is accurate enough."""
SHADES = ("#d9d9d9", "#9ecae1", "#4292c6", "#c7e9c0", "#74c476", "#fdae6b", "#fb6a4a")
COLOURS = {**dict(zip(FAMILIES, SHADES, strict=True)), NONE: "white"}
"""Colours by family of strategies."""
LEAST_WIDTH = 11.5  # inches that the title needs
PREFIXES = {1e12: "T", 1e9: "G", 1e6: "M", 1e3: "k", 1.0: "", 1e-3: "m", 1e-6: "µ"}


def draw(path: Path, content: Content) -> None:
    """Draws a map for each quantile: the colour is the family of the winner, the number
    how many % longer the best of the other families takes.

    Args:
      path: of the picture.
      content: of `map.json`.

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
        for place, point in content["points"].items():
            (i, j), best = map(int, place.split(",")), point[quantile]
            family, lead = family_of(content, best), best.get("lead")
            seen.add(family)
            axes.add_patch(_cell(family, (i - 0.5, j - 0.5)))
            if lead is not None:
                text = f"{100 * lead:.0f}" if lead < 9.995 else ">999"
                axes.text(i, j, text, ha="center", va="center", fontsize=7)
        for axis, x_or_y in ((axes.xaxis, "x"), (axes.yaxis, "y")):
            values = plane[f"{x_or_y}_values"]
            texts = [tick_text(plane[x_or_y], value) for value in values]
            axis.set_ticks(range(len(values)), texts, fontsize=7)
        axes.tick_params(axis="x", rotation=90)
        axes.set(xlim=(-0.5, columns - 0.5), ylim=(-0.5, rows - 0.5))
        axes.set_title(f"{quantile} of the latency", fontsize=10)
        axes.set_xlabel(AXES[plane["x"]], fontsize=9)
    panels[0].set_ylabel(AXES[plane["y"]], fontsize=9)
    figure.suptitle(title(content), fontsize=10)
    shown = [family for family in COLOURS if family in seen]
    texts = ["none accurate enough" if x == NONE else x for x in shown]
    style = {"loc": "outside lower center", "ncols": len(shown), "fontsize": 9}
    figure.legend([*map(_cell, shown)], texts, **style)
    canvas.save(figure, path, 90)


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
    """Returns the fields of `Conditions` but for those named `axes`, in words."""
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


class Row(NamedTuple):
    """A map at one of `QUANTILES`, by which a strategy is first."""

    name: str
    content: Content
    quantile: str

    @property
    def bests(self) -> list[Content]:
        """Who is first at each point."""
        return [point[self.quantile] for point in self.content["points"].values()]

    def won(self, family: str) -> str:
        """Returns the points of a family in % of all, and its median lead, `40 % (12)`;
        of the hedged one also the delay of the strategy that is first most often."""
        own = [best for best in self.bests if family_of(self.content, best) == family]
        if not own:
            return ""
        text = f"{100 * len(own) / len(self.bests):.0f} %"
        if leads := [100 * x["lead"] for x in own if x.get("lead") is not None]:
            text += f" ({statistics.median(leads):.0f})"
        if family == HEDGED:
            most_often = statistics.mode(x["winner"] for x in own)
            text += f", {late_text(self.content['strategies'][most_often]['late'])}"
        return text


def family_of(content: Content, best: Content) -> str:
    """Returns the family of who is first at a point and a quantile."""
    winner = best["winner"]
    return NONE if winner is None else content["strategies"][winner]["family"]


def learned_text(row: Row) -> str:
    """Returns the time of the best learned code over the winner's, in the median of the
    points where one is accurate enough, and their part."""
    if not any(x["family"] == LEARNED for x in row.content["strategies"]):
        return "none compared"
    ratios = [
        best["families"][LEARNED][1] / best["seconds"]
        for best in row.bests
        if LEARNED in best["families"]
    ]
    if not ratios:
        return "never accurate enough"
    share = 100 * len(ratios) / len(row.bests)
    return f"{statistics.median(ratios):.2f} ({share:.0f} %)"


MAP: Columns = {
    "map": lambda row: row.name,
    "quantile": lambda row: row.quantile,
    **{x: lambda row, x=x: row.won(x) for x in (*FAMILIES, NONE)},
    "learned over first": learned_text,
}


def about(content: Content) -> str:
    """Returns network, axes and conditions of a map."""
    question, plane = content["question"], content["question"]["plane"]
    axes = []
    for axis in "xy":
        values = plane[f"{axis}_values"]
        ends = [tick_text(plane[axis], values[i]).strip() for i in (0, -1)]
        axes.append(f"{AXES[plane[axis]]} ({' to '.join(ends)})")
    return (
        f"{question['network']}, {question['n']} devices, margin "
        f"{100 * question['margin']:g}{given_text(question['drop'])}; "
        f"{' by '.join(axes)}; "
        f"{conditions_text(plane['fixed'], (plane['x'], plane['y']))}"
    )


def given_text(drop: float | None) -> str:
    """Returns what learned codes are said to lose; empty where trained ones are."""
    return "" if drop is None else f"; {100 * drop:g} points lost a stage, given"


def map_section() -> Section:
    """Returns a row for each map at p99, and a file of all quantiles."""
    contents = stored.read("map")
    rows = [Row(*x, quantile) for x in contents.items() for quantile in QUANTILES]
    conditions: Columns = {"conditions": lambda row: about(row.content)}
    origins = stored.origins(lambda row: row.content)
    every = table.make({**MAP, **conditions, **origins}, rows)
    shown = table.select(
        table.make(MAP, [row for row in rows if row.quantile == "p99"]),
        lambda header, texts: header != "quantile" and any(texts),
    )
    return section(
        shown,
        "Points of a map in % by who is first at p99 (median lead in %).",
        stored.origin_text(contents.values()).replace("Measured", "Simulated", 1),
        files={"map.csv": (every, "map and quantile")},
    )


class Outcome(NamedTuple):
    """Measured and simulated times, at a point and a quantile.

    Attributes:
      point: of the check.
      quantile: one of `QUANTILES`.
      measured, simulated: seconds of each strategy.
      winner, simulated_winner: the family of the fastest.
      lead: how much longer the best of another family takes in the simulation, as a
        part of the winner's time.
      error: the largest difference of a measured time from the simulated one, as a part
        of the smaller of the two.
    """

    point: Content
    quantile: str
    measured: dict[str, float]
    simulated: dict[str, float]
    winner: str
    simulated_winner: str
    lead: float
    error: float

    @property
    def agrees(self) -> bool:
        """Returns whether times and winner are right; no matter who leads by little."""
        right = self.winner == self.simulated_winner or self.lead <= CLOSE
        return right and self.error <= SAME


def outcomes(content: Content) -> list[Outcome]:
    """Returns the comparisons of a check, `map_check.json`, by point and quantile."""
    found = []
    for point in content["settings"]["points"]:
        begin, parts = f"{point['name']}: ", content["parts"]
        own = {x.removeprefix(begin): parts[x] for x in parts if x.startswith(begin)}
        found += [outcome(point, quantile, own) for quantile in map_check.QUANTILES]
    return found


def outcome(point: Content, quantile: str, seconds: Content) -> Outcome:
    """Compares the `measured` and `simulated` seconds at a point, by strategies, whose
    family comes first in their names, as in `hedged (p99)`."""

    def times(kind: str) -> tuple[dict[str, float], dict[str, float]]:
        """Returns the quantile of each strategy, and that of the best in a family."""
        own, best = {}, {}
        for strategy, part in seconds.items():
            family, _, _ = strategy.partition(" (")
            time = simulation.summary(np.asarray(part[kind], float))[quantile]
            own[strategy], best[family] = time, min(time, best.get(family, math.inf))
        return own, best

    (measured, ours), (simulated, theirs) = times("measured"), times("simulated")
    pairs = [(measured[x], simulated[x]) for x in simulated]
    best, second = sorted(theirs.values())[:2]
    return Outcome(
        point,
        quantile,
        measured,
        simulated,
        winner=min(ours, key=ours.__getitem__),
        simulated_winner=min(theirs, key=theirs.__getitem__),
        lead=second / best - 1,
        # Both may be infinite, and then they are equal.
        error=max(0.0 if a == b else abs(a - b) / min(a, b) for a, b in pairs),
    )


CHECK: Columns = {
    "point": lambda x: x.point["name"],
    "quantile": lambda x: x.quantile,
    "first, measured": lambda x: x.winner,
    "first, simulated": lambda x: x.simulated_winner,
    "simulated lead, %": lambda x: f"{100 * x.lead:.0f}",
    "largest difference, %": lambda x: f"{100 * x.error:.1f}",
    "agrees": lambda x: "yes" if x.agrees else "**no**",
}


def check_columns(found: Sequence[Outcome]) -> Columns:
    """Returns `CHECK`, the times of each strategy, `-` where it was not run, and
    conditions."""
    columns = {**CHECK}

    def milliseconds(x: Outcome, kind: str, name: str) -> str:
        seconds = getattr(x, kind).get(name)
        return "-" if seconds is None else f"{1e3 * seconds:.0f}"

    for name in sorted({name for x in found for name in x.measured}):
        for kind in ("measured", "simulated"):
            text = functools.partial(milliseconds, kind=kind, name=name)
            columns[f"{name}, {kind} ms"] = text
    return columns | {"conditions": lambda x: point_text(x.point)}


def conclusion(found: Sequence[Outcome]) -> str:
    """Returns a sentence with the cases in which measurement and simulation agree."""
    leads = [x for x in found if x.lead > CLOSE]
    right = sum(x.winner == x.simulated_winner for x in leads)
    near = sum(x.error <= SAME for x in found)
    return (
        f"Where the simulated lead is over {100 * CLOSE:g} %, the measured winner is "
        f"the simulated one in {right} of {len(leads)} cases; all times are within "
        f"{100 * SAME:g} % (of the smaller of the two) in {near} of {len(found)}."
    )


def point_text(point: Content) -> str:
    """Returns the network and the conditions of a measured point."""
    width = "" if point["width"] == 1 else f" x {point['width']:g}"
    values = dataclasses.asdict(map_check.point_of(point).conditions)
    return (
        f"{point['base_model']}{width}, {size_text(point['image_shape'][:2])}, "
        f"{point['n']} devices{given_text(point['drop'])}; "
        f"{conditions_text(values, ('message',))}"
    )


def check_section() -> Section:
    """Returns whether the stored check agrees, and a file of all its comparisons."""
    (content,) = stored.read("map_check").values()
    found, message = outcomes(content), content["parts"][MESSAGE]
    every = {**check_columns(found), **stored.origins(lambda x: content)}
    return section(
        conclusion(found),
        f"{stored.origin_text([content])} {content['settings']['requests']} requests "
        f"of each strategy at each point, {1e3 * message:.2f} ms a message: "
        f"`{content['command']}`",
        files={"map_check.csv": (table.make(every, found), "point and quantile")},
    )


SECTIONS = {"map": map_section, "map_check": check_section}
