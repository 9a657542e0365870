"""The start of every command: its flags and flagfiles, and its errors as one line."""

from __future__ import annotations

import functools
import importlib
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging

from coded_jax.checks import first_line, require
from coded_jax.cpu_kernels import lowering
from coded_jax.runs import provenance, workdir
from coded_jax.training.loop import Interrupted

ERRORS = (ValueError, OSError, ImportError, RuntimeError)

Main = Callable[[list[str]], None]

PACKAGE = Path(__file__).parents[1]
SOURCES = Path("experiments/flags")
"""Names the folder of flagfiles in the repository, by which these name others."""
INSTALLED = PACKAGE / "flags"
FLAGFILES = INSTALLED if INSTALLED.is_dir() else PACKAGE.parent / SOURCES
"""Names the folder of the included flagfiles."""

TEXTS = {
    r"flag --(\w+)=None: Flag --\1 must have a value .*": r"\1: not given, --\1=... ",
    r"flag --(\w+)=(.*): \S+ is not (.*)": r"\1: \2 given, \3 ",
}
"""Maps errors of absl to their beginnings in the words of the other errors."""


def command(
    arguments: bool = False,
    errors: tuple[type[Exception], ...] = ERRORS,
    resumes: bool = False,
) -> Callable[[Main], Main]:
    """Decorates the `main` of a script, which exits with one line where it fails, and
    has the kernels of `cpu_kernels` for its process.

    Args:
      arguments: whether it accepts anything beside flags.
      errors: that are told in one line; others are defects, with a traceback.
      resumes: whether the same command goes on after Ctrl-C.
    """

    def decorate(main: Main) -> Main:
        @functools.wraps(main)
        def guarded(argv: list[str]) -> None:
            if argv[1:] and not arguments:
                sys.exit(f"error: arguments: {argv[1:]} given, only --flags accepted")
            if not flags.FLAGS["verbosity"].present:
                logging.set_verbosity(logging.WARNING)  # none on absent accelerators
            try:
                lowering.install()
            except ValueError as error:  # of the user's environment
                sys.exit(f"error: {error}")
            try:
                main(argv)
            except (Interrupted, KeyboardInterrupt) as stop:
                message = str(stop) or "stopped"
                message += "; the same command goes on from there" if resumes else ""
                print(message, file=sys.stderr)
                sys.exit(130)
            except errors as error:
                sys.exit(f"error: {error}")

        return guarded

    return decorate


def run(main: Main, argv: list[str] | None = None) -> None:
    """Parses the flags, and runs a command.

    Args:
      main: what `command` returned.
      argv: the words of the command line, its name first; those of the process if None.
    """
    parse = functools.partial(parse_flags, about=sys.modules[main.__module__].__doc__)
    app.run(main, argv, flags_parser=parse)


def parse_flags(argv: Sequence[str], about: str | None = "") -> list[str]:
    """Parses flags as absl does, but tells an error in one line.

    Flagfiles may be those that are included, and `--help` shows all flags of the
    command, not those of one module alone, nor those of absl.

    Args:
      argv: the words of the command line, the command's name first.
      about: what the command does.

    Returns:
      The words that are no flags.
    """
    if "--help" in argv[1:]:
        modules = flags.FLAGS.flags_by_module_dict()
        own = [m for m in modules if m.startswith("coded_jax.") or m == sys.argv[0]]
        print("\n".join([about or "", *map(flags.FLAGS.module_help, own)]))
        sys.exit(0)
    try:
        return flags.FLAGS([argv[0], *expand(argv[1:])])
    except (flags.Error, ValueError, OSError) as error:
        lines = str(error).splitlines()
        for pattern, text in TEXTS.items():
            lines = [re.sub(f"^{pattern}$", f"{text}accepted", line) for line in lines]
        sys.exit(f"error: {'; '.join(lines)}")


def flagfiles() -> dict[str, Path]:
    """Returns `{name: file}` of all included flagfiles, in the order of their names."""
    files = sorted(FLAGFILES.rglob("*.flags"))
    return {file.relative_to(FLAGFILES).as_posix(): file for file in files}


