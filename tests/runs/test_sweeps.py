"""Sweeps: their cells, their table, and what happens to a cell that fails."""

import csv
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from importlib.util import find_spec

import pytest
from absl import flags
from absl.testing import flagsaver

from coded_jax.cli.commands import sweep
from coded_jax.runs import experiment, sweeps, workdir
from coded_jax.runs.config import Config
from coded_jax.runs.places import Places
from coded_jax.training import loop
from tests.scripts import run_script

ROOT = pathlib.Path(__file__).parents[2]

SMALL = (
    "--dataset=mnist_5k",
    "--recipe=systematic",
    "--encoder=linear",
    "--base_epochs=0.5",
    "--epochs=0.2",
    "--baselines=zero_fill",
)
# Nine rows of pieces cannot be made of four rows of features.
GRID = ("--seeds=2", "--vary=decoder=linear low_rank", "--vary=k=2 9")


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


def main(parse_flags, folder, *arguments):
    """The exit code or message of the script."""
    parse_flags(*SMALL, *arguments, f"--workdir={folder}", "--compilation_cache=")
    try:
        sweep.main(["sweep.py"])
    except SystemExit as stop:
        return stop.code
    return 0


def test_other_flags_are_refused_before_anything_is_lost(swept, parse_flags):
    before = (swept / "table.jsonl").read_text()
    message = main(parse_flags, swept, *GRID, "--epochs=0.4")
    assert "was made with other settings (epochs=0.2 there and 0.4 now)" in message
    assert (swept / "table.jsonl").read_text() == before


def test_cells_of_images_of_the_users_own_are_taken_up(tmp_path):
    """Their folders have the digest of the images, which no flag gave."""
    cell = sweeps.Cell("a", Config(dataset="folder"))
    sweep = sweeps.Sweep(Places(tmp_path), cells=[cell])
    run = dataclasses.replace(cell.config, images_digest="0123456789abcdef")
    workdir.open_workdir(sweep.workdir(cell), workdir.RunFlags(run.to_flags()))
    sweeps.require_same_flags(sweep)
    for other in ({"images_digest": "f" * 16}, {"epochs": 7.0}):
        asked = sweeps.Cell("a", dataclasses.replace(cell.config, **other))
        with pytest.raises(ValueError, match=f"other settings .{[*other][0]}="):
            sweeps.require_same_flags(sweeps.Sweep(Places(tmp_path), cells=[asked]))


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("base_dir", ["--vary=seed=0 1", "--base_dir=b"]),
        ("jobs", ["--vary=k=2 4", "--jobs=0"]),
        ("data_dir", ["--dataset=folder", "--data_dir=missing", "--vary=k=2 4"]),
    ],
)
def test_wrong_places_are_refused(parse_flags, tmp_path, name, arguments):
    message = main(parse_flags, tmp_path / "sweep", *arguments)
    assert message.startswith(f"error: {name}: ")
    assert not (tmp_path / "sweep" / "cells").exists()


def test_the_folder_of_a_run_is_refused(parse_flags, finished):
    message = main(parse_flags, finished, "--vary=k=2 4")
    assert message.startswith("error: workdir: ")
    assert not (finished / "cells").exists()


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep's folder with two finished cells and two that failed."""
    folder = tmp_path_factory.mktemp("sweeps") / "sweep"
    done = run_script("sweep", *SMALL, *GRID, f"--workdir={folder}")
    assert done.returncode == 1, done.stderr
    failed = "decoder=linear_k=9, decoder=low_rank_k=9"
    assert f"2 of 4 cells failed: {failed}" in done.stderr
    return folder


def test_one_base_model_is_trained_and_shared(swept):
    (base,) = (swept / "bases").iterdir()
    steps = sorted(os.listdir(base / "checkpoints/base"))
    assert len(list((swept / "cells").iterdir())) == 4
    for cell in (swept / "cells").glob("*k=2"):
        assert sorted(os.listdir(cell / "checkpoints/base")) == steps


