"""How all scripts read their command line."""

from __future__ import annotations

import sys

from absl import flags


def parse_flags(argv: list[str]) -> list[str]:
    """Like absl's own parser, but an error is one line."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        sys.exit(f"error: {'; '.join(str(error).splitlines())}")


def refuse_arguments(argv: list[str]) -> None:
    """Exits if anything but flags was given."""
    if len(argv) > 1:
        sys.exit(f"error: arguments: {argv[1:]} given, only --flags accepted")


def integers(name: str, texts: list[str]) -> tuple[int, ...]:
    """The numbers in a flag's value.

    Raises:
      ValueError: they are not integers.
    """
    try:
        return tuple(map(int, texts))
    except ValueError:
        raise ValueError(f"{name}: {texts} given, integers accepted") from None
