"""Generated parts of pages: Markdown, and the CSV files beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from coded_jax.report.table import Table, to_markdown
from tables import stored


class Section(NamedTuple):
    """A generated part of a page.

    Attributes:
      text: Markdown.
      files: long tables by the names of their CSV files, which stand beside the page.
    """

    text: str
    files: Mapping[str, Table] = {}


class Long(NamedTuple):
    """A table that is too long for a page.

    Attributes:
      table: its rows.
      what: what a row is, such as `code`.
    """

    table: Table
    what: str


def section(
    *parts: str | Table,
    files: Mapping[str, Long] = {},
    contents: Iterable[stored.Content] = (),
) -> Section:
    """Returns paragraphs and tables, lines that link long tables, which the site shows
    collapsed, and a line that says how stored results were measured.

    Args:
      *parts: empty ones are left out.
      files: long tables by the names of their CSV files.
      contents: stored results; none where nothing is to be said of them.
    """
    links = [
        f"All of it, a row for each {what}, {len(table.rows)} rows and "
        f"{len(table.headers)} columns: [{name}]({name})"
        for name, (table, what) in files.items()
    ]
    contents = [*contents]
    origin = stored.origin_text(contents) if contents else ""
    texts = (to_markdown(x) if isinstance(x, Table) else x for x in parts)
    text = "\n\n".join(filter(None, [*texts, *links, origin]))
    return Section(text, {name: table for name, (table, _) in files.items()})
