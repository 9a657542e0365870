"""The local engine: each piece on a device of this host, results as they are ready.

A thread for each device hands it one piece after the other and waits for the result; so
a slow device delays only its own pieces. JAX releases the interpreter's lock while a
device computes.
"""

from __future__ import annotations

import functools
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import jax

from coded_jax.checks import require
from coded_jax.runs.coded_model import CodedModel
from coded_jax.service.config import DEFAULTS, ServeConfig
from coded_jax.service.parts import ComputePiece, make_compute
from coded_jax.service.pool import Call, WorkerLost

GRACE = 1.0  # seconds in which a worker that is closed may finish a computation


class CallThread:
    """A thread that computes calls one after the other, until it is ended.

    Args:
      compute: called with a call, the future that it has to settle, and when the call
        was sent, on the clock of `time.monotonic`; what it raises fails the future.

    Attributes:
      ended: done from its end on; a future, so that one can wait for it and for a
        result at once.
    """

    def __init__(self, compute: Callable[[Call, Future, float], None]) -> None:
        self._compute, self._ending = compute, threading.Lock()
        self._calls: queue.SimpleQueue = queue.SimpleQueue()
        self.ended: Future[None] = Future()
        # A daemon: a device that hangs must not keep the program from ending.
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def send(self, call: Call) -> Future:
        """Returns the share to come; it fails with `WorkerLost` at the end."""
        future: Future = Future()
        with self._ending:
            if self.ended.done():
                future.set_exception(WorkerLost("ended"))
            else:
                self._calls.put((call, future, time.monotonic()))
        return future

    def end(self) -> None:
        """Ends the thread, when what it computes at the moment is done."""
        with self._ending:
            if not self.ended.done():
                self.ended.set_result(None)
                self._calls.put(None)

    def _run(self) -> None:
        while (waiting := self._calls.get()) is not None:
            call, future, sent = waiting
            try:
                if self.ended.done():
                    raise WorkerLost("ended")
                self._compute(call, future, sent)
            except BaseException as error:
                future.set_exception(error)


class LocalWorker:
    """One device.

    Args:
      compute_piece: with variables on that device.
      device: the device.
      front: the device that queries come from and shares go to.
    """

    def __init__(
        self, compute_piece: ComputePiece, device: jax.Device, front: jax.Device
    ) -> None:
        self._compute_piece, self._device, self._front = compute_piece, device, front
        self._threads = [CallThread(self._compute)]  # the last one is in use

    def _compute(self, call: Call, future: Future, sent: float) -> None:
        query = jax.device_put(call.query, self._device)
        share = self._compute_piece(call.piece, query)
        future.set_result(jax.device_put(share, self._front).block_until_ready())

    def compute(self, call: Call) -> Future:
        return self._threads[-1].send(call)

    def probe(self) -> Future:
        future: Future = Future()
        future.set_result(None)
        return future

    def watch(self) -> Future:
        return self._threads[-1].ended

    def replace(self) -> None:
        self._threads[-1].end()
        alive = [own for own in self._threads if own.thread.is_alive()]
        self._threads = [*alive, CallThread(self._compute)]

    def close(self) -> None:
        """Ends it, and waits for its threads: one that frees arrays while the
        interpreter ends would abort the program."""
        self._threads[-1].end()
        limit = time.monotonic() + GRACE
        for own in self._threads:
            own.thread.join(max(limit - time.monotonic(), 0))


def local_workers(
    model: CodedModel, config: ServeConfig = DEFAULTS
) -> list[LocalWorker]:
    """Returns a worker for each piece, on a device of its own where there are enough.

    Args:
      model: the coded inference.
      config: of which `devices` and `spares` are looked at.

    Raises:
      ValueError: there are not so many devices.
    """
    every, devices = jax.local_devices(), config.devices
    accepted = f"1..{len(every)}, the {every[0].platform} devices of this host,"
    require("devices", devices, (devices or 1) <= len(every), accepted)
    used, pipeline = every[:devices], model.pipeline._replace(mesh=None)

    @functools.cache
    def compute_on(device: jax.Device) -> ComputePiece:
        variables = jax.device_put((model.frozen, model.params), device)
        return make_compute(pipeline, *variables)

    chosen = [used[i % len(used)] for i in range(pipeline.n + config.spares)]
    return [LocalWorker(compute_on(device), device, every[0]) for device in chosen]