def find(name: str) -> Path:
    """Returns the flagfile of a name: one's own if there is one, else an included one.

    Args:
      name: a path, relative to the current folder or with `~`; of an included flagfile
        its name, `x.flags` or `x`, or its path in the repository.

    Raises:
      ValueError: there is none.
    """
    own, included = Path(name).expanduser(), flagfiles()
    if own.is_file():
        return own
    in_package = own.relative_to(SOURCES) if own.is_relative_to(SOURCES) else own
    for candidate in (in_package.as_posix(), f"{in_package.as_posix()}.flags"):
        if candidate in included:
            return included[candidate]
    raise ValueError(
        f"flagfile: {name!r} given, a file in {str(Path.cwd())!r} or one of "
        f"{str(FLAGFILES)!r} accepted ('python -m coded_jax flags' lists these)"
    )


def expand(arguments: Iterable[str]) -> list[str]:
    """Returns arguments with the flags of each flagfile in the place of `--flagfile`.

    As absl does it, but by `find`, so that flagfiles which name others by their path in
    the repository can be used from any folder.

    Args:
      arguments: of the command line, or the lines of a flagfile.

    Raises:
      ValueError: there is no such flagfile.
    """
    expanded, rest = [], iter(arguments)
    for argument in rest:
        match = re.fullmatch(r"--?flagfile(?:=(.*))?", argument, re.S)
        if argument == "--":
            return [*expanded, argument, *rest]
        if match is None:
            expanded.append(argument)
            continue
        file = find(next(rest, "") if match[1] is None else match[1])
        lines = [line.strip() for line in file.read_text().splitlines()]
        used = [line for line in lines if line and not line.startswith(("#", "//"))]
        expanded += expand(used)
    return expanded


def command_text() -> str:
    """Returns the command line as it was typed, to be recorded with the results."""
    path, *words = sys.argv
    file = Path(path)
    if file.name == "__main__.py":
        return shlex.join(["python", "-m", file.parent.name, *words])
    if file.suffix != ".py":  # a console script, or one of Windows
        return shlex.join([file.stem, *words])
    return shlex.join(["python", path, *words])


def origin(settings: Mapping[str, str] = {}) -> dict[str, Any]:
    """Returns the origin of a stored measurement: `command`, `versions` and
    `provenance`, which names all devices and the `{flag: text}` of settings."""
    text = command_text()
    return {
        "command": text,
        "versions": workdir.versions(),
        "provenance": provenance.collect(text, settings, jax.devices()),
    }


def integers(name: str, texts: list[str]) -> tuple[int, ...]:
    """Returns the numbers in a flag's value.

    Raises:
      ValueError: they are not integers.
    """
    try:
        return tuple(map(int, texts))
    except ValueError:
        raise ValueError(f"{name}: {texts} given, integers accepted") from None


def sizes(name: str, text: str, count: int, accepted: str) -> tuple[int, ...]:
    """Returns the numbers in a flag's value as 28x28x1.

    Raises:
      ValueError: they are not as many integers of 1 or more.
    """
    parts = text.split("x")
    fits = all(part.isdecimal() and int(part) for part in parts)
    require(name, text, fits and len(parts) == count, accepted)
    return tuple(map(int, parts))


def call_named(flag: str, name: str, *returned: str) -> tuple[Any, ...]:
    """Calls a function without arguments and returns its values.

    Args:
      flag: that names it.
      name: `module:function`, importable from the current folder.
      returned: the values in words, the second of which are variables.

    Raises:
      ValueError: there is no such function, it fails, or returns something else.
    """
    module, _, function = name.partition(":")
    accepted = f"module:function that returns {' and '.join(returned)}"
    sys.path.insert(0, str(Path.cwd()))
    try:
        values = getattr(importlib.import_module(module), function)()
    except (Exception, SystemExit) as error:  # a module of the user's raises anything
        reason = f"{accepted} accepted ({first_line(error)})"
        raise ValueError(f"{flag}: {name!r} given, {reason}") from error
    fits = isinstance(values, tuple) and len(values) == len(returned)
    leaves = jax.tree.leaves(values[1]) if fits else []
    arrays = all(hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves)
    require(flag, name, fits and arrays, f"{accepted}, arrays or their shapes,")
    return values
