"""Batches of the sizes that have been compiled, made of requests of any size.

A request is divided into parts of at most the largest size; parts that wait are joined,
where that is asked for, and padded to the next size.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np

from coded_jax.service.response import Response, joined


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
      begun, end: on the clock of `time.monotonic`: its arrival and its deadline.
      without: workers that are not used.
      parts: how many there are.
      served: computes it, the same for all parts; see `Service`.
      future: its response to come.
    """

    begun: float
    end: float
    without: tuple[int, ...]
    parts: int
    served: Any = None
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
    """Images of a request that are computed at once.

    Attributes:
      request: that they belong to.
      index: of the part, from 0.
      number: of the inference, if no others are joined to it.
      images: `[B, H, W, C]`.
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
        self._most, self._wait = most, wait
        self._parts: deque[RequestPart] = deque()
        self._changed = threading.Condition()
        self._taking = threading.Lock()
        self._closed = False

    def put(self, parts: Sequence[RequestPart]) -> None:
        """Lets parts wait."""
        with self._changed:
            self._parts.extend(parts)
            self._changed.notify_all()

    def take(self) -> list[RequestPart]:
        """Takes the first part, and those that are joined to it; none if none waits.

        It waits for parts that may be joined.
        """
        with self._taking, self._changed:  # one thread at a time waits for others
            taken = [self._parts.popleft()] if self._parts else []
            while taken and self._may_join(taken):
                left = taken[0].request.begun + self._wait - time.monotonic()
                if self._parts:
                    taken.append(self._parts.popleft())
                elif left <= 0 or self._closed or not self._changed.wait(left):
                    break
            return taken

    def close(self) -> list[RequestPart]:
        """Takes all parts, and lets nobody wait for others any more."""
        with self._changed:
            self._closed = True
            left = [*self._parts]
            self._parts.clear()
            self._changed.notify_all()
            return left

    def _may_join(self, taken: list[RequestPart]) -> bool:
        """Returns whether the next part can be joined, or one that has not arrived."""
        room = (self._most or 0) - sum(len(part.images) for part in taken)
        if not self._parts:
            return room > 0
        following, first = self._parts[0].request, taken[0].request
        alike = following.served is first.served and following.without == first.without
        return alike and len(self._parts[0].images) <= room
