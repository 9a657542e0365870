"""The table of compiled programs for a terminal."""

import dataclasses

import pytest

from coded_jax.aot import program_table
from coded_jax.aot.chips import Chip
from coded_jax.aot.compiled import Collectives, Figures
from coded_jax.aot.programs import Compiled

CHIP = Chip("c", "C", {"float32": 1e12, "bfloat16": 2e12}, 1e9, 1e12, 1e11, "")
FIGURES = Figures(
    operations=3e6,
    moved=25_000_000,
    cycles=None,
    memory={"arguments": 9_000_000, "outputs": 0, "temporaries": 1_000_000, "code": 0},
    collectives={
        "all-to-all": Collectives(2, 45_600),
        "all-gather": Collectives(1, 512),
    },
    host=(),
    fusions=61,
)


def outcome(**changed):
    fields = {"name": "coded inference of 9", "images": 9, "dtype": "float32"}
    fields |= {"mesh": (2, 4), "seconds": 1.234, "figures": FIGURES}
    return Compiled(**fields | changed)


@pytest.mark.parametrize(
    "changed, dtype, limit",
    [
        ({}, "float32", "25\nHBM"),
        ({"operations": 3e9}, "float32", "3000\nproducts"),
        ({"operations": 0, "moved": 0}, "float32", "0.461\nlinks"),
    ],
)
def test_the_bound_is_named(changed, dtype, limit):
    cells = program_table.cells(
        outcome(dtype=dtype), dataclasses.replace(FIGURES, **changed), CHIP
    )
    assert cells[-1] == limit and len(cells) == len(program_table.COLUMNS)
