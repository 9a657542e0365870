"""The cluster engine: every piece in a process of its own, on any machine, by Ray.

A worker is a Ray actor that loads the run's frozen network from its checkpoint. Pieces
and shares cross the wire as raw bytes with their shape; no object is unpickled on
either side. Ray starts a process that has died anew; here it is only noticed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.devices.cluster import accelerators, import_ray
from coded_jax.runs.coded_model import CodedModel
from coded_jax.serving import faults, parts
from coded_jax.serving.workers import Call, WorkerLost


class PieceServer:
    """What runs in a worker's process: the frozen network, and nothing of the code.

    Args:
      run: the workdir, on this machine.
      batches: sizes of requests that it compiles before it answers.
      cache: folder of compiled programs, see `startup.keep_compilations`.
    """

    def __init__(self, run: str, batches: list[int], cache: str | None) -> None:
        from coded_jax.devices import startup
        from coded_jax.runs import coded_model

        with contextlib.suppress(ValueError):  # of another machine's folder
            startup.keep_compilations(cache)
        model = coded_model.load(run, devices=1)
        self._dtype = jnp.dtype(model.pipeline.dtype)
        self._work = parts.make_work(model.pipeline, model.frozen, model.params)
        for batch in batches:
            shapes = parts.query_shapes(model.pipeline, batch)
            for stage, shape in zip(parts.pieces(model.pipeline), shapes, strict=True):
                for piece in stage:
                    self._work(piece, np.zeros(shape, self._dtype))

    def ping(self) -> int:
        """Its process."""
        return os.getpid()

    def compute(
        self,
        piece: list,
        shape: list[int],
        query: bytes,
        delay: float,
        kind: str,
    ) -> bytes | str:
        """The share of a piece; a string says what went wrong."""
        blocks, index, offset, share = piece
        told = parts.Piece(tuple(blocks), index, tuple(offset), tuple(share))
        try:
            faults.meet(faults.Fault(delay, kind))
            array = np.frombuffer(query, self._dtype).reshape(shape)
            found = np.asarray(self._work(told, array))
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        if kind == "nan":
            found = np.full_like(found, np.nan)
        return found.tobytes()

    def signal(self, number: int) -> None:
        """Sends its process a signal."""
        os.kill(os.getpid(), number)


class RayWorker:
    """A `PieceServer`, wherever Ray has put it.

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
        blocks, index, offset, cut = call.piece
        piece = [list(blocks), index, list(offset), list(cut)]
        what = (piece, list(query.shape), query.tobytes(), *call.fault)
        return self._ask(share, "compute", *what)

    def probe(self) -> Future:
        if self._gone.is_set():  # for good: Ray starts only what has been up before
            try:
                self._actor = self._create()
            except Exception as error:
                failed: Future = Future()
                failed.set_exception(WorkerLost(str(error)))
                return failed
            self._gone.clear()
        return self._ask(lambda process: process, "ping")

    def replace(self) -> None:
        with contextlib.suppress(Exception):  # it may be gone already
            self._ray.kill(self._actor, no_restart=False)

    def disturb(self, kind: str) -> None:
        number = signal.SIGKILL if kind == "kill" else signal.SIGSTOP
        self._ask(lambda _: None, "signal", int(number))

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._ray.kill(self._actor)

    def _ask(self, read: Callable[[Any], Any], method: str, *arguments: Any) -> Future:
        found: Future = Future()
        exceptions = self._ray.exceptions

        def done(answer: Future) -> None:
            try:
                found.set_result(read(answer.result()))
            except exceptions.RayError as error:
                if isinstance(error, exceptions.ActorDiedError):
                    self._gone.set()
                lines = str(error).strip().splitlines() or [type(error).__name__]
                found.set_exception(WorkerLost(lines[-1]))
            except Exception as error:
                found.set_exception(error)

        try:
            if not self._ray.is_initialized():  # it would start one of its own
                raise RuntimeError("Ray has been shut down")
            call = getattr(self._actor, method)
            if method != "compute":
                call = call.options(concurrency_group="control")
            reference = call.remote(*arguments)
        except Exception as error:
            found.set_exception(WorkerLost(str(error)))
        else:
            reference.future().add_done_callback(done)
        return found


def ray_workers(
    run: str | os.PathLike, model: CodedModel, batches: Sequence[int]
) -> list[RayWorker]:
    """A worker for every piece, spread over the machines of the cluster.

    Each has an accelerator of its own where Ray knows of enough, or its part of one.

    Args:
      run: the workdir, which every machine finds at this path.
      model: what `load` made of it.
      batches: sizes of requests that workers compile before they answer.
    """
    ray, n = import_ray(), model.pipeline.n
    path = os.path.abspath(run)
    options = {"num_cpus": 0, "scheduling_strategy": "SPREAD", **accelerators(n)}
    options |= {"max_restarts": -1, "max_task_retries": 0}
    # Signals and questions do not wait for a computation.
    actor = ray.remote(concurrency_groups={"control": 1}, **options)(PieceServer)
    cache = jax.config.jax_compilation_cache_dir

    create = lambda: actor.remote(path, list(batches), cache)
    return [RayWorker(create, model.pipeline.dtype) for _ in range(n)]
