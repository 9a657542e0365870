"""Latencies of requests on slow and failing devices, with every strategy on the same
draws, and the share of requests that are answered right by a deadline."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.checks import require
from coded_jax.codes import erasures
from coded_jax.latency.stragglers import Distribution
from coded_jax.latency.workloads import Completion, Draws, Speeds, Workload, complete

CHUNK = 2**17
"""Requests drawn at once, at most. A million of them, on 6 devices and with five
strategies, take 0.2 s on 2 CPU cores; in chunks of 2^15 or 2^20, twice as long."""

QUANTILES = {"p50": 500, "p90": 900, "p99": 990, "p99.9": 999}
"""Names of quantiles, and how many of 1000 requests take no longer."""


@dataclasses.dataclass(frozen=True)
class Machine:
    """The devices, each of them drawn by itself, their links, and the client.

    Attributes:
      compute: seconds of a device for the whole `F_Conv`; one with a share of its work
        needs that share of them.
      client: seconds of the client for the whole `F_Conv`; what it encodes, decodes and
        computes by itself takes its share of them. 0 for a client whose work is free.
      delay: seconds by which a device's result is late in every round, whatever it has
        computed; None for no delays.
      bandwidth: bytes per second between a device and the client; may be infinite.
      link: seconds that every round takes besides, whatever is sent.
      failure: probability that a device is dead, and never answers.
      each_round: whether all that is drawn is drawn anew in every round; else a device
        is slow, late or dead for a whole request.
      message: seconds of the client for each piece that it sends and each result that
        it takes, one after the other.

    Raises:
      ValueError: one of them is out of range.
    """

    compute: Distribution
    client: float
    delay: Distribution | None = None
    bandwidth: float = math.inf
    link: float = 0.0
    failure: float = 0.0
    each_round: bool = False
    message: float = 0.0

    def __post_init__(self) -> None:
        for name in ("client", "link", "message"):
            value = getattr(self, name)
            require(name, value, 0 <= value < math.inf, "0 or more")
        require("bandwidth", self.bandwidth, self.bandwidth > 0, "more than 0")
        require("failure", self.failure, 0 <= self.failure <= 1, "0..1")

    @property
    def speeds(self) -> Speeds:
        """Returns the fixed speeds, which are not drawn."""
        return Speeds(self.client, self.bandwidth, self.link, self.message)


class Latencies(NamedTuple):
    """Latencies of R requests.

    Attributes:
      seconds: float32 `[R]`, until the features are complete; infinite if they never
        are.
      available: int32 `[R]`, as of `workloads.Completion`.
    """

    seconds: np.ndarray
    available: np.ndarray


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

    Raises:
      ValueError: `requests` is not positive, or `n` fewer than a workload needs.
    """
    require("requests", requests, requests >= 1, "1 or more")
    most = max((workload.n for workload in workloads.values()), default=1)
    require("n", n, n >= most, f"{most} or more")
    chunks = -(-requests // CHUNK)
    size = -(-requests // chunks)
    hedged = [len(w.cost.rounds) for w in workloads.values() if w.hedged]
    parts: dict[str, list[Completion]] = {name: [] for name in workloads}
    for chunk in range(chunks):
        own = jax.random.fold_in(key, chunk)
        draws_of = _draws(own, n, size, machine, max(hedged, default=0))
        for name, workload in workloads.items():
            parts[name].append(complete(workload, machine.speeds, draws_of))
    joined = lambda arrays: np.concatenate(arrays)[:requests]
    return {
        name: Latencies(*map(joined, zip(*completions, strict=True)))
        for name, completions in parts.items()
    }


def first_draws(
    key: jax.Array, n: int, requests: int, machine: Machine, rounds: int
) -> Callable[[int], Draws]:
    """Returns the draws of `simulate` for the same arguments, of one chunk.

    Args:
      key, n, requests, machine: as of `simulate`.
      rounds: of a request.

    Returns:
      Number of a round, from 0 -> draws of the devices in it.

    Raises:
      ValueError: there are more requests than are drawn at once.
    """
    require("requests", requests, 1 <= requests <= CHUNK, f"1..{CHUNK}")
    return _draws(jax.random.fold_in(key, 0), n, requests, machine, rounds)


def _draws(
    key: jax.Array, n: int, size: int, machine: Machine, twice: int
) -> Callable[[int], Draws]:
    """Returns the draws of each round, made when they are first asked for; of the first
    `twice` rounds with those of pieces that are sent once more."""

    @functools.cache
    def of_round(i: int) -> Draws:
        # The first is that of machines whose devices are drawn once.
        own = jax.random.fold_in(key, i) if i else key
        again = (machine.compute, machine.delay) if i < twice else (None, None)
        distributions = (machine.compute, machine.delay, *again)
        return _draw(own, machine.failure or None, distributions, (n, size))

    return of_round if machine.each_round else lambda i: of_round(0)


@functools.partial(jax.jit, static_argnames="shape")
def _draw(
    key: jax.Array,
    failure: float | None,
    distributions: Sequence[Distribution | None],
    shape: tuple[int, int],
) -> Draws:
    """Draws from the distribution of each field of `Draws`; zeros where it is None."""
    compute, delay, compute_again, delay_again = distributions

    def sample(key: jax.Array, distribution: Distribution | None) -> jax.Array:
        nothing = jnp.zeros((shape[0], 1))
        return distribution.sample(key, shape) if distribution else nothing

    # Each set has a key of its own, so that no draw depends on which others are made.
    keys = jax.random.split(key, 5)
    drawn = Draws(
        sample(keys[0], compute),
        sample(keys[1], delay),
        sample(keys[3], compute_again),
        sample(keys[4], delay_again),
    )
    if failure is None:
        return drawn
    dead = jax.random.bernoulli(keys[2], failure, shape)
    # Whether who computes a piece once more is dead was drawn with its own piece.
    return drawn._replace(delay=jnp.where(dead, jnp.inf, drawn.delay))


def summary(seconds: np.ndarray) -> dict[str, float]:
    """Returns statistics of latencies.

    Args:
      seconds: float32 `[R]`, as of `Latencies`.

    Returns:
      The quantiles `p50`, `p90`, `p99` and `p99.9`, the least time within which that
      share of all requests is complete, infinite if that share never is; `gap`, the
      last one less the first (Kosaian et al. 2019); `mean` of the requests that are
      complete at some time, NaN if none is; and `lost`, the share of the others.
    """
    ranks = [-(-len(seconds) * share // 1000) - 1 for share in QUANTILES.values()]
    ordered = np.partition(seconds, ranks)
    quantiles = {
        name: float(ordered[i]) for name, i in zip(QUANTILES, ranks, strict=True)
    }
    last, median = quantiles["p99.9"], quantiles["p50"]
    arrived = seconds[np.isfinite(seconds)]
    return quantiles | {
        "gap": last - median if last < math.inf else math.inf,
        "mean": float(arrived.mean(dtype=np.float64)) if len(arrived) else math.nan,
        "lost": 1 - len(arrived) / len(seconds),
    }


def cdf(seconds: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns points of the distribution function, for a plot.

    Half of them are evenly spaced in their shares, and half crowd at the tail, so that
    `1 - share` is smooth on a logarithmic axis too.

    Args:
      seconds: float32 `[R]`; those that are infinite count, but are no points.
      points: how many, at most; 2 or more.

    Returns:
      Ascending seconds, and the share of all requests complete within them.
    """
    ordered = np.sort(seconds[np.isfinite(seconds)])
    count = len(ordered)
    if not count:
        return ordered, np.zeros(0)
    half = points // 2
    tail = count + 1 - np.geomspace(1, count, half)
    ranks = np.unique(np.r_[np.linspace(1, count, points - half), tail].astype(int))
    return ordered[ranks - 1], ranks / len(seconds)


def accuracy_table(patterns: Sequence[Mapping[str, Any]], n: int) -> np.ndarray:
    """Tabulates the accuracy of each set of results that arrived.

    Args:
      patterns: entries of `results.json`, with `lost` and `accuracy`.
      n: results.

    Returns:
      Float64 `[2^n]`, at `sum(arrived * 2^i)` as in `Latencies.available`; NaN for what
      was not tried. The first k of n results lose at most r, and every run tries all of
      those patterns.
    """
    table = np.full(2**n, np.nan)
    for pattern in patterns:
        arrived = erasures.available(pattern["lost"], n)[:, 0]
        table[arrived @ 2 ** np.arange(n)] = pattern["accuracy"]
    return table


def accuracy_within(
    latencies: Latencies, deadline: float, accuracy_of: np.ndarray
) -> float:
    """Returns the expected accuracy, late or missing answers counted as wrong.

    Args:
      latencies: of R requests.
      deadline: in seconds; may be infinite.
      accuracy_of: `[2^n]`, of `accuracy_table`.

    Raises:
      ValueError: an answer came of results with which none was tried.
    """
    seconds, available = latencies
    in_time = available[(seconds <= deadline) & np.isfinite(seconds)]
    counts = np.bincount(in_time, minlength=len(accuracy_of))
    places = np.flatnonzero(counts)
    untried = places[np.isnan(accuracy_of[places])].tolist()
    require("accuracy_of", f"NaN at {untried}", not untried, "values of what occurs")
    return float(counts[places] @ accuracy_of[places]) / len(seconds)
