"""Reports of runs and sweeps, and the command that renews all generated files."""

import json
import pathlib
import re
import shutil

import pytest
from tables import reports, searches, stored

from coded_jax.report import sweep_tables
from coded_jax.runs import workdir
from tests.scripts import run_script


@pytest.mark.long
def test_nothing_is_to_be_renewed():
    done = run_script("renew", "--check")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert re.search(r"^0 of \d{3} files differ$", done.stdout, re.M)


def test_report_of_a_run(finished, tmp_path):
    results = reports.report_run(finished, tmp_path, None)
    assert results == workdir.read_results(finished)
    names = "losses accuracy training confidence costs features confusion".split()
    files = {"report.md", *(f"{name}.png" for name in names)}
    assert {path.name for path in tmp_path.iterdir()} == files
    text = (tmp_path / "report.md").read_text()
    assert re.findall(r"\]\((\w+)\.png\)", text) == names and "*Left out" not in text
    assert len(re.findall(r"^[|-]+$", text, re.M)) == 6  # tables
    for name, measure in (("learned", "mean"), ("", "worst")):
        values = [row[measure] for row in results["summary"].values()]
        cells = [name, measure, *(f"{100 * x:.2f}" for x in values)]
        assert f"\n| {' | '.join(cells)} |" in text
    worst = min(results["patterns"], key=lambda pattern: pattern["accuracy"])["lost"]
    assert f"## With the worst pattern: data {worst[0]} lost" in text


def test_report_of_a_copy_says_what_it_leaves_out(finished, tmp_path):
    copy = shutil.copy(finished / "results.json", tmp_path / "copy.json")
    reports.report_run(pathlib.Path(copy), tmp_path / "out", None)
    text = (tmp_path / "out" / "report.md").read_text()
    (line,) = re.findall(r"^\*Left out.*$", text, re.M)
    assert "(pictures that the model makes): copy.json given, a workdir" in line


def test_a_figure_that_cannot_be_drawn_is_a_line(tmp_path):
    def fail():
        raise ImportError("plots need: pip install")

    page = reports.Page(tmp_path / "new", "a")
    page.add("", "| x |\n|---|\n| 1 |")
    page.draw("x", "curves", fail)
    page.write()
    markdown = (tmp_path / "new/report.md").read_text()
    assert markdown.endswith("| 1 |\n\n*Left out (curves): plots need: pip install*\n")
    with pytest.raises(ValueError, match="^output: '/proc/x' given"):
        reports.Page(pathlib.Path("/proc/x"), "")


SWEEP = {
    "command": "python experiments/sweep.py --flagfile=x.flags",
    "versions": {"jax": "1", "flax": "2", "python": "3"},
    "machine": {"cores": 2, "device": "cpu"},
    "vary": {"epochs": ["1", "2"]},
    "variants": ["--recipe=paper --tried=2", "--recipe=systematic --tried=2"],
    "cells": ["a", "b", "c", "d"],
    "failed": {"c": "loss: not finite"},
    "seconds": 61.7,
    "provenance": {"version": "3", "commit": 40 * "a", "date": "2026-01-02T03:04:05"},
}
FLAGS = {"code": "learned", "k": "2", "r": "1", "seed": "5", "dataset": "mnist"}
FLAGS |= {"base_model": "lenet5", "base_width": "1.0"}


def rows_of(cell, accuracy, trials=2, **flags):
    rows = []
    for method, minus in (("learned", 0), ("zero_fill", 0.4)):
        for trial in range(trials):
            for lost in range(3):  # one more than r was tried
                mean = accuracy - 0.1 * lost - (minus + 0.02 * trial) * (lost > 0)
                measures = {"mean": mean, "worst": mean - 0.1 * (lost > 0)}
                measures |= {"base_accuracy": 0.95, "work": 0.5, "train_seconds": 7.4}
                measures |= {"price": 0.049, "error": None}
                key = {"cell": cell, "method": method, "trial": trial, "lost": lost}
                rows.append({**FLAGS, **key, **measures, **flags})
    return rows


