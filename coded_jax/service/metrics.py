"""Metrics of a service: latencies, decoded and failed requests, losses of workers."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

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

    def answered(
        self,
        seconds: dict[str, float],
        decoded: bool,
        degraded: bool,
        checked: bool,
    ) -> None:
        """Counts a response.

        Args:
          seconds: duration of its phases, and of all of it as `total`.
          decoded: whether a decoder reconstructed any share.
          degraded, checked: see `Response`.
        """
        with self._lock:
            self._counts["degraded" if degraded else "answered"] += 1
            self._counts["decoded"] += decoded
            self._counts["checked"] += checked
            self._seconds.append(seconds["total"])
            self._phases.update(seconds)

    def computed(self, images: int) -> None:
        """Counts a batch of so many images that was computed."""
        with self._lock:
            self._counts["batches"] += 1
            self._counts["images"] += images

    def failed(self, reason: str) -> None:
        """Counts a request without a response, for a reason among `FAILURES`."""
        with self._lock:
            self._counts[reason] += 1

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
            counts, phases = dict(self._counts), dict(self._phases)
            seconds = np.asarray(self._seconds)
        answered = counts.get("answered", 0) + counts.get("degraded", 0)
        share = lambda name: counts.get(name, 0) / answered if answered else None
        return {
            "requests": {end: counts.get(end, 0) for end in ENDS},
            "seconds": {
                name: float(np.quantile(seconds, q)) if answered else None
                for name, q in QUANTILES.items()
            },
            "phases": {name: total / answered for name, total in phases.items()},
            "decoded": share("decoded"),
            "checked": share("checked"),
            "batches": counts.get("batches", 0),
            "images": counts.get("images", 0),
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
      ImportError: prometheus_client is missing.
      OSError: the port is taken.
    """
    try:
        from prometheus_client import start_http_server
    except ImportError:
        raise ImportError(
            "metrics_port: it needs prometheus_client; "
            "pip install 'coded_jax[serve]' or prometheus_client"
        ) from None
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
      summary: makes the content, see `Metrics.summary`.
    """
    from prometheus_client import CollectorRegistry

    class Collector:
        def collect(self) -> list[Any]:
            return _families(summary())

    made = CollectorRegistry()
    made.register(Collector())
    return made


def _families(summary: dict[str, Any]) -> list[Any]:
    """Returns a summary as Prometheus metrics."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    number = lambda value: float("nan") if value is None else value
    requests = CounterMetricFamily(
        "coded_jax_requests", "requests by their end", labels=["end"]
    )
    for end, count in summary["requests"].items():
        requests.add_metric([end], count)
    latency = GaugeMetricFamily(
        "coded_jax_latency_seconds", "of the last requests", labels=["quantile"]
    )
    for name, q in QUANTILES.items():
        latency.add_metric([str(q)], number(summary["seconds"][name]))
    decoded = GaugeMetricFamily(
        "coded_jax_decoded_share",
        "responses that a decoder had part in",
        value=number(summary["decoded"]),
    )
    checked = GaugeMetricFamily(
        "coded_jax_checked_share",
        "responses whose results agree with each other",
        value=number(summary["checked"]),
    )
    ready = GaugeMetricFamily(
        "coded_jax_ready",
        "whether requests can be answered",
        value=summary["obstacle"] is None,
    )
    anew = CounterMetricFamily(
        "coded_jax_cluster_restarts",
        "clusters that were started anew or joined again",
        value=summary["cluster_restarts"],
    )
    batches = CounterMetricFamily(
        "coded_jax_batches", "batches computed", value=summary["batches"]
    )
    images = CounterMetricFamily(
        "coded_jax_images", "images computed", value=summary["images"]
    )
    losses = CounterMetricFamily(
        "coded_jax_losses", "results lost", labels=["worker", "why"]
    )
    restarts = CounterMetricFamily(
        "coded_jax_restarts", "of workers", labels=["worker"]
    )
    up = GaugeMetricFamily(
        "coded_jax_worker_up", "whether it can compute", labels=["worker"]
    )
    for i, worker in enumerate(summary["workers"]):
        for reason, count in worker["losses"].items():
            losses.add_metric([str(i), reason], count)
        restarts.add_metric([str(i)], worker["restarts"])
        up.add_metric([str(i)], worker["up"])
    service = [requests, latency, decoded, checked, batches, images, ready, anew]
    return [*service, losses, restarts, up]
