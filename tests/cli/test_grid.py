"""The cells of a sweep, from its flags."""

import pathlib
import re
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from coded_jax.cli import grid, run_flags
from coded_jax.runs.config import Config

ROOT = pathlib.Path(__file__).parents[2]
FLAGS = ROOT / "experiments" / "flags"
SWEEPS = [
    path
    for path in sorted(FLAGS.glob("*.flags"))
    if re.search(r"^--(vary|variant)=", path.read_text(), re.M)
    or path.stem.startswith("search_")
]
ABLATIONS = (ROOT / "experiments" / "ablations.sh").read_text()


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
    cells = grid.cells_from_flags()
    assert len(cells) == 8 and len({cell.name for cell in cells}) == 8
    first, *_, last = cells
    assert first.name == "k=2_r=1_dilations=1,1_seed=0"
    assert first.config == Config(dilations=(1, 1), epochs=3)
    assert last.config == Config(
        k=4, r=2, grid=(2, 2), epochs=5, dilations=(1, 2, 4), seed=1
    )
    # The flags themselves are as they were.
    assert grid.config_from_flags() == Config(epochs=3)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_flagfiles_of_sweeps(parse_flags, path):
    parse_flags(f"--flagfile={path}")
    cells = grid.cells_from_flags()
    assert run_flags.WORKDIR.value == f"runs/{path.stem}" and len(cells) > 1
    assert len({tuple(cell.config.base.to_flags().items()) for cell in cells}) == 1
    assert path.read_text().startswith("# ")
    is_search = all(cell.config.evaluated == "validation" for cell in cells)
    assert is_search == path.stem.startswith("search_")
    if path.stem != "ablation_quickstart" and not is_search:
        assert path.stem.removeprefix("ablation_") in re.findall(r"\w+", ABLATIONS)
        assert all(cell.config.seeds == 3 for cell in cells)


def test_the_given_flags_are_a_variant_too(parse_flags):
    parse_flags("--variant=", "--variant=--k=4 --r=2")
    assert [cell.name for cell in grid.cells_from_flags()] == ["default", "k=4_r=2"]


def test_names_are_folders(parse_flags):
    weights = "--vary=pattern_weights=0:2,1:3 0+1:" + "1" * 200
    parse_flags("--k=4", "--r=2", weights.replace("1" * 200, "1." + "0" * 200))
    for cell in grid.cells_from_flags():
        assert "/" not in cell.name and len(cell.name) <= grid.LONGEST


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "^vary: none given"),
        (("--vary=width=1 2",), "^vary: flag 'width' given"),
        (("--vary=workdir=a b",), "^vary: flag 'workdir' given"),
        (("--vary=k=",), "^vary: 'k=' given"),
        (("--vary=k=2 2",), "^vary: cells 'k=2' and 'k=2' given, with the same"),
        (("--vary=epochs=1 1.0",), "^vary: cells 'epochs=1' and 'epochs=1.0' given"),
        (("--variant=", "--variant=--k=2"), "^vary: cells 'default' and 'k=2' given"),
        (("--vary=k=2 4", "--variant=--k=4 --r=2"), r"^vary: \['k'\] given, and by"),
        (("--variant=--k=2 --k=4",), "^variant: '--k=2 --k=4' given"),
        (("--variant=--k='2",), '^variant: "--k=\'2" given'),
        (("--vary=k=2", "--vary=k=4"), "^vary: 'k' given twice"),
        (("--variant=k=2",), "^variant: 'k=2' given"),
        (("--variant=--width=2",), "^variant: flag 'width' given"),
        (("--vary=k=2 30",), "^cell k=30: k: 30 given, 2..11 accepted"),
        (("--vary=k=two",), "^cell k=two: k: 'two' given, an integer accepted"),
        (("--vary=k=2,4",), "^cell k=2,4: k: '2,4' given, .*blanks part values"),
        (("--vary=kernel=2 3",), "^cell kernel=2: kernel: 2 given, an odd number"),
        (
            ("--vary=recipe=good",),
            "^cell .*: recipe: 'good' given, one of ",
        ),
    ],
)
def test_wrong_grids_are_refused(parse_flags, arguments, message):
    parse_flags(*arguments)
    with pytest.raises(ValueError, match=message) as caught:
        grid.cells_from_flags()
    assert "\n" not in str(caught.value)
