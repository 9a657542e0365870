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
            str(len(row["done"])) if row["done"] else "",
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
    """Returns the stored table, and what made it."""
    (content,) = stored.contents("faults")
    table = markdown.table(COLUMNS, rows(content["rows"]))
    return f"{table}\n\n`{content['command']}`. {stored.origin_text([content])}"


def _milliseconds(seconds: float | None) -> str:
    return "none" if seconds is None else f"{1e3 * seconds:.0f}"


def _seconds(row: dict[str, Any], key: str) -> str:
    values = [done[key] for done in row["done"]]
    if not values or all(value is None for value in values):
        return "never" if values else ""
    known = sorted(value for value in values if value is not None)
    median, never = known[len(known) // 2], len(values) - len(known)
    text = f"{median:.2f}, {known[-1]:.2f}" if known[1:] else f"{median:.2f}"
    return f"{text}; {never} never" if never else text
