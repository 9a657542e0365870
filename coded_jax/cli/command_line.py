"""The start of every command: its flags, and its errors as one line."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

from absl import app, flags, logging

from coded_jax.training.loop import Interrupted

ERRORS = (ValueError, OSError, ImportError, RuntimeError)

Main = Callable[[list[str]], None]


def command(
    arguments: bool = False,
    errors: tuple[type[Exception], ...] = ERRORS,
    resumes: bool = False,
) -> Callable[[Main], Main]:
    """Decorates the `main` of a script, which exits with one line where it fails.

    Args:
      arguments: whether it accepts anything beside flags.
      errors: that are told in one line; others are defects, with a traceback.
      resumes: whether the same command goes on after Ctrl-C.
    """

    def decorate(main: Main) -> Main:
        @functools.wraps(main)
        def guarded(argv: list[str]) -> None:
            if not arguments:
                refuse_arguments(argv)
            if not flags.FLAGS["verbosity"].present:
                logging.set_verbosity(logging.WARNING)  # none on absent accelerators
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


def run(main: Main) -> None:
    """Parses the flags, and runs a command."""
    app.run(main, flags_parser=parse_flags)


def parse_flags(argv: list[str]) -> list[str]:
    """Parses flags as absl does, but tells an error in one line."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        sys.exit(f"error: {'; '.join(str(error).splitlines())}")


def refuse_arguments(argv: list[str]) -> None:
    """Exits if anything but flags was given."""
    if len(argv) > 1:
        sys.exit(f"error: arguments: {argv[1:]} given, only --flags accepted")


def integers(name: str, texts: list[str]) -> tuple[int, ...]:
    """Returns the numbers in a flag's value.

    Raises:
      ValueError: they are not integers.
    """
    try:
        return tuple(map(int, texts))
    except ValueError:
        raise ValueError(f"{name}: {texts} given, integers accepted") from None
