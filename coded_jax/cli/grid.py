"""The flags of a sweep: its cells are variants times combinations of values."""

from __future__ import annotations

import hashlib
import itertools
import re
import shlex

from absl import flags
from absl.testing import flagsaver  # restores all flags; it needs no test

from coded_jax.checks import require
from coded_jax.cli.experiment_flags import config_from_flags
from coded_jax.runs.config import Config
from coded_jax.runs.sweeps import Cell
from coded_jax.settings import settings

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
    together, alone = [variant_of(text) for text in VARIANT.value] or [{}], varied()
    if both := {flag for variant in together for flag in variant}.intersection(alone):
        raise ValueError(f"vary: {sorted(both)} given, and by --variant as well")
    require("vary", [], together != [{}] or bool(alone), "one or more, or --variant,")
    combinations = [
        dict(zip(alone, values, strict=True))
        for values in itertools.product(*alone.values())
    ]
    cells = [cell_of({**v, **c}) for v in together for c in combinations]
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
        require("vary", text, bool(values_of[name]), "as 'k=2 4'")
    return values_of


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
    known = sorted(declared.name for declared in settings(Config))
    require(argument, name, name in known, f"a flag of an experiment: {known}")


def cell_of(options: Options) -> Cell:
    """Returns the cell in which `options` take the place of the flags given. Its name
    is that of a folder: `epochs=2_k=4`, shortened if need be, or `default`.

    Raises:
      ValueError: a value is out of range.
    """
    text = "_".join(f"{flag}={value}" for flag, value in options.items()) or "default"
    name = re.sub(r"[^\w=.,+:-]", "-", text)
    if name != text or len(name) > LONGEST:
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        name = f"{name[: LONGEST - 9]}_{digest}"
    with flagsaver.flagsaver():
        try:
            for flag, value in options.items():
                flags.FLAGS[flag].parse(value)
            return Cell(name, config_from_flags())
        except flags.Error as error:
            raise ValueError(f"cell {name}: {error} (blanks part values)") from None
        except ValueError as error:
            raise ValueError(f"cell {name}: {error}") from None
