"""Stored searches: what the flagfiles of the frontier say is the best cell of each."""

import pathlib
import shlex

import pytest
from absl import flags
from absl.testing import flagsaver
from tables import search_tables

from coded_jax.cli.experiment_flags import SETTINGS, config_from_flags
from coded_jax.report import sweep_tables

ROOT = pathlib.Path(__file__).parents[2]
FLAGS = ROOT / "experiments" / "flags"
ALIKE = search_tables.folders(search_tables.ALIKE)
DEFAULT = search_tables.folders(search_tables.DEFAULT)
OF_LENET5 = [*ALIKE, *DEFAULT]
OTHERS = (search_tables.DEEP, search_tables.IMAGES)
SEARCHES = [*OF_LENET5, *(x for kind in OTHERS for x in search_tables.folders(kind))]
NAMES = [path.name for path in SEARCHES]
BUDGET = ("epochs", "train_images", "batch_size", "seed", "seeds")


def config_of(monkeypatch, *arguments):
    monkeypatch.chdir(ROOT)  # flagfiles name others relative to the repository
    with flagsaver.flagsaver():
        flags.FLAGS(["run.py", "--workdir=x", *arguments], known_only=True)
        return config_from_flags()


def flagfile_of(content):
    """Returns the frontier's flagfile that a search nests."""
    (word,) = (x for x in shlex.split(content["command"]) if "--flagfile=" in x)
    lines = (ROOT / word.partition("=")[2]).read_text().splitlines()
    first = next(line for line in lines if line.startswith("--flagfile="))
    return first.partition("=")[2]


def chooses(folder):
    """Says whether a search is to choose what its flagfile says; the others of deep
    networks compare what that does not have."""
    nested = pathlib.Path(flagfile_of(sweep_tables.read(folder).content)).stem
    return search_tables.DEEP not in folder.name or folder.name == nested


CHOOSING = [*filter(chooses, SEARCHES)]


@pytest.mark.parametrize("folder", CHOOSING, ids=[path.name for path in CHOOSING])
def test_the_flagfile_says_what_its_search_found_best(monkeypatch, folder):
    search = sweep_tables.read(folder)
    config = config_of(monkeypatch, f"--flagfile={flagfile_of(search.content)}")
    chosen = sweep_tables.best(search).values
    assert set(chosen) == set(sweep_tables.varied(search.content))
    chosen = {name: chosen[name] for name in chosen if name not in BUDGET}
    says = {name: getattr(config, name) for name in chosen}
    assert says == {name: SETTINGS[name].parse(text) for name, text in chosen.items()}


def test_deep_networks_have_searches_that_choose():
    names = {path.name for path in CHOOSING}
    assert {"deep_vgg16", "deep_resnet18", "deep_mobilenet"} <= names


@pytest.mark.parametrize("folder", SEARCHES, ids=NAMES)
def test_a_search_saw_validation_images_alone(folder):
    search = sweep_tables.read(folder)
    assert len(search.cells) == len(search.content["cells"]) and search.cells
    for cell in search.cells:
        for rows in cell.trials.values():
            assert {row["evaluated"] for row in rows} == {"validation"}


def row_of(search):
    return next(iter(search.cells[0].trials.values()))[0]


def test_the_frontier_searches_alike_for_all_codes():
    searches = [*map(sweep_tables.read, ALIKE)]
    grids = [(x.content["vary"], x.content["variants"]) for x in searches]
    assert len(grids) > 5 and all(grid == grids[0] for grid in grids)
    sizes = {
        x.name: tuple(row_of(sweep_tables.read(x))[c] for c in "kr") for x in ALIKE
    }
    assert sizes == {x: ("4", "2") for x in sizes} | {"conv_k2_r1": ("2", "1")}


def test_all_searches_have_one_budget():
    searches = {path.name: row_of(sweep_tables.read(path)) for path in OF_LENET5}
    budgets = {x: [row[name] for name in BUDGET] for x, row in searches.items()}
    # One compares no codes, and small differences.
    assert budgets.pop("default_beyond") == [*budgets["default"][:-1], "3"]
    assert all(budget == budgets["default"] for budget in budgets.values())


def test_every_code_that_may_be_the_default_costs_less_than_the_whole_image():
    names = [path.name for path in DEFAULT]
    assert names == ["default", "default_beyond", "default_k2_r1", "no_parity_default"]
    for search in map(sweep_tables.read, DEFAULT):
        rows = [
            row for cell in search.cells for own in cell.trials.values() for row in own
        ]
        assert max(row["work"] for row in rows) < 1


def test_every_trained_code_of_the_frontier_has_a_search(monkeypatch):
    trained = {path.stem for path in FLAGS.glob("frontier_lenet5_*.flags")}
    trained -= {f"frontier_lenet5_{name}" for name in ("layers", "copies")}
    searched = {
        pathlib.Path(flagfile_of(sweep_tables.read(folder).content)).stem
        for folder in SEARCHES
    }
    assert trained - searched == {"frontier_lenet5_ours"}  # nested by ..._ours_k4_r2
