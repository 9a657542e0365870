"""Base models that are kept in half precision, and runs that begin with them."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from rich.console import Console

import coded_jax
from coded_jax.runs import experiment, kept_base
from coded_jax.runs.places import Places
from coded_jax.runs.prepare import prepare
from tests.errors import refused
from tests.runs.test_experiment import SMALL
from tests.scripts import run_script

QUICK = dataclasses.replace(SMALL, code="mds", baselines=())


def run(path, base_dir, config=QUICK):
    prepared = prepare(config, Places(path, devices=1, base_dir=base_dir))
    return experiment.run(prepared, console=Console(quiet=True))


@pytest.fixture
def base_dir(finished, tmp_path):
    """The base model of a finished run, kept by the script."""
    folder = tmp_path / "base"
    done = run_script("keep_base", f"--workdir={finished}", f"--base_dir={folder}")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.long
def test_a_run_begins_with_the_base_model_that_is_kept(finished, base_dir, tmp_path):
    record = json.loads((base_dir / kept_base.RECORD).read_text())
    names = sorted(path.name for path in base_dir.iterdir())
    assert names == ["base.json", "flags.txt", "variables.npz"]
    assert "workdir" not in (base_dir / "flags.txt").read_text()
    before = coded_jax.load(finished, devices=1)
    assert record["command"] == before.results["command"]
    assert record["before_rounding"] == before.results["base"]
    size = (base_dir / "variables.npz").stat().st_size
    assert size < 2.2 * record["network"]["numbers"] + 20_000

    results = run(tmp_path / "run", base_dir)
    assert results["base"]["test_accuracy"] == record["base"]["test_accuracy"]
    assert results["base"]["validation_accuracy"] == pytest.approx(
        record["base"]["validation_accuracy"]
    )
    seconds = record["timing"]["seconds"]["base"]
    assert results["timing"]["seconds"]["base"] == pytest.approx(seconds)
    after = coded_jax.load(tmp_path / "run", devices=1)
    expected = kept_base.halved(before.frozen)
    jax.tree.map(np.testing.assert_array_equal, after.frozen, expected)
    # Once more: nothing is trained, and nothing taken.
    assert run(tmp_path / "run", base_dir)["base"] == results["base"]
    assert sorted(path.name for path in base_dir.iterdir()) == names


@pytest.mark.long
def test_a_training_begins_with_a_base_model_that_is_kept(base_dir, tmp_path):
    record = json.loads((base_dir / kept_base.RECORD).read_text())
    started = dataclasses.replace(
        QUICK, base_start=str(base_dir), base_epochs=0.05, base_learning_rate=1e-12
    )
    results = run(tmp_path / "run", None, started)
    assert results["steps"]["base"] >= 1
    assert results["base"]["test_accuracy"] == record["base"]["test_accuracy"]
    for other in ({"base_start": str(tmp_path)}, {"base_width": 2.0}):
        with refused("base_start"):
            run(tmp_path / "other", None, dataclasses.replace(started, **other))
    with refused("base_dir"):  # made with other settings
        run(tmp_path / "other", base_dir, dataclasses.replace(QUICK, base_epochs=9))
    file = base_dir / "variables.npz"
    file.write_bytes(file.read_bytes()[:200])
    with refused("base_dir"):  # damaged
        run(tmp_path / "other", base_dir)
    assert not (tmp_path / "other").exists()


def test_half_precision():
    variables = {"a": np.float32(1 / 3) * np.ones(3, "f"), "b": np.arange(3)}
    halved = kept_base.halved(jax.tree.map(jax.numpy.asarray, variables))
    assert halved["a"].dtype == np.float32 and halved["b"].dtype == np.int32
    np.testing.assert_array_equal(halved["a"], np.float32(np.float16(1 / 3)))
