"""A service: images in, classes with their confidence out, by a deadline."""

from __future__ import annotations

import collections
import itertools
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Any

import numpy as np

from coded_jax.checks import first_line, require
from coded_jax.runs.coded_model import CodedModel
from coded_jax.service import requests
from coded_jax.service.config import DEFAULTS, ServeConfig
from coded_jax.service.engine import Engine
from coded_jax.service.gathering import Closed, NotEnoughResults, WrongResults
from coded_jax.service.requests import Line, Metrics, Request, RequestPart, Response


class Overloaded(RuntimeError):
    """The queue is full."""


class NotReady(RuntimeError):
    """No request can be answered now."""


class AlreadyReloading(RuntimeError):
    """A model is being loaded already."""


DOUBTS = 10, 30.0
"""Requests in a row that had no answer, and seconds after the last of them, for which
it is doubted whether the next one will have one."""


class Service:
    """Responds to requests, several at a time.

    Args:
      engine: computes them.
      config: of which `deadline`, `in_flight`, `queue`, `largest`, `max_batch` and
        `max_wait` are looked at.
      start: starts an engine for another model, see `reload`.

    Attributes:
      engine: computes the requests from now on.
    """

    def __init__(
        self,
        engine: Engine,
        config: ServeConfig = DEFAULTS,
        start: Callable[[CodedModel], Engine] | None = None,
    ) -> None:
        self.deadline, self._largest = config.deadline, config.largest
        self.engine, self._start = engine, start
        self._requests = collections.Counter[Engine]()  # of each engine, under way
        self._changed, self._reloading = threading.Condition(), threading.Lock()
        self._closed = False
        self._batches: set[int] = set()
        self._metrics = Metrics()
        self._failures, self._last_failure = 0, (0.0, "")  # in a row; when and why
        self._numbers = itertools.count()
        self._slots = threading.Semaphore(config.in_flight + config.queue)
        self._line = Line(config.max_batch, config.max_wait)
        self._threads = [
            threading.Thread(target=self._run, name="request", daemon=True)
            for _ in range(config.in_flight)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def model(self) -> CodedModel:
        """Returns the coded inference that requests meet from now on."""
        return self.engine.model

    def submit(
        self,
        images: Any,
        deadline: float | None = None,
        without: Collection[int] = (),
        block: bool = True,
    ) -> Future[Response]:
        """Requests the classes of images.

        Args:
          images: `[B, H, W, C]` of the pipeline's `image_dtype`, as in the data set.
          deadline: seconds; the service's own if None.
          without: workers that are not to be used, by number.
          block: whether to wait, until the deadline, while the queue is full, and to
            try also while no request can be answered.

        Returns:
          The response to come. It fails with `NotEnoughResults`, `WrongResults` or
          `Closed`.

        Raises:
          ValueError: wrong images or too many, or a deadline that is not positive.
          Overloaded: the queue is full.
          NotReady: no request can be answered now; says why.
          Closed: the service is closed.
        """
        begun = time.monotonic()
        self.model.check_images(images, grouped=False)
        images = np.asarray(images)
        # Or else the results would look like those of broken workers.
        finite = images.dtype.kind != "f" or np.isfinite(images).all()
        require("images", "NaN or infinite values", bool(finite), "finite ones")
        count, most = len(images), self._largest
        require("images", count, count <= most, f"at most {most}")
        seconds = self.deadline if deadline is None else deadline
        require("deadline", deadline, seconds > 0, "more than 0")
        seconds = min(seconds, threading.TIMEOUT_MAX)
        # Where an answer is only doubted, it is tried.
        obstacle = None if block or self._closed else self.engine.obstacle()
        if obstacle is not None:
            self._metrics.count(unready=1)
            raise NotReady(obstacle)
        if not self._slots.acquire(block, seconds if block else None):
            self._metrics.count(overload=1)
            raise Overloaded(f"the queue was full for {seconds if block else 0:g} s")

        with self._changed:
            engine = self.engine  # from now on: its model and its workers
            self._requests[engine] += 1
        sizes = requests.lengths(len(images), self._batches)
        request = Request(engine, begun, begun + seconds, tuple(without), len(sizes))
        request.future.add_done_callback(lambda done: self._end(engine, done))
        # Copies: the array of who has asked may change.
        pieces = np.split(images.copy(), np.cumsum(sizes)[:-1])
        parts = [
            RequestPart(request, i, next(self._numbers), own)
            for i, own in enumerate(pieces)
        ]
        try:
            self._line.put(parts)
        except Closed as closed:
            request.drop(closed)
            raise
        return request.future

    def summary(self) -> dict[str, Any]:
        """Returns counts and latencies so far, see `Metrics.summary`, how often the
        cluster was started anew (`cluster_restarts`), and the `obstacle`."""
        engine = self.engine
        cluster = engine.supervisor
        return {
            **self._metrics.summary(engine.pool.status()),
            "cluster_restarts": cluster.restarts if cluster else 0,
            "obstacle": self.obstacle(),
        }

    def obstacle(self) -> str | None:
        """Returns why no request can be answered at the moment, or why that is to be
        doubted, see `DOUBTS`; None if they can."""
        most, seconds = DOUBTS
        at, reason = self._last_failure
        if (obstacle := self.engine.obstacle()) is not None:
            return obstacle
        if self._failures < most or time.monotonic() - at > seconds:
            return None
        return f"the last {self._failures} requests had no answer: {reason}"

    def failure(self) -> str | None:
        """Returns why no request will be answered ever again: the cluster has been
        given up; None if it has not, since single workers always come back."""
        cluster = self.engine.supervisor
        return cluster.failure() if cluster else None

    def warm_up(self, batch: int = 1) -> None:
        """Compiles all programs that a batch of this size needs, on every worker.

        Requests of other sizes are divided and padded to those that are compiled.

        Raises:
          ValueError: requests cannot have so many images.
          RuntimeError: a worker is not up, or cannot compute.
        """
        self.engine.warm_up(batch)
        self._batches.add(batch)

    def reload(self, model: CodedModel) -> None:
        """Starts workers for another model, then answers with it; no request is lost.

        Requests that were made before are answered with the model of before, whose
        workers end when they have been.

        Raises:
          ValueError: the model is for other images, or the service cannot start one.
          AlreadyReloading: a reload is under way.
          Closed: the service was closed meanwhile.
          RuntimeError: its workers do not start.
        """
        own, new = (
            (m.image_shape, m.pipeline.image_dtype, m.pipeline.images_per_input)
            for m in (self.model, model)
        )
        require("model", new, new == own, f"{own}, as the one that is served,")
        assert self._start is not None  # of a service that `serve` has started
        if not self._reloading.acquire(blocking=False):
            raise AlreadyReloading("reload: a model is being loaded already")
        try:
            engine = self._start(model)
            try:
                for batch in self._batches:
                    engine.warm_up(batch)
                with self._changed:
                    if self._closed:
                        raise Closed("the service is closed")
                    before, self.engine = self.engine, engine
            except BaseException:
                engine.close()
                raise
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closed or not self._requests[before]
                )
            before.close()
        finally:
            self._reloading.release()

    def release(self) -> None:
        """Ends when all requests have; the workers stay, for another service."""
        self._line.close()
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        """Ends requests in flight with `Closed`, cancels those that wait, and ends the
        workers."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()  # a reload ends the engine of before
        self._line.close()
        while parts := self._line.take():
            for part in parts:
                part.request.drop(Closed("the service is closed"))
        self.engine.close()
        self.release()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _end(self, engine: Engine, future: Future[Response]) -> None:
        """Takes note of the end of a request."""
        self._slots.release()
        if future.cancelled():
            self._metrics.count(cancelled=1)
        with self._changed:
            self._requests[engine] -= 1
            self._changed.notify_all()

    def _run(self) -> None:
        """Computes the parts that are first in the line, until it is closed."""
        while parts := self._line.take():
            batches = [parts]
            for batch in batches:  # which grow
                waiting = [part for part in batch if self._has_time(part.request)]
                try:
                    batches += self._compute(waiting) if waiting else []
                except Exception as error:
                    for part in waiting:
                        self._fail(part.request, error)

    def _has_time(self, request: Request) -> bool:
        if request.wanted() and time.monotonic() >= request.end:
            self._fail(request, NotEnoughResults("the deadline passed in the queue"))
        return request.wanted()

    def _compute(self, parts: list[RequestPart]) -> list[list[RequestPart]]:
        """Computes parts as one batch, by the earliest of their deadlines.

        Returns:
          Batches that are to be computed again: of parts whose deadlines are later,
          where it was not enough by that one; and each part by itself where results
          were wrong, since an alarm of one is no concern of the others.
        """
        begun, end = time.monotonic(), min(own.request.end for own in parts)
        later = [own for own in parts if own.request.end > end]
        first, images = parts[0], np.concatenate([part.images for part in parts])
        engine, without = first.request.engine, first.request.without
        padded = requests.padded(images, self._batches)
        try:
            inference = engine.infer(first.number, padded, end, without)
        except NotEnoughResults as error:
            for part in parts:
                if part.request.end == end:
                    self._fail(part.request, error)
            return [later]
        except WrongResults:
            if len(parts) == 1:
                raise
            return [[own] for own in parts]
        self._metrics.count(batches=1, images=len(images))
        response, row = requests.respond(engine.model, inference), 0
        for part in parts:
            rows = requests.rows(response, row, row + len(part.images))
            row += len(part.images)
            if part.request.end == end or not response.degraded:
                self._answer(part, rows, begun - part.request.begun)
        return [later] if response.degraded else []

    def _answer(self, part: RequestPart, response: Response, queued: float) -> None:
        total = time.monotonic() - part.request.begun
        seconds = {"queue": queued, **response.seconds, "total": total}
        whole = part.request.answer(part.index, response._replace(seconds=seconds))
        if whole is not None:
            self._failures = 0
            self._metrics.answered(whole)
            part.request.future.set_result(whole)

    def _fail(self, request: Request, error: Exception) -> None:
        short = isinstance(error, NotEnoughResults)
        if short and (obstacle := self.engine.obstacle()):
            error = NotEnoughResults(f"{error}; {obstacle}")
        if request.fail(error):
            if not short or request.end - request.begun >= self.deadline:
                self._last_failure = time.monotonic(), first_line(error)
                self._failures += 1
            odd = "contradiction" if isinstance(error, WrongResults) else "error"
            self._metrics.count(**{"shortfall" if short else odd: 1})
