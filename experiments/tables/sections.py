"""Sections of a Markdown file that scripts write, and the tables in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from coded_jax.runs.workdir import write_atomically


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of GitHub's Markdown."""
    lines = [f"| {' | '.join(line)} |" for line in (headings, *rows)]
    return "\n".join([lines[0], "|---" * len(headings) + "|", *lines[1:]])


def names(text: str) -> list[str]:
    """Names of the sections, in their order."""
    return re.findall(r"^<!-- (\S+): begin -->$", text, re.M)


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


def renew(path: str, make: Callable[[str], str]) -> list[str]:
    """Replaces all sections of a file, or, where one fails, none.

    Args:
      path: of the file.
      make: `name -> section`.

    Returns:
      The names of the sections.

    Raises:
      ValueError: there is no such file, it has no section, or a marker is missing.
      OSError: it cannot be written.
    """
    try:
        text = Path(path).read_text()
    except (OSError, ValueError):
        raise ValueError(f"readme: {path!r} given, a Markdown file accepted") from None
    found = names(text)
    if not found:
        raise ValueError(
            f"readme: {path!r} given, a file with <!-- NAME: begin --> accepted"
        )
    for name in found:
        text = replace_section(text, name, make(name))
    write_atomically(Path(path), text)
    return found
