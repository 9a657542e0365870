"""The flags of a sweep: its cells are variants times combinations of values."""

from __future__ import annotations

import hashlib
import itertools
import re
import shlex

from absl import flags
from absl.testing import flagsaver  # restores all flags; it needs no test

from coded_jax.cli.experiment_flags import SETTINGS, config_from_flags
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

Options = dict[str, str]
"""Maps names of flags to the texts that a cell has in place of the command line's."""


def cells_from_flags() -> list[Cell]:
    """Returns a cell for every variant with every combination of values.

    Raises:
      ValueError: the flags name no cell, or one that is out of range.
    """
    together, alone = variants(), varied()
    if both := {flag for variant in together for flag in variant}.intersection(alone):
        raise ValueError(f"vary: {sorted(both)} given, and by --variant as well")
    choices = [[{name: value} for value in values] for name, values in alone.items()]
    cells_options = [
        {name: value for part in parts for name, value in part.items()}
        for parts in itertools.product(together, *choices)
    ]
    if cells_options == [{}]:
        raise ValueError("vary: none given, one or more, or --variant, accepted")
    cells = [cell_of(options) for options in cells_options]
    for cell, other in itertools.combinations(cells, 2):
        if cell.config == other.config:
            raise ValueError(
                f"vary: cells {cell.name!r} and {other.name!r} given, with the same "
                "settings; different ones accepted"
            )
    return cells


def varied() -> dict[str, list[str]]:
    """Returns the values of each flag that varies.

    Raises:
      ValueError: a flag is unknown or given twice, or has no value.
    """
    values_of: dict[str, list[str]] = {}
    for text in VARY.value:
        name, _, values = text.partition("=")
        check_name("vary", name)
        if name in values_of:
            raise ValueError(f"vary: {name!r} given twice, all of its values accepted")
        values_of[name] = values.split()
        if not values_of[name]:
            raise ValueError(f"vary: {text!r} given, as 'k=2 4' accepted")
    return values_of


def variants() -> list[Options]:
    """Returns the flags of each variant; a single one without flags if none is given.

    Raises:
      ValueError: a flag is unknown or given twice, or has no value.
    """
    return [variant_of(text) for text in VARIANT.value] or [{}]


def variant_of(text: str) -> Options:
    """Returns the flags of one variant, as `--k=4 --r=2`.

    Raises:
      ValueError: a flag is unknown or given twice, or has no value.
    """
    refused = ValueError(f"variant: {text!r} given, as '--k=4 --r=2' accepted")
    try:
        words = shlex.split(text)
    except ValueError:  # an open quotation
        raise refused from None
    options: Options = {}
    for word in words:
        match = re.fullmatch(r"--?(\w+)=(.*)", word)
        if not match or match[1] in options:
            raise refused
        check_name("variant", match[1])
        options[match[1]] = match[2]
    return options


def check_name(argument: str, name: str) -> None:
    """Raises ValueError unless it is a flag of an experiment."""
    if name not in SETTINGS:
        raise ValueError(
            f"{argument}: flag {name!r} given, one of an experiment accepted: "
            f"{', '.join(sorted(SETTINGS))}"
        )


def cell_of(options: Options) -> Cell:
    """Returns the cell in which `options` take the place of the flags given.

    Raises:
      ValueError: a value is out of range.
    """
    name = name_of(options)
    with flagsaver.flagsaver():
        try:
            for flag, text in options.items():
                parse(flag, text)
            return Cell(name, config_from_flags())
        except ValueError as error:
            raise ValueError(f"cell {name}: {error}") from None


def parse(name: str, text: str) -> None:
    """Gives a flag a value.

    Raises:
      ValueError: the text has another form.
    """
    try:
        flags.FLAGS[name].parse(text)
    except flags.Error as error:
        raise ValueError(f"{error} (blanks part values)") from None


def name_of(options: Options) -> str:
    """Returns a folder's name: `epochs=2_k=4`, shortened if need be, or `default`."""
    text = "_".join(f"{flag}={value}" for flag, value in options.items()) or "default"
    name = re.sub(r"[^\w=.,+:-]", "-", text)
    if name == text and len(name) <= LONGEST:
        return name
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{name[: LONGEST - 9]}_{digest}"
