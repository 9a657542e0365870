"""Scripts that measure services, and the tables of what they found."""

import json

import pytest
from tables import service, stored

from coded_jax.report import table
from coded_jax.service.byzantine.study import FAULTS, STANDARD
from tests.scripts import run_script


@pytest.mark.long
def test_load_is_measured_one_by_one_and_together(finished, tmp_path):
    rates = ["--rates=60", "--seconds=1", "--together=1,4", "--engine=local"]
    done = run_script("load", f"--workdir={finished}", f"--output={tmp_path}", *rates)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "load.json").read_text())
    alone, joined = content["points"]
    assert (alone["together"], joined["together"]) == (1, 4)
    assert alone["images_per_batch"] == 1.0
    assert all(x["wrong"] == 0 and x["requests"] > 20 for x in content["points"])
    assert (tmp_path / "load.png").stat().st_size > 1000
    (cells, _) = table.make(service.LOAD, content["points"]).rows
    assert all(cell in done.stdout for cell in cells)


@pytest.mark.long
def test_workers_are_killed_while_clients_ask(finished, tmp_path):
    few = ["--rows=0,12", "--requests=100", "--calm=50"]
    done = run_script("faults", f"--workdir={finished}", f"--output={tmp_path}", *few)
    assert done.returncode == 0, done.stderr
    killed, reloaded = json.loads((tmp_path / "faults.json").read_text())["rows"]
    for row, kind in ((killed, "kill worker"), (reloaded, "reload")):
        assert {one["kind"] for one in row["done"]} == {kind}
        assert len(row["done"]) >= 3 and row["wrong"] == 0
        assert row["disturbed"]["lost"] == 0
    assert all(one["noticed"] <= one["answering"] for one in killed["done"])


@pytest.mark.parametrize(
    "name, flag",
    [("load", "--rates=0"), ("faults", "--rows=99"), ("soak", "--minutes=0")],
)
def test_wrong_flags_end_in_one_line(finished, tmp_path, name, flag):
    done = run_script(name, f"--workdir={finished}", f"--output={tmp_path}", flag)
    assert done.returncode != 0 and done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"error: {flag[2:].partition('=')[0]}: ")


def disturbance(noticed, answering, recovered, kind="freeze raylet"):
    seconds = {"noticed": noticed, "answering": answering, "recovered": recovered}
    return {"kind": kind, **seconds}


def test_seconds_after_faults():
    done = [disturbance(x, None, 0.0) for x in (0.3, 0.1, 0.2, None)]
    failed = disturbance(9.0, 9.0, 9.0) | {"error": "no"}
    row = {"done": [*done, failed]}
    assert service.FAULTS["times"](row) == "4"
    assert service.FAULTS["noticed s"](row) == "0.20, 0.30; 1 never"
    assert service.FAULTS["place s"](row) == "never"
    assert service.seconds_text({"done": done[:1]}, "noticed") == "0.30"


def test_faults_have_targets():
    def verdict(done, spares=1, wrong=0, **disturbed):
        row = {"settings": {"spares": spares}, "done": [done], "wrong": wrong}
        calm = {"lost": 0, "p99": 0.1}
        row |= {"calm": calm, "disturbed": {**calm, **disturbed}}
        return service.fault_verdict(row)

    kill = disturbance(0.1, 0.6, 5.9, "kill worker")
    assert verdict(kill, p99=0.29) == "met" and verdict(kill, spares=0) == ""
    assert verdict(kill, p99=0.31) == "**missed** (p99)"
    assert verdict(kill, lost=1, wrong=2) == "**missed** (lost, wrong)"
    late = disturbance(0.3, None, 6.1, "kill worker")
    assert verdict(late) == "**missed** (noticed, answering, recovered)"
    assert verdict(disturbance(4.9, 29.9, 99.0, "kill gcs")) == "met"
    assert verdict(disturbance(4.9, 30.1, 30.1)) == "**missed** (answering)"
    assert verdict(disturbance(None, 0.0, 3.0, "reload")) == ""


@pytest.mark.parametrize("files, verdict", [(36, "met"), (37, "missed")])
def test_a_soak_may_leave_no_file_open(files, verdict):
    counts = {"checked": 990, "late": 3, "wrong": 3, "wrong_checked": 1, "lost": 2}
    content = {
        "minutes": 10.0,
        "done": [{"kind": "kill gcs"}, {"kind": "reload", "error": "no"}],
        "requests": {"answered": 1000, **counts},
        "late": 1.0,
        "slowest": 12.345,
        "start": {"memory": 100e6, "files": 36, "threads": 49},
        "end": {"memory": 101e6, "files": files, "threads": 49},
        "summary": {"cluster_restarts": 2},
        "exit": 0,
    }
    text = "\n".join(service.soak_lines(content))
    assert "1 kill gcs on purpose, 1 more could not be done" in text
    assert "of which wrong 1; of the others wrong 2:" in text
    assert f"101 MB at the end (+1.0 %); files 36 and {files}" in text
    assert f"threads {verdict}\n" in text


def test_wrong_results_must_be_found():
    text = lambda kind, share: service.CHECKS["found"](
        service.Row({}, kind, {"found": share})
    )
    assert text("zeros", 0.99) == "99.00 met"
    assert text("zeros", 0.9899) == "98.99 **missed**"
    assert text("a lost value", 0.5) == "50.00"  # no target
    target = service.FALSE_ALARMS["target"]
    assert target(service.Row({}, "1", {"worst": 0.001})) == "met"
    assert target(service.Row({}, "1", {"worst": 0.0011})) == "**missed**"
    group = service.Row({"workers": 6, "k": 4}, "zeros", {"left_out": None})
    assert service.LOCATOR["whole images of work for each"](group) == "1.50"
    assert service.LOCATOR["left out"](group) == "-"


def test_stored_checks_are_of_enough_images_and_of_all_kinds():
    for own in stored.read("checks").values():
        assert own["check"]["images"] >= 5000 and own["images"] == 10_000
        assert [*own["faults"]] == [*FAULTS] and {*STANDARD} < {*FAULTS}
