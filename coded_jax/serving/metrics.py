"""What a service has done so far: latencies, decoded and failed requests, losses."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

KEPT = 100_000  # latencies of the last requests that quantiles are taken of
QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


class Metrics:
    """Counts and latencies; of a constant size however many requests there were."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: collections.Counter = collections.Counter()
        self._seconds: collections.deque[float] = collections.deque(maxlen=KEPT)
        self._phases: collections.Counter = collections.Counter()

    def answered(
        self, seconds: dict[str, float], decoded: bool, degraded: bool
    ) -> None:
        """Notes an answer with the seconds of its phases, and of all as `total`."""
        with self._lock:
            self._counts["degraded" if degraded else "answered"] += 1
            self._counts["decoded"] += decoded
            self._seconds.append(seconds["total"])
            self._phases.update(seconds)

    def failed(self, why: str) -> None:
        """Notes a request without an answer: `"shortfall"`, `"overload"`, `"error"`."""
        with self._lock:
            self._counts[why] += 1

    def summary(self, workers: list[dict[str, Any]]) -> dict[str, Any]:
        """All of it.

        Args:
          workers: of `Pool.status`.

        Returns:
          `requests` by their end; `seconds`: quantiles of the last `KEPT` answers, None
          if there was none; `phases`: the mean seconds of each; `decoded`: the share of
          all answers; and `workers`.
        """
        with self._lock:
            counts, phases = dict(self._counts), dict(self._phases)
            seconds = np.asarray(self._seconds)
        answered = counts.get("answered", 0) + counts.get("degraded", 0)
        ends = ("answered", "degraded", "shortfall", "overload", "error")
        return {
            "requests": {end: counts.get(end, 0) for end in ends},
            "seconds": {
                name: float(np.quantile(seconds, q)) if answered else None
                for name, q in QUANTILES.items()
            },
            "phases": {name: total / answered for name, total in phases.items()},
            "decoded": counts.get("decoded", 0) / answered if answered else None,
            "workers": workers,
        }


def expose(port: int, summary: Callable[[], dict[str, Any]]) -> Callable[[], None]:
    """Serves the summary as Prometheus text on `http://127.0.0.1:port/metrics`.

    Args:
      port: of the loopback interface.
      summary: makes what `Metrics.summary` returns.

    Returns:
      A function that ends it.

    Raises:
      ImportError: prometheus_client is missing.
      OSError: the port is taken.
    """
    try:
        from prometheus_client import CollectorRegistry, start_http_server
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    except ImportError:
        raise ImportError(
            "metrics_port: it needs prometheus_client; "
            "pip install 'coded_jax[ray]' or prometheus_client"
        ) from None

    class Collector:
        def collect(self):
            found = summary()
            gauge = lambda name, about, **more: GaugeMetricFamily(
                f"coded_jax_{name}", about, **more
            )
            requests = CounterMetricFamily(
                "coded_jax_requests", "requests by their end", labels=["end"]
            )
            for end, count in found["requests"].items():
                requests.add_metric([end], count)
            latency = gauge(
                "latency_seconds", "of the last requests", labels=["quantile"]
            )
            for name, q in QUANTILES.items():
                value = found["seconds"][name]
                latency.add_metric([str(q)], float("nan") if value is None else value)
            share = found["decoded"]
            decoded = gauge(
                "decoded_share",
                "answers that a decoder made",
                value=float("nan") if share is None else share,
            )
            losses = CounterMetricFamily(
                "coded_jax_losses", "results lost", labels=["worker", "why"]
            )
            restarts = CounterMetricFamily(
                "coded_jax_restarts", "of workers", labels=["worker"]
            )
            up = gauge("worker_up", "whether it can compute", labels=["worker"])
            for i, worker in enumerate(found["workers"]):
                for why, count in worker["losses"].items():
                    losses.add_metric([str(i), why], count)
                restarts.add_metric([str(i)], worker["restarts"])
                up.add_metric([str(i)], worker["up"])
            return [requests, latency, decoded, losses, restarts, up]

    registry = CollectorRegistry()
    registry.register(Collector())
    server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return close
