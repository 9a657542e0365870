"""Latencies of requests on slow and failing devices, with every strategy on the same
draws."""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import numpy as np

from coded_jax.latency.machines import Machine, draws
from coded_jax.latency.workloads import Latencies, Workload, complete

CHUNK = 2**17
"""Requests drawn at once, at most. A million of them, on 6 devices and with five
strategies, take 0.2 s on 2 CPU cores; in chunks of 2^15 or 2^20, twice as long."""

QUANTILES = {"p50": 500, "p90": 900, "p99": 990, "p99.9": 999}
"""Names of quantiles, and how many of 1000 requests take no longer."""


def simulate(
    key: jax.Array,
    n: int,
    requests: int,
    machine: Machine,
    workloads: Mapping[str, Workload],
) -> dict[str, Latencies]:
    """Simulates R requests with every workload, on the same draws.

    Args:
      key: of the draws.
      n: devices; each workload uses the first of them.
      requests: R.
      machine: the devices.
      workloads: by name.

    Returns:
      Arrays of NumPy.
    """
    chunks = -(-requests // CHUNK)
    size = -(-requests // chunks)
    twice = max((len(w.hedge_after) for w in workloads.values()), default=0)
    parts: dict[str, list[Latencies]] = {name: [] for name in workloads}
    for chunk in range(chunks):
        draws_of = draws(jax.random.fold_in(key, chunk), n, size, machine, twice)
        for name, workload in workloads.items():
            parts[name].append(complete(workload, machine, draws_of))

    def joined(arrays: tuple) -> np.ndarray:
        whole = [np.broadcast_to(array, size) for array in arrays]
        return np.concatenate(whole)[:requests]

    return {
        name: Latencies(*map(joined, zip(*completed, strict=True)))
        for name, completed in parts.items()
    }


def summary(seconds: np.ndarray) -> dict[str, float]:
    """Returns statistics of latencies.

    Args:
      seconds: float32 `[R]`, as of `Latencies`.

    Returns:
      The quantiles `p50`, `p90`, `p99` and `p99.9`, the least time within which that
      share of all requests is complete, infinite if that share never is; and `gap`, the
      last one less the first (Kosaian et al. 2019).
    """
    ranks = [-(-len(seconds) * share // 1000) - 1 for share in QUANTILES.values()]
    ordered = np.partition(seconds, ranks)[ranks].tolist()
    gap = ordered[-1] - ordered[0] if ordered[-1] < math.inf else math.inf
    return {**dict(zip(QUANTILES, ordered, strict=True)), "gap": gap}
