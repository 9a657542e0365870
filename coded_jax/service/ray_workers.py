"""The cluster engine: each piece in a process of its own, on any machine, by Ray.

A worker is a Ray actor. It is sent the model once, when it has been created, as Ray
pickles it, functions included. Requests cross the wire as numbers and raw bytes:
nothing of them is unpickled on either side.

Nothing is kept in Ray's object store: it ends with the raylet, and Ray would end this
process when it meets a store that is gone. An actor that has died is replaced by a new
one, which is sent the model again.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, wait
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.runs.coded_model import CodedModel
from coded_jax.service import cluster, cluster_supervisor
from coded_jax.service.cluster_supervisor import Supervisor
from coded_jax.service.config import ServeConfig
from coded_jax.service.parts import GROUPS, PieceServer
from coded_jax.service.pool import Call, WorkerLost

PART = 2**26  # bytes of a model that are sent at once
LAST = 2.0  # seconds in which calls fail whose processes have ended


class RayWorker:
    """A `PieceServer`, on the machine that Ray has chosen, and those that follow it.

    Args:
      shared: supervisor of the cluster.
      create: makes the actor.
      dtype: of pieces and shares.
    """

    def __init__(
        self, shared: Supervisor, create: Callable[[], Any], dtype: str
    ) -> None:
        self._ray = cluster.import_ray()
        self.shared, self._create, self._dtype = shared, create, jnp.dtype(dtype)
        self._actor: Any = None
        self._gone = threading.Event()  # whether the actor is, for good
        self._pending: dict[Future, Future] = {}  # from ours to Ray's
        shared.members.append(self.lose)

    def compute(self, call: Call) -> Future:
        query = np.asarray(call.query)
        shape = (len(query), *call.piece.share)

        def share(answer: bytes | str) -> np.ndarray:
            if isinstance(answer, str):
                raise RuntimeError(answer)
            return np.frombuffer(answer, self._dtype).reshape(shape)

        # Numbers, strings and bytes alone, which Ray does not pickle.
        blocks, index, offset, size = call.piece
        piece = [list(blocks), index, list(offset), list(size)]
        return self._ask(share, "compute", piece, list(query.shape), query.tobytes())

    def probe(self) -> Future:
        with contextlib.suppress(Exception), self.shared.connected():
            if self._gone.is_set():
                self._kill()  # it may just be cut off
            if self._actor is None:
                self._actor, self._gone = self._create(), threading.Event()
        return self._ask(lambda process: process, "ping")

    def watch(self) -> Future:
        return self._ask(lambda _: None, "live")

    def replace(self) -> None:
        with contextlib.suppress(WorkerLost), self.shared.connected():
            self._kill()

    def signal(self, number: int) -> None:
        """Sends its process a signal."""
        self._ask(lambda _: None, "signal", int(number))

    def lose(self, error: WorkerLost) -> None:
        """Fails what is under way: the cluster is lost."""
        self._actor = None
        pending, self._pending = {**self._pending}, {}
        for future in pending:
            with contextlib.suppress(InvalidStateError):  # done meanwhile
                future.set_exception(error)
        # One that never ends would keep a connection of Ray open.
        wait(pending.values(), timeout=LAST)

    def close(self) -> None:
        self.replace()
        self.lose(WorkerLost("the service is closed"))
        self.shared.leave(self.lose)

    def _kill(self) -> None:
        with contextlib.suppress(Exception):
            self._ray.kill(self._actor)  # it may be gone already
        self._actor = None

    def _ask(self, read: Callable[[Any], Any], method: str, *arguments: Any) -> Future:
        """Calls a method of the actor, and returns `read(answer)` to come."""
        future: Future = Future()
        exceptions = self._ray.exceptions
        gone, pending = self._gone, self._pending

        def done(answer: Future) -> None:
            with contextlib.suppress(InvalidStateError):  # the cluster was lost before
                try:
                    result = read(answer.result())
                except exceptions.RayError as lost:
                    if not isinstance(lost, exceptions.RayTaskError):
                        gone.set()
                    lines = str(lost).strip().splitlines() or [type(lost).__name__]
                    future.set_exception(WorkerLost(lines[-1]))
                except Exception as raised:
                    future.set_exception(raised)
                else:
                    future.set_result(result)

        try:
            with self.shared.connected():
                call = getattr(self._actor, method)
                if method in GROUPS:
                    call = call.options(concurrency_group=GROUPS[method])
                answer = call.remote(*arguments).future()
                pending[future] = answer
        except Exception as error:
            future.set_exception(WorkerLost(str(error)))
        else:
            future.add_done_callback(lambda future: pending.pop(future, None))
            answer.add_done_callback(done)
        return future


def ray_workers(model: CodedModel, config: ServeConfig) -> list[RayWorker]:
    """Returns a worker for each piece, and spares, on the machines of a cluster.

    Each has an accelerator of its own where Ray knows of enough, or its part of one.

    Args:
      model: the coded inference.
      config: of which `batches`, whose programs workers compile before they answer,
        `spares`, `address` and `reconnect_for` are looked at.
    """
    n, address = model.pipeline.n + config.spares, config.address
    cache = jax.config.jax_compilation_cache_dir
    pipeline = model.pipeline._replace(mesh=None)

    def create() -> Any:
        # Actors that ask for nothing are not spread, but put anywhere.
        options = {"num_cpus": 0.001, "scheduling_strategy": "SPREAD"}
        if address is not None:
            options["runtime_env"] = {"env_vars": cluster.ENVIRONMENT}
        options["concurrency_groups"] = dict.fromkeys(GROUPS.values(), 1)
        remote = cluster.import_ray().remote(**options, **cluster.accelerators(n))
        actor = remote(PieceServer).remote([*config.batches], cache)
        for start in range(0, len(content), PART):
            actor.receive.remote(content[start : start + PART])
        return actor

    with cluster_supervisor.sharing:
        shared = cluster_supervisor.of_process(address, n, config.reconnect_for)
        workers = [RayWorker(shared, create, pipeline.dtype) for _ in range(n)]
    try:  # before any is created
        dumps = cluster.import_ray().cloudpickle.dumps
        content = dumps((pipeline, model.frozen, model.params))
    except BaseException:
        for worker in workers:
            worker.close()
        raise
    return workers
