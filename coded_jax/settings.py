"""Settings that are declared once: default, help, accepted values, form in a flag.

A record is a frozen dataclass whose fields are made by `setting`. Its checks, the flags
of the command line and the tables of the documentation are all read off these fields:

    @dataclasses.dataclass(frozen=True)
    class Sizes:
        k: int = setting(2, "data pieces", between(1, 11))

        def __post_init__(self) -> None:
            check(self)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from coded_jax.checks import require


class Accepted(NamedTuple):
    """Which values of a setting are accepted.

    Attributes:
      holds: `value -> whether it is accepted`.
      text: the same in words, for errors and documentation: `1..11`.
      choices: all accepted values, where there are few.
    """

    holds: Callable[[Any], bool]
    text: str
    choices: tuple[str, ...] | None = None


class Form(NamedTuple):
    """How a value is written in a flag.

    Attributes:
      parse: `text -> value`; raises ValueError for a text of another form.
      show: `value -> text`.
      example: of such a text.
    """

    parse: Callable[[str], Any]
    show: Callable[[Any], str] = str
    example: str = ""


class Setting(NamedTuple):
    """One declared field of a record; see `setting`."""

    name: str
    default: Any
    help: str
    accepted: Accepted
    form: Form


ANYTHING = Accepted(lambda value: True, "anything")


def one_of(choices: Iterable[str]) -> Accepted:
    """Accepts each of `choices`."""
    known = tuple(choices)
    return Accepted(lambda value: value in known, f"one of {list(known)}", known)


def between(low: float, high: float) -> Accepted:
    """Accepts numbers from `low` to `high`, both included."""
    return Accepted(lambda value: low <= value <= high, f"{low:g}..{high:g}")


def setting(
    default: Any,
    help: str,
    accepted: Accepted = ANYTHING,
    form: Form | None = None,
) -> Any:
    """Declares a field of a frozen dataclass.

    Args:
      default: its value where none is given. None stands for a value that follows from
        other settings, and is then accepted too.
      help: one line, of what it is for.
      accepted: which values are.
      form: in a flag; by default that of `type(default)`.
    """
    metadata = {"help": help, "accepted": accepted, "form": form}
    return dataclasses.field(default=default, metadata=metadata)


def settings(record: Any) -> list[Setting]:
    """Returns what the fields of a record, or of its type, declare, in their order."""
    return [
        Setting(
            field.name,
            field.default,
            field.metadata["help"],
            field.metadata["accepted"],
            field.metadata["form"] or Form(type(field.default)),
        )
        for field in dataclasses.fields(record)
        if "help" in field.metadata
    ]


def check(record: Any) -> None:
    """Checks each declared field of a record by itself.

    Raises:
      ValueError: the first value that is not accepted, in one line.
    """
    for each in settings(record):
        value = getattr(record, each.name)
        fits = (value is None and each.default is None) or each.accepted.holds(value)
        require(each.name, value, fits, each.accepted.text)
