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
from typing import TYPE_CHECKING, Any, Protocol

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


class Member(Protocol):
    """Something that lives on the cluster."""

    def lose(self, error: WorkerLost) -> None:
        """Fails what is under way with an error, and lets go of all that is Ray's."""
        ...


class Supervisor:
    """Connects this process with a Ray cluster, and looks after the cluster.

    Args:
      address: of a cluster that is joined; None starts one, see `cluster.connect`.
      n: workers that it will have.
      reconnect_for: seconds for which it is tried to bring a lost cluster back.

    Attributes:
      generation: number of the present cluster, from 1.
      restarts: how often the cluster was started anew, or joined again.
    """

    def __init__(self, address: str | None, n: int, reconnect_for: float) -> None:
        self.address, self._n, self._reconnect_for = address, n, reconnect_for
        self.generation = self.restarts = 0
        self.crews: list[Crew] = []
        self._lock = threading.Lock()  # held while Ray is called
        self._up, self._closed = False, threading.Event()
        self._obstacle: str | None = None
        self._failure: str | None = None
        self._lost: float | None = None  # since when the cluster has been
        self._machinery: Machinery | None = None  # of a cluster that is started here
        self._health: _Health | None = None
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
        if self._failure is None and self._lost is not None:
            seconds = time.monotonic() - self._lost
            if seconds > self._reconnect_for + GRACE:  # connecting hangs
                return f"{self._obstacle}: no answer for {seconds:.0f} s"
        return self._failure

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
                problem = self._problem() if self._up else None
            except Exception:  # as without file descriptors
                log.exception("the cluster is looked at again")
                continue
            if problem is not None:
                self._recover(problem)
        self._leave("the service is closed")

    def _problem(self) -> str | None:
        """Returns the fault of the cluster, or None."""
        if self._machinery is not None:
            problem = self._machinery.problem()
        else:
            problem = cluster.refusal(str(self.address))
        return problem or (self._health.problem if self._health else None)

    def _connect(self) -> None:
        cluster.connect(self.address, self._n)
        self._health = _Health()
        self.generation += 1
        self._up, self._obstacle, self._lost = True, None, None

    def _leave(self, reason: str) -> None:
        """Ends the cluster if it is our own, and all use of it."""
        self._up = False
        if self._machinery is not None:
            self._machinery.end()
        if self._lock.acquire(timeout=CALLS):  # calls that have begun are over
            self._lock.release()
        if self._health is not None:
            self._health.over.set()
        # What holds on to Ray's objects keeps Ray's connections from being closed.
        for crew in [*self.crews]:
            crew.lose(WorkerLost(reason))
        cluster.disconnect()

    def _recover(self, problem: str) -> None:
        """Starts the cluster anew, or joins it again; gives up when time is up."""
        remedy = "joining it again" if self.address else "starting a new cluster"
        self._obstacle = f"{problem}; {remedy}"
        log.warning("%s", self._obstacle)
        begun = self._lost = time.monotonic()
        pause = FIRST_PAUSE
        while True:
            self._leave(self._obstacle)
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
                    self._failure = f"{problem}; {tried}"
                    log.error("%s", self._failure)
                    return
                log.warning("%s: %s", remedy, first_line(error))
                self._closed.wait(min(pause, left))
                pause = min(2 * pause, LONGEST_PAUSE)
        startup.hand_back_memory()  # what the cluster before has left
        log.warning("%s: done after %.1f s", remedy, time.monotonic() - begun)
        self.restarts += 1


class Crew:
    """Members that live on the cluster together, as the workers of one model.

    Args:
      supervisor: of the cluster.
      prepare: called once for each cluster; what it returns is handed to `use`.
    """

    def __init__(self, supervisor: Supervisor, prepare: Callable[[], Any]) -> None:
        self.supervisor, self._prepare = supervisor, prepare
        self.members: list[Member] = []
        self._prepared: Any = None
        supervisor.crews.append(self)

    @contextlib.contextmanager
    def use(self) -> Iterator[Any]:
        """Lets Ray be called, and gives what has been prepared for the cluster.

        Raises:
          WorkerLost: the cluster is down.
        """
        with self.supervisor.connected():
            if self._prepared is None:
                self._prepared = self._prepare()
            yield self._prepared

    def lose(self, error: WorkerLost) -> None:
        """Informs all members that the cluster is lost."""
        self._prepared = None
        for member in self.members:
            member.lose(error)

    def close(self) -> None:
        """Lets go of the cluster, which is left when no other crew uses it."""
        with _sharing:
            self.lose(WorkerLost("the service is closed"))
            self.supervisor.crews.remove(self)
            if not self.supervisor.crews:
                self.supervisor.close()
                _supervisors.remove(self.supervisor)


_supervisors: list[Supervisor] = []  # one at most: Ray is in one cluster per process
_sharing = threading.Lock()


def recruit(
    address: str | None, n: int, reconnect_for: float, prepare: Callable[[], Any]
) -> Crew:
    """Returns a crew on a cluster, which several of one process share.

    Args:
      address, n, reconnect_for: see `Supervisor`; of the first crew.
      prepare: see `Crew`.

    Raises:
      RuntimeError, ValueError, ImportError: see `cluster.connect`.
    """
    with _sharing:
        if not _supervisors:
            _supervisors.append(Supervisor(address, n, reconnect_for))
        (supervisor,) = _supervisors
        if supervisor.address != address:
            if address is not None:
                cluster.check_address(address)
            raise RuntimeError(
                f"address: {address!r} given, while this process is in the cluster of "
                f"{supervisor.address!r}"
            )
        return Crew(supervisor, prepare)


class _Health:
    """Asks the head whether the raylet of this process is alive, again and again.

    Attributes:
      problem: the fault that was found last, or None.
      over: to be set in order to end it.
    """

    def __init__(self) -> None:
        ray = cluster.import_ray()
        context = ray.get_runtime_context()
        self._node = ray.NodeID.from_hex(context.get_node_id())
        # Not `ray.nodes`, which may hang, and Ray then ends the process after a minute.
        self._head = ray._raylet.GcsClient(address=context.gcs_address)
        self.problem: str | None = None
        self.over = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        failures = 0
        while not self.over.wait(PAUSE):
            try:
                (alive,) = self._head.check_alive([self._node], timeout=ANSWER)
            except Exception as error:
                failures += 1
                if failures == SILENCE:
                    self.problem = f"Ray's head does not answer ({first_line(error)})"
            else:
                failures = 0
                if not alive:
                    self.problem = "Ray has given up the raylet of this machine"
