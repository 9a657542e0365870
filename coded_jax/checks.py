"""Errors in one line: the argument, the value given, and what is accepted."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


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


def is_integer(value: Any) -> bool:
    """Returns whether a value is an integer of Python, NumPy or JAX, and not a bool."""
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool)


def require_form(name: str, array: Any, holds: bool, accepted: str) -> None:
    """Checks an array, of which an error tells the dtype and shape, not the numbers.

    Raises:
      ValueError: `holds` is False.
    """
    if not holds:
        dtype = getattr(array, "dtype", type(array).__name__)
        given = f"{dtype} {shape_text(np.shape(array))}"
        raise ValueError(f"{name}: {given} given, {accepted} accepted")


def require_shape(name: str, array: object, accepted: Sequence[int | str]) -> None:
    """Checks the shape of an array.

    Args:
      name: of the argument.
      array: that was given.
      accepted: for each axis its size, or a letter for any.

    Raises:
      ValueError: it has another shape, or is no array.
    """
    shape = getattr(array, "shape", ())
    fits = len(shape) == len(accepted) and all(
        isinstance(size, str) or size == own
        for own, size in zip(shape, accepted, strict=True)
    )
    require_form(name, array, fits, f"an array {shape_text(accepted)}")


def shape_text(sizes: Iterable[object]) -> str:
    """Returns sizes as `[2, 28, 28, 1]`."""
    return f"[{', '.join(map(str, sizes))}]"


def require_sizes(name: str, value: Any, *letters: str) -> tuple[int, ...]:
    """Checks whole numbers of 1 or more, and returns them as Python's.

    Args:
      name: of the argument.
      value: that was given.
      letters: of the sizes, as `"H", "W", "C"`.

    Raises:
      ValueError: they are not as many, no whole numbers, or too small.
    """
    try:
        sizes = tuple(map(operator.index, value))
    except TypeError:
        sizes = ()
    fits = len(sizes) == len(letters) and min(sizes) >= 1
    accepted = f"({', '.join(letters)}), whole numbers of 1 or more,"
    require(name, value, fits, accepted)
    return sizes


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or the name of its type."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
