"""Tables of the maps of who answers first, and of points measured on real workers."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from coded_jax.latency.conditions import AXES
from coded_jax.latency.plane import QUANTILES
from coded_jax.latency.strategies import FAMILIES, HEDGED, LEARNED, late_text
from coded_jax.report import map_figure, table
from coded_jax.report.table import Column, Table
from coded_jax.studies import map_check
from coded_jax.studies.map_check import CLOSE, SAME, Agreement, agreement
from tables import sections, stored
from tables.sections import Section

Content = dict[str, Any]
MESSAGE = "message"
"""Names the part of a check with the client's seconds for a message."""


class Points(NamedTuple):
    """The points of a map at one quantile.

    Attributes:
      name: of the map.
      content: of the map.
      quantile: by which a strategy is first.
    """

    name: str
    content: Content
    quantile: str

    @property
    def bests(self) -> list[Content]:
        """Returns the winner, its lead and the families of each point."""
        return [point[self.quantile] for point in self.content["points"].values()]

    def family_of(self, best: Content) -> str | None:
        """Returns the family of a point's winner, None where there is none."""
        place = best["winner"]
        return None if place is None else self.content["strategies"][place]["family"]


def won_text(points: Points, family: str | None) -> str:
    """Returns the points of a family in % of all, and its median lead, `40 % (12)`; of
    hedged ones also the usual delay."""
    won = [best for best in points.bests if points.family_of(best) == family]
    if not won:
        return ""
    text = f"{100 * len(won) / len(points.bests):.0f} %"
    leads = [best["lead"] for best in won if best.get("lead") is not None]
    text += f" ({100 * statistics.median(leads):.0f})" if leads else ""
    return text + (usual_delay(points) if family == HEDGED else "")


def usual_delay(points: Points) -> str:
    """Returns the most usual delay of hedged winners as `, at once`, or nothing."""
    places = [best["winner"] for best in points.bests if best["winner"] is not None]
    strategies = [points.content["strategies"][place] for place in places]
    delays = [strategy["late"] for strategy in strategies if "late" in strategy]
    return f", {late_text(statistics.mode(delays))}" if delays else ""


def learned_text(points: Points) -> str:
    """Returns the time of the best learned code over the winner's, in the median of the
    points where one is accurate enough, and their part."""
    strategies = points.content["strategies"]
    if not any(strategy["family"] == LEARNED for strategy in strategies):
        return "none compared"
    ratios = [
        best["families"][LEARNED][1] / best["seconds"]
        for best in points.bests
        if LEARNED in best["families"]
    ]
    if not ratios:
        return "never accurate enough"
    share = 100 * len(ratios) / len(points.bests)
    return f"{statistics.median(ratios):.2f} ({share:.0f} %)"


MAP = (
    Column("map", lambda points: points.name),
    Column("quantile", lambda points: points.quantile),
    *(
        Column(family or "none", lambda points, f=family: won_text(points, f))
        for family in (*FAMILIES, None)
    ),
    Column("learned over first", learned_text),
)


def about(content: Content) -> str:
    """Returns network, axes and conditions of a map."""
    question, plane = content["question"], content["question"]["plane"]
    axes = " by ".join(
        f"{AXES[plane[axis]]} ({' to '.join(_ends(plane, axis))})" for axis in "xy"
    )
    drop = question["drop"]
    learned = "" if drop is None else f"; {100 * drop:g} points lost a stage, given"
    return (
        f"{question['network']}, {question['n']} devices, margin "
        f"{100 * question['margin']:g}{learned}; {axes}; {map_figure.fixed_text(plane)}"
    )


def _ends(plane: Content, axis: str) -> list[str]:
    values = plane[f"{axis}_values"]
    texts = (map_figure.tick_text(plane[axis], x) for x in (values[0], values[-1]))
    return [text.strip() for text in texts]


