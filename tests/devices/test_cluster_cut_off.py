"""A cluster of three machines, of which one is cut off: three Rays on loopback."""

import contextlib
import importlib.util
import os
import signal
import time

import pytest

from coded_jax import data, serving
from tests.serving.test_ray_workers import descendants

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is not installed"
    ),
    pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="it reads /proc"),
    # Ray's forks become other programs at once: JAX's threads do no harm.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
# A machine is given up after some seconds of silence, instead of a quarter of a minute.
IMPATIENT = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 4,
}


@pytest.fixture
def cluster():
    os.environ.update(RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0", RAY_AUTH_MODE="token")
    from ray.cluster_utils import Cluster

    some = {"num_cpus": 1, "object_store_memory": 10**8}
    head = {**some, "include_dashboard": False, "_system_config": IMPATIENT}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster, [cluster.add_node(**some) for _ in range(2)]
    cluster.shutdown()


def processes_of(node):
    """All of a machine of the cluster."""
    started = [info for infos in node.all_processes.values() for info in infos]
    return set().union(*(descendants(info.process.pid) for info in started))


@pytest.mark.long
def test_a_machine_that_is_cut_off(cluster, finished):
    """Its workers are lost, the others answer, and another machine takes its place."""
    cluster, added = cluster
    images = data.load("mnist_5k").test.images
    settings = {"deadline": 600.0, "patience": 10.0, "address": cluster.address}
    for _ in range(4):  # Ray puts them where it likes, perhaps all on the first machine
        service = serving.serve(finished, "ray", **settings)
        pids = {worker.probe().result() for worker in service.engine.pool.workers}
        machines = [processes_of(node) for node in added]
        machines = [machine for machine in machines if machine & pids]
        if machines:
            break
        service.close()
    machine = min(machines, key=lambda machine: len(machine & pids))
    with service:
        model, count = service.model, len(machine & pids)
        for process in machine:
            os.kill(process, signal.SIGSTOP)
        end = time.monotonic() + 600
        try:
            while time.monotonic() < end:
                answer = service.submit(images[:1]).result()
                lost = sorted({0, 1, 2} - {*answer.used[0]})
                assert answer.classes == model.classify(images[:1], lost=lost)
                workers = service.summary()["workers"]
                done = sum(w["restarts"] for w in workers) >= count
                if done and all(w["up"] for w in workers):
                    break
                time.sleep(0.05)
            assert sum(w["restarts"] for w in workers) >= count
            assert all(w["up"] for w in workers), workers
            for lost in range(3):  # whichever it was computes again
                answer = service.submit(images[:1], without=[lost]).result()
                assert answer.classes == model.classify(images[:1], lost=[lost])
        finally:
            for process in machine:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGCONT)
