"""Requests: images in, labels with their confidence out, within a deadline."""

from __future__ import annotations

import concurrent.futures
import itertools
import threading
import time
from collections.abc import Collection
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

import numpy as np

from coded_jax.evaluation import confidence, predictions
from coded_jax.runs.coded_model import CodedModel
from coded_jax.serving import parts
from coded_jax.serving.first_k import Outcome
from coded_jax.serving.metrics import Metrics
from coded_jax.serving.rounds import Closed, NotEnoughResults


class Overloaded(RuntimeError):
    """As many requests wait as may."""


class Engine(Protocol):
    """What answers requests: `first_k.FirstK` or `spmd.Spmd`."""

    def infer(
        self, number: int, images: Any, end: float, without: Collection[int] = ()
    ) -> Outcome:
        """Answers request `number`, by the time `end` of `time.monotonic()`.

        Args:
          number: of the request, which fixes the faults that it meets.
          images: uint8 `[B, H, W, C]`.
          end: its deadline.
          without: workers whose results are not used.
        """
        ...

    def warm_up(self, images: Any) -> None:
        """Compiles what a batch of this size needs."""
        ...

    def begin_disturbance(self) -> None:
        """Begins with the kills and freezes on purpose."""
        ...

    def close(self) -> None:
        """Ends all workers."""
        ...


class Answer(NamedTuple):
    """The answer to one request.

    Attributes:
      classes: int32 `[B]`.
      probabilities: float32 `[B, classes]`, calibrated, see `confidence`.
      confidence: float32 `[B]`, that of the class.
      used: for every coded stage the workers whose results were used.
      arrived: for every coded stage the pieces that those results are of.
      decoded: for every coded stage the data pieces that a decoder made of others; of
        a systematic code, those that had not arrived.
      degraded: whether fewer results arrived by the deadline than the code needs.
      seconds: of the phases `queue`, `encode`, `wait` (for the workers) and `decode`
        (with the head), and `total`.
    """

    classes: np.ndarray
    probabilities: np.ndarray
    confidence: np.ndarray
    used: tuple[tuple[int, ...], ...]
    arrived: tuple[tuple[int, ...], ...]
    decoded: tuple[tuple[int, ...], ...]
    degraded: bool
    seconds: dict[str, float]


class Service:
    """Answers requests, several at a time.

    Args:
      model: the coded inference.
      engine: what computes it.
      deadline: seconds, from `submit` on, that a request may take.
      in_flight: requests that are computed at the same time.
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
        for name, value in (("deadline", deadline), ("in_flight", in_flight)):
            if not value > 0:
                raise ValueError(f"{name}: {value} given, more than 0 accepted")
        if queue < 0:
            raise ValueError(f"queue: {queue} given, 0 or more accepted")
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
    ) -> Future[Answer]:
        """Asks for the classes of images.

        Args:
          images: uint8 `[B, H, W, C]`, as in the data set, with a B that `warm_up` has
            seen: a compilation would look like a worker that hangs.
          deadline: seconds; the service's own if None.
          without: workers that are not to be used.
          block: whether to wait, until the deadline, where the queue is full.

        Returns:
          The answer to come. It fails with `NotEnoughResults` or `Closed`, see
          `FirstK`.

        Raises:
          ValueError: wrong images, a deadline that is not positive, or no such workers.
          Overloaded: the queue is full.
          Closed: the service is.
        """
        begun = time.monotonic()
        images = np.array(self.model.checked(images))  # a copy: it may be used again
        if len(images) not in self._batches:
            raise ValueError(
                f"images: a batch of {len(images)} given, one of "
                f"{sorted(self._batches)} accepted, which have been compiled"
            )
        seconds = self.deadline if deadline is None else deadline
        if not seconds > 0:
            raise ValueError(f"deadline: {deadline} given, more than 0 accepted")
        seconds = min(seconds, threading.TIMEOUT_MAX)
        n = self.model.pipeline.n
        if not set(without) <= set(range(n)):
            raise ValueError(f"without: {without} given, some of 0..{n - 1} accepted")
        if not self._places.acquire(block, seconds if block else None):
            self._metrics.failed("overload")
            raise Overloaded(f"the queue was full for {seconds if block else 0:g} s")
        number = next(self._numbers)
        try:
            future = self._threads.submit(
                self._answer, number, images, begun, begun + seconds, tuple(without)
            )
        except RuntimeError:
            self._places.release()
            raise Closed("the service is closed") from None
        future.add_done_callback(lambda _: self._places.release())
        return future

    def summary(self) -> dict[str, Any]:
        """See `Metrics.summary`."""
        pool = getattr(self.engine, "pool", None)
        return self._metrics.summary(pool.status() if pool else [])

    def warm_up(self, batch: int = 1) -> None:
        """Compiles all that requests of `batch` images need, on every worker.

        Raises:
          ValueError: that is no such number.
          RuntimeError: a worker is not up, or cannot compute.
        """
        shape = (batch, *self.model.image_shape)
        self.engine.warm_up(self.model.checked(np.zeros(shape, np.uint8)))
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

    def _answer(
        self, number: int, images: Any, begun: float, end: float, without: tuple
    ) -> Answer:
        queued = time.monotonic() - begun
        try:
            outcome = self.engine.infer(number, images, end, without)
        except Exception as error:
            shortfall = isinstance(error, NotEnoughResults)
            self._metrics.failed("shortfall" if shortfall else "error")
            raise
        answer = self._explain(outcome)
        total = time.monotonic() - begun
        seconds = {"queue": queued, **outcome.seconds, "total": total}
        made = any(answer.decoded)
        self._metrics.answered(seconds, made, outcome.degraded)
        return answer._replace(seconds=seconds)

    def _explain(self, outcome: Outcome) -> Answer:
        pipeline, available = self.model.pipeline, outcome.available
        lost = int((~available).sum(axis=1).max())
        made = predictions.decoded(pipeline, available)  # [1, g]
        made = np.broadcast_to(made, (len(outcome.logits) // made.size, made.size))
        temperature = confidence.temperature_of(
            self.model.results["confidence"], lost, made.reshape(-1, 1)
        )
        # On the host: by JAX, ten numbers would take some milliseconds.
        scaled = np.asarray(outcome.logits) / temperature
        powers = np.exp(scaled - scaled.max(-1, keepdims=True))
        probabilities = powers / powers.sum(-1, keepdims=True)
        places = lambda mask: tuple(np.flatnonzero(mask).tolist())
        coded = [coding.code for coding in pipeline.codings]
        return Answer(
            classes=probabilities.argmax(-1).astype(np.int32),
            probabilities=probabilities,
            confidence=probabilities.max(-1),
            used=outcome.used,
            arrived=tuple(places(each) for each in available),
            decoded=tuple(
                tuple(
                    i
                    for i in range(pipeline.k)
                    if not code.systematic or i not in parts.held(code, each)
                )
                for code, each in zip(coded, map(places, available), strict=True)
            ),
            degraded=outcome.degraded,
            seconds={},
        )
