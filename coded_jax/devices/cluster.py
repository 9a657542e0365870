"""Ray, for the cluster engine: one that is started on this machine, or another one.

What is started here keeps to the loopback interface, which Ray by itself does not; a
cluster beyond it is joined only with Ray's authentication by token.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

STARTUP = 120.0  # seconds that a worker may take, on a machine with little else to do
OLDEST = (2, 52)  # the first Ray with authentication by token
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Set to 0, a Ray on any system keeps to the loopback interface."""


def import_ray() -> Any:
    """Raises ImportError, with what to install, where there is no Ray of use."""
    try:
        import ray
    except ImportError:
        raise ImportError(
            "Ray is not installed; pip install 'coded_jax[ray]'"
        ) from None
    if tuple(map(int, ray.__version__.split(".")[:2])) < OLDEST:
        raise ImportError(f"Ray {ray.__version__} is installed, 2.52 or newer accepted")
    return ray


@contextlib.contextmanager
def _own_handlers() -> Iterator[None]:
    """Keeps what the program does on SIGTERM, which Ray would replace."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # only the main thread may set handlers
            signal.signal(signal.SIGTERM, handler)


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
    if address is None:
        _start(n)
        return
    if loopback := _check_address(address):
        _keep_to_loopback()
    ray = import_ray()
    _refuse_another(ray)
    try:
        with _own_handlers():
            ray.init(address, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError) as error:
        raise RuntimeError(
            f"address: no Ray cluster at {address!r} ({error})"
        ) from error
    found = {node["NodeManagerAddress"] for node in ray.nodes()}
    if loopback and not all(ipaddress.ip_address(each).is_loopback for each in found):
        ray.shutdown()
        raise ValueError(
            f"address: {address!r} given, whose cluster has machines at "
            f"{sorted(found)}; the address of one of them accepted"
        )


def _start(n: int) -> None:
    _keep_to_loopback(RAY_AUTH_MODE="token")
    # Several processes may share an accelerator.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    ray = import_ray()
    _refuse_another(ray)
    with warnings.catch_warnings():
        # Ray's forks become other programs at once: JAX's threads do no harm.
        warnings.filterwarnings("ignore", "os.fork")
        with _own_handlers():
            ray.init(
                "local",
                num_cpus=n,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="error",
                object_store_memory=2**27,
                # A frozen process does not end when it is asked to.
                _system_config={"kill_worker_timeout_milliseconds": 500},
            )
    here = ray.util.get_node_ip_address()
    if not ipaddress.ip_address(here).is_loopback:
        ray.shutdown()
        raise RuntimeError(
            f"Ray listens on {here}, since this version does not keep to the loopback "
            "interface"
        )


def _keep_to_loopback(**more: str) -> None:
    """Settings that are read when Ray is imported, and by the processes it starts."""
    settings = {LOOPBACK: "0", **more}
    if "ray" in sys.modules and not settings.items() <= os.environ.items():
        told = " and ".join(f"{name}={value}" for name, value in settings.items())
        raise RuntimeError(
            f"Ray was imported before; set {told} before that, or import it after "
            "coded_jax.serving.serve"
        )
    os.environ.update(settings)


def _refuse_another(ray: Any) -> None:
    if ray.is_initialized():
        raise RuntimeError("Ray has been started by something else in this process")


def disconnect() -> None:
    """Leaves the cluster, and ends it if `connect` has started it."""
    import_ray().shutdown()


def gpu_share(n: int, machines: Sequence[dict[str, float]]) -> float:
    """The part of a GPU that each of n workers has, as large as there are enough.

    Args:
      n: workers.
      machines: resources of each, with its whole number of GPUs as `GPU`.
    """
    gpus = sum(int(machine.get("GPU", 0)) for machine in machines)
    return 1 / max(1, -(-n // gpus))  # of one GPU each: a part cannot lie on two


def accelerators(n: int) -> dict[str, Any]:
    """Ray's options for each of n workers: an accelerator of its own where Ray knows of
    enough, or its part of one."""
    ray = import_ray()
    found = ray.cluster_resources()
    if found.get("GPU", 0) >= 1:
        machines = [node["Resources"] for node in ray.nodes()]
        return {"num_gpus": gpu_share(n, machines)}
    if found.get("TPU", 0) >= n:
        return {"resources": {"TPU": 1}}
    return {}


def _check_address(address: str) -> bool:
    """Whether it is of the loopback interface; raises for what must not be joined."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"address: {address!r} given, host:port accepted")
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, int(port))}
    except OSError as error:
        raise ValueError(f"address: {address!r} given, not found ({error})") from None
    if all(ipaddress.ip_address(each).is_loopback for each in found):
        _check_reached(address, host, int(port))
        return True
    if os.environ.get(LOOPBACK) == "0":
        raise ValueError(
            f"address: {address!r} given, with {LOOPBACK}=0 a loopback one accepted"
        )
    if os.environ.get("RAY_AUTH_MODE") != "token":
        raise ValueError(
            f"address: {address!r} given, beyond loopback accepted only with "
            "RAY_AUTH_MODE=token, here and on every machine of the cluster"
        )
    _check_reached(address, host, int(port))
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    anybody = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    try:
        tried = subprocess.run(
            [*command, "--address", address],
            env=anybody,
            capture_output=True,
            timeout=60,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"address: no Ray cluster answers at {address!r}") from None
    if tried.returncode == 0:
        raise ValueError(
            f"address: {address!r} given, whose cluster answers without a token; start "
            "all of it with RAY_AUTH_MODE=token"
        )
    return False


def _check_reached(address: str, host: str, port: int) -> None:
    """Before Ray, which would try for minutes."""
    try:
        socket.create_connection((host, port), timeout=10).close()
    except OSError as error:
        raise RuntimeError(f"address: nothing at {address!r} ({error})") from None
