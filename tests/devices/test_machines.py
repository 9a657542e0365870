"""Three machines, as network namespaces: one is cut off, and comes back.

Ray is started by the command of `docs/guides/production.md`, behind its firewall.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import pytest

import coded_jax
from coded_jax import data
from tests.devices.machines import Network
from tests.docs.test_production import command_of_unit, file_of_page

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is not installed"
    ),
    pytest.mark.long,
]
HEAD, OTHERS = 1, (2, 3)
SERVICE = """
import json, select, sys
from coded_jax import data, serving

def tell(**facts):
    print(json.dumps(facts), flush=True)

image = data.load("mnist_5k").test.images[:1]
settings = {"address": sys.argv[2], "deadline": 120.0, "patience": 60.0}
with serving.serve(sys.argv[1], "ray", **settings) as service:
    while not select.select([sys.stdin], [], [], 0.01)[0]:  # it is closed at the end
        try:
            answer = service.submit(image).result()
        except Exception as error:
            tell(error=f"{type(error).__name__}: {error}")
            continue
        workers = service.summary()["workers"]
        tell(
            used=answer.used[0],
            logits=answer.logits.tolist(),
            up=all(worker["up"] for worker in workers),
            restarts=sum(worker["restarts"] for worker in workers),
        )
"""
"""Sends one request after another, and tells of each."""


def settings_of_ray():
    """What Ray reads, and the roles of the head and of the others."""
    text = re.sub("^# (NODE|ROLE)=", r"\1=", file_of_page("ray.env"), flags=re.M)
    pairs = re.findall(r"^(\w+)=(.*)$", text, re.M)
    roles = [value for name, value in pairs if name == "ROLE"]
    return {k: v for k, v in pairs if k not in ("NODE", "ROLE")}, roles


def command_of_ray(node, role, folder):
    """The command of the page on a machine, with files in another folder."""
    program, *arguments = command_of_unit("coded_jax_ray.service")
    assert program.endswith("/bin/ray")
    text = " ".join(arguments)
    text = text.replace("${NODE}", node).replace("$ROLE", role)
    text = text.replace("/run/coded_jax_ray", str(folder))
    few = ["--num-cpus=1", "--include-log-monitor=false"]
    return [sys.executable, "-m", "ray.scripts.scripts", *text.split(), *few]


@pytest.fixture
def network():
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    try:
        network = Network(3)
    except OSError as error:
        pytest.skip(f"no network namespaces: {error}")
    yield network
    network.close()


class Cluster:
    """A Ray on each machine, with a token.

    Args:
      network: the machines.
      folder: of their files; of a short name, since those of sockets are limited.
    """

    def __init__(self, network, folder):
        self._network, self._folder, self._started = network, folder, {}
        settings, self._roles = settings_of_ray()
        token = folder / "token"
        token.write_text("0123456789abcdef" * 4)
        settings["RAY_AUTH_TOKEN_PATH"] = str(token)
        self.environment = {**os.environ, **settings}
        # Other tests keep to loopback.
        self.environment.pop("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", None)
        self.address = f"{network.address(HEAD)}:6379"

    def start(self, machine):
        """Returns when the machine has joined."""
        log = self._folder / f"{machine}-{time.monotonic_ns()}.log"
        address, role = self._network.address(machine), self._roles[machine != HEAD]
        command = command_of_ray(address, role, self._folder / str(machine))
        with log.open("w") as file:
            self._started[machine] = subprocess.Popen(
                [*self._network.inside(machine), *command],
                env=self.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        until(lambda: "Ray runtime started" in log.read_text(), log.read_text)

    def ended(self, machine):
        """The status of a Ray that has ended by itself, else None."""
        return self._started[machine].poll()

    def workers(self):
        """The processes of pieces on each machine."""
        return {m: self._pieces(m) for m in self._network.machines}

    def _pieces(self, machine):
        pieces = set()
        for pid in self._network.pids(machine):
            with contextlib.suppress(OSError):
                title = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
                if title.startswith(b"ray::PieceServer"):
                    pieces.add(pid)
        return pieces


@pytest.fixture
def cluster(network):
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        cluster = Cluster(network, pathlib.Path(folder))
        try:
            if shutil.which("nft"):
                rules = pathlib.Path(folder) / "nftables.conf"
                rules.write_text(file_of_page("nftables.conf"))
                for machine in network.machines:
                    nft = [*network.inside(machine), "nft", "-f", str(rules)]
                    subprocess.run(nft, check=True)
            for machine in network.machines:
                cluster.start(machine)
            yield cluster
        finally:
            network.close()


def until(condition, details=lambda: "", seconds=300):
    """Returns when it holds."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() < begun + seconds, details()
        time.sleep(0.05)


