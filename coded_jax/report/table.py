"""Tables: columns, each a header and a function of a record, and their renderers."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.table import Table as RichTable


class Column(NamedTuple):
    """A column of a table.

    Attributes:
      header: its heading.
      text: `record -> str`, the cell of a record; `**` around it makes it bold.
    """

    header: str
    text: Callable[[Any], str]


class Table(NamedTuple):
    """Headings, and rows of as many cells."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


def make(columns: Iterable[Column], records: Iterable[Any]) -> Table:
    """Returns a table with a row for each record."""
    columns = [*columns]
    rows = [[column.text(record) for column in columns] for record in records]
    return Table([column.header for column in columns], rows)


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


def to_terminal(table: Table, title: str = "") -> RichTable:
    """Returns a table for a terminal: the first column left, the others right."""
    shown = RichTable(box=box.SIMPLE_HEAD, title=title or None, collapse_padding=True)
    for i, header in enumerate(table.headers):
        shown.add_column(header, justify="right" if i else "left")
    for cells in table.rows:
        shown.add_row(*(cell.replace("**", "") for cell in cells))
    return shown
