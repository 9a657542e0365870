"""The processes of a Ray cluster that was started here: what ails them, and their end.

Ray's head (GCS), its raylet and its agents need each other: without any of them,
workers that die do not come back.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import time

import psutil

from coded_jax.service.cluster import RAYLET_PID

PARTS = {
    r"/gcs_server$": ("gcs", "Ray's head (GCS)"),
    r"/raylet$": ("raylet", "the raylet"),
    r"DashboardAgent$|dashboard/agent\.py$": ("agent", "the agent of the raylet"),
    r"RuntimeEnvAgent$|runtime_env/agent/main\.py$": ("agent", "the agent of packages"),
}
"""Processes that a cluster needs, by a pattern of their command line: what Ray's users
call them, and their names."""
FROZEN = 4  # looks in a row at which a process is stopped that counts as frozen
END = 10.0  # seconds in which processes that are killed have to end


class Machinery:
    """The processes of the one cluster that a process has started.

    Args:
      owner: number of the process; this one if None.

    Those that the process has started itself name a session whose folder has its
    number; the raylet has started the others.
    """

    def __init__(self, owner: int | None = None) -> None:
        self._owner = owner or os.getpid()
        self._session = re.compile(rf"session_[\d_-]+_{self._owner}\b")
        self._parts: dict[psutil.Process, tuple[str, str]] = {}
        self._stopped = collections.Counter[psutil.Process]()  # looks in a row

    def problem(self) -> str | None:
        """Returns the process that has ended or is frozen, in words, or None.

        It is called several times a second. A process that is stopped just for a
        moment, as when the program has been suspended and goes on, is no problem.
        """
        self._learn()
        for process, (_, name) in self._parts.items():
            status = _status(process)
            if status is None:
                return f"{name} has ended"
            count = self._stopped[process] + 1
            self._stopped[process] = count if status == psutil.STATUS_STOPPED else 0
            if self._stopped[process] >= FROZEN:
                return f"{name} stands still"
        return None

    def processes(self, kind: str) -> list[int]:
        """Returns the numbers of the processes of a kind, as in `PARTS`."""
        self._learn()
        return [process.pid for process, (own, _) in self._parts.items() if own == kind]

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
        roots = []
        for process in psutil.process_iter(["ppid"]):
            own = process.info["ppid"] == self._owner
            if not own and process.info["ppid"] not in self._raylets():
                continue
            with contextlib.suppress(psutil.Error):  # it may end at any time
                words = process.cmdline()
                if own and not self._session.search(" ".join(words)):
                    continue
                roots += [process] * own
                names = [word for word in words[:3] if not word.startswith("-")]
                for pattern, part in PARTS.items():
                    if any(re.search(pattern, name) for name in names):
                        self._parts[process] = part
        return roots

    def _raylets(self) -> list[int]:
        return [p.pid for p, (kind, _) in self._parts.items() if kind == "raylet"]

    def _all(self) -> list[psutil.Process]:
        """Returns all processes that have not ended, the head first."""
        found = [*self._learn(), *self._parts]
        # Workers that have lost their raylet name it; agents do not, but are known.
        raylets = [str(number) for number in self._raylets()]
        for process in psutil.process_iter(["environ"]):
            if (process.info["environ"] or {}).get(RAYLET_PID) in raylets:
                found.append(process)
        return [p for p in dict.fromkeys(found) if _status(p) is not None]


def _status(process: psutil.Process) -> str | None:
    """Returns the status of a process; None if it has ended."""
    with contextlib.suppress(psutil.Error):
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            return process.status()
    return None