class Running:
    """A service on the head, and what it has told of its requests."""

    def __init__(self, network, cluster, workdir):
        program = [sys.executable, "-c", SERVICE, workdir, cluster.address]
        self._process = subprocess.Popen(
            [*network.inside(HEAD), *program],
            env=cluster.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._told, self.requests = queue.SimpleQueue(), []
        threading.Thread(target=self._read, daemon=True).start()
        until(lambda: self.news() or self._process.poll() is not None)
        assert self._process.poll() is None

    def _read(self):
        for line in self._process.stdout:
            if line.startswith("{"):  # Ray tells of machines that are lost
                self._told.put(json.loads(line))

    def news(self):
        """Requests that have ended since the last call."""
        count = len(self.requests)
        while not self._told.empty():
            self.requests.append(self._told.get())
        return self.requests[count:]

    def more(self, count):
        """Returns so many requests from now on."""
        self.news()
        before = len(self.requests)
        until(lambda: self.news() is None or len(self.requests) >= before + count)
        return self.requests[before:]

    def until(self, condition):
        """Returns when it holds for a request from now on."""
        self.news()
        until(lambda: any(condition(request) for request in self.news()))

    def close(self):
        self._process.stdin.close()
        assert self._process.wait(120) == 0


def start_with_one_worker_elsewhere(network, cluster, workdir):
    """Returns a service, and a machine that has one of its workers, not the head.

    Ray puts them where it likes.
    """
    for _ in range(10):
        running = Running(network, cluster, workdir)
        counts = {machine: len(pids) for machine, pids in cluster.workers().items()}
        assert sum(counts.values()) == 3
        if alone := [machine for machine in OTHERS if counts[machine] == 1]:
            return running, alone[0]
        running.close()
    pytest.fail(f"workers are not spread: {counts}")


def assert_right(requests, workdir):
    """Of each request that was answered: by what the model makes of these results."""
    model = coded_jax.load(workdir, devices=1)
    images = data.load("mnist_5k").test.images[:1]
    expected = {}
    for request in requests:
        used = tuple(request["used"])
        if used not in expected:
            lost = sorted({0, 1, 2} - {*used})
            expected[used] = np.asarray(model.logits(images, lost=lost))
        np.testing.assert_allclose(
            request["logits"], expected[used], rtol=1e-3, atol=1e-3
        )
    assert len(expected) > 1


def test_cut_off_and_back(network, cluster, finished):
    running, machine = start_with_one_worker_elsewhere(network, cluster, finished)
    running.more(100)

    before = running.requests[-1]["restarts"]
    network.cut_off(machine)
    begun = len(running.requests)
    running.until(lambda request: request["restarts"] > before)
    running.until(lambda request: request["up"])
    assert len(running.requests) > begun + 10  # in the meantime
    elsewhere = [pids for m, pids in cluster.workers().items() if m != machine]
    assert len(set.union(*elsewhere)) == 3

    network.join(machine)
    # It has been given up: it ends, for systemd to start it again.
    until(lambda: cluster.ended(machine) is not None)
    assert cluster.ended(machine) > 0
    cluster.start(machine)
    for _ in range(20):
        if pids := cluster.workers()[machine]:
            break
        before = running.requests[-1]["restarts"]
        most = max(cluster.workers().values(), key=len)
        os.kill(min(most), signal.SIGKILL)
        running.until(lambda r, before=before: r["restarts"] > before)
        running.until(lambda request: request["up"])
    assert pids, "no worker has come back"
    running.more(50)
    running.close()

    assert network.packets_to_others() == 0
    assert not [request for request in running.requests if "error" in request]
    assert_right(running.requests, finished)
