"""Metrics of a service: latencies, decoded and failed requests, losses of workers."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from rich.table import Table

from coded_jax.report import table
from coded_jax.service.pool import LOSSES
from coded_jax.service.requests import Response

KEPT = 100_000  # last requests, whose latencies quantiles are taken of
QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
FAILURES = ("shortfall", "contradiction", "overload", "unready", "cancelled", "error")
"""Ends of requests without a response: too few results, or wrong ones; a full queue, no
workers to answer with; given up by who has asked; anything else."""
ENDS = ("answered", "degraded", *FAILURES)


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


def expose(port: int, summary: Callable[[], dict[str, Any]]) -> Callable[[], None]:
    """Serves the summary as Prometheus text on `http://127.0.0.1:port/metrics`.

    Args:
      port: of the loopback interface.
      summary: makes the content, see `Metrics.summary`.

    Returns:
      A function that ends it.

    Raises:
      OSError: the port is taken.
    """
    from prometheus_client import start_http_server

    content = registry(summary)
    server, thread = start_http_server(port, addr="127.0.0.1", registry=content)

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return close


def registry(summary: Callable[[], dict[str, Any]]) -> Any:
    """Returns a `CollectorRegistry` of Prometheus with the summary of the moment.

    Args:
      summary: makes the content, of `Service.summary`.
    """
    from prometheus_client import CollectorRegistry

    class Collector:
        def collect(self) -> Iterator[Any]:
            return _families(summary())

    made = CollectorRegistry()
    made.register(Collector())
    return made


def _families(summary: dict[str, Any]) -> Iterator[Any]:
    """Yields a summary as Prometheus metrics."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    count, gauge = CounterMetricFamily, GaugeMetricFamily
    single = lambda name: [(summary[name],)]
    workers = [*enumerate(summary["workers"])]
    of_workers = lambda name: [(i, worker[name]) for i, worker in workers]
    quantiles = [(q, summary["seconds"][name]) for name, q in QUANTILES.items()]
    losses = [(i, *lost) for i, worker in workers for lost in worker["losses"].items()]
    anew = "clusters that were started anew or joined again"
    decoded = "responses that a decoder had part in"
    agree = "responses whose results agree with each other"
    requests, ready = summary["requests"].items(), [(summary["obstacle"] is None,)]
    for kind, name, text, labels, samples in (
        (count, "requests", "requests by their end", ["end"], requests),
        (gauge, "latency_seconds", "of the last requests", ["quantile"], quantiles),
        (gauge, "decoded_share", decoded, [], single("decoded")),
        (gauge, "checked_share", agree, [], single("checked")),
        (count, "batches", "batches computed", [], single("batches")),
        (count, "images", "images computed", [], single("images")),
        (gauge, "ready", "whether requests can be answered", [], ready),
        (count, "cluster_restarts", anew, [], single("cluster_restarts")),
        (count, "losses", "results lost", ["worker", "why"], losses),
        (count, "restarts", "of workers", ["worker"], of_workers("restarts")),
        (gauge, "worker_up", "whether it can compute", ["worker"], of_workers("up")),
    ):
        family = kind(f"coded_jax_{name}", text, labels=labels)
        for *values, number in samples:
            number = float("nan") if number is None else number
            family.add_metric([str(value) for value in values], number)
        yield family


def workers_table(summary: dict[str, Any]) -> Table:
    """Returns restarts and lost results of each worker, and the requests below them.

    Args:
      summary: of `Service.summary`.
    """
    requests, seconds = summary["requests"], summary["seconds"]
    rows = [
        [str(i), str(worker["restarts"]), *map(str, worker["losses"].values())]
        for i, worker in enumerate(summary["workers"])
    ]
    made = table.Table(["worker", "restarts", *LOSSES], rows)
    shown = table.to_terminal(made, left=0)
    shown.caption = ", ".join(f"{count} {end}" for end, count in requests.items())
    if requests["answered"]:
        times = ", ".join(f"{q} {1e3 * value:.1f} ms" for q, value in seconds.items())
        shown.caption += f"\n{times}, {100 * summary['decoded']:.1f} % decoded"
    return shown
