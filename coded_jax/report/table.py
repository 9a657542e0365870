"""Tables: columns, each a header and a function of a record, and their renderers."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.table import Table as RichTable

Columns = Mapping[str, Callable[[Any], str]]
"""Columns by their headings, each a function `record -> str` that makes its cell of a
record; `**` around a cell makes it bold."""


class Table(NamedTuple):
    """Headings, and rows of as many cells."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


def make(columns: Columns, records: Iterable[Any]) -> Table:
    """Returns a table with a row for each record."""
    rows = [[text(record) for text in columns.values()] for record in records]
    return Table([*columns], rows)


def select(table: Table, keeps: Callable[[str, Sequence[str]], bool]) -> Table:
    """Returns a table without the columns whose heading and cells `keeps` refuses."""
    columns = zip(table.headers, *table.rows, strict=True)
    kept = [column for column in columns if keeps(column[0], column[1:])]
    headers, *rows = zip(*kept, strict=True)
    return Table(headers, rows)


def to_markdown(table: Table) -> str:
    """Returns a table as GitHub's Markdown has it."""
    lines = [f"| {' | '.join(cells)} |" for cells in (table.headers, *table.rows)]
    return "\n".join([lines[0], "|---" * len(table.headers) + "|", *lines[1:]])


def to_csv(table: Table) -> str:
    """Returns a table as comma-separated values, without the marks of bold cells."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for cells in (table.headers, *table.rows):
        writer.writerow([cell.replace("**", "") for cell in cells])
    return text.getvalue()


def to_terminal(
    table: Table, title: str = "", left: int = 1, narrow: bool = True
) -> RichTable:
    """Returns a table for a terminal: the first `left` columns left, the others right,
    and close together if `narrow`."""
    shown = RichTable(box=box.SIMPLE_HEAD, title=title or None, collapse_padding=narrow)
    for i, header in enumerate(table.headers):
        shown.add_column(header, justify="left" if i < left else "right")
    for cells in table.rows:
        shown.add_row(*(cell.replace("**", "") for cell in cells))
    return shown
