"""Tables in Markdown, and the sections of a Markdown file that scripts write."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from coded_jax.runs.workdir import write_atomically


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table of GitHub's Markdown."""
    lines = [f"| {' | '.join(line)} |" for line in (headings, *rows)]
    return "\n".join([lines[0], "|---" * len(headings) + "|", *lines[1:]])


def section_names(text: str) -> list[str]:
    """Returns the names of the sections, in their order."""
    return re.findall(r"^<!-- (\S+): begin -->$", text, re.M)


def replace_section(text: str, name: str, section: str) -> str:
    """Returns `text` with another section between the two markers of `name`.

    Raises:
      ValueError: a marker is missing.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, opened, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        raise ValueError(f"document: a file with {begin} and {end} accepted")
    return f"{before}{begin}\n\n{section}\n\n{end}{after}"


def renew(path: str | Path, make: Callable[[str], str]) -> list[str]:
    """Replaces all sections of a file or, where one cannot be made, none.

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
        raise ValueError(
            f"document: {path!r} given, a Markdown file accepted"
        ) from None
    names = section_names(text)
    if not names:
        raise ValueError(
            f"document: {path!r} given, a file with <!-- NAME: begin --> accepted"
        )
    for name in names:
        text = replace_section(text, name, make(name))
    write_atomically(Path(path), text)
    return names
