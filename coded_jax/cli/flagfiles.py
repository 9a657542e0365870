"""Flagfiles: one's own, and those that are included, which need no clone."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from pathlib import Path

from coded_jax.checks import require

PACKAGE = Path(__file__).parents[1]
SOURCES = Path("experiments/flags")
"""Names their folder in the repository, by which flagfiles name others."""


def folder() -> Path:
    """Returns the folder of the included flagfiles: the package's, or the source's."""
    installed = PACKAGE / "flags"
    return installed if installed.is_dir() else PACKAGE.parent / SOURCES


def included() -> dict[str, Path]:
    """Returns `{name: file}` of all included flagfiles, in the order of their names."""
    files = sorted(folder().rglob("*.flags"))
    return {file.relative_to(folder()).as_posix(): file for file in files}


def find(name: str) -> Path:
    """Returns the flagfile of a name: one's own if there is one, else an included one.

    Args:
      name: a path, relative to the current folder or with `~`; of an included flagfile
        its name, `x.flags` or `x`, or its path in the repository.

    Raises:
      ValueError: there is none.
    """
    own = Path(name).expanduser()
    if own.is_file():
        return own
    in_package = own.relative_to(SOURCES) if own.is_relative_to(SOURCES) else own
    for candidate in (in_package.as_posix(), f"{in_package.as_posix()}.flags"):
        if file := included().get(candidate):
            return file
    raise ValueError(
        f"flagfile: {name!r} given, a file in {str(Path.cwd())!r} or one of "
        f"{str(folder())!r} accepted ('python -m coded_jax flags' lists these)"
    )


def about(file: Path) -> str:
    """Returns the comment that a flagfile begins with, as one line."""
    lines = file.read_text().splitlines()
    comment = itertools.takewhile(lambda line: line.startswith("#"), lines)
    return " ".join(line.removeprefix("#").strip() for line in comment)


def expand(arguments: Iterable[str], within: tuple[Path, ...] = ()) -> list[str]:
    """Returns arguments with the flags of each flagfile in the place of `--flagfile`.

    As absl does it, but by `find`, so that flagfiles which name others by their path in
    the repository can be used from any folder.

    Args:
      arguments: of the command line, or the lines of a flagfile.
      within: the flagfiles that are being expanded.

    Raises:
      ValueError: there is no such flagfile, or one that includes itself.
    """
    expanded, rest = [], iter(arguments)
    for argument in rest:
        match = re.fullmatch(r"--?flagfile(?:=(.*))?", argument, re.S)
        if argument == "--":
            return [*expanded, argument, *rest]
        if match is None:
            expanded.append(argument)
            continue
        file = find(next(rest, "") if match[1] is None else match[1]).resolve()
        require("flagfile", str(file), file not in within, "one without itself")
        try:
            lines = [line.strip() for line in file.read_text().splitlines()]
        except (OSError, UnicodeError) as error:
            accepted = f"a text with a flag a line accepted ({error})"
            raise ValueError(f"flagfile: {str(file)!r} given, {accepted}") from None
        used = [line for line in lines if line and not line.startswith(("#", "//"))]
        expanded += expand(used, (*within, file))
    return expanded
