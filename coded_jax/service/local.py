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
from concurrent.futures import Future

import jax

from coded_jax.checks import require
from coded_jax.runs.coded_model import CodedModel
from coded_jax.service.byzantine.check import Check
from coded_jax.service.config import ServeConfig
from coded_jax.service.engine import OF_CLUSTERS, EngineKind
from coded_jax.service.first_k import FirstK
from coded_jax.service.parts import ComputePiece, make_compute
from coded_jax.service.pool import Call, Pool, WorkerLost

GRACE = 1.0  # seconds in which a worker that is closed may finish a computation


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
        self._threads: list[threading.Thread] = []
        self._start()

    def _start(self) -> None:
        self._calls: queue.SimpleQueue = queue.SimpleQueue()
        self._ended: Future[None] = Future()
        # A daemon: a device that hangs must not keep the program from ending.
        thread = threading.Thread(
            target=self._run, args=(self._calls, self._ended), daemon=True
        )
        thread.start()
        self._threads = [t for t in self._threads if t.is_alive()] + [thread]

    def _run(self, calls: queue.SimpleQueue, ended: Future[None]) -> None:
        while (waiting := calls.get()) is not None:
            call, future = waiting
            try:
                share = None if ended.done() else self._compute(call)
                if ended.done():
                    raise WorkerLost("ended")
                future.set_result(share)
            except BaseException as error:
                future.set_exception(error)

    def _compute(self, call: Call) -> jax.Array:
        query = jax.device_put(call.query, self._device)
        share = self._compute_piece(call.piece, query)
        return jax.device_put(share, self._front).block_until_ready()

    def compute(self, call: Call) -> Future:
        future: Future = Future()
        if self._ended.done():
            future.set_exception(WorkerLost("ended"))
        else:
            self._calls.put((call, future))
        return future

    def probe(self) -> Future:
        future: Future = Future()
        future.set_result(None)
        return future

    def watch(self) -> Future:
        return self._ended

    def replace(self) -> None:
        self._end()
        self._start()

    def _end(self) -> None:
        if not self._ended.done():
            self._calls.put(None)
            self._ended.set_result(None)

    def close(self) -> None:
        """Ends it, and waits for its threads: one that frees arrays while the
        interpreter ends would abort the program."""
        self._end()
        limit = time.monotonic() + GRACE
        for thread in self._threads:
            thread.join(max(limit - time.monotonic(), 0))


def local_workers(
    model: CodedModel, devices: int | None = None, spares: int = 0
) -> list[LocalWorker]:
    """Returns a worker for each piece, on a device of its own where there are enough.

    Args:
      model: the coded inference.
      devices: how many to use at most; all if None.
      spares: workers without a piece of their own, for those that are sent again.

    Raises:
      ValueError: there are not so many devices.
    """
    all_devices = jax.local_devices()
    most, platform = len(all_devices), all_devices[0].platform
    count = most if devices is None else devices
    accepted = f"1..{most}, the {platform} devices of this host,"
    require("devices", devices, 1 <= count <= most, accepted)
    pipeline = model.pipeline._replace(mesh=None)

    @functools.cache
    def compute_on(index: int) -> ComputePiece:
        device = all_devices[index]
        variables = jax.device_put((model.frozen, model.params), device)
        return make_compute(pipeline, *variables)

    return [
        LocalWorker(compute_on(i % count), all_devices[i % count], all_devices[0])
        for i in range(pipeline.n + spares)
    ]


def _start(model: CodedModel, config: ServeConfig, check: Check | None) -> FirstK:
    workers = local_workers(model, config.devices, config.spares)
    pool = Pool(workers, config.patience, spares=config.spares, strikes=config.strikes)
    return FirstK(model, pool, config, check)


ENGINE = EngineKind(_start, ignores=OF_CLUSTERS)
