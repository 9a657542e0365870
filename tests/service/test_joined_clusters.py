"""Services on a cluster that somebody else has started, and may end."""

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys

import pytest

from coded_jax import data
from coded_jax.service import NotEnoughResults, serve
from tests.service.test_machinery import SERVICE
from tests.service.test_ray_workers import until

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is not installed"
    ),
    pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="it reads /proc"),
]
psutil = pytest.importorskip("psutil")
RAY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}


@pytest.fixture
def images():
    return data.load("mnist_5k").test.images


class Head:
    """A cluster of somebody else's, on a port of the loopback interface."""

    def __init__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def start(self):
        options = [f"--port={self.port}", "--node-ip-address=127.0.0.1", "--num-cpus=3"]
        options += ["--include-dashboard=false", "--object-store-memory=100000000"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = psutil.Popen(
            [*command, "--block", *options], start_new_session=True, **quiet
        )
        until(lambda: any(p.name() == "raylet" for p in self.family()))

    def family(self):
        return self.process.children(recursive=True)

    def stop(self):
        if self.process.is_running():
            for process in [*self.family(), self.process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self.process.wait()


@pytest.fixture
def head():
    os.environ.update(RAY)  # for all of this process, which keeps to it from now on
    head = Head()
    head.start()
    yield head
    head.stop()


@pytest.mark.long
def test_the_cluster_of_somebody_else_comes_back_and_goes(head, finished, images):
    settings = {**SERVICE, "address": f"127.0.0.1:{head.port}", "reconnect_for": 120.0}
    with serve(finished, "ray", **settings) as service:
        watched = service.engine.supervisor
        service.submit(images[:1]).result()
        head.stop()
        noticed = until(lambda: watched.obstacle() is not None)
        assert noticed < 5 and "joining it again" in service.obstacle()
        with pytest.raises(NotEnoughResults, match="joining it again"):
            service.submit(images[:1], deadline=1.0).result()
        head.start()
        until(lambda: service.obstacle() is None)
        service.submit(images[:1]).result()
        assert watched.restarts == 1

        watched._reconnect_for = 3.0
        head.stop()
        until(lambda: service.failure() is not None)
        assert "given up" in service.failure()
