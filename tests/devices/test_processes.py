"""Two processes of two devices run the flagfile of one, and give its result."""

import json
import math
import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest

from coded_jax.devices import processes

ROOT = pathlib.Path(__file__).parents[2]
SECONDS = 900  # after which every process is killed


@pytest.fixture
def launch(tmp_path):
    """Starts `run.py` in one process for each list of flags; kills what is left."""
    started = []

    def launch(*runs):
        for flags in runs:
            log = open(tmp_path / f"{len(started)}.log", "w")
            command = [sys.executable, "experiments/run.py", *flags]
            started.append(
                subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
        return started[-len(runs) :]

    yield launch
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def flags(workdir, *others):
    return [
        "--flagfile=experiments/flags/quickstart.flags",
        "--base_epochs=0.3",
        "--epochs=0.3",
        "--compilation_cache=",
        f"--workdir={workdir}",
        *others,
    ]


def two_processes(workdir):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = ["--devices=4", f"--coordinator=127.0.0.1:{port}", "--processes=2"]
    return [flags(workdir, *together, f"--process={i}") for i in range(2)]


def finish(processes):
    return [process.wait(timeout=SECONDS) for process in processes]


def metrics(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.long
def test_two_processes_give_the_result_of_one(launch, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    codes = finish(launch(flags(one), *two_processes(two)))
    logs = [(tmp_path / f"{i}.log").read_text() for i in range(3)]
    assert codes == [0, 0, 0], "\n".join(logs)

    expected, results = (
        json.loads((workdir / "results.json").read_text()) for workdir in (one, two)
    )
    assert results["machine"]["processes"] == 2
    assert results["machine"]["mesh"] == {"piece": 3, "data": 1}
    assert expected["machine"]["mesh"] == {"piece": 1, "data": 1}
    accuracy = results["base"]["test_accuracy"]
    assert accuracy == pytest.approx(expected["base"]["test_accuracy"], abs=0.01)
    for a, b in zip(expected["patterns"], results["patterns"], strict=True):
        assert a["lost"] == b["lost"]
        assert b["accuracy"] == pytest.approx(a["accuracy"], abs=0.02)
        assert b["feature_mse"] == pytest.approx(a["feature_mse"], rel=0.02, abs=1e-9)
    for a, b in zip(metrics(one), metrics(two), strict=True):
        assert (a["phase"], a["step"]) == (b["phase"], b["step"])
        assert b["loss"] == pytest.approx(a["loss"], rel=0.01)

    # Process 0 alone shows and writes anything, and checkpoints are whole.
    assert "every erasure pattern" in logs[1]
    assert "accuracy" not in logs[2]
    from coded_jax.runs.load import load

    model = load(two, devices=1)
    assert math.isclose(model.results["base"]["test_accuracy"], accuracy)


def test_where_one_process_cannot_start_all_end(launch, tmp_path):
    lead, follower = two_processes(tmp_path / "run")
    codes = finish(launch(lead, [*follower, "--dataset=mnist", "--data_dir=/nowhere"]))
    assert codes == [1, 1]
    logs = [(tmp_path / f"{i}.log").read_text() for i in range(2)]
    assert "error: another process could not start" in logs[0]
    assert "error: data_dir or TFDS_DATA_DIR: '/nowhere' given" in logs[1]


@pytest.mark.parametrize(
    "coordinator, count, process, name",
    [
        ("here:99999", 2, 0, "coordinator"),
        ("here:80", None, 0, "process"),
        ("here:80", 2, 2, "process"),
    ],
)
def test_errors(coordinator, count, process, name):
    with pytest.raises(ValueError, match=f"^{name}: .* given, .* accepted"):
        processes.start(coordinator, count, process)
