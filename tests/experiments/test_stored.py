"""Stored results: their origin, which are stale, and the command that lists them."""

import json

import pytest
from tables import expectations, frontier_tables, stored, targets

from coded_jax.runs import sources
from tests.scripts import run_script

COMMIT = 40 * "c"
COMMAND = "python experiments/run.py --flagfile=a.flags"


@pytest.fixture
def package(tmp_path):
    """A package of one module."""
    folder = tmp_path / "coded_jax"
    folder.mkdir()
    (folder / "a.py").write_text("X = 1  # one\n")
    return folder


def result(package, **fields):
    made = sources.of_modules(["coded_jax.a"], package)
    origin = {"version": "1", "commit": COMMIT, "date": "2026-05-06T07:08:09"}
    return {
        "command": COMMAND,
        "provenance": {**origin, "sources": made},
        "versions": {"jax": "2", "python": "3"},
        "timing": {"seconds": {"total": 90.0}},
        **fields,
    }


def store(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_a_result_is_stale_once_code_that_made_it_changes(tmp_path, package):
    store(tmp_path / "results/table5/x.json", result(package))
    listed = lambda: [*stored.all_stored(tmp_path / "results", package)]
    (row,) = listed()
    assert row.name == "table5/x" and row.command == COMMAND and row.seconds == 90
    assert row.origin == stored.Origin("1", "ccccccc", "2026-05-06T07:08:09", True)
    assert not row.is_stale and not row.is_history
    (package / "a.py").write_text("X = 1  # a comment does not count\n")
    assert not listed()[0].is_stale
    (package / "a.py").write_text("X = 2\n")
    assert listed()[0].is_stale and listed()[0].changed == ["coded_jax.a"]


def test_a_result_that_does_not_say_what_made_it_is_stale(tmp_path):
    old = {"command": COMMAND, "seconds": 5}
    old["stored"] = {"version": "0", "commit": "abc", "date": "2026-01-01T00:00:00"}
    store(tmp_path / "history/ablations/width/sweep.json", old)
    store(tmp_path / "history/ablations/width/other.json", {"x": 1})  # no result
    (row,) = stored.all_stored(tmp_path)
    assert row.name == "history/ablations/width" and row.is_history and row.is_stale
    assert row.changed is None and row.seconds == 5 and not row.origin.is_code


def test_rows_of_history_are_never_beside_present_ones(tmp_path, package):
    tmp_path /= "history/results"  # a clone may lie in a folder of that name
    store(tmp_path / "history/cheap/x.json", result(package, name="old"))
    folder = stored.folder_of("cheap", tmp_path)
    assert [r["name"] for r in stored.contents("cheap", tmp_path)] == ["old"]
    section = stored.with_history("rows", folder, stored.contents("cheap", tmp_path))
    assert section.startswith("> **History**, measured until 2026-05-06 with version 1")
    assert section.endswith("\n\nrows") and not stored.history_of("cheap", tmp_path)
    store(tmp_path / "cheap/y.json", result(package, name="new"))
    assert [r["name"] for r in stored.contents("cheap", tmp_path)] == ["new"]
    folder = stored.folder_of("cheap", tmp_path)
    assert stored.with_history("rows", folder, []) == "rows"
    assert stored.history_of("cheap", tmp_path) == tmp_path / "history/cheap"
    (tmp_path / "history/cheap/x.json").unlink()
    assert stored.history_of("cheap", tmp_path) is None


def test_a_table_says_versions_commits_dates_and_machines(package):
    new, old = result(package), result(package)
    new["provenance"]["hardware"] = {"processor": "A", "cores": 2}
    del old["provenance"]
    old["stored"] = {"version": "0", "commit": "abc", "date": "2026-01-01T00:00:00"}
    assert stored.origin_text([new, old]) == (
        "Measured with version 1, 0 (commit ccccccc, stored by abc), 2026-01-01 to "
        "2026-05-06: jax 2, Python 3 on A, 2 cores, and on processor not recorded."
    )


def test_every_stored_result_says_where_it_is_from():
    rows = [*stored.all_stored()]
    assert len(rows) == len([*stored.RESULTS.rglob("*.json")]) > 50
    for row in rows:
        assert row.origin.version and row.origin.commit and row.origin.date, row.name
        assert row.is_history or row.changed is not None, row.name


def test_a_note_stands_at_its_row_and_below_the_table():
    folder = stored.RESULTS / "history/frontier"
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    (name,) = frontier_tables.noted([x for x in runs if "note" in x])
    section = frontier_tables.section("frontier", folder)
    assert f"- † {name}: tuned after a look at the test split" in section
    marked = [line for line in section.splitlines() if " † |" in line]
    assert marked and all(name.split(" (")[0] in line for line in marked)
    assert all("| 4, 2 |" in line for line in marked)


@pytest.mark.parametrize(
    "reached, most, text",
    [(0.5, 0.5, "0.5 met"), (0.504, 0.5, "0.5 met"), (0.51, 0.5, "0.5 **missed**")],
)
def test_a_target_is_met_as_the_table_shows_it(reached, most, text):
    assert targets.verdict(reached, most) == text


def test_a_code_must_beat_the_paper_and_no_parity():
    def run(mean, worst):
        return {
            "split": {"k": 2, "r": 1},
            "summary": {"1": {"mean": mean, "worst": worst, "mean_std": 0.0}},
            "baselines": {"no_parity": {"1": {"mean": 0.95, "worst": 0.9}}},
        }

    assert targets.above_rivals(run(0.96, 0.91), "1") == "met"
    missed = targets.above_rivals(run(0.9, 0.91), "1")
    assert missed == "**missed** (paper; no parity, mean)"
    assert targets.above_rivals(run(0.96, 0.9), "1") == "**missed** (no parity, worst)"


def test_targets_of_the_frontier():
    code, accuracy = targets.FRONTIER_CODES[0], {"mean": 0.989, "worst": 0.9868}
    results = {
        "config": {"stages": None, "base_model": "vgg16"},
        "split": {"k": 4, "r": 2, "coded_fraction": 0.3},
        "base": {"test_accuracy": 0.99},
        "summary": {"1": accuracy, "2": accuracy},
    }
    assert targets.frontier(results, code, 2) == "0.1 met, 0.25 **missed**"
    assert targets.frontier(results, code, 1) == targets.NONE
    assert targets.frontier(results, "other", 2) == targets.NONE
    results["config"]["stages"] = [[1, 2], [3, 4]]
    results["summary"]["1"]["mean"] = 0.98
    assert targets.frontier(results, "other", 1) == "0.5 **missed**"


def test_the_command_lists_stale_results_and_how_to_make_them():
    done = run_script("renew", "--stale")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    stale = [row for row in stored.all_stored() if row.is_stale]
    shown = [line for line in lines if line.endswith(" to make again") and ";" in line]
    assert len(shown) == len(stale)
    assert lines[-1].startswith(f"{len([*stored.all_stored()]) - len(stale)} of ")
    for row in stale:
        assert any(line.startswith(f"  {row.name}: ") for line in shown)
        assert f"    {row.command}" in lines


def test_flagfiles_say_what_their_stored_runs_gave():
    runs = expectations.stored_runs()
    told = 0
    for path in expectations.FLAGS.glob("*.flags"):
        text, lines = path.read_text(), expectations.lines(path.name, runs)
        assert bool(lines) == (expectations.HEADING in text), path.name
        assert expectations.renewed_text(text, lines) == text
        if lines:
            wrong = expectations.renewed_text(text, ["#   other"])
            assert wrong != text and expectations.renewed_text(wrong, lines) == text
        told += len(lines)
    assert told >= len(runs)
