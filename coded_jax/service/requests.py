"""Requests of any size, the responses to them, and metrics of both.

A request is divided into parts of at most the largest size that has been compiled;
parts that wait are joined, where that is asked for, and padded to the next size.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from coded_jax.codes.quorum import held
from coded_jax.evaluation import confidence
from coded_jax.runs.coded_model import CodedModel
from coded_jax.service.engine import Engine, Inference
from coded_jax.service.gathering import Closed

KEPT = 100_000  # last requests, whose latencies quantiles are taken of
QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
FAILURES = ("shortfall", "contradiction", "overload", "unready", "cancelled", "error")
"""Ends of requests without a response: too few results, or wrong ones; a full queue, no
workers to answer with; given up by who has asked; anything else."""
ENDS = ("answered", "degraded", *FAILURES)


class Response(NamedTuple):
    """The response to one request.

    Of a request that was divided, a worker was used, a piece decoded or missing, if it
    was so for any of its parts, and the phases are the longest ones.

    Attributes:
      logits: float32 `[B, ..., classes]`, what the head gives: values where answers
        are values, for which the next three are empty.
      classes: int32 `[B]`, or `[B, H', W']` where answers are images.
      probabilities: float32 `[B, ..., classes]`, calibrated, see `confidence`.
      confidence: float32 as the classes, their probabilities.
      used: for each coded stage, the workers whose results were used, by number.
      arrived: for each coded stage, the pieces that these results are of.
      decoded: for each coded stage, the data pieces that a decoder reconstructed; of a
        systematic code, those that had not arrived.
      degraded: whether some stage was decoded from fewer results than its code needs.
      seconds: duration of the phases `queue`, `encode`, `wait` (for the workers) and
        `decode` (with the head), and `total`.
      checked: whether the results of every stage were compared with each other, and
        agree.
      wrong: workers whose results were left out, since the others contradict them.
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
    checked: bool = False
    wrong: tuple[int, ...] = ()


ARRAYS = ("logits", "classes", "probabilities", "confidence")
"""Fields with one entry for each image."""


def respond(model: CodedModel, inference: Inference) -> Response:
    """Returns calibrated probabilities, or values, and the results they come from."""
    pipeline, available = model.pipeline, inference.available
    # On the host: by JAX, ten numbers would take some milliseconds.
    logits = np.asarray(inference.logits)
    probabilities = np.empty((0, logits.shape[-1]), logits.dtype)
    if not model.values:
        temperatures = confidence.temperatures(
            model.results["confidence"], pipeline, available, logits.shape
        )
        probabilities = softmax(logits / temperatures, axis=-1)
    arrived = tuple(tuple(np.flatnonzero(mask).tolist()) for mask in available)
    whole = [
        held(stage.code.quorum, pipeline.k, pieces) if stage.code.systematic else ()
        for stage, pieces in zip(pipeline.stages, arrived, strict=True)
    ]
    return Response(
        logits=logits,
        classes=probabilities.argmax(-1).astype(np.int32),
        probabilities=probabilities,
        confidence=probabilities.max(-1),
        used=inference.used,
        arrived=arrived,
        decoded=tuple(tuple(sorted({*range(pipeline.k)} - {*own})) for own in whole),
        degraded=inference.degraded,
        seconds=inference.seconds,
        checked=inference.checked,
        wrong=inference.wrong,
    )


def rows(response: Response, start: int, stop: int) -> Response:
    """Returns the response to some of the images."""
    return response._replace(
        **{name: getattr(response, name)[start:stop] for name in ARRAYS}
    )


def joined(responses: Sequence[Response]) -> Response:
    """Returns the response to a request from those to its parts, in their order."""
    if len(responses) == 1:
        return responses[0]
    of = {name: [getattr(x, name) for x in responses] for name in Response._fields}

    def stages(name: str, combine: Callable[..., set]) -> tuple[tuple[int, ...], ...]:
        of_parts = zip(*of[name], strict=True)
        return tuple(tuple(sorted(combine(*map(set, stage)))) for stage in of_parts)

    return Response(
        **{name: np.concatenate(of[name]) for name in ARRAYS},
        used=stages("used", set.union),
        arrived=stages("arrived", set.intersection),
        decoded=stages("decoded", set.union),
        degraded=any(of["degraded"]),
        seconds={
            name: max(s[name] for s in of["seconds"]) for name in of["seconds"][0]
        },
        checked=all(of["checked"]),
        wrong=tuple(sorted(set().union(*of["wrong"]))),
    )


