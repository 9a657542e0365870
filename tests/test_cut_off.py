"""A cluster of three machines, of which one is cut off: three Rays on loopback."""

import importlib.util
import os
import signal
import time

import pytest
from test_cluster import descendants

from coded_jax import data, runtime

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is not installed"
    ),
    pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="it reads /proc"),
    # Ray's forks become other programs at once: JAX's threads do no harm.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
# A machine is given up after two seconds of silence, instead of a quarter of a minute.
IMPATIENT = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
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


def test_a_machine_that_is_cut_off(cluster, finished):
    """Its worker is lost, the others answer, and another machine takes its place."""
    cluster, (_, cut) = cluster
    images = data.load("mnist_5k").test.images
    settings = {"deadline": 120.0, "patience": 4.0, "address": cluster.address}
    with runtime.serve(finished, "ray", **settings) as service:
        model = service.model
        machine = set()
        for infos in cut.all_processes.values():
            for info in infos:
                machine |= descendants(info.process.pid)
        for process in machine:
            os.kill(process, signal.SIGSTOP)
        end = time.monotonic() + 120
        try:
            while time.monotonic() < end:
                answer = service.submit(images[:1]).result()
                lost = sorted({0, 1, 2} - {*answer.used[0]})
                assert answer.classes == model.classify(images[:1], lost=lost)
                workers = service.summary()["workers"]
                if sum(w["restarts"] for w in workers) and all(
                    w["up"] for w in workers
                ):
                    break
                time.sleep(0.05)
            assert sum(w["restarts"] for w in workers) >= 1
            assert all(w["up"] for w in workers), workers
            for lost in range(3):  # whichever it was computes again
                answer = service.submit(images[:1], without=[lost]).result()
                assert answer.classes == model.classify(images[:1], lost=[lost])
        finally:
            for process in machine:
                try:
                    os.kill(process, signal.SIGCONT)
                except ProcessLookupError:
                    pass
