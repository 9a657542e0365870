"""Scripts that measure services: what they print and write, and what they refuse."""

import json
import pathlib
import subprocess
import sys

import pytest
from tables import fault_tables, load_tables, soak_tables

ROOT = pathlib.Path(__file__).parents[2]


def script(name, *arguments):
    """Runs a script in a process of its own."""
    return subprocess.run(
        [sys.executable, str(ROOT / f"experiments/{name}.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


def test_load_is_measured_one_by_one_and_together(finished, tmp_path):
    rates = ["--rates=30,60", "--seconds=2", "--together=1,4", "--engine=local"]
    done = script("load", f"--workdir={finished}", f"--output={tmp_path}", *rates)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "load.json").read_text())
    points = content["points"]
    assert {point["together"] for point in points} == {1, 4}
    assert all(point["wrong"] == 0 and point["requests"] > 20 for point in points)
    assert all(p["images_per_batch"] == 1.0 for p in points if p["together"] == 1)
    assert (tmp_path / "load.png").stat().st_size > 1000
    assert "load.py" in content["command"] and content["provenance"]
    assert all(cell in done.stdout for cell in load_tables.rows(points)[0])


@pytest.mark.long
def test_workers_are_killed_while_clients_ask(finished, tmp_path):
    few = ["--rows=0,12", "--requests=100", "--calm=50"]
    done = script("faults", f"--workdir={finished}", f"--output={tmp_path}", *few)
    assert done.returncode == 0, done.stderr
    killed, reloaded = json.loads((tmp_path / "faults.json").read_text())["rows"]
    for row, kind in ((killed, "kill worker"), (reloaded, "reload")):
        assert {one["kind"] for one in row["done"]} == {kind}
        assert len(row["done"]) >= 3 and row["wrong"] == 0
        assert row["disturbed"]["lost"] == 0
    assert all(one["noticed"] <= one["answering"] for one in killed["done"])
    assert "killed" in done.stdout


@pytest.mark.parametrize(
    "name, flag, message",
    [
        ("load", "--rates=0", "error: rates: [0] given, one or more numbers"),
        ("load", "--seconds=0", "error: seconds: 0.0 given, more than 0"),
        ("faults", "--rows=99", "error: rows: '99' given, some of 0.."),
        ("soak", "--minutes=0", "error: minutes: 0.0 given, more than 0"),
    ],
)
def test_wrong_values_end_in_one_line(finished, tmp_path, name, flag, message):
    done = script(name, f"--workdir={finished}", f"--output={tmp_path}", flag)
    assert done.returncode != 0 and done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(message)


def disturbed(noticed, answering, recovered, kind="freeze raylet"):
    seconds = {"noticed": noticed, "answering": answering, "recovered": recovered}
    return {"kind": kind, **seconds}


def test_a_row_of_faults_has_medians_and_what_never_came():
    latencies = {"requests": 10, "lost": 1, "p99": 0.0504, "slowest": None}
    row = {
        "name": "the raylet frozen",
        "settings": {"spares": 1},
        "calm": latencies,
        "disturbed": latencies,
        "wrong": 0,
        "done": [
            disturbed(0.1, 9, None),
            disturbed(0.3, 8, 7),
            disturbed(0.2, 7, 6),
            {**disturbed(None, None, None), "error": "no worker is up"},
        ],
    }
    (cells,) = fault_tables.rows([row])
    assert len(cells) == len(fault_tables.COLUMNS)
    assert cells[:5] == ["the raylet frozen", "3", "10", "1", "0"]
    assert cells[5:8] == ["50", "50", "none"]
    assert cells[8:] == ["0.20, 0.30", "8.00, 9.00", "7.00, 7.00; 1 never"]


def test_faults_have_targets():
    well = {"lost": 0, "p99": 0.1}

    def verdict(done, spares=1, wrong=0, **disturbed):
        row = {"settings": {"spares": spares}, "done": [done], "wrong": wrong}
        latencies = {"calm": well, "disturbed": {**well, **disturbed}}
        return fault_tables.verdict({**row, **latencies})

    kill = disturbed(0.1, 0.6, 5.9, "kill worker")
    assert verdict(kill, p99=0.29) == "met" and verdict(kill, spares=0) == ""
    assert verdict(kill, p99=0.31) == "**missed** (p99)"
    assert verdict(kill, lost=1, wrong=2) == "**missed** (lost, wrong)"
    late = disturbed(0.3, None, 6.1, "kill worker")
    assert verdict(late) == "**missed** (noticed, answering, recovered)"
    assert verdict(disturbed(4.9, 29.9, 99.0, "kill gcs")) == "met"
    assert verdict(disturbed(4.9, 30.1, 30.1)) == "**missed** (answering)"
    assert verdict(disturbed(None, 0.0, 3.0, "reload")) == ""


def test_the_last_lines_of_a_soak():
    content = {
        "minutes": 10.0,
        "done": [
            {"kind": "kill gcs"},
            {"kind": "reload"},
            {"kind": "kill gcs"},
            {"kind": "reload", "error": "no"},
        ],
        "requests": {
            "answered": 1000,
            "checked": 990,
            "late": 3,
            "wrong": 3,
            "wrong_checked": 1,
            "lost": 2,
        },
        "late": 1.0,
        "slowest": 12.345,
        "start": {"memory": 100e6, "files": 36, "threads": 49},
        "end": {"memory": 101e6, "files": 37, "threads": 49},
        "summary": {"cluster_restarts": 2},
        "exit": 0,
    }
    text = "\n".join(soak_tables.lines(content))
    assert "2 kill gcs, 1 reload on purpose, 1 more could not be done" in text
    assert "answered 1000, of which late 3 (more than 1 s" in text and "lost 2" in text
    assert "checked 990 of these, of which wrong 1; of the others wrong 2:" in text
    assert "101 MB at the end (+1.0 %); files 36 and 37; threads 49 and 49" in text
    assert "missed" in text  # a file more
    content["end"]["files"] = 36
    assert "missed" not in "\n".join(soak_tables.lines(content))
