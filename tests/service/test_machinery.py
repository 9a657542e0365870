"""Clusters that die or freeze: their processes, and services that live on them."""

import contextlib
import ctypes
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from coded_jax import data
from coded_jax.service import cluster, cluster_supervisor, serve
from coded_jax.service.cluster_supervisor import Supervisor
from coded_jax.service.pool import WorkerLost
from tests.service.test_ray_workers import until

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is not installed"
    ),
    pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="it reads /proc"),
    # Ray's forks become other programs at once: JAX's threads do no harm.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
psutil = pytest.importorskip("psutil")
SERVICE = {"batches": (1,), "deadline": 10.0, "patience": 20.0}


@pytest.fixture
def images():
    return data.load("mnist_5k").test.images


def running(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


class Imitation:
    """Processes with the names and arguments of Ray's, which sleep."""

    def __init__(self, folder):
        self.folder, self.started = folder, []

    def script(self, name, children=()):
        script = self.folder / name
        lines = [f"#!{sys.executable}", "import subprocess, time"]
        lines += [f"subprocess.Popen([{str(child)!r}])" for child in children]
        script.write_text("\n".join([*lines, "time.sleep(600)", ""]))
        script.chmod(0o755)
        return script

    def start(self, name, children=()):
        script = self.script(name, map(self.script, children))
        session = f"--log_dir=/tmp/ray/session_2026-01-01_{os.getpid()}/logs"
        child = subprocess.Popen([script, session])
        self.started.append(child)
        process = psutil.Process(child.pid)
        until(lambda: name in " ".join(process.cmdline()))
        return process


@pytest.fixture
def imitation(tmp_path):
    from coded_jax.service.machinery import Machinery

    imitation, machinery = Imitation(tmp_path), Machinery()
    yield imitation, machinery
    machinery.end()
    for child in imitation.started:
        child.wait()


def looks(machinery, count):
    return [machinery.problem() for _ in range(count)]


def test_processes_that_end_or_stand_still(imitation):
    from coded_jax.service.machinery import FROZEN

    imitation, machinery = imitation
    head, raylet = imitation.start("gcs_server"), imitation.start("raylet")
    assert machinery.problem() is None
    raylet.suspend()
    until(lambda: raylet.status() == psutil.STATUS_STOPPED)
    assert looks(machinery, FROZEN - 1) == [None] * (FROZEN - 1)
    raylet.resume()  # as a program that was suspended for a moment
    until(lambda: raylet.status() != psutil.STATUS_STOPPED)
    assert machinery.problem() is None
    raylet.suspend()
    until(lambda: raylet.status() == psutil.STATUS_STOPPED)
    assert looks(machinery, FROZEN)[-1] == "the raylet stands still"
    head.kill()
    until(lambda: not running(head))
    assert machinery.problem() == "Ray's head (GCS) has ended"


def test_all_processes_are_ended_and_no_others(imitation):
    """Those that are stopped, too, and a worker whose raylet has gone before it."""
    imitation, machinery = imitation
    head, raylet = imitation.start("gcs_server"), imitation.start("raylet")
    worker, stranger = (
        psutil.Popen(["setsid", "sleep", "600"], env={**os.environ, **named})
        for named in ({"RAY_RAYLET_PID": str(raylet.pid)}, {"RAY_RAYLET_PID": "1"})
    )
    try:
        assert machinery.problem() is None
        head.suspend()
        worker.suspend()
        raylet.kill()
        until(lambda: not running(raylet))
        assert machinery.problem() == "the raylet has ended"
        machinery.end()
        assert not any(map(running, (head, raylet, worker)))
        assert running(stranger)
    finally:
        for process in (worker, stranger):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
            process.wait()


class Clusters:
    """Takes Ray's place: clusters that can be reached or not."""

    def __init__(self):
        self.connected = self.attempts = self.left = 0
        self.error = self.problem = None

    def connect(self, address, n):
        self.attempts += 1
        if self.error is not None:
            raise self.error
        self.connected, self.problem = self.connected + 1, None

    def disconnect(self):
        self.left += 1


@pytest.fixture
def clusters(monkeypatch):
    clusters = Clusters()
    monkeypatch.setattr(cluster, "connect", clusters.connect)
    monkeypatch.setattr(cluster, "disconnect", clusters.disconnect)
    monkeypatch.setattr(cluster, "refusal", lambda _: clusters.problem)
    monkeypatch.setattr(cluster, "node_watch", lambda: lambda _: True)
    monkeypatch.setattr(cluster_supervisor, "LOOK", 0.005)
    monkeypatch.setattr(cluster_supervisor, "FIRST_PAUSE", 0.01)
    return clusters


@pytest.fixture
def supervise(clusters):
    """Starts supervisors that end with the test, however it ends."""
    supervisors = []

    def start(seconds):
        supervisors.append(Supervisor("127.0.0.1:1", 3, reconnect_for=seconds))
        return supervisors[-1]

    yield start
    for watched in supervisors:
        watched.close()


def test_a_lost_cluster_is_joined_again(clusters, supervise, caplog):
    watched = supervise(60.0)
    errors = []
    watched.members.append(errors.append)
    with watched.connected():
        assert watched.obstacle() is None
    clusters.error = RuntimeError("nothing there")
    clusters.problem = "nothing listens"
    until(lambda: clusters.attempts >= 4, 10)
    assert watched.obstacle() == "nothing listens; joining it again"
    assert watched.failure() is None and watched.restarts == 0
    assert isinstance(errors[0], WorkerLost)
    with pytest.raises(WorkerLost, match="nothing listens"), watched.connected():
        pass
    clusters.error = None
    until(lambda: watched.restarts == 1, 10)
    with watched.connected():
        assert clusters.connected == 2 and watched.obstacle() is None
    assert "nothing listens; joining it again" in caplog.messages
    assert any("done after" in message for message in caplog.messages)
    watched.close()
    with pytest.raises(WorkerLost), watched.connected():
        pass


@pytest.mark.parametrize(
    "error, seconds", [(RuntimeError("nothing"), 0.1), (ValueError("no token"), 600.0)]
)
def test_a_cluster_is_given_up(clusters, supervise, error, seconds, caplog):
    """After its time, or at once when it must not be joined."""
    watched = supervise(seconds)
    clusters.error, clusters.problem = error, "nothing listens"
    until(lambda: watched.failure() is not None, 10)
    assert re.search(f"nothing listens; given up .*{error}", watched.failure())
    assert watched.obstacle() == watched.failure() in caplog.messages
    attempts = clusters.attempts
    time.sleep(0.05)
    assert clusters.attempts == attempts


def test_a_head_that_is_frozen_holds_nobody_up(clusters, supervise, monkeypatch):
    """Neither the failure nor the end of the program."""
    monkeypatch.setattr(cluster_supervisor, "GRACE", 0.1)
    watched = supervise(0.1)
    thawed, left_alone = threading.Event(), []
    monkeypatch.setattr(cluster, "disconnect", thawed.wait)
    monkeypatch.setattr(cluster, "let_go", lambda: left_alone.append(True))
    clusters.problem = "silence"
    until(lambda: watched.failure() is not None, 10)
    assert "silence; joining it again: no answer" in watched.failure()
    watched.close()
    assert left_alone
    thawed.set()
    watched._thread.join(10)


PROCESSES = {"head": r"/gcs_server$", "raylet": r"/raylet$", "agent": r"DashboardAgent"}
STRANGERS = set()  # processes that earlier tests have left


def family():
    """Processes that descend from this one."""
    return {*psutil.Process().children(recursive=True)}


def action(number):
    """Address of the handler of a signal, which the C library has first."""
    found = ctypes.create_string_buffer(1024)
    assert ctypes.CDLL(None).sigaction(number, None, found) == 0
    return found.raw[: ctypes.sizeof(ctypes.c_void_p)]


@pytest.fixture(scope="module")
def service(finished):
    STRANGERS.update(family())
    with serve(finished, "ray", **SERVICE) as service:
        yield service


@pytest.fixture
def handler():
    """A handler of SIGTERM; Ray's would end the program at once."""
    usual = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield action(signal.SIGTERM)
    signal.signal(signal.SIGTERM, usual)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("part", [*PROCESSES])
def test_dead_machinery_is_replaced(service, images, handler, part, number):
    watched, before = service.engine.supervisor, service.engine.supervisor.restarts
    relatives = family() - STRANGERS
    (process,) = [p for p in family() if re.search(PROCESSES[part], p.cmdline()[0])]
    process.send_signal(number)
    assert until(lambda: watched.obstacle() is not None, 30) < 5
    until(lambda: watched.restarts == before + 1, 120)
    until(lambda: all(worker["up"] for worker in service.engine.pool.status()))
    answer = service.submit(images[:1]).result()
    lost = sorted({0, 1, 2} - {*answer.arrived[0]})
    assert answer.classes == service.model.classify(images[:1], lost=lost)
    assert not any(map(running, relatives))
    assert action(signal.SIGTERM) == handler


ADOPTED = """
import os, time
from coded_jax.service import cluster
from coded_jax.service.machinery import Machinery

for _ in range(1000):
    if os.getppid() == 1:
        break
    time.sleep(0.01)
else:
    raise SystemExit("Error: adopted by another process")
cluster.connect(None, 1)
assert "RAY_RAYLET_PID" not in os.environ
Machinery().end()
cluster.disconnect()
print("has left", flush=True)
"""


@pytest.mark.long
def test_a_program_whose_parent_is_process_1_outlives_its_cluster(tmp_path):
    """As a unit of systemd: Ray takes it for a worker that has lost its raylet."""
    output, errors = tmp_path / "output", tmp_path / "errors"
    starter = "import subprocess, sys; subprocess.Popen(sys.argv[1:])"
    with output.open("w") as out, errors.open("w") as err:
        subprocess.run(
            [sys.executable, "-c", starter, sys.executable, "-c", ADOPTED],
            stdout=out,
            stderr=err,
            check=True,
        )
    until(lambda: output.read_text() or "Error" in errors.read_text(), 120)
    if "adopted by another" in errors.read_text():
        pytest.skip("another process than 1 adopts orphans here")
    assert output.read_text() == "has left\n", errors.read_text()
