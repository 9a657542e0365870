"""Errors in one line: the argument, the value given, and what is accepted."""

from __future__ import annotations


def require(name: str, value: object, holds: bool, accepted: str) -> None:
    """Raises an error that names an argument unless its value is accepted.

    Args:
      name: of the argument.
      value: that was given.
      holds: whether it is accepted.
      accepted: what would be.

    Raises:
      ValueError: `holds` is False.
    """
    if not holds:
        given = " ".join(map(str.strip, repr(value).splitlines()))  # arrays have many
        raise ValueError(f"{name}: {given} given, {accepted} accepted")


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or the name of its type."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
