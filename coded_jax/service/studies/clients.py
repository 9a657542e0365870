"""Clients of a service: a fixed number that each wait for their answer, or a stream."""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from coded_jax.runs.coded_model import CodedModel

TOLERANCE = 1e-3  # of logits, of the largest of them: batches of other sizes round so


class Exchange(NamedTuple):
    """A request, and what came of it.

    Attributes:
      row: of the image.
      begun: on the clock of `time.monotonic`.
      seconds: until its end.
      response: a `Response`, or one over HTTP; None where it failed.
      error: one line, empty where it was answered.
    """

    row: int
    begun: float
    seconds: float
    response: Any
    error: str


def closed_loop(
    ask: Callable[[np.ndarray], Any],
    images: np.ndarray,
    clients: int,
    go_on: Callable[[int], bool],
) -> list[Exchange]:
    """Sends single images, each client the next one when its last one is answered.

    Args:
      ask: `images [1, H, W, C] -> response`, a `Response` or like one.
      images: `[N, H, W, C]`, taken one after the other, again from the first one.
      clients: threads.
      go_on: whether a request of that number, from 0, is still to be sent.
    """
    numbers, exchanges = itertools.count(), list[Exchange]()

    def client(_: int) -> None:
        while go_on(number := next(numbers)):
            row = number % len(images)
            own = functools.partial(ask, images[row : row + 1])
            exchanges.append(_exchange(row, time.monotonic(), own))

    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(client, range(clients)))  # raises what they raise
    return sorted(exchanges, key=lambda exchange: exchange.begun)


def _exchange(row: int, begun: float, ask: Callable[[], Any]) -> Exchange:
    response, problem = None, ""
    try:
        response = ask()
    except (RuntimeError, OSError) as error:  # OSError: of a connection
        problem = f"{type(error).__name__}: {error}"
    return Exchange(row, begun, time.monotonic() - begun, response, problem)


def open_loop(
    submit: Callable[[np.ndarray], Future],
    images: np.ndarray,
    rate: float,
    seconds: float,
    seed: int = 0,
) -> list[Exchange]:
    """Sends single images at times of a Poisson process, whoever has been answered.

    Args:
      submit: `images [1, H, W, C] -> future of a Response`, without waiting.
      images: `[N, H, W, C]`, taken one after the other, again from the first one.
      rate: requests per second.
      seconds: how long.
      seed: of the process.
    """
    rng = np.random.default_rng(seed)
    arrivals = rng.exponential(1 / rate, int(2 * rate * seconds) + 10).cumsum()
    arrivals = arrivals[arrivals < seconds]
    exchanges: list[Exchange] = []
    left = threading.Semaphore(0)
    start = time.monotonic()

    def end(row: int, due: float, future: Future) -> None:
        # From when it should have been sent: a late client hides nothing.
        exchanges.append(_exchange(row, due, future.result))
        left.release()

    for number, due in enumerate(start + arrivals):
        time.sleep(max(due - time.monotonic(), 0))
        row = number % len(images)
        try:
            future = submit(images[row : row + 1])
        except RuntimeError as error:  # the queue is full
            future = Future()
            future.set_exception(error)
        future.add_done_callback(functools.partial(end, row, due))
    for _ in arrivals:
        left.acquire()
    return sorted(exchanges, key=lambda exchange: exchange.begun)


def wrong_answers(
    model: CodedModel, images: np.ndarray, exchanges: Sequence[Exchange]
) -> int:
    """Counts answers other than the model's with the same results lost.

    Degraded ones are left out. Logits have to agree to a thousandth of the largest.
    """
    pieces, wrong = {*range(model.pipeline.n)}, 0
    for own in exchanges:
        if own.response is None or own.response.degraded:
            continue
        lost = {i for stage in own.response.arrived for i in pieces - {*stage}}
        expected = np.asarray(model.logits(images[own.row : own.row + 1], lost))
        apart = np.abs(own.response.logits - expected).max()
        wrong += not apart <= TOLERANCE * np.abs(expected).max()  # NaN is wrong
    return wrong


def latencies(exchanges: Sequence[Exchange]) -> dict[str, Any]:
    """Returns the summary of requests: counts, quantiles and the slowest, in seconds,
    and answers per second."""
    answered = [x for x in exchanges if x.response is not None]
    seconds = np.array([x.seconds for x in answered])
    end = max(x.begun + x.seconds for x in exchanges)
    passed = end - min(x.begun for x in exchanges)
    quantile = lambda q: float(np.quantile(seconds, q)) if answered else None
    return {
        "requests": len(exchanges),
        "lost": len(exchanges) - len(answered),
        "degraded": sum(exchange.response.degraded for exchange in answered),
        "p50": quantile(0.5),
        "p99": quantile(0.99),
        "slowest": quantile(1.0),
        "per_second": len(answered) / passed,
        "errors": sorted({exchange.error for exchange in exchanges} - {""})[:5],
    }
