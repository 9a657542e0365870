"""Generated parts of pages: Markdown, and the CSV files beside it."""

from __future__ import annotations

from typing import NamedTuple

from coded_jax.report.table import Table


class Section(NamedTuple):
    """A generated part of a page.

    Attributes:
      text: Markdown.
      files: long tables by the names of their CSV files, which stand beside the page.
    """

    text: str
    files: dict[str, Table] = {}


def linked(name: str, table: Table, what: str) -> str:
    """Returns the line that links a long table, which the site shows collapsed.

    Args:
      name: of the CSV file.
      table: its content.
      what: what a row is, such as `code`.
    """
    size = f"{len(table.rows)} rows and {len(table.headers)} columns"
    return f"All of it, a row for each {what}, {size}: [{name}]({name})"
