"""The cluster engine: each piece in a process of its own, on any machine, by Ray.

A worker is a Ray actor. It is sent the model once, when it is created, as Ray pickles
it, functions included. Requests cross the wire as numbers and raw bytes: nothing of
them is unpickled on either side. Ray restarts processes that die; here they are only
noticed.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.devices import cluster
from coded_jax.devices.cluster import accelerators, import_ray
from coded_jax.inference.pipeline import Pipeline
from coded_jax.runs.coded_model import CodedModel
from coded_jax.serving import parts
from coded_jax.serving.config import ServeConfig
from coded_jax.serving.engine import OF_POOLS, EngineKind
from coded_jax.serving.first_k import FirstK
from coded_jax.serving.pool import Pool
from coded_jax.serving.workers import Call, WorkerLost
from coded_jax.types import PyTree


class PieceServer:
    """The actor: the frozen network in a worker's process.

    Args:
      model: `(pipeline, frozen, params)`.
      batches: sizes of requests that it compiles before it answers.
      cache: folder of compiled programs, see `startup.keep_compilations`.
    """

    def __init__(
        self,
        model: tuple[Pipeline, PyTree, PyTree],
        batches: list[int],
        cache: str | None,
    ) -> None:
        from coded_jax.cpu_kernels import lowering
        from coded_jax.devices import startup

        lowering.install()
        with contextlib.suppress(ValueError):  # of another machine's folder
            startup.keep_compilations(cache)
        pipeline, *variables = model
        self._dtype = jnp.dtype(pipeline.dtype)
        self._compute_piece = parts.make_compute(pipeline, *variables)
        for batch in batches:
            shapes = parts.query_shapes(pipeline, batch)
            for stage, shape in zip(parts.pieces(pipeline), shapes, strict=True):
                for piece in stage:
                    self._compute_piece(piece, np.zeros(shape, self._dtype))

    def ping(self) -> int:
        """Returns the number of its process."""
        return os.getpid()

    def compute(self, piece: list, shape: list[int], query: bytes) -> bytes | str:
        """Returns the bytes of a share; or a string, the error of the computation."""
        blocks, index, offset, share = piece
        target = parts.Piece(tuple(blocks), index, tuple(offset), tuple(share))
        try:
            array = np.frombuffer(query, self._dtype).reshape(shape)
            return np.asarray(self._compute_piece(target, array)).tobytes()
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    def signal(self, number: int) -> None:
        """Sends its process a signal."""
        os.kill(os.getpid(), number)

    def live(self) -> None:
        """Returns never: the call fails when the process ends."""
        threading.Event().wait()


class RayWorker:
    """A `PieceServer`, on the machine that Ray has chosen.

    Args:
      create: makes the actor.
      dtype: of pieces and shares.
    """

    def __init__(self, create: Callable[[], Any], dtype: str) -> None:
        self._ray = import_ray()
        self._create, self._dtype = create, jnp.dtype(dtype)
        self._actor = create()
        self._gone = threading.Event()

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
        if self._gone.is_set():  # for good: Ray restarts only actors that were up
            try:
                self._actor = self._create()
            except Exception as error:
                failed: Future = Future()
                failed.set_exception(WorkerLost(str(error)))
                return failed
            self._gone.clear()
        return self._ask(lambda process: process, "ping")

    def watch(self) -> Future:
        return self._ask(lambda _: None, "live")

    def replace(self) -> None:
        with contextlib.suppress(Exception):  # it may be gone already
            self._ray.kill(self._actor, no_restart=False)

    def signal(self, number: int) -> None:
        """Sends its process a signal."""
        self._ask(lambda _: None, "signal", int(number))

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._ray.kill(self._actor)

    def _ask(self, read: Callable[[Any], Any], method: str, *arguments: Any) -> Future:
        """Calls a method of the actor, and returns `read(answer)` to come."""
        future: Future = Future()
        exceptions = self._ray.exceptions

        def done(answer: Future) -> None:
            try:
                future.set_result(read(answer.result()))
            except exceptions.RayError as error:
                if isinstance(error, exceptions.ActorDiedError):
                    self._gone.set()
                lines = str(error).strip().splitlines() or [type(error).__name__]
                future.set_exception(WorkerLost(lines[-1]))
            except Exception as error:
                future.set_exception(error)

        try:
            if not self._ray.is_initialized():  # it would start one of its own
                raise RuntimeError("Ray has been shut down")
            call = getattr(self._actor, method)
            if method != "compute":
                group = "life" if method == "live" else "control"
                call = call.options(concurrency_group=group)
            reference = call.remote(*arguments)
        except Exception as error:
            future.set_exception(WorkerLost(str(error)))
        else:
            reference.future().add_done_callback(done)
        return future


def ray_workers(
    model: CodedModel, batches: Sequence[int], spares: int = 0
) -> list[RayWorker]:
    """Returns a worker for each piece, spread over the machines of the cluster.

    Each has an accelerator of its own where Ray knows of enough, or its part of one.

    Args:
      model: the coded inference.
      batches: sizes of requests that workers compile before they answer.
      spares: workers without a piece of their own, for those that are sent again.
    """
    ray, n = import_ray(), model.pipeline.n + spares
    options = {"num_cpus": 0, "scheduling_strategy": "SPREAD", **accelerators(n)}
    options |= {"max_restarts": -1, "max_task_retries": 0}
    # Signals and probes do not wait for a computation.
    actor = ray.remote(concurrency_groups={"control": 1, "life": 1}, **options)(
        PieceServer
    )
    cache = jax.config.jax_compilation_cache_dir
    pipeline = model.pipeline._replace(mesh=None)
    # Stored once; each machine fetches it once, for all its workers and their restarts.
    stored = ray.put((pipeline, model.frozen, model.params))

    create = lambda: actor.remote(stored, list(batches), cache)
    return [RayWorker(create, model.pipeline.dtype) for _ in range(n)]


def _start(model: CodedModel, config: ServeConfig) -> FirstK:
    cluster.connect(config.address, model.pipeline.n + config.spares)
    try:
        workers = ray_workers(model, config.batches, config.spares)
        pool = Pool(
            workers,
            config.patience,
            cluster.STARTUP,
            cluster.disconnect,
            config.spares,
            config.strikes,
        )
    except BaseException:
        cluster.disconnect()
        raise
    return FirstK(model, pool, config.shortfall, config.hedge_after)


ENGINE = EngineKind(
    _start,
    OF_POOLS | {"address"},
    processes=True,
)
