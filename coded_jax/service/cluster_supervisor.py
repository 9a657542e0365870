"""A Ray cluster that may die or freeze under its workers, and comes back.

One that is started here is ended to the last process, and started anew. Another one is
joined again when it answers. Those who use the cluster meanwhile are told that their
workers are lost; the workers of the cluster that follows are new ones.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING

from coded_jax.checks import first_line
from coded_jax.devices import startup
from coded_jax.service import cluster
from coded_jax.service.pool import WorkerLost

if TYPE_CHECKING:
    from coded_jax.service.machinery import Machinery

LOOK = 0.25  # seconds between looks at the cluster
PAUSE = 2.0  # seconds between questions to its head
ANSWER = 5.0  # seconds in which they are answered, also on a busy machine
SILENCE = 3  # questions without an answer, in a row, after which the head is lost
CALLS = 5.0  # seconds in which calls of Ray that have begun have to end
GRACE = 20.0  # seconds after which an attempt to connect, or the thread, hangs
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds between attempts to connect

log = logging.getLogger("coded_jax")


class Supervisor:
    """Connects this process with a Ray cluster, and looks after the cluster.

    Args:
      address: of a cluster that is joined; None starts one, see `cluster.connect`.
      n: workers that it will have.
      reconnect_for: seconds for which it is tried to bring a lost cluster back.

    Attributes:
      members: told by an error when the cluster is lost: each fails what is under way,
        and lets go of all that is Ray's. It is left with the last of them.
      restarts: how often the cluster was started anew, or joined again.
    """

    def __init__(self, address: str | None, n: int, reconnect_for: float) -> None:
        self.address, self._n, self._reconnect_for = address, n, reconnect_for
        self.members: list[Callable[[WorkerLost], None]] = []
        self.restarts = 0
        self._lock = threading.Lock()  # held while Ray is called
        self._up, self._given_up, self._closed = False, False, threading.Event()
        self._obstacle: str | None = None
        self._lost: float | None = None  # since when the cluster has been
        self._machinery: Machinery | None = None  # of a cluster that is started here
        self._complaints: list[str] = []  # of the head of this cluster, or about it
        started: Future[None] = Future()
        # Ray's processes end with the thread that has started them.
        self._thread = threading.Thread(target=self._run, args=[started], daemon=True)
        self._thread.start()
        atexit.register(self.close)
        try:
            started.result()
        except BaseException:
            self.close()
            raise

    def obstacle(self) -> str | None:
        """Returns the fault of the cluster and its recovery, or None."""
        return self.failure() or self._obstacle

    def failure(self) -> str | None:
        """Returns why the cluster has been given up for good; None if it has not."""
        if not self._given_up and self._lost is not None:
            seconds = time.monotonic() - self._lost
            if seconds > self._reconnect_for + GRACE:  # connecting hangs
                return f"{self._obstacle}: no answer for {seconds:.0f} s"
        return self._obstacle if self._given_up else None

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """Lets Ray be called, which nothing must do while the cluster is left.

        Raises:
          WorkerLost: the cluster is down.
        """
        with self._lock:
            if not self._up:
                raise WorkerLost(self.obstacle() or "the cluster has been left")
            yield

    def leave(self, member: Callable[[WorkerLost], None]) -> None:
        """Lets go of the cluster, which is left when no other member uses it."""
        with sharing:
            self.members.remove(member)
            if not self.members:
                self.close()
                _shared.remove(self)

    def close(self) -> None:
        """Leaves the cluster; ends it if it was started here."""
        atexit.unregister(self.close)
        self._closed.set()
        self._thread.join(GRACE)
        if self._thread.is_alive():
            cluster.let_go()

    def _run(self, started: Future[None]) -> None:
        try:
            self._connect()
            if self.address is None:
                from coded_jax.service.machinery import Machinery  # needs psutil

                self._machinery = Machinery()
        except BaseException as error:  # a cluster that there is may be another's
            started.set_exception(error)
            return
        started.set_result(None)
        while not self._closed.wait(LOOK):
            try:
                if self._up and (problem := self._problem()):
                    self._recover(problem)
            except Exception:  # as without file descriptors
                log.exception("the cluster is looked at again")
        self._leave("the service is closed")

    def _problem(self) -> str | None:
        """Returns the fault of the cluster, or None."""
        if self._machinery is not None:
            problem = self._machinery.problem()
        else:
            problem = cluster.refusal(str(self.address))
        return problem or "".join(self._complaints) or None

    def _connect(self) -> None:
        cluster.connect(self.address, self._n)
        self._complaints = []
        asking = cluster.node_watch(), self._complaints
        threading.Thread(target=self._ask, args=asking, daemon=True).start()
        self._up, self._obstacle, self._lost = True, None, None

    def _ask(self, alive: Callable[[float], bool], complaints: list[str]) -> None:
        """Asks the head again and again whether the raylet of this process lives, until
        there is a complaint, or the cluster is another one."""
        failures = 0
        while not complaints:
            time.sleep(PAUSE)
            if complaints is not self._complaints:
                return
            try:
                if not alive(ANSWER):
                    complaints.append("Ray has given up the raylet of this machine")
                failures = 0
            except Exception as error:
                failures += 1
                if failures == SILENCE:
                    silent = f"Ray's head does not answer ({first_line(error)})"
                    complaints.append(silent)

    def _leave(self, reason: str) -> None:
        """Ends the cluster if it is our own, and all use of it."""
        self._up = False
        if self._machinery is not None:
            self._machinery.end()
        if self._lock.acquire(timeout=CALLS):  # calls that have begun are over
            self._lock.release()
        self._complaints = []
        # What holds on to Ray's objects keeps Ray's connections from being closed.
        for member in [*self.members]:
            member(WorkerLost(reason))
        cluster.disconnect()

    def _recover(self, problem: str) -> None:
        """Starts the cluster anew, or joins it again; gives up when time is up."""
        remedy = "joining it again" if self.address else "starting a new cluster"
        self._obstacle = reason = f"{problem}; {remedy}"
        log.warning("%s", reason)
        begun = self._lost = time.monotonic()
        pause = FIRST_PAUSE
        while True:
            self._leave(reason)
            if self._closed.is_set():
                return
            try:
                self._connect()
                break
            except Exception as error:
                seconds = time.monotonic() - begun
                left = self._reconnect_for - seconds
                # A ValueError refuses a cluster, as one without a token.
                if isinstance(error, ValueError) or left <= 0:
                    tried = f"given up after {seconds:.0f} s: {first_line(error)}"
                    self._obstacle = f"{problem}; {tried}"
                    self._given_up = True
                    log.error("%s", self._obstacle)
                    return
                log.warning("%s: %s", remedy, first_line(error))
                self._closed.wait(min(pause, left))
                pause = min(2 * pause, LONGEST_PAUSE)
        startup.hand_back_memory()  # what the cluster before has left
        log.warning("%s: done after %.1f s", remedy, time.monotonic() - begun)
        self.restarts += 1


_shared: list[Supervisor] = []  # one at most: Ray is in one cluster per process
sharing = threading.Lock()  # held until who asks for the supervisor is a member of it


def of_process(address: str | None, n: int, reconnect_for: float) -> Supervisor:
    """Returns the supervisor of this process, which its services share.

    Args:
      address, n, reconnect_for: see `Supervisor`; of the first service.

    Raises:
      RuntimeError, ValueError, ImportError: see `cluster.connect`.
    """
    if not _shared:
        _shared.append(Supervisor(address, n, reconnect_for))
    (supervisor,) = _shared
    if supervisor.address != address:
        if address is not None:
            cluster.check_address(address)
        joined = f"{supervisor.address!r}, whose cluster this process is in,"
        raise RuntimeError(f"address: {address!r} given, {joined} accepted")
    return supervisor