def map_section() -> Section:
    """Returns a row for each map at p99, and a file of all quantiles."""
    maps = stored.read("map")
    rows = [Points(name, x, q) for name, x in maps.items() for q in QUANTILES]
    conditions = Column("conditions", lambda points: about(points.content))
    origin = [Column(c.header, lambda p, c=c: c.text(p.content)) for c in stored.ORIGIN]
    every = table.make([*MAP, conditions, *origin], rows)
    short = table.make(MAP, [row for row in rows if row.quantile == "p99"])
    used = [
        i for i, _ in enumerate(MAP) if any(row[i] for row in short.rows) and i != 1
    ]
    chosen = Table(
        [short.headers[i] for i in used],
        [[row[i] for i in used] for row in short.rows],
    )
    caption = "Points of a map in % by who is first at p99 (median lead in %)."
    text = stored.origin_text(maps.values()).replace("Measured", "Simulated", 1)
    link = sections.linked("map.csv", every, "map and quantile")
    parts = [table.to_markdown(chosen), caption, link, text]
    return Section("\n\n".join(parts), {"map.csv": every})


Outcome = tuple[tuple[str, str], Agreement]
"""Names of a point and a quantile, and the comparison there."""


def outcomes(content: Content) -> list[Outcome]:
    """Returns the comparisons of a check, by point and quantile.

    Args:
      content: of `map_check.json`.
    """
    names = [point["name"] for point in content["settings"]["points"]]
    by_point: dict[str, Content] = {name: {} for name in names}
    for name, part in content["parts"].items():
        if name != MESSAGE:
            point, family = name.split(": ")
            by_point[point][family] = part
    return [
        ((point, quantile), agreement(parts, quantile))
        for point, parts in by_point.items()
        if parts
        for quantile in map_check.QUANTILES
    ]


def times_text(outcome: Outcome) -> str:
    """Returns measured and simulated milliseconds of each strategy."""
    found = outcome[1]
    return ", ".join(
        f"{name} {1e3 * found.measured[name]:.0f} / {1e3 * simulated:.0f}"
        for name, simulated in found.simulated.items()
    )


CHECK = (
    Column("point", lambda x: x[0][0]),
    Column("quantile", lambda x: x[0][1]),
    Column("measured / simulated ms", times_text),
    Column("first, measured", lambda x: x[1].winner),
    Column("first, simulated", lambda x: x[1].simulated_winner),
    Column("simulated lead", lambda x: f"{100 * x[1].lead:.0f} %"),
    Column("largest difference", lambda x: f"{100 * x[1].error:.1f} %"),
    Column("agrees", lambda x: "yes" if x[1].agrees else "**no**"),
)


def conclusion(found: Sequence[Outcome]) -> str:
    """Returns a sentence with the cases in which measurement and simulation agree."""
    every = [agreed for _, agreed in found]
    leads = [agreed for agreed in every if agreed.lead > CLOSE]
    right = sum(agreed.winner == agreed.simulated_winner for agreed in leads)
    near = sum(agreed.error <= SAME for agreed in every)
    return (
        f"Where the simulated lead is over {100 * CLOSE:g} %, the measured winner is "
        f"the simulated one in {right} of {len(leads)} cases; all times are within "
        f"{100 * SAME:g} % (of the smaller of the two) in {near} of {len(every)}."
    )


def point_text(point: Content) -> str:
    """Returns the network and the conditions of a measured point."""
    width, drop = point["width"], point["drop"]
    name = f"{point['base_model']}{f' x {width:g}' if width != 1 else ''}"
    given = "" if drop is None else f"; {100 * drop:g} points lost a stage, given"
    size = "x".join(map(str, point["image_shape"][:2]))
    values = dataclasses.asdict(map_check.point_of(point).conditions)
    text = map_figure.conditions_text(values, ("message",))
    return f"{name}, {size}, {point['n']} devices{given}; {text}"


def check_section() -> Section:
    """Returns whether the stored check agrees, and a file of all its comparisons."""
    (content,) = stored.read("map_check").values()
    found, settings = outcomes(content), content["settings"]
    points = {point["name"]: point_text(point) for point in settings["points"]}
    conditions = Column("conditions", lambda x: points[x[0][0]])
    every = table.make([*CHECK, conditions], found)
    measured = (
        f"{stored.origin_text([content])} {settings['requests']} requests of each "
        f"strategy at each point, {1e3 * content['parts'][MESSAGE]:.2f} ms a message: "
        f"`{content['command']}`"
    )
    link = sections.linked("map_check.csv", every, "point and quantile")
    text = "\n\n".join([conclusion(found), link, measured])
    return Section(text, {"map_check.csv": every})


SECTIONS: dict[str, Callable[[], Section]] = {
    "map": map_section,
    "map_check": check_section,
}
