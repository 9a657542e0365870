"""A Ray cluster: one that is started on this machine, or another one that is joined.

A cluster that is started here keeps to the loopback interface, which Ray by itself does
not; a cluster beyond it is joined only with Ray's authentication by token.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from coded_jax.checks import require
from coded_jax.service.config import is_loopback

OLDEST = (2, 52)  # the first Ray with authentication by token
LARGEST_ACTION = 1024  # bytes of a `struct sigaction`, of any system
RAYLET_PID = "RAY_RAYLET_PID"
"""Variable by which Ray's processes know the raylet with which they end."""
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Set to 0, a Ray on any system keeps to the loopback interface."""
SETTINGS = {
    # Calls of a process that has died fail at once: nobody waits to learn why it died.
    "timeout_ms_task_wait_for_death_info": 0,
    # No tables of tasks: they are for a dashboard, and hold up a driver that leaves a
    # cluster that has died.
    "task_events_report_interval_ms": 0,
    # Arguments and results of any size travel by themselves: of what is in the object
    # store, a process dies with the store.
    "max_direct_call_object_size": 2**31,
    "task_rpc_inlined_bytes_limit": 2**31,
    # Workers are as important as clients on this machine: by itself, Ray lets them wait
    # for all else, and on busy cores one that died was back after 13 s instead of 5.
    "worker_niceness": 0,
}
"""Settings of Ray for this process, and for a cluster that is started here."""
ENVIRONMENT = {f"RAY_{name}": str(value) for name, value in SETTINGS.items()}
"""Environment variables of these settings, for workers on a cluster that was started
elsewhere."""
NOWHERE = "http://127.0.0.1:9"
SILENT = {"RAY_USAGE_STATS_ENABLED": "0", "http_proxy": NOWHERE, "https_proxy": NOWHERE}
"""With these Ray's head asks no cloud what it is, and tells its makers nothing."""
QUIET = {"log_to_driver": False, "logging_level": "error"}


def import_ray() -> Any:
    """Imports Ray.

    Raises:
      ImportError: it is missing or too old; says how to install it.
    """
    # Ray then reads with which process this one ends: with itself. Else it takes a
    # program whose parent is process 1, as a unit of systemd, for a worker that has
    # lost its raylet, and ends it once a raylet is dead.
    driver = {RAYLET_PID: os.environ.get(RAYLET_PID, str(os.getpid()))}
    try:
        with _environment(driver if "ray" not in sys.modules else {}):
            import ray
    except ImportError:
        problem = "Ray is not installed; pip install 'coded_jax[ray]'"
        raise ImportError(problem) from None
    # An older one would start a cluster that anybody on this machine may use.
    if tuple(map(int, ray.__version__.split(".")[:2])) < OLDEST:
        raise ImportError(f"Ray {ray.__version__} is installed, 2.52 or newer accepted")
    return ray


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets variables, also of processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def _own_handlers() -> Iterator[None]:
    """Keeps the program's own handler of SIGTERM, which Ray replaces, and removes.

    By the C library: Python sets handlers in its main thread alone.
    """
    library, action = ctypes.CDLL(None), ctypes.create_string_buffer(LARGEST_ACTION)
    library.sigaction(signal.SIGTERM, None, action)
    try:
        yield
    finally:
        library.sigaction(signal.SIGTERM, action, None)


def connect(address: str | None, n: int) -> None:
    """Joins a Ray cluster, or starts one on this machine.

    Args:
      address: `host:port` of its head; None starts one that listens on the loopback
        interface only.
      n: workers that it will have.

    Raises:
      ImportError: Ray is missing.
      ValueError: the cluster is not on this machine's loopback interface, and this
        process or the cluster does without authentication by token.
      RuntimeError: there is no cluster at that address, or Ray has been started by
        something else in this process.
    """
    loopback = address is None or check_address(address)
    # What follows is read when Ray is imported, and by its processes.
    if loopback:
        needed = {LOOPBACK: "0"}
        if address is None:
            needed["RAY_AUTH_MODE"] = "token"
        if "ray" in sys.modules and not needed.items() <= os.environ.items():
            text = " and ".join(f"{name}={value}" for name, value in needed.items())
            raise RuntimeError(f"Ray was imported before; set {text} before that")
        os.environ.update(needed)
    # Several processes may share an accelerator. And Ray would end this process a
    # minute after it has lost the head of a cluster that it has joined.
    own = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    joined = {**ENVIRONMENT, "RAY_gcs_rpc_server_reconnect_timeout_s": "3600"}
    for name, value in (own if address is None else joined).items():
        os.environ.setdefault(name, value)
    ray = import_ray()
    options = {
        "num_cpus": n,
        "include_dashboard": False,
        "object_store_memory": 2**27,
        # A frozen process does not end when it is asked to.
        "_system_config": {"kill_worker_timeout_milliseconds": 500, **SETTINGS},
    }
    with warnings.catch_warnings(), _own_handlers():
        # Ray's forks become other programs at once: JAX's threads do no harm.
        warnings.filterwarnings("ignore", "os.fork")
        if address is None:
            with _environment(SILENT):
                ray.init("local", **options, **QUIET)
        else:
            try:
                ray.init(address, **QUIET)
            except (ConnectionError, RuntimeError) as error:
                problem = f"address: no Ray cluster at {address!r} ({error})"
                raise RuntimeError(problem) from error
    machines = {node["NodeManagerAddress"] for node in ray.nodes()}
    if loopback and not all(map(is_loopback, machines)):
        ray.shutdown()
        accepted = f"one of its cluster's machines, {sorted(machines)}"
        raise ValueError(f"address: {address!r} given, {accepted} accepted")


