"""Settings that are declared once: default, help, accepted values, form in a flag.

A record is a frozen dataclass whose fields are made by `setting`. Its checks, the flags
of the command line and the tables of the documentation are all read off these fields:

    @dataclasses.dataclass(frozen=True)
    class Sizes:
        k: int = setting(2, "data pieces", integers(1, 11))

        def __post_init__(self) -> None:
            check(self)

What several settings must agree on is checked by the record that has them all.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from coded_jax.checks import is_integer, require


class Accepted(NamedTuple):
    """A condition on the values of a setting.

    Attributes:
      holds: `value -> whether it is accepted`.
      wording: the same in words, for errors and documentation: `1..11`; or a function
        that returns them, where they change with a registry.
    """

    holds: Callable[[Any], bool]
    wording: str | Callable[[], str]

    @property
    def text(self) -> str:
        """The accepted values in words."""
        return self.wording if isinstance(self.wording, str) else self.wording()


class Form(NamedTuple):
    """The text form of a value, in a flag.

    Attributes:
      parse: `text -> value`; raises ValueError for a text of another form.
      show: `value -> text`.
      text: which texts are accepted, in words: `an integer`.
    """

    parse: Callable[[str], Any]
    show: Callable[[Any], str]
    text: str


class Setting(NamedTuple):
    """One declared field of a record; see `setting`."""

    name: str
    default: Any
    help: str
    accepted: Accepted
    form: Form

    @property
    def shown_default(self) -> str | None:
        """The default as a flag has it; None where there is none."""
        return None if self.default is None else self.form.show(self.default)

    @property
    def accepted_text(self) -> str:
        """The accepted values in words; the form's where any value is accepted."""
        return self.form.text if self.accepted is ANYTHING else self.accepted.text

    def parse(self, text: str) -> Any:
        """Returns the value that a flag's text stands for; where no value is the
        default, an empty text is none.

        Raises:
          ValueError: the text has another form; one line.
        """
        if not text and self.default is None:
            return None
        try:
            return self.form.parse(text)
        except ValueError:
            require(self.name, text, False, self.form.text)


ANYTHING = Accepted(lambda value: True, "anything")


def one_of(choices: Collection[str]) -> Accepted:
    """Accepts each of `choices`; of a registry, also what is added to it later."""
    return Accepted(lambda value: value in choices, lambda: f"one of {list(choices)}")


def integers(low: int, high: int | None = None) -> Accepted:
    """Accepts integers from `low` to `high`, both included; without bound if None."""
    text = f"{low} or more" if high is None else f"{low}..{high}"
    top = math.inf if high is None else high
    return Accepted(lambda value: is_integer(value) and low <= value <= top, text)


def between(low: float, high: float) -> Accepted:
    """Accepts numbers from `low` to `high`, both included."""
    return Accepted(lambda value: low <= value <= high, f"{low:g}..{high:g}")


def more_than(low: float, high: float = math.inf) -> Accepted:
    """Accepts finite numbers greater than `low` and at most `high`."""
    text = f"more than {low:g}" + ("" if high == math.inf else f" and at most {high:g}")
    return Accepted(lambda value: low < value <= high and value < math.inf, text)


def at_least(low: float, below: float = math.inf) -> Accepted:
    """Accepts finite numbers from `low` on that are less than `below`."""
    text = f"{low:g} or more" + ("" if below == math.inf else f", below {below:g}")
    return Accepted(lambda value: low <= value < below, text)


def _parse_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


INTEGER = Form(int, str, "an integer")
FLOAT = Form(float, str, "a number")
BOOL = Form(_parse_bool, str, "true or false")
TEXT = Form(str, str, "a text")
FORMS = {int: INTEGER, float: FLOAT, bool: BOOL, str: TEXT}
"""Forms of the types whose settings need not name one."""


def tuple_of(element: Form, separator: str, text: str) -> Form:
    """Returns the form of a tuple; the empty text is the empty tuple.

    Args:
      element: the form of each element.
      separator: what stands between two elements.
      text: which texts are accepted, with an example: `integers as 1,2,4`.
    """

    def parse(value: str) -> tuple:
        parts = value.split(separator) if value.strip() else []
        return tuple(element.parse(part.strip()) for part in parts)

    return Form(parse, lambda value: separator.join(map(element.show, value)), text)


INTEGERS = tuple_of(INTEGER, ",", "integers as 1,2,4")


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
      help: its purpose in one line; says what None stands for.
      accepted: the values that may be given.
      form: in a flag; by default that of `type(default)`, one of `FORMS`.
    """
    metadata = {
        "help": help,
        "accepted": accepted,
        "form": form or FORMS[type(default)],
    }
    return dataclasses.field(default=default, metadata=metadata)


def settings(record: Any) -> list[Setting]:
    """Returns the settings that the fields of a record, or of its type, declare."""
    return [
        Setting(field.name, field.default, **field.metadata)
        for field in dataclasses.fields(record)
        if "help" in field.metadata
    ]


def check(record: Any) -> None:
    """Checks each declared field of a record by itself.

    Scalars of NumPy and JAX become Python's, lists and arrays tuples, so that a record
    can be hashed, compared and written as JSON.

    Raises:
      ValueError: the first value that is not accepted, in one line.
    """
    for declared in settings(record):
        value = _plain(getattr(record, declared.name))
        # A frozen dataclass, while it is made.
        object.__setattr__(record, declared.name, value)
        unset = value is None and declared.default is None
        fits = unset or _holds(declared.accepted, value)
        require(declared.name, value, fits, declared.accepted.text)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # of NumPy or JAX
        value = value.tolist()
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _holds(accepted: Accepted, value: Any) -> bool:
    try:
        return accepted.holds(value)
    except (TypeError, ValueError):  # a value of another type or structure
        return False


def to_flags(record: Any) -> dict[str, str]:
    """Returns `{flag name: text}` of all settings of a record that are not None."""
    return {
        declared.name: declared.form.show(getattr(record, declared.name))
        for declared in settings(record)
        if getattr(record, declared.name) is not None
    }
