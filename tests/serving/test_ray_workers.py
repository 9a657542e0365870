"""Workers in processes of their own: kills, freezes, and all of it for a long time."""

import contextlib
import ctypes
import gc
import importlib.util
import ipaddress
import os
import pathlib
import time
from concurrent.futures import wait

import jax
import numpy as np
import pytest
from scipy import stats

from coded_jax import data, serving
from coded_jax.devices import cluster
from coded_jax.latency.stragglers import Bernoulli
from coded_jax.serving.faults import Faults
from coded_jax.serving.faulty_workers import inject
from coded_jax.serving.first_k import FirstK
from coded_jax.serving.service import Service
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
    with serving.serve(model, "ray", faults=Faults(), **settings) as service:
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


def descendants(root):
    """A process, those that it has started, and those that they have."""
    parents = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(folder.name)] = int(fields[1])
    pids = {root}
    while more := {p for p, parent in parents.items() if parent in pids} - pids:
        pids |= more
    return pids


def listening():
    """Addresses that any of these processes listens on."""
    inodes = set()
    for process in descendants(os.getpid()):
        for link in pathlib.Path(f"/proc/{process}/fd").glob("*"):
            try:
                name = os.readlink(link)
            except OSError:
                continue
            if name.startswith("socket:"):
                inodes.add(name[8:-1])
    addresses = set()
    for version in ("tcp", "tcp6"):
        lines = pathlib.Path(f"/proc/net/{version}").read_text().splitlines()[1:]
        for fields in map(str.split, lines):
            if fields[3] == "0A" and fields[9] in inodes:
                words = bytes.fromhex(fields[1].split(":")[0])
                packed = b"".join(
                    words[i : i + 4][::-1] for i in range(0, len(words), 4)
                )
                addresses.add(ipaddress.ip_address(packed))
    return addresses


@pytest.mark.skipif(not os.path.exists("/proc/net/tcp"), reason="it reads /proc")
def test_it_listens_on_loopback_only(service, images):
    service.submit(images[:1]).result()
    addresses = {getattr(ip, "ipv4_mapped", None) or ip for ip in listening()}
    assert addresses and all(ip.is_loopback for ip in addresses), addresses


@pytest.mark.parametrize("kind", ["kill", *long("freeze")])
def test_lost_workers_join_again(service, images, kind):
    """As many as the code survives, at once; requests are answered all the while."""
    lost, pool = (1, 4), service.engine.pool
    before = [worker["restarts"] for worker in pool.status()]
    for worker in lost:
        getattr(pool.workers[worker], kind)()

    def noticed():
        answer = service.submit(images[:1]).result()
        expected = sorted({*range(6)} - {*answer.used[0]})
        assert answer.classes == service.model.classify(images[:1], lost=expected)
        return all(pool.status()[w]["restarts"] > before[w] for w in lost)

    until(noticed)
    until(lambda: all(worker["up"] for worker in pool.status()))
    answer = service.submit(images[:1], without=(0, 2)).result()
    assert answer.used == ((1, 3, 4, 5),)


def resident():
    """Bytes of memory in use; what the allocator keeps for later is handed back."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # of glibc alone
        ctypes.CDLL(None).malloc_trim(0)
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def soak(soaked, images, total=2000):
    """Sends requests; of each hundred, a worker is killed, or frozen and killed while
    they are at work.

    Returns answers and errors, the bytes in use after each hundred, and how many more
    workers were started anew than were disturbed.
    """
    pool, memory, ends, disturbed = soaked.engine.pool, [], [], 0
    before = sum(worker["restarts"] for worker in pool.status())
    for start in range(0, total, 100):
        send = lambda i, start=start: soaked.submit(images[(start + i) % 500][None])
        futures = [*map(send, range(60))]
        index = start // 100 % 6
        worker = pool.workers[index]
        until(lambda index=index: pool.status()[index]["up"])
        if start % 400 == 0:
            worker.freeze()
            disturbed += 1
            wait(futures[:1])
        worker.kill()
        disturbed += 1
        futures += map(send, range(60, 100))
        ends += [future.exception() or future.result() for future in futures]
        memory.append(resident())
    until(lambda: all(worker["up"] for worker in pool.status()))
    restarts = sum(worker["restarts"] for worker in pool.status()) - before
    assert 6 <= restarts
    return ends, memory, restarts - disturbed


@pytest.mark.long
def test_soak(service, images):
    """2,000 requests with kills and freezes, under stragglers, exceptions and NaN."""
    model, pool = service.model, service.engine.pool
    until(lambda: all(worker["up"] for worker in pool.status()))
    delays = (Bernoulli(0.05, 0.1),)
    inject(pool, Faults(delays=delays, exceptions=0.01, nans=0.01, seed=1))
    soaked = Service(model, FirstK(model, pool), deadline=600.0, in_flight=4)
    soaked.warm_up(1)
    answers, memory, more_restarts = soak(soaked, images)
    assert more_restarts <= 0 and not any(answer.degraded for answer in answers)

    of_pattern = {}
    for number, answer in enumerate(answers):
        lost = tuple(sorted({*range(6)} - {*answer.used[0]}))
        assert len(lost) <= 2
        of_pattern.setdefault(lost, []).append(number)
    assert len(of_pattern) > 10  # so much has been met
    for lost, numbers in of_pattern.items():
        few = images[[number % 500 for number in numbers]]
        padded = np.concatenate([few, np.repeat(images[:1], -len(few) % 50, axis=0)])
        logits = model.logits(padded, lost=lost)[: len(few)]
        expected = np.asarray(jax.nn.softmax(logits))
        probabilities = np.concatenate(
            [answers[number].probabilities for number in numbers]
        )
        np.testing.assert_allclose(probabilities, expected, atol=1e-3)

    # What is kept for each request, or for each worker killed, grows with each hundred.
    # The median of all slopes, as compilers and earlier tests add a few MB once.
    assert stats.theilslopes(memory[4:]).slope < 5e5, memory
    soaked.release()


@pytest.mark.parametrize("address", ["203.0.113.7", "203.0.113.7:6379"])
def test_addresses_beyond_loopback_need_a_token(monkeypatch, finished, address):
    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", raising=False)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with refused("address"):
        serving.serve(finished, "ray", address=address)


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