def lengths(images: int, sizes: Collection[int]) -> list[int]:
    """Divides a request into parts: as many of the largest size as it fills, and the
    rest.

    Args:
      images: of the request, 1 or more.
      sizes: of batches, that have been compiled.
    """
    largest = max(sizes)
    rest = images % largest
    return [largest] * (images // largest) + [rest] * (rest > 0)


def padded(images: np.ndarray, sizes: Collection[int]) -> np.ndarray:
    """Pads images `[B, H, W, C]` with the last of them, to the next of the sizes."""
    size = min(size for size in sizes if size >= images.shape[0])
    last = images[-1:]
    return np.concatenate([images, last.repeat(size - images.shape[0], axis=0)])


@dataclasses.dataclass(eq=False)
class Request:
    """A request, of which the parts are answered one by one.

    Attributes:
      engine: computes it, the same for all parts.
      begun, end: on the clock of `time.monotonic`: its arrival and its deadline.
      without: workers that are not used.
      parts: how many there are.
      future: its response to come.
    """

    engine: Engine
    begun: float
    end: float
    without: tuple[int, ...]
    parts: int
    future: Future[Response] = dataclasses.field(default_factory=Future)
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    _responses: dict[int, Response] = dataclasses.field(default_factory=dict)

    def wanted(self) -> bool:
        """Returns whether it is neither cancelled nor over; from then on nobody can
        cancel it."""
        with self._lock:
            if self.future.done():
                return False
            return self.future.running() or self.future.set_running_or_notify_cancel()

    def answer(self, part: int, response: Response) -> Response | None:
        """Takes the response to a part; with the last one, returns that to all."""
        with self._lock:
            self._responses[part] = response
            if len(self._responses) < self.parts or self.future.done():
                return None
        return joined([self._responses[i] for i in range(self.parts)])

    def fail(self, error: Exception) -> bool:
        """Ends it with an error, and returns whether this is the first one."""
        with self._lock:
            first = not self.future.done()
            if first:
                self.future.set_exception(error)
            return first

    def drop(self, error: Exception) -> None:
        """Cancels it, or ends it with an error where another part of it has begun."""
        if not self.future.cancel():
            self.fail(error)


class RequestPart(NamedTuple):
    """Images `[B, H, W, C]` of a request that are computed at once, its part `index`.

    `number` is that of the inference, if no others are joined to it.
    """

    request: Request
    index: int
    number: int
    images: np.ndarray


class Line:
    """The parts that wait, in the order of their arrival.

    Args:
      most: images of the requests that are computed together, at most; None computes
        each by itself.
      wait: seconds that a request may wait for others, from its arrival on.
    """

    def __init__(self, most: int | None = None, wait: float = 0.0) -> None:
        self._most, self._wait = most or 0, wait
        self._parts: collections.deque[RequestPart] = collections.deque()
        self._changed = threading.Condition()
        self._taking = threading.Lock()
        self._closed = False

    def put(self, parts: Sequence[RequestPart]) -> None:
        """Lets parts wait.

        Raises:
          Closed: the line is closed.
        """
        with self._changed:
            if self._closed:
                raise Closed("the service is closed")
            self._parts.extend(parts)
            self._changed.notify_all()

    def take(self) -> list[RequestPart]:
        """Waits for a part, and takes it with those that are joined to it, for which it
        waits, too; takes none when the line is closed and empty."""
        with self._taking, self._changed:  # one thread at a time waits for others
            self._changed.wait_for(lambda: self._parts or self._closed)
            taken = [self._parts.popleft()] if self._parts else []
            while taken and self._may_join(taken):
                left = taken[0].request.begun + self._wait - time.monotonic()
                if self._parts:
                    taken.append(self._parts.popleft())
                elif left <= 0 or self._closed or not self._changed.wait(left):
                    break
            return taken

    def close(self) -> None:
        """Lets no more parts wait, and no part for others."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _may_join(self, taken: list[RequestPart]) -> bool:
        """Returns whether the next part can be joined, or one that has not arrived."""
        room = self._most - sum(len(part.images) for part in taken)
        if not self._parts:
            return room > 0
        following, first = self._parts[0].request, taken[0].request
        alike = following.engine is first.engine and following.without == first.without
        return alike and len(self._parts[0].images) <= room


class Metrics:
    """Counts and latencies, in memory of constant size."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: collections.Counter = collections.Counter()
        self._seconds: collections.deque[float] = collections.deque(maxlen=KEPT)
        self._phases: collections.Counter = collections.Counter()

    def answered(self, response: Response) -> None:
        """Counts a response, whose `seconds` have their `total`."""
        end = "degraded" if response.degraded else "answered"
        decoded, checked = any(response.decoded), response.checked
        self.count(**{end: 1, "decoded": decoded, "checked": checked})
        with self._lock:
            self._seconds.append(response.seconds["total"])
            self._phases.update(response.seconds)

    def count(self, **numbers: int) -> None:
        """Counts batches and images computed, or the end of a request, see `ENDS`."""
        with self._lock:
            self._counts.update(numbers)

    def summary(self, workers: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns all metrics.

        Args:
          workers: of `Pool.status`.

        Returns:
          `requests`: counts by their end; `seconds`: quantiles of the last `KEPT`
          responses, None if there was none; `phases`: mean seconds; `decoded`: the
          fraction of responses that a decoder had part in; `checked`: that of those
          whose results agree with each other; `batches` and `images` computed; and
          `workers`.
        """
        with self._lock:
            counts, phases = self._counts.copy(), dict(self._phases)
            seconds = np.asarray(self._seconds)
        answered = counts["answered"] + counts["degraded"]
        share = lambda name: counts[name] / answered if answered else None
        return {
            "requests": {end: counts[end] for end in ENDS},
            "seconds": {
                name: float(np.quantile(seconds, q)) if answered else None
                for name, q in QUANTILES.items()
            },
            "phases": {name: total / answered for name, total in phases.items()},
            "decoded": share("decoded"),
            "checked": share("checked"),
            "batches": counts["batches"],
            "images": counts["images"],
            "workers": workers,
        }
