"""Sections of a Markdown file that scripts write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from coded_jax.workdir import write_atomically


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


def write_sections(path: str, sections: Mapping[str, str]) -> None:
    """Replaces sections of a file, all or, where one fails, none.

    Raises:
      ValueError: there is no such file, or a marker is missing.
      OSError: it cannot be written.
    """
    try:
        text = Path(path).read_text()
    except (OSError, ValueError):
        raise ValueError(f"readme: {path!r} given, a Markdown file accepted") from None
    for name, section in sections.items():
        text = replace_section(text, name, section)
    write_atomically(Path(path), text)
