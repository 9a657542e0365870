"""Base models that are kept in the repository, and their table."""

import json
import os
from pathlib import Path

import jax
import pytest
from tables import base_tables, targets

from coded_jax import data
from coded_jax.evaluation import pattern_accuracy
from coded_jax.runs import kept_base
from coded_jax.runs.build import uncoded_pipeline, variable_shapes
from coded_jax.runs.config import Config
from coded_jax.runs.variables import VARIABLES
from coded_jax.training import tasks

FOLDERS = sorted(path.parent for path in base_tables.BASES.glob("*/base.json"))
NAMES = [path.name for path in FOLDERS]


def read(folder):
    record = json.loads((folder / kept_base.RECORD).read_text())
    if not (folder / VARIABLES).exists():
        pytest.skip("the variables are in a clone alone")
    return record, kept_base.read(folder).variables


def shapes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_variables_are_those_of_the_network_that_is_named(folder):
    record, variables = read(folder)
    config = Config(
        base_model=record["network"]["model"], base_width=record["network"]["width"]
    )
    base = uncoded_pipeline(config, (0.5,), (0.5,)).base
    classes = len(variables["head"]["params"]["logits"]["bias"])
    sizes = (tuple(record["image_shape"]), classes)
    assert shapes(variables) == shapes(variable_shapes(base, *sizes))


@pytest.mark.long
@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_base_models_reach_what_is_written_of_them(folder):
    record, variables = read(folder)
    if record["dataset"] == "folder" or "TFDS_DATA_DIR" not in os.environ:
        pytest.skip("needs the images")
    dataset = data.load(record["dataset"])
    config = Config(
        base_model=record["network"]["model"], base_width=record["network"]["width"]
    )
    pipeline = uncoded_pipeline(config, dataset.mean, dataset.std)
    arrays = tasks.device_arrays(None, dataset.validation)
    accuracy = pattern_accuracy.base_accuracy(pipeline, variables, arrays)
    assert accuracy == pytest.approx(record["base"]["validation_accuracy"], abs=4e-4)


def test_a_row_by_hand(tmp_path):
    record, _ = read(FOLDERS[0])
    record["network"] |= {"model": "vgg16", "width": 0.5, "epochs": 3.0, "numbers": 5e5}
    record["base"] = {"validation_accuracy": 0.9, "test_accuracy": 0.91996}
    record["provenance"]["flags"]["base_start"] = "runs/kept/first"
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "base.json").write_text(json.dumps(record))
    row = base_tables.section(tmp_path).splitlines()[2]
    assert row.startswith("| vgg16 x 0.5 | cifar10 | 32x32 | 1.0 | 3 after `first` |")
    assert row.endswith("| 90.00 | 92.00 | 92 met | `experiments/bases/mine` |")
    assert targets.base("cifar10", "vgg16", 91.99) == "92 **missed**"
    assert targets.base("mnist", "vgg16", 91.99) == "-"


def test_nothing_that_is_kept_names_a_place_of_the_machine_that_made_it():
    for folder in FOLDERS:
        for path in (folder / "base.json", folder / "flags.txt"):
            words = path.read_text().replace('"', " ").replace("=", " ").split()
            assert not [word for word in words if Path(word).is_absolute()]
