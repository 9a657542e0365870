"""A service: images in, classes with their confidence out, by a deadline."""

from __future__ import annotations

import concurrent.futures
import itertools
import threading
import time
from collections.abc import Collection
from concurrent.futures import Future
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from coded_jax.checks import require
from coded_jax.codes.quorum import held
from coded_jax.evaluation import confidence
from coded_jax.runs.coded_model import CodedModel
from coded_jax.serving.engine import Closed, Engine, Inference, NotEnoughResults
from coded_jax.serving.metrics import Metrics


class Overloaded(RuntimeError):
    """The queue is full."""


class Response(NamedTuple):
    """The response to one request.

    Attributes:
      logits: float32 `[B, ..., classes]`, what the head gives: values where answers
        are values, for which the next three are empty.
      classes: int32 `[B]`, or `[B, H', W']` where answers are images.
      probabilities: float32 `[B, ..., classes]`, calibrated, see `confidence`.
      confidence: float32 as the classes, their probabilities.
      used: for each coded stage, the workers whose results were used.
      arrived: for each coded stage, the pieces that these results are of.
      decoded: for each coded stage, the data pieces that a decoder reconstructed; of a
        systematic code, those that had not arrived.
      degraded: whether some stage was decoded from fewer results than its code needs.
      seconds: duration of the phases `queue`, `encode`, `wait` (for the workers) and
        `decode` (with the head), and `total`.
    """

    logits: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray
    confidence: np.ndarray
    used: tuple[tuple[int, ...], ...]
    arrived: tuple[tuple[int, ...], ...]
    decoded: tuple[tuple[int, ...], ...]
    degraded: bool
    seconds: dict[str, float]


class Service:
    """Responds to requests, several at a time.

    Args:
      model: the coded inference.
      engine: computes it.
      deadline: seconds, from `submit` on, that a request may take.
      in_flight: requests computed at the same time.
      queue: requests that may wait for that; more are refused.
    """

    def __init__(
        self,
        model: CodedModel,
        engine: Engine,
        deadline: float = 10.0,
        in_flight: int = 4,
        queue: int = 64,
    ) -> None:
        self.model, self.engine, self.deadline = model, engine, deadline
        self._batches: set[int] = set()
        self._metrics = Metrics()
        self._numbers = itertools.count()
        self._places = threading.Semaphore(in_flight + queue)
        self._threads = concurrent.futures.ThreadPoolExecutor(in_flight, "request")

    def submit(
        self,
        images: Any,
        deadline: float | None = None,
        without: Collection[int] = (),
        block: bool = True,
    ) -> Future[Response]:
        """Requests the classes of images.

        Args:
          images: `[B, H, W, C]` of the pipeline's `image_dtype`, as in the data set,
            with a B that `warm_up` has seen: a compilation would look like a worker
            that hangs.
          deadline: seconds; the service's own if None.
          without: workers that are not to be used.
          block: whether to wait, until the deadline, while the queue is full.

        Returns:
          The response to come. It fails with `NotEnoughResults` or `Closed`.

        Raises:
          ValueError: wrong images, a deadline that is not positive, or no such workers.
          Overloaded: the queue is full.
          Closed: the service is closed.
        """
        begun = time.monotonic()
        self.model.check_images(images)
        images = np.array(images)  # a copy: it may be used again
        if len(images) not in self._batches:
            raise ValueError(
                f"images: a batch of {len(images)} given, one of "
                f"{sorted(self._batches)} accepted, which have been compiled"
            )
        seconds = self.deadline if deadline is None else deadline
        positive = isinstance(seconds, Real) and seconds > 0
        require("deadline", deadline, positive, "more than 0")
        seconds = min(seconds, threading.TIMEOUT_MAX)
        workers = range(self.model.pipeline.n)
        some = isinstance(without, Collection) and all(i in workers for i in without)
        require("without", without, some, f"some of 0..{len(workers) - 1}")
        if not self._places.acquire(block, seconds if block else None):
            self._metrics.failed("overload")
            raise Overloaded(f"the queue was full for {seconds if block else 0:g} s")
        number = next(self._numbers)
        try:
            future = self._threads.submit(
                self._respond, number, images, begun, begun + seconds, tuple(without)
            )
        except RuntimeError:
            self._places.release()
            raise Closed("the service is closed") from None
        future.add_done_callback(lambda _: self._places.release())
        return future

    def summary(self) -> dict[str, Any]:
        """Returns counts and latencies so far, see `Metrics.summary`."""
        pool = self.engine.pool
        return self._metrics.summary(pool.status() if pool else [])

    def warm_up(self, batch: int = 1) -> None:
        """Compiles all programs that requests of `batch` images need, on every worker.

        Raises:
          ValueError: requests cannot have so many images.
          RuntimeError: a worker is not up, or cannot compute.
        """
        shape = (batch, *self.model.image_shape)
        images = np.zeros(shape, self.model.pipeline.image_dtype)
        self.model.check_images(images)
        self.engine.warm_up(images)
        self._batches.add(batch)

    def release(self) -> None:
        """Ends when all requests have; the workers stay, for another service."""
        self._threads.shutdown(wait=True)

    def close(self) -> None:
        """Ends requests in flight with `Closed`, cancels those that wait, and ends the
        workers."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.engine.close()
        self._threads.shutdown(wait=True)

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _respond(
        self, number: int, images: Any, begun: float, end: float, without: tuple
    ) -> Response:
        queued = time.monotonic() - begun
        try:
            inference = self.engine.infer(number, images, end, without)
        except Exception as error:
            shortfall = isinstance(error, NotEnoughResults)
            self._metrics.failed("shortfall" if shortfall else "error")
            raise
        response = respond(self.model, inference)
        total = time.monotonic() - begun
        seconds = {"queue": queued, **inference.seconds, "total": total}
        self._metrics.answered(seconds, any(response.decoded), inference.degraded)
        return response._replace(seconds=seconds)


def respond(model: CodedModel, inference: Inference) -> Response:
    """Returns calibrated probabilities, or values, and the results they come from."""
    pipeline, available = model.pipeline, inference.available
    # On the host: by JAX, ten numbers would take some milliseconds.
    logits = np.asarray(inference.logits)
    probabilities = np.empty((0, logits.shape[-1]), logits.dtype)
    if not model.values:
        calibration = model.results["confidence"]
        sizes = (pipeline, available, logits.shape)
        temperatures = confidence.temperatures(calibration, *sizes)
        probabilities = confidence.probabilities(logits, temperatures)
    arrived = tuple(tuple(np.flatnonzero(mask).tolist()) for mask in available)
    return Response(
        logits=logits,
        classes=probabilities.argmax(-1).astype(np.int32),
        probabilities=probabilities,
        confidence=probabilities.max(-1),
        used=inference.used,
        arrived=arrived,
        decoded=tuple(
            tuple(
                piece
                for piece in range(pipeline.k)
                if not stage.code.systematic
                or piece not in held(stage.code.quorum, pipeline.k, pieces)
            )
            for stage, pieces in zip(pipeline.stages, arrived, strict=True)
        ),
        degraded=inference.degraded,
        seconds=inference.seconds,
    )