@pytest.fixture
def sweep(tmp_path):
    folder = tmp_path / "sweep"
    folder.mkdir()
    (folder / "sweep.json").write_text(json.dumps(SWEEP))
    rows = rows_of("a", 0.9, epochs="1", recipe="paper")
    rows += rows_of("b", 0.8, trials=1, epochs="2", recipe="systematic")
    rows += [{"cell": "c", "error": "loss: not finite", "epochs": "2"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "table.jsonl").write_text(lines)
    return folder


def test_report_of_a_sweep(sweep):
    done = run_script("report", f"--output={sweep}/out", sweep)
    assert done.returncode == 0, done.stderr
    assert "79.00" in done.stdout and "c` failed" in done.stdout
    text = (sweep / "out/report.md").read_text()
    assert re.findall(r"\]\((\w+)\.png\)", text) == ["cells"]
    # Of two trials, 0.80 and 0.78: a deviation of 0.02 / sqrt(2).
    assert "| 1 | paper | 95.00 | 90.00 | 79.00 ± 1.41 (69.00 ± 1.41) |" in text
    assert "| 39.00 ± 1.41 (29.00 ± 1.41) | 0.50 | 4.90 | 7 | [a](<../cells/a>)" in text
    assert "- `c` failed: loss: not finite\n- `d` has not run" in text
    assert "Seed 5, 2 trials each, in 62 s of training and evaluation: `python" in text
    record = sweep_tables.read(sweep)
    (axes,) = reports.figure(record).axes
    drawn = {container.get_label(): container.lines[0] for container in axes.containers}
    assert drawn["mean"].get_ydata() == pytest.approx([79, 70])
    assert drawn["worst"].get_ydata() == pytest.approx([69, 60])
    full = searches.cells({pathlib.Path("history/x/s"): record})
    cells = [dict(zip(full.headers, row, strict=True)) for row in full.rows]
    assert cells[0]["1 lost, mean"] == "79.00 ± 1.41" and cells[1]["best"] == ""
    assert cells[0]["zero_fill, r lost, worst"] == "29.00 ± 1.41"
    assert {(x["measured"], x["commit"], x["network"]) for x in cells} == {
        ("history", "aaaaaaa", "lenet5 x 1")
    }
    assert searches.varying(record).headers[:2] == ("`epochs`", "`recipe`")


def test_cells_of_many_flags_are_named_by_what_the_first_has_not(sweep):
    flags = {"tail": "frozen", "focus": "0.0", "halo": "0", "draws": "counts"}
    flags |= {"epochs": "1", "recipe": "paper", "decoder_width": "64"}
    variants = ["", " ".join(f"--{flag}=" for flag in flags)]
    content = {**SWEEP, "vary": {}, "variants": variants, "cells": ["a", "b"]}
    (sweep / "sweep.json").write_text(json.dumps({**content, "failed": {}}))
    others = {**flags, "epochs": "2", "decoder_width": None}
    rows = [*rows_of("a", 0.8, **flags), *rows_of("b", 0.9, **others)]
    (sweep / "table.jsonl").write_text("\n".join(map(json.dumps, rows)))
    record = sweep_tables.read(sweep)
    assert "The first cell has `tail=frozen`, " in searches.first_cell(record)
    names = [row[0] for row in searches.varying(record).rows]
    assert names == ["the first cell", "epochs=2, decoder_width="]


def test_runs_that_are_not_finished_are_told_in_one_line(tmp_path):
    done = run_script("report", "x")
    assert done.returncode == 1 and done.stderr.startswith("error: runs: 'x' given")
    assert done.stderr.count("\n") == 1
    (tmp_path / "flags.txt").write_text("--k=2\n")
    message = f"is not finished .run.py --flagfile={tmp_path}/flags.txt goes on"
    with pytest.raises(ValueError, match=message):
        stored.read_current(tmp_path)
