"""Clients of a service: a fixed number that each wait for their answer, or a stream."""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
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
    numbers, done = itertools.count(), [[] for _ in range(clients)]

    def client(own: list[Exchange]) -> None:
        while go_on(number := next(numbers)):
            own.append(_exchange(ask, images, number % images.shape[0]))

    threads = [threading.Thread(target=client, args=(own,)) for own in done]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(itertools.chain(*done), key=lambda exchange: exchange.begun)


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
    exchanges: list[Exchange | None] = [None] * len(arrivals)
    left = threading.Semaphore(0)
    start = time.monotonic()

    def end(number: int, row: int, begun: float, future: Future) -> None:
        exchanges[number] = _ended(row, begun, future)
        left.release()

    for number, arrival in enumerate(arrivals):
        time.sleep(max(start + arrival - time.monotonic(), 0))
        row = number % images.shape[0]
        future = _sent(submit, images[row : row + 1])
        # From when it should have been sent: a late client hides nothing.
        future.add_done_callback(
            lambda done, of=(number, row, start + arrival): end(*of, done)
        )
    for _ in arrivals:
        left.acquire()
    return [exchange for exchange in exchanges if exchange is not None]


def wrong_answers(
    model: CodedModel, images: np.ndarray, exchanges: Sequence[Exchange]
) -> int:
    """Counts answers other than the model's with the same results lost.

    Degraded ones are left out. Logits have to agree to a thousandth of the largest.
    """
    n, of_pattern = model.pipeline.n, defaultdict(list)
    for exchange in exchanges:
        if exchange.response is None or exchange.response.degraded:
            continue
        arrived = tuple(map(tuple, exchange.response.arrived))
        of_pattern[arrived].append(exchange)
    wrong = 0
    for arrived, some in of_pattern.items():
        lost = {piece for stage in arrived for piece in {*range(n)} - {*stage}}
        rows = sorted({exchange.row for exchange in some})
        logits = dict(
            zip(rows, np.asarray(model.logits(images[rows], lost)), strict=True)
        )
        for exchange in some:
            expected = logits[exchange.row]
            apart = np.abs(exchange.response.logits[0] - expected).max()
            wrong += not apart <= TOLERANCE * np.abs(expected).max()
    return wrong


def latencies(exchanges: Sequence[Exchange]) -> dict[str, Any]:
    """Returns the summary of requests: counts, quantiles and the slowest, in seconds,
    and answers per second."""
    answered = [exchange for exchange in exchanges if exchange.response is not None]
    seconds = np.array([exchange.seconds for exchange in answered])
    begun = min(exchange.begun for exchange in exchanges)
    ended = max(exchange.begun + exchange.seconds for exchange in exchanges)
    quantile = lambda q: float(np.quantile(seconds, q)) if answered else None
    return {
        "requests": len(exchanges),
        "lost": len(exchanges) - len(answered),
        "degraded": sum(exchange.response.degraded for exchange in answered),
        "p50": quantile(0.5),
        "p99": quantile(0.99),
        "slowest": quantile(1.0),
        "per_second": len(answered) / (ended - begun),
        "errors": sorted({exchange.error for exchange in exchanges} - {""})[:5],
    }


def _exchange(ask: Callable, images: np.ndarray, row: int) -> Exchange:
    begun, response, problem = time.monotonic(), None, ""
    try:
        response = ask(images[row : row + 1])
    except (RuntimeError, OSError) as error:  # OSError: of a connection
        problem = f"{type(error).__name__}: {error}"
    return Exchange(row, begun, time.monotonic() - begun, response, problem)


def _sent(submit: Callable[[np.ndarray], Future], images: np.ndarray) -> Future:
    try:
        return submit(images)
    except RuntimeError as error:  # the queue is full
        failed: Future = Future()
        failed.set_exception(error)
        return failed


def _ended(row: int, begun: float, future: Future) -> Exchange:
    seconds, error = time.monotonic() - begun, future.exception()
    if error is None:
        return Exchange(row, begun, seconds, future.result(), "")
    return Exchange(row, begun, seconds, None, f"{type(error).__name__}: {error}")
