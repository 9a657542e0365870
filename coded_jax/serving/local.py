"""The local engine: each piece on a device of this host, results as they are ready.

Every device has a thread, which hands it one piece after the other and waits for the
result; so a slow device delays nobody but itself. JAX releases the interpreter's lock
while a device computes.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import jax
import jax.numpy as jnp

from coded_jax.runs.coded_model import CodedModel
from coded_jax.serving import faults
from coded_jax.serving.parts import Work, make_work
from coded_jax.serving.workers import Call, WorkerLost

GRACE = 1.0  # seconds in which a worker that is closed may finish a computation


class LocalWorker:
    """One device.

    Args:
      work: what it computes, with variables on that device.
      device: the device.
      front: the device of the front end, where queries come from and shares go to.
    """

    def __init__(self, work: Work, device: jax.Device, front: jax.Device) -> None:
        self._work, self._device, self._front = work, device, front
        self._threads: list[threading.Thread] = []
        self._start()

    def _start(self) -> None:
        self._tasks: queue.SimpleQueue = queue.SimpleQueue()
        self._ended = threading.Event()
        self._frozen = threading.Event()
        # A daemon: a device that hangs must not keep the program from ending.
        thread = threading.Thread(
            target=self._run,
            args=(self._tasks, self._ended, self._frozen),
            daemon=True,
        )
        thread.start()
        self._threads = [t for t in self._threads if t.is_alive()] + [thread]

    def _run(
        self,
        tasks: queue.SimpleQueue,
        ended: threading.Event,
        frozen: threading.Event,
    ) -> None:
        while (task := tasks.get()) is not None:
            call, future = task
            if frozen.is_set():
                ended.wait()
            try:
                if ended.is_set():
                    raise WorkerLost("ended")
                future.set_result(self._compute(call, ended))
            except BaseException as error:
                future.set_exception(error)

    def _compute(self, call: Call, ended: threading.Event) -> jax.Array:
        faults.meet(call.fault, ended)
        query = jax.device_put(call.query, self._device)
        share = self._work(call.piece, query)
        if call.fault.kind == "nan":
            share = jnp.full_like(share, jnp.nan)
        if ended.is_set():
            raise WorkerLost("ended")
        return jax.device_put(share, self._front).block_until_ready()

    def compute(self, call: Call) -> Future:
        future: Future = Future()
        if self._ended.is_set():
            future.set_exception(WorkerLost("ended"))
        else:
            self._tasks.put((call, future))
        return future

    def probe(self) -> Future:
        if self._ended.is_set():
            self._start()
        future: Future = Future()
        future.set_result(None)
        return future

    def replace(self) -> None:
        self._end()
        self._start()

    def disturb(self, kind: str) -> None:
        """A device is not a process: killed is that its thread ends, frozen that it
        stands still."""
        if kind == "freeze":
            self._frozen.set()
        else:
            self._end()

    def _end(self) -> None:
        self._ended.set()
        self._tasks.put(None)

    def close(self) -> None:
        """Ends it, and waits for its threads: one that frees arrays while the
        interpreter ends would abort the program."""
        self._end()
        limit = time.monotonic() + GRACE
        for thread in self._threads:
            thread.join(max(limit - time.monotonic(), 0))


def local_workers(model: CodedModel, devices: int | None = None) -> list[LocalWorker]:
    """A worker for every piece: each on a device of its own where there are enough.

    Args:
      model: the coded inference, of `load` or `protect`.
      devices: how many to use at most; all if None.

    Raises:
      ValueError: there are not so many devices.
    """
    found = jax.local_devices()
    if devices is not None and not 1 <= devices <= len(found):
        raise ValueError(
            f"devices: {devices} given, 1..{len(found)} accepted, the "
            f"{found[0].platform} devices of this host"
        )
    found = found[: devices or len(found)]
    pipeline = model.pipeline._replace(mesh=None)
    works: dict[int, Callable] = {}

    def work_on(index: int) -> Work:
        if index not in works:
            variables = jax.device_put((model.frozen, model.params), found[index])
            works[index] = make_work(pipeline, *variables)
        return works[index]

    places = [i % len(found) for i in range(pipeline.n)]
    return [LocalWorker(work_on(i), found[i], found[0]) for i in places]
