"""The cells of a sweep, from its flags."""

import pathlib
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from coded_jax.cli import experiment_flags
from coded_jax.cli.commands import sweep
from coded_jax.runs.config import Config

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def parse_flags(monkeypatch):
    """Parses flags, for one test."""
    monkeypatch.chdir(ROOT)  # flagfiles name others relative to the repository

    def parse(*arguments):
        argv = ["sweep.py", "--workdir=unused", *arguments]
        monkeypatch.setattr(sys, "argv", argv)
        flags.FLAGS(argv)

    with flagsaver.flagsaver():
        yield parse


def test_cells_are_variants_times_combinations(parse_flags):
    parse_flags(
        "--epochs=3",
        "--vary=dilations=1,1 1,2,4",
        "--vary=seed=0 1",
        "--variant=--k=2 --r=1",
        "--variant=--k=4 --r=2 --grid=2x2 --epochs=5",
    )
    cells = sweep.cells_from_flags()
    assert experiment_flags.WORKDIR.value == "unused"
    assert len(cells) == 8 and len({cell.name for cell in cells}) == 8
    first, *_, last = cells
    assert first.name == "k=2_r=1_dilations=1,1_seed=0"
    assert first.config == Config(dilations=(1, 1), epochs=3)
    assert last.config == Config(
        k=4, r=2, grid=(2, 2), epochs=5, dilations=(1, 2, 4), seed=1
    )
    # The flags themselves are as they were.
    assert experiment_flags.config_from_flags() == Config(epochs=3)


@pytest.mark.parametrize(
    "arguments, name",
    [
        ((), "vary"),
        (("--vary=width=1 2",), "vary"),  # no setting of the code
        (("--variant=--k='2",), "variant"),
        (("--vary=k=2 30",), "cell k=30: k"),
    ],
)
def test_wrong_grids_are_refused(parse_flags, arguments, name):
    parse_flags(*arguments)
    with pytest.raises(ValueError, match=f"^{name}: ") as caught:
        sweep.cells_from_flags()
    assert "\n" not in str(caught.value)