def test_table_is_tidy_and_that_of_the_results(swept):
    rows = [json.loads(x) for x in (swept / "table.jsonl").read_text().splitlines()]
    with open(swept / "table.csv") as file:
        texts = list(csv.DictReader(file))
    plain = lambda value: "" if value is None else str(value)
    assert texts == [{n: plain(v) for n, v in row.items()} for row in rows]
    assert {*Config().to_flags()} <= set(rows[0])
    cell = "decoder=low_rank_k=2"
    results = json.loads((swept / "cells" / cell / "results.json").read_text())
    mine = [row for row in rows if row["cell"] == cell]
    # Two losses of two trainings of the code, and of zeros, which are not trained.
    assert len(mine) == 2 * 2 + 2
    for row in mine:
        zeros = results["baselines"]["zero_fill"]
        trials = results["seeds"]["code"] if row["method"] == "learned" else [zeros]
        by_lost = trials[row["trial"]][str(row["lost"])]
        assert (row["mean"], row["worst"]) == (by_lost["mean"], by_lost["worst"])


def test_failed_cells_are_told_and_do_not_end_the_sweep(swept):
    rows = [json.loads(x) for x in (swept / "table.jsonl").read_text().splitlines()]
    failed = {row["cell"]: row["error"] for row in rows if row["error"]}
    assert [*failed] == ["decoder=linear_k=9", "decoder=low_rank_k=9"]
    recorded = json.loads((swept / "sweep.json").read_text())
    assert recorded["failed"] == failed
    trace = (swept / "cells/decoder=linear_k=9/error.txt").read_text()
    assert "Traceback" in trace and "ValueError" in failed["decoder=linear_k=9"]


def test_a_rerun_skips_what_is_finished(swept, parse_flags, monkeypatch, capsys):
    before = (swept / "table.jsonl").read_text()
    ran = lambda *_, **__: pytest.fail("a finished cell ran again")
    monkeypatch.setattr(experiment, "run", ran)
    assert "2 of 4 cells failed" in main(parse_flags, swept, *GRID)
    assert "2 of 4 cells are finished already" in capsys.readouterr().out
    assert (swept / "table.jsonl").read_text() == before


def test_ctrl_c_keeps_what_is_done(parse_flags, tmp_path, monkeypatch, capsys):
    names = []

    def interrupted(cell, *_):
        names.append(cell.name)
        if len(names) == 2:
            raise loop.Interrupted("stopped at step 3")
        return sweeps.CellResult(cell, None, "ValueError: on purpose")

    monkeypatch.setattr(sweeps, "run_cell", interrupted)
    assert main(parse_flags, tmp_path, "--vary=k=2 4") == 130
    assert "the same command goes on from there" in capsys.readouterr().err
    recorded = json.loads((tmp_path / "sweep.json").read_text())
    assert recorded["cells"] == ["k=2", "k=4"] and list(recorded["failed"]) == names[:1]


def test_other_seeds_have_other_base_models():
    sweep = sweeps.Sweep(Places("sweep"))
    config = Config()
    same = dataclasses.replace(config, k=4, epochs=1)
    reseeded = dataclasses.replace(config, seed=1)
    assert sweep.base_dir(config) == sweep.base_dir(same) != sweep.base_dir(reseeded)
    # The name's digits, of the base model's flags, are those of older sweeps.
    config = dataclasses.replace(config, base_epochs=15.0)
    assert sweep.base_dir(config) == "sweep/bases/mnist_lenet5_9cb10b"


# Not imported to see whether it is there: a service must set its variables before that.
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
@pytest.mark.long
def test_cells_in_processes_of_their_own(swept, tmp_path):
    arguments = [*SMALL, "--seeds=2", "--decoder=linear", "--vary=k=2 9", "--jobs=2"]
    # Not a fork, since Ray reads its settings as it is imported.
    done = subprocess.run(
        [sys.executable, "experiments/sweep.py", *arguments, f"--workdir={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert "1 of 2 cells failed: k=9" in done.stderr, done.stderr
    alone, cell = swept / "cells/decoder=linear_k=2", tmp_path / "cells/k=2"
    one, other = (workdir.read_results(folder) for folder in (alone, cell))
    assert one["patterns"] == other["patterns"]
