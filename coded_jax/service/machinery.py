"""The processes of a Ray cluster that was started here: what ails them, and their end.

Ray's head (GCS), its raylet and its agents need each other: without any of them,
workers that die do not come back.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psutil import Process

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
RAYLET_PID = "RAY_RAYLET_PID"
"""Variable by which Ray's processes know the raylet with which they end."""
FROZEN = 4  # looks in a row at which a process is stopped that counts as frozen
END = 10.0  # seconds in which processes that are killed have to end


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
        self._parts: dict[Process, str] = {}
        self._stopped: dict[Process, int] = {}  # looks in a row

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
        import psutil

        limit = time.monotonic() + END
        while (left := self._all()) and time.monotonic() < limit:
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            time.sleep(0.01)
        self._parts.clear()
        self._stopped.clear()

    def _learn(self) -> None:
        """Takes note of parts that were started since the last look."""
        for found in (self._roots, self._children_of_raylets):  # in this order
            for process in found():
                if process not in self._parts:
                    self._name(process)

    def _name(self, process: Process) -> None:
        """Takes note of a process if it is a part."""
        words = [word for word in _command(process)[:3] if not word.startswith("-")]
        for pattern, name in PARTS.items():
            if any(re.search(pattern, word) for word in words):
                self._parts[process] = name

    def _roots(self) -> list[Process]:
        """Returns the processes of the cluster that this process has started."""
        import psutil

        started = psutil.Process(self._owner).children()
        return [p for p in started if self._session.search(" ".join(_command(p)))]

    def _children_of_raylets(self) -> list[Process]:
        raylets = [p for p, name in self._parts.items() if name == RAYLET]
        return [child for raylet in raylets for child in _children(raylet)]

    def _all(self) -> list[Process]:
        """Returns all processes that have not ended, the head first."""
        import psutil

        self._learn()
        roots = self._roots()
        found = [*roots, *self._parts, *(c for p in roots for c in _children(p, True))]
        # Workers that have lost their raylet name it; agents do not, but are known.
        raylets = {str(p.pid) for p, name in self._parts.items() if name == RAYLET}
        for process in psutil.process_iter(["environ"]):
            environment = process.info["environ"] or {}
            if environment.get(RAYLET_PID) in raylets:
                found.append(process)
        return [p for p in dict.fromkeys(found) if _status(p) is not None]


def _status(process: Process) -> str | None:
    """Returns the status of a process; None if it has ended."""
    import psutil

    try:
        status = process.status() if process.is_running() else psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None
    return None if status == psutil.STATUS_ZOMBIE else str(status)


def _command(process: Process) -> list[str]:
    import psutil

    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _children(process: Process, recursive: bool = False) -> list[Process]:
    import psutil

    try:
        return process.children(recursive)
    except psutil.Error:
        return []
