"""Tables of the points of the map that were measured on real workers."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich import box
from rich.table import Table

from coded_jax.report import map_figure
from coded_jax.studies import map_check
from coded_jax.studies.map_check import CLOSE, QUANTILES, SAME, Agreement, agreement
from tables import markdown, stored

MESSAGE = "message"
"""Names the part with the client's seconds for a message."""
COLUMNS = (
    "point",
    "quantile",
    "measured / simulated ms",
    "first, measured",
    "first, simulated",
    "simulated lead",
    "largest difference",
    "agrees",
)


def outcomes(content: dict[str, Any]) -> dict[tuple[str, str], Agreement]:
    """Returns what was compared, by the names of the point and of the quantile.

    Args:
      content: of `map_check.json`.
    """
    names = [point["name"] for point in content["settings"]["points"]]
    by_point: dict[str, dict[str, Any]] = {name: {} for name in names}
    measured = {k: v for k, v in content["parts"].items() if k != MESSAGE}
    for name, part in measured.items():
        point, family = name.split(": ")
        by_point[point][family] = part
    return {
        (point, quantile): agreement(parts, quantile)
        for point, parts in by_point.items()
        if parts
        for quantile in QUANTILES
    }


def rows(content: dict[str, Any]) -> list[list[str]]:
    """Returns a row for each point and quantile."""
    return [
        [
            point,
            quantile,
            ", ".join(
                f"{name} {1e3 * found.measured[name]:.0f} / {1e3 * simulated:.0f}"
                for name, simulated in found.simulated.items()
            ),
            found.winner,
            found.simulated_winner,
            f"{100 * found.lead:.0f} %",
            f"{100 * found.error:.1f} %",
            "yes" if found.agrees else "**no**",
        ]
        for (point, quantile), found in outcomes(content).items()
    ]


def conclusion(content: dict[str, Any]) -> str:
    """Returns in how many of the comparisons measurement and simulation agree."""
    found = outcomes(content).values()
    leads = [one for one in found if one.lead > CLOSE]
    right = sum(one.winner == one.simulated_winner for one in leads)
    near = sum(one.error <= SAME for one in found)
    return (
        f"Where the simulated lead is over {100 * CLOSE:g} %, the measured winner is "
        f"the simulated one in {right} of {len(leads)} cases; all times are within "
        f"{100 * SAME:g} % (of the smaller of the two) in {near} of {len(found)}."
    )


def about(point: dict[str, Any]) -> str:
    """Returns the network and the conditions of a point, as an item of a list."""
    width, drop = point["width"], point["drop"]
    name = f"{point['base_model']}{f' x {width:g}' if width != 1 else ''}"
    given = "" if drop is None else f"; {100 * drop:g} points lost a stage, given"
    size = "x".join(map(str, point["image_shape"][:2]))
    values = dataclasses.asdict(map_check.point_of(point).conditions)
    text = map_figure.conditions_text(values, ("message",))
    return f"- {point['name']}: {name}, {size}, {point['n']} devices{given}; {text}."


def terminal(content: dict[str, Any]) -> Table:
    """Returns the table for a terminal, without the times of each strategy."""
    short = lambda cells: [*cells[:2], *cells[3:]]
    table = Table(*short(COLUMNS), box=box.SIMPLE_HEAD, caption_justify="left")
    for row in rows(content):
        table.add_row(*short(row))
    table.caption = conclusion(content)
    return table


def section(table: str) -> str:
    """Returns all stored checks, as a section of a document.

    Args:
      table: a folder of stored results, see `stored.folder_of`.
    """
    studies = stored.contents(table)
    text = "\n\n".join(
        "\n\n".join(
            [
                markdown.table(COLUMNS, rows(content)),
                conclusion(content),
                "\n".join(map(about, content["settings"]["points"])),
                f"{stored.origin_text([content])} {content['settings']['requests']} "
                f"requests of each strategy at each point, "
                f"{1e3 * content['parts'][MESSAGE]:.2f} ms a message: "
                f"`{content['command']}`",
            ]
        )
        for content in studies
    )
    return stored.with_history(text, stored.folder_of(table), studies)
