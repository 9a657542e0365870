"""Sweeps: their cells, their table, and what happens to a cell that fails."""

import csv
import dataclasses
import json
import os
import pathlib
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from coded_jax.cli.commands import sweep
from coded_jax.runs import experiment, sweeps
from coded_jax.runs.config import Config
from coded_jax.runs.workdir import Places
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
