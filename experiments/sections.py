"""Sections of a Markdown file that scripts write."""

from __future__ import annotations


def replace_section(text: str, name: str, section: str) -> str:
    """`text` with what stands between the two markers of `name` replaced.

    Raises:
      ValueError: a marker is missing.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"readme: a file with {begin} and {end} accepted")
    return f"{before}{begin}\n\n{section}\n\n{end}{after}"
