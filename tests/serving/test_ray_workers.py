"""Workers in processes of their own: kills, freezes, and all of it for a long time."""

import contextlib
import ctypes
import dataclasses
import gc
import importlib.util
import ipaddress
import os
import pathlib
import socket
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
from coded_jax.serving.parts import Piece
from coded_jax.serving.service import Service
from coded_jax.serving.workers import Call
from tests.byzantine import examples
from tests.byzantine.examples import calibrated
from tests.parameters import long
from tests.runs.test_experiment import SMALL, small_run
from tests.serving.test_judging import CONFIDENCE

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed"
)
WIDE = dataclasses.replace(SMALL, k=4, r=2, base_epochs=0.1, epochs=0.1, baselines=())


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """Six workers, of which any four are enough."""
    path = tmp_path_factory.mktemp("runs") / "wide"
    small_run(path, WIDE)
    settings = {"deadline": 600.0, "patience": 20.0, "in_flight": 4}
    with serving.serve(path, "ray", faults=Faults(), **settings) as service:
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


@pytest.mark.parametrize(
    "n, machines, share",
    [
        (3, [{"GPU": 3.0}], 1),
        (3, [{"GPU": 8.0, "CPU": 2.0}], 1),
        (3, [{"GPU": 2.0}], 1 / 2),
        (6, [{"GPU": 4.0}], 1 / 2),
        (6, [{"GPU": 1.0}, {"CPU": 4.0}, {"GPU": 1.0}], 1 / 3),
        (6, [{"GPU": 1.0}], 1 / 6),
    ],
)
def test_every_worker_finds_its_part_of_a_gpu(n, machines, share):
    from coded_jax.devices.cluster import gpu_share

    assert gpu_share(n, machines) == share
    fits = sum(int(machine.get("GPU", 0)) * round(1 / share) for machine in machines)
    assert fits >= n


@pytest.mark.parametrize(
    "free, room", [({}, False), ({"GPU": 0.5}, False), ({"GPU": 1.0}, True)]
)
def test_a_model_that_is_loaded_needs_accelerators_too(monkeypatch, free, room):
    """Three workers share the one GPU that there is."""
    from coded_jax.devices import cluster

    class Ray:
        cluster_resources = staticmethod(lambda: {"GPU": 1.0, "CPU": 4.0})
        nodes = staticmethod(lambda: [{"Resources": {"GPU": 1.0}}])
        available_resources = staticmethod(lambda: free)

    monkeypatch.setattr(cluster, "import_ray", lambda: Ray)
    assert cluster.has_room(3) == room
    Ray.cluster_resources = staticmethod(lambda: {"CPU": 4.0})
    assert cluster.has_room(3)


def test_what_a_worker_raises_is_a_lost_result(service, images):
    """The first piece's index is out of range in each process."""
    pool = service.engine.pool
    before = sum(worker["losses"]["raised"] for worker in pool.status())
    wrong = [Call(Piece((9, 9), i, (0, 0), (1, 1, 1)), images[:1]) for i in range(6)]
    with pytest.raises(RuntimeError, match="a worker cannot compute"):
        pool.compute_everywhere(wrong)
    until(lambda: sum(w["losses"]["raised"] for w in pool.status()) == before + 6)


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
    temperatures = model.results["confidence"]
    for lost, numbers in of_pattern.items():
        few = images[[number % 500 for number in numbers]]
        padded = np.concatenate([few, np.repeat(images[:1], -len(few) % 50, axis=0)])
        logits = model.logits(padded, lost=lost)[: len(few)]
        decoded = any(i < 4 for i in lost)
        temperature = temperatures[str(len(lost)) if decoded else "0"]["temperature"]
        expected = np.asarray(jax.nn.softmax(logits / temperature))
        probabilities = np.concatenate(
            [answers[number].probabilities for number in numbers]
        )
        np.testing.assert_allclose(probabilities, expected, atol=1e-3)

    # What is kept for each request, or for each worker killed, grows with each hundred.
    # The median of all slopes, as compilers and earlier tests add a few MB once.
    assert stats.theilslopes(memory[4:]).slope < 5e5, memory
    soaked.release()


@pytest.mark.long
def test_soak_with_wrong_results():
    """2,000 requests as before, whose results are wrong, too: none is believed."""
    model, check = calibrated("mds", 4, 2)
    model = model._replace(results={"confidence": CONFIDENCE})
    delays = (Bernoulli(0.05, 0.1),)
    faults = Faults(delays=delays, exceptions=0.01, nans=0.01, corruptions=0.02, seed=1)
    waits = {"deadline": 600.0, "patience": 5.0, "check_wait": 600.0}
    some = examples.images(500, 9)
    with serving.serve(
        model, "ray", faults=faults, check=check, strikes=20, **waits
    ) as soaked:
        ends, *_ = soak(soaked, some)
        workers = soaked.summary()["workers"]
    answers = {
        i: end for i, end in enumerate(ends) if isinstance(end, serving.Response)
    }
    errors = [end for end in ends if isinstance(end, Exception)]
    # Where as much is lost as can be, nobody can say which other result is wrong.
    assert all(isinstance(error, serving.WrongResults) for error in errors)
    assert len(errors) < 60
    left_out = [answer for answer in answers.values() if answer.wrong]
    counted = sum(worker["losses"]["wrong"] for worker in workers)
    assert 100 < len(left_out) <= counted
    logits = model.logits(some)
    for number, answer in answers.items():
        if answer.checked:  # else just as many arrived as are needed
            expected = logits[number % 500]
            np.testing.assert_allclose(answer.logits[0], expected, rtol=1e-3, atol=1e-3)
    assert sum(answer.checked for answer in answers.values()) > 1900


def test_a_run_that_workers_cannot_load(tmp_path):
    with pytest.raises(ValueError, match="workdir: "):
        serving.serve(tmp_path / "nothing", "ray")


@pytest.mark.parametrize(
    "address, message",
    [
        ("203.0.113.7", "host:port accepted"),
        ("203.0.113.7:6379", "accepted"),
    ],
)
def test_addresses_beyond_loopback_need_a_token(
    monkeypatch, finished, address, message
):
    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", raising=False)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(ValueError, match=message):
        serving.serve(finished, "ray", address=address)


def test_a_host_that_is_not_found_may_be_found_later():
    """It is no wrong value, on which a service would give up a cluster."""
    with pytest.raises(RuntimeError, match="'no.such.host.invalid:6379' is not found"):
        cluster.check_address("no.such.host.invalid:6379")


def test_metrics_as_prometheus_text(service, images):
    import urllib.request

    pytest.importorskip("prometheus_client")
    from coded_jax.serving import metrics

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    service.submit(images[:1]).result()
    until(lambda: all(worker["up"] for worker in service.summary()["workers"]))
    close = metrics.expose(port, service.summary)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
    finally:
        close()
    answered = service.summary()["requests"]["answered"]
    assert f'coded_jax_requests_total{{end="answered"}} {answered}.0' in text
    assert 'coded_jax_latency_seconds{quantile="0.999"}' in text
    assert 'coded_jax_worker_up{worker="5"} 1.0' in text
    assert 'coded_jax_losses_total{why="hung",worker="0"}' in text.replace(
        'worker="0",why="hung"', 'why="hung",worker="0"'
    )
