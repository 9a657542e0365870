"""Base models that are kept in half precision, and runs that begin with them."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import coded_jax
from coded_jax.runs import experiment, kept_base
from coded_jax.runs.prepare import prepare
from coded_jax.runs.workdir import Places
from tests.errors import refused
from tests.runs.test_experiment import SMALL, quietly
from tests.scripts import run_script

QUICK = dataclasses.replace(SMALL, code="mds", baselines=())


def run(path, base_dir, config=QUICK):
    prepared = prepare(config, Places(path, devices=1, base_dir=base_dir))
    return experiment.run(prepared, console=quietly()).results


@pytest.mark.long
def test_runs_begin_with_a_base_model_that_is_kept(finished, tmp_path):
    base_dir = tmp_path / "base"
    done = run_script("keep_base", f"--workdir={finished}", f"--base_dir={base_dir}")
    assert done.returncode == 0, done.stderr
    record = json.loads((base_dir / kept_base.RECORD).read_text())
    results = run(tmp_path / "run", base_dir)
    assert results["base"]["test_accuracy"] == record["base"]["test_accuracy"]
    before, after = (coded_jax.load(x, devices=1) for x in (finished, tmp_path / "run"))
    rounded = lambda x: x.astype("float16").astype("float32")
    expected = jax.tree.map(rounded, before.frozen)
    jax.tree.map(np.testing.assert_array_equal, after.frozen, expected)
    # Or trains on from it.
    started = dataclasses.replace(
        QUICK, base_start=str(base_dir), base_epochs=0.05, base_learning_rate=1e-12
    )
    results = run(tmp_path / "started", None, started)
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
