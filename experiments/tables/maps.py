"""Tables of the maps of who answers first, and of points measured on real workers."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from coded_jax.latency.machines import AXES
from coded_jax.latency.maps import QUANTILES
from coded_jax.latency.strategies import FAMILIES, HEDGED, LEARNED
from coded_jax.report import table
from coded_jax.report.formatting import size_text
from coded_jax.report.table import Columns
from coded_jax.service.studies import map_check
from coded_jax.service.studies.map_check import CLOSE, SAME, Agreement, agreement
from tables import drawn_maps, stored
from tables.sections import Long, Section, section
from tables.stored import Content

MESSAGE = "message"
"""Names the part of a check with the client's seconds for a message."""


class Row(NamedTuple):
    """A map at one of `QUANTILES`, by which a strategy is first, with what it `won`."""

    name: str
    content: Content
    quantile: str
    won: dict[str, str]


def won(content: Content, quantile: str) -> dict[str, str]:
    """Returns the points of each family in % of all, and its median lead, `40 % (12)`;
    of hedged ones also the delay of the strategy that is first most often."""
    texts = {}
    for of, family, share, lead, _, strategy in drawn_maps.rows(content).rows:
        if of == quantile:
            text = share if lead == "-" else f"{share} ({lead})"
            delay = f", {strategy.split(', ')[-1]}" if family == HEDGED else ""
            texts[family] = text + delay
    return texts


def learned_text(row: Row) -> str:
    """Returns the time of the best learned code over the winner's, in the median of the
    points where one is accurate enough, and their part."""
    if not any(x["family"] == LEARNED for x in row.content["strategies"]):
        return "none compared"
    bests = [point[row.quantile] for point in row.content["points"].values()]
    ratios = [
        best["families"][LEARNED][1] / best["seconds"]
        for best in bests
        if LEARNED in best["families"]
    ]
    if not ratios:
        return "never accurate enough"
    share = 100 * len(ratios) / len(bests)
    return f"{statistics.median(ratios):.2f} ({share:.0f} %)"


MAP: Columns = {
    "map": lambda row: row.name,
    "quantile": lambda row: row.quantile,
    **{
        family: lambda row, family=family: row.won.get(family, "")
        for family in (*FAMILIES, "none")
    },
    "learned over first": learned_text,
}


def about(content: Content) -> str:
    """Returns network, axes and conditions of a map."""
    question, plane = content["question"], content["question"]["plane"]

    fixed = drawn_maps.conditions_text(plane["fixed"], (plane["x"], plane["y"]))

    def axis_text(axis: str) -> str:
        name, values = plane[axis], plane[f"{axis}_values"]
        ends = [drawn_maps.tick_text(name, values[i]).strip() for i in (0, -1)]
        return f"{AXES[name]} ({' to '.join(ends)})"

    return (
        f"{question['network']}, {question['n']} devices, margin "
        f"{100 * question['margin']:g}{given_text(question['drop'])}; "
        f"{axis_text('x')} by {axis_text('y')}; {fixed}"
    )


def given_text(drop: float | None) -> str:
    """Returns what learned codes are said to lose; empty where trained ones are."""
    return "" if drop is None else f"; {100 * drop:g} points lost a stage, given"


def map_section() -> Section:
    """Returns a row for each map at p99, and a file of all quantiles."""
    contents = stored.read("map")
    rows = [
        Row(name, content, quantile, won(content, quantile))
        for name, content in contents.items()
        for quantile in QUANTILES
    ]
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
        files={"map.csv": Long(every, "map and quantile")},
    )


class Outcome(NamedTuple):
    """A comparison of measured and simulated times, at a point and a quantile."""

    point: Content
    quantile: str
    times: Agreement


def outcomes(content: Content) -> list[Outcome]:
    """Returns the comparisons of a check, `map_check.json`, by point and quantile."""
    found = []
    for point in content["settings"]["points"]:
        begin, parts = f"{point['name']}: ", content["parts"]
        own = {x.removeprefix(begin): parts[x] for x in parts if x.startswith(begin)}
        found += [Outcome(point, x, agreement(own, x)) for x in map_check.QUANTILES]
    return found


CHECK: Columns = {
    "point": lambda x: x.point["name"],
    "quantile": lambda x: x.quantile,
    "first, measured": lambda x: x.times.winner,
    "first, simulated": lambda x: x.times.simulated_winner,
    "simulated lead": lambda x: f"{100 * x.times.lead:.0f} %",
    "largest difference": lambda x: f"{100 * x.times.error:.1f} %",
    "agrees": lambda x: "yes" if x.times.agrees else "**no**",
}


def check_columns(found: Sequence[Outcome]) -> Columns:
    """Returns `CHECK` with numbers, the times of each strategy, `-` where it was not
    run, and conditions."""

    def milliseconds(x: Outcome, strategy: str, kind: str) -> str:
        seconds = getattr(x.times, kind).get(strategy)
        return "-" if seconds is None else f"{1e3 * seconds:.0f}"

    percent = {x: f"{x}, %" for x in ("simulated lead", "largest difference")}
    columns: Columns = {
        percent.get(header, header): lambda x, text=text: text(x).removesuffix(" %")
        for header, text in CHECK.items()
    }
    for strategy in sorted({strategy for x in found for strategy in x.times.measured}):
        for kind in ("measured", "simulated"):
            columns[f"{strategy}, {kind} ms"] = functools.partial(
                milliseconds, strategy=strategy, kind=kind
            )
    return columns | {"conditions": lambda x: point_text(x.point)}


def conclusion(found: Sequence[Outcome]) -> str:
    """Returns a sentence with the cases in which measurement and simulation agree."""
    leads = [x.times for x in found if x.times.lead > CLOSE]
    right = sum(times.winner == times.simulated_winner for times in leads)
    near = sum(x.times.error <= SAME for x in found)
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
        f"{drawn_maps.conditions_text(values, ('message',))}"
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
        files={"map_check.csv": Long(table.make(every, found), "point and quantile")},
    )


SECTIONS: dict[str, Callable[[], Section]] = {
    "map": map_section,
    "map_check": check_section,
}