def node_watch() -> Callable[[float], bool]:
    """Returns a function that asks the head, for so many seconds, whether the raylet of
    this process is alive."""
    ray = import_ray()
    context = ray.get_runtime_context()
    node = ray.NodeID.from_hex(context.get_node_id())
    # Not `ray.nodes`, which may hang, and Ray then ends the process after a minute.
    head = ray._raylet.GcsClient(address=context.gcs_address)
    return lambda seconds: head.check_alive([node], timeout=seconds)[0]


def refusal(address: str) -> str | None:
    """Returns that nothing listens at an address on which Ray's head was; or None.

    A head that does not answer is no refusal: it may be frozen, or its network slow.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except ConnectionRefusedError:
        return f"nothing listens at {address} any more"
    except OSError:
        pass
    return None


def disconnect() -> None:
    """Leaves the cluster; ends it if `connect` has started it."""
    with _own_handlers():
        import_ray().shutdown()


def let_go() -> None:
    """Has the program not leave the cluster when it ends: one whose head is frozen, or
    cut off, would hold it up."""
    atexit.unregister(import_ray().shutdown)


def gpu_share(n: int, machines: Sequence[dict[str, float]]) -> float:
    """Returns the largest part of a GPU that n workers can have each.

    Args:
      n: workers.
      machines: resources of each, with its whole number of GPUs as `GPU`.
    """
    gpus = sum(int(machine.get("GPU", 0)) for machine in machines)
    return 1 / max(1, -(-n // gpus))  # of one GPU each: a part cannot lie on two


def accelerators(n: int) -> dict[str, Any]:
    """Returns Ray's options for each of n workers: an accelerator of its own where Ray
    knows of enough, or its part of one."""
    ray = import_ray()
    resources = ray.cluster_resources()
    if resources.get("GPU", 0) >= 1:
        machines = [node["Resources"] for node in ray.nodes()]
        return {"num_gpus": gpu_share(n, machines)}
    return {"resources": {"TPU": 1}} if resources.get("TPU", 0) >= n else {}


def check_address(address: str) -> bool:
    """Returns whether an address is of the loopback interface.

    Raises:
      ValueError: it is not an address, or the cluster there must not be joined.
      RuntimeError: there is no such host at the moment, or nothing answers there.
    """
    host, _, port = address.rpartition(":")
    require("address", address, bool(host) and port.isdecimal(), "host:port")
    try:
        resolved = {str(info[4][0]) for info in socket.getaddrinfo(host, int(port))}
        loopback = all(map(is_loopback, resolved))
        if not loopback:
            token = os.environ.get("RAY_AUTH_MODE") == "token"
            fits = token and os.environ.get(LOOPBACK) != "0"
            accepted = f"a loopback one, or with RAY_AUTH_MODE=token, no {LOOPBACK}=0,"
            require("address", address, fits, accepted)
        # Before Ray, which would try for minutes: `ray health-check` takes 40 s.
        socket.create_connection((host, int(port)), timeout=10).close()
        if not loopback:
            command = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
            command += ["--address", address]
            tokenless = {**os.environ, "RAY_AUTH_MODE": "disabled"}
            asked = {"env": tokenless, "capture_output": True, "timeout": 60}
            refused = subprocess.run(command, **asked).returncode != 0
            accepted = "a cluster that answers only with a token"
            require("address", address, refused, accepted)
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = f"address: no cluster answers at {address!r} ({error})"
        raise RuntimeError(problem) from None
    return loopback
