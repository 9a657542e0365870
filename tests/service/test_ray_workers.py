"""Workers in processes of their own: kills, freezes, and where they listen."""

import contextlib
import importlib.util
import ipaddress
import signal
import time

import pytest

from coded_jax import data
from coded_jax.service import cluster, serve
from tests.errors import refused
from tests.parameters import long
from tests.untrained import untrained_model

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed"
)
TEMPERATURES = {str(lost): {"temperature": 1.0} for lost in range(3)}


@pytest.fixture(scope="module")
def service(lenet):
    """Six workers, of which any four are enough."""
    model = untrained_model(lenet, code="mds", k=4, r=2)
    model = model._replace(results={"confidence": TEMPERATURES})
    settings = {"deadline": 600.0, "patience": 20.0, "in_flight": 4}
    with serve(model, "ray", **settings) as service:
        yield service


@pytest.fixture(scope="module")
def images():
    return data.load("mnist_5k").test.images


def until(condition, seconds=300):
    """Seconds until it holds."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() < begun + seconds
        time.sleep(0.01)
    return time.monotonic() - begun


def listening():
    """Addresses that this process listens on, and those that descend from it."""
    psutil = pytest.importorskip("psutil")
    this = psutil.Process()
    for process in (this, *this.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    yield ipaddress.ip_address(connection.laddr.ip)


def test_it_listens_on_loopback_only(service, images):
    service.submit(images[:1]).result()
    addresses = {getattr(ip, "ipv4_mapped", None) or ip for ip in listening()}
    assert addresses and all(ip.is_loopback for ip in addresses), addresses


@pytest.mark.parametrize("number", [signal.SIGKILL, *long(signal.SIGSTOP)])
def test_lost_workers_join_again(service, images, number):
    """As many as the code survives, at once; requests are answered all the while."""
    lost, pool = (1, 4), service.engine.pool
    before = [worker["restarts"] for worker in pool.status()]
    for worker in lost:
        pool.workers[worker].signal(number)

    def noticed():
        answer = service.submit(images[:1]).result()
        expected = sorted({*range(6)} - {*answer.used[0]})
        assert answer.classes == service.model.classify(images[:1], lost=expected)
        return all(pool.status()[w]["restarts"] > before[w] for w in lost)

    until(noticed)
    until(lambda: all(worker["up"] for worker in pool.status()))
    answer = service.submit(images[:1], without=(0, 2)).result()
    assert answer.used == ((1, 3, 4, 5),)


@pytest.mark.parametrize("address", ["203.0.113.7", "203.0.113.7:6379"])
def test_addresses_beyond_loopback_need_a_token(monkeypatch, finished, address):
    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", raising=False)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with refused("address"):
        serve(finished, "ray", address=address)


@pytest.mark.parametrize(
    "n, machines, share",
    [
        (3, [{"GPU": 8.0, "CPU": 2.0}], 1),
        (6, [{"GPU": 4.0}], 1 / 2),
        (6, [{"GPU": 1.0}, {"CPU": 4.0}, {"GPU": 1.0}], 1 / 3),
    ],
)
def test_every_worker_finds_its_part_of_a_gpu(n, machines, share):
    assert cluster.gpu_share(n, machines) == share
