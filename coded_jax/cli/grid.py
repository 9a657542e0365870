"""The flags of a sweep: which cells it has."""

from __future__ import annotations

import hashlib
import itertools
import re
import shlex

from absl import flags
from absl.testing import flagsaver  # restores all flags; it needs no test

from coded_jax.cli.experiment_flags import DEFAULT, config_from_flags
from coded_jax.runs.sweeps import Cell

VARY = flags.DEFINE_multi_string(
    "vary", [], "a flag and its values, as 'k=2 4'; repeated, all combinations"
)
VARIANT = flags.DEFINE_multi_string(
    "variant",
    [],
    "flags that go together, as '--k=4 --r=2'; repeated, each with all combinations",
)
LONGEST = 120

Settings = dict[str, str]


def cells_from_flags() -> list[Cell]:
    """Every variant with every combination of the values that vary.

    Raises:
      ValueError: the flags name no cell, or one that is out of range.
    """
    together, alone = variants(), varied()
    if both := {flag for each in together for flag in each}.intersection(alone):
        raise ValueError(f"vary: {sorted(both)} given, and by --variant as well")
    combinations = itertools.product(
        together,
        *([{name: value} for value in values] for name, values in alone.items()),
    )
    settings = [
        {name: value for part in parts for name, value in part.items()}
        for parts in combinations
    ]
    if settings == [{}]:
        raise ValueError("vary: none given, one or more, or --variant, accepted")
    cells = [cell_of(each) for each in settings]
    for cell, other in itertools.combinations(cells, 2):
        if cell.config == other.config:
            raise ValueError(
                f"vary: cells {cell.name!r} and {other.name!r} given, with the same "
                "settings; different ones accepted"
            )
    return cells


def varied() -> dict[str, list[str]]:
    """The values of each flag that varies.

    Raises:
      ValueError: a flag is unknown or given twice, or has no value.
    """
    found: dict[str, list[str]] = {}
    for text in VARY.value:
        name, _, values = text.partition("=")
        check_name("vary", name)
        if name in found:
            raise ValueError(f"vary: {name!r} given twice, all of its values accepted")
        found[name] = values.split()
        if not found[name]:
            raise ValueError(f"vary: {text!r} given, as 'k=2 4' accepted")
    return found


def variants() -> list[Settings]:
    """The flags of each variant; a single one without flags if none is given.

    Raises:
      ValueError: a flag is unknown or given twice, or has no value.
    """
    found = []
    for text in VARIANT.value:
        settings: Settings = {}
        refused = ValueError(f"variant: {text!r} given, as '--k=4 --r=2' accepted")
        try:
            words = shlex.split(text)
        except ValueError:  # an open quotation
            raise refused from None
        for word in words:
            match = re.fullmatch(r"--?(\w+)=(.*)", word)
            if not match or match[1] in settings:
                raise refused
            check_name("variant", match[1])
            settings[match[1]] = match[2]
        found.append(settings)
    return found or [{}]


def check_name(argument: str, name: str) -> None:
    """Raises ValueError unless it is a flag of an experiment."""
    if name not in DEFAULT.__dict__:
        raise ValueError(
            f"{argument}: flag {name!r} given, one of an experiment accepted: "
            f"{', '.join(sorted(DEFAULT.__dict__))}"
        )


def cell_of(settings: Settings) -> Cell:
    """The cell in which these flags take the place of those given.

    Raises:
      ValueError: a value is out of range.
    """
    name = name_of(settings)
    with flagsaver.flagsaver():
        try:
            for flag, value in settings.items():
                parse(flag, value)
            return Cell(name, config_from_flags())
        except ValueError as error:
            raise ValueError(f"cell {name}: {error}") from None


def parse(name: str, value: str) -> None:
    """Gives a flag a value.

    Raises:
      ValueError: it is none for this flag.
    """
    flag = flags.FLAGS[name]
    try:
        flag.parse(value)
    except flags.Error:
        among = getattr(flag.parser, "enum_values", ())
        told = flag.parser.syntactic_help or "true or false"
        accepted = f"one of {', '.join(among)}" if among else told
        raise ValueError(
            f"{name}: {value!r} given, {accepted} accepted (blanks part values)"
        ) from None


def name_of(settings: Settings) -> str:
    """A folder's name: `epochs=2_k=4`, shortened if need be; `default` of no flags."""
    text = "_".join(f"{flag}={value}" for flag, value in settings.items()) or "default"
    name = re.sub(r"[^\w=.,+:-]", "-", text)
    if name == text and len(name) <= LONGEST:
        return name
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{name[: LONGEST - 9]}_{digest}"
