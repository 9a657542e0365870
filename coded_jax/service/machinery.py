"""The processes of a Ray cluster that was started here: what ails them, and their end.

Ray's head (GCS), its raylet and its agents need each other: without any of them,
workers that die do not come back.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from typing import TypeVar

import psutil

from coded_jax.service.cluster import RAYLET_PID

HEAD, RAYLET = "Ray's head (GCS)", "the raylet"
AGENT, PACKAGES = "the agent of the raylet", "the raylet's agent of packages"
PARTS = {
    r"/gcs_server$": HEAD,
    r"/raylet$": RAYLET,
    r"DashboardAgent$|dashboard/agent\.py$": AGENT,
    r"RuntimeEnvAgent$|runtime_env/agent/main\.py$": PACKAGES,
}
"""Processes that a cluster needs, by a pattern of their command line."""
KINDS = {"gcs": (HEAD,), "raylet": (RAYLET,), "agent": (AGENT, PACKAGES)}
"""Names of parts, by what Ray's users call them."""
FROZEN = 4  # looks in a row at which a process is stopped that counts as frozen
END = 10.0  # seconds in which processes that are killed have to end

T = TypeVar("T")


class Machinery:
    """The processes of the one cluster that a process has started.

    Args:
      owner: number of the process; this one if None.

    Those that the process has started itself name a session whose folder has its
    number; what they have started are their descendants, or were once.
    """

    def __init__(self, owner: int | None = None) -> None:
        self._owner = os.getpid() if owner is None else owner
        self._session = re.compile(rf"session_[\d_-]+_{self._owner}\b")
        self._parts: dict[psutil.Process, str] = {}
        self._stopped: dict[psutil.Process, int] = {}  # looks in a row

    def problem(self) -> str | None:
        """Returns the process that has ended or is frozen, in words, or None.

        It is called several times a second. A process that is stopped just for a
        moment, as when the program has been suspended and goes on, is no problem.
        """
        self._learn()
        for process, name in self._parts.items():
            status = _status(process)
            if status is None:
                return f"{name} has ended"
            count = self._stopped.get(process, 0) + 1 if status == "stopped" else 0
            self._stopped[process] = count
            if count >= FROZEN:
                return f"{name} stands still"
        return None

    def processes(self, kind: str) -> list[int]:
        """Returns the numbers of the processes of a kind, of `KINDS`."""
        self._learn()
        names = KINDS[kind]
        return [process.pid for process, name in self._parts.items() if name in names]

    def end(self) -> None:
        """Ends all processes of the cluster, also those that are stopped."""
        limit = time.monotonic() + END
        while (left := self._all()) and time.monotonic() < limit:
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            time.sleep(0.01)
        self._parts.clear()
        self._stopped.clear()

    def _learn(self) -> list[psutil.Process]:
        """Takes note of parts that were started since the last look, and returns the
        processes of the cluster that the owner has started itself."""
        roots = [
            child
            for child in psutil.Process(self._owner).children()
            if self._session.search(" ".join(_of(child.cmdline, [])))
        ]
        self._name(roots)  # among them the raylet
        for raylet in self._raylets():
            self._name(_of(raylet.children, []))
        return roots

    def _name(self, processes: list[psutil.Process]) -> None:
        """Takes note of the parts among processes."""
        for process in processes:
            if process in self._parts:
                continue
            words = [w for w in _of(process.cmdline, [])[:3] if not w.startswith("-")]
            for pattern, name in PARTS.items():
                if any(re.search(pattern, word) for word in words):
                    self._parts[process] = name

    def _raylets(self) -> list[psutil.Process]:
        return [process for process, name in self._parts.items() if name == RAYLET]

    def _all(self) -> list[psutil.Process]:
        """Returns all processes that have not ended, the head first."""
        roots = self._learn()
        found = [*roots, *self._parts]
        for root in roots:
            found += _of(lambda root=root: root.children(recursive=True), [])
        # Workers that have lost their raylet name it; agents do not, but are known.
        raylets = {str(raylet.pid) for raylet in self._raylets()}
        for process in psutil.process_iter(["environ"]):
            if (process.info["environ"] or {}).get(RAYLET_PID) in raylets:
                found.append(process)
        return [p for p in dict.fromkeys(found) if _status(p) is not None]


def _of(question: Callable[[], T], otherwise: T) -> T:
    """Returns an answer about a process, or something else where it has ended."""
    try:
        return question()
    except psutil.Error:
        return otherwise


def _status(process: psutil.Process) -> str | None:
    """Returns the status of a process; None if it has ended."""
    ended = psutil.STATUS_ZOMBIE
    status = _of(lambda: process.status() if process.is_running() else ended, ended)
    return None if status == ended else str(status)
