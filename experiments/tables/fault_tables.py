"""What the clients of a service noticed of disturbances, as tables."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from tables import markdown, stored

COLUMNS = (
    "what is done",
    "times",
    "sent",
    "lost",
    "wrong",
    "calm p99 ms",
    "p99 ms",
    "slowest ms",
    "noticed s",
    "place s",
    "back s",
)
"""Seconds are the median, and the longest."""


def rows(measured: list[dict[str, Any]]) -> list[list[str]]:
    """Returns a row for each disturbance."""
    return [
        [
            row["name"],
            str(len(_done(row))) if row["done"] else "",
            str(row["disturbed"]["requests"]),
            str(row["disturbed"]["lost"]),
            str(row["wrong"]),
            _milliseconds(row["calm"]["p99"]),
            _milliseconds(row["disturbed"]["p99"]),
            _milliseconds(row["disturbed"]["slowest"]),
            *(_seconds(row, key) for key in ("noticed", "answering", "recovered")),
        ]
        for row in measured
    ]


def terminal(measured: list[dict[str, Any]]) -> Table:
    """Returns the table for a terminal."""
    table = Table(box=box.SIMPLE, padding=0)
    for i, name in enumerate(COLUMNS):
        table.add_column(name, justify="right" if i else "left")
    for row in rows(measured):
        table.add_row(*row, end_section=True)
    return table


def section() -> str:
    """Returns the stored tables as one, with targets, and what made them."""
    contents = stored.contents("faults")
    measured = [row for content in contents for row in content["rows"]]
    verdicts = [[*rows([row])[0], verdict(row)] for row in measured]
    table = markdown.table((*COLUMNS, "target"), verdicts)
    commands = ", ".join(f"`{content['command']}`" for content in contents)
    return f"{table}\n\n{commands}. {stored.origin_text(contents)}"


def verdict(row: dict[str, Any]) -> str:
    """Returns whether a row met its target; empty if it has none.

    Nothing lost or wrong, and with spares: noticed in 0.2 s, the place taken 0.5 s
    later, back after 6 s, p99 under 3 times the calm one. Of the machinery: noticed in
    5 s, all places taken after 30.
    """
    spares = row["settings"].get("spares", 0)
    kinds = {done["kind"] for done in row["done"]}
    longest = lambda key: max(
        (float("inf") if done[key] is None else done[key] for done in _done(row)),
        default=float("inf"),
    )
    if kinds == {"kill worker"} and spares:
        limits = {"noticed": 0.2, "answering": 0.7, "recovered": 6.0}
        slow = row["disturbed"]["p99"] >= 3 * row["calm"]["p99"]
    elif kinds and not kinds & {"kill worker", "freeze worker", "reload"}:
        limits, slow = {"noticed": 5.0, "answering": 30.0}, False
    else:
        return ""
    missed = [key for key, limit in limits.items() if longest(key) > limit]
    missed += ["p99"] * slow + ["lost"] * (row["disturbed"]["lost"] > 0)
    missed += ["wrong"] * (row["wrong"] > 0)
    return f"**missed** ({', '.join(missed)})" if missed else "met"


def _done(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the disturbances that could be done."""
    return [done for done in row["done"] if not done.get("error")]


def _milliseconds(seconds: float | None) -> str:
    return "none" if seconds is None else f"{1e3 * seconds:.0f}"


def _seconds(row: dict[str, Any], key: str) -> str:
    told = [done for done in _done(row) if (key, done["kind"]) != ("noticed", "reload")]
    values = [done[key] for done in told]
    if not values or all(value is None for value in values):
        return "never" if values else ""
    known = sorted(value for value in values if value is not None)
    median, never = known[len(known) // 2], len(values) - len(known)
    text = f"{median:.2f}, {known[-1]:.2f}" if known[1:] else f"{median:.2f}"
    return f"{text}; {never} never" if never else text
