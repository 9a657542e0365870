"""The simulator on the delays that the requests of a study have met."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.codes import quorum
from coded_jax.inference.costs import Cost, Round
from coded_jax.latency.workloads import Draws, Speeds, Workload, complete
from coded_jax.service.faults import Faults
from coded_jax.service.studies.latency_study import Measurement, ServedStrategy


def replay(
    strategy: ServedStrategy,
    calm: Measurement,
    faults: Faults,
    workers: int,
    requests: int,
) -> np.ndarray:
    """Simulates the requests that `measure_latencies` sends.

    Args:
      strategy: how the workers are used.
      calm: the same measured without faults: its times are those of the simulated
        computation, encoder and decoder.
      faults: whose delays the requests meet; with the `service` of those that were
        measured.
      workers: number of workers.
      requests: R.

    Returns:
      float32 `[R]` seconds.
    """
    pipeline = strategy.model.pipeline
    code, rounds = pipeline.stages[0].code, len(pipeline.stages)
    phases = calm.phases
    # In seconds: of a client, and of machines, that take one for the whole.
    trip = Round(
        1.0,
        encode_flops=phases["encode"] / rounds,
        decode_flops=phases["decoding"] / rounds if quorum.decodes(code.quorum) else 0,
    )
    client = phases["queue"] + phases["decode"]
    cost = Cost((trip,) * rounds, client, Round(1.0), workers)
    workload = Workload(
        code.quorum,
        pipeline.k,
        len(quorum.sent(code.quorum, pipeline.k, pipeline.n)) - pipeline.k,
        cost,
        np.inf if strategy.hedge_after is None else strategy.hedge_after,
        pipeline.systematic,
        spares=workers - pipeline.k if strategy.hedge_after is not None else 0,
    )
    delays = [_delays(faults, workers, requests, attempt) for attempt in (0, 1)]
    # Computation on the workers, as it was measured: one request after the other.
    answered = calm.seconds[np.isfinite(calm.seconds)] - client - phases["encode"]
    seconds = np.maximum(answered - _decoding(calm, answered, faults), 0) / rounds
    compute = jnp.asarray(np.resize(seconds, (1, requests)), jnp.float32)
    compute = jnp.broadcast_to(compute, delays[0].shape)
    draws = Draws(compute, delays[0], compute, delays[1])
    return np.asarray(complete(workload, Speeds(1.0), lambda i: draws).seconds)


def _decoding(calm: Measurement, answered: np.ndarray, faults: Faults) -> Any:
    """Returns the seconds of decoding in each request: all of it where machines have
    had the rest of the time that they need at least, else none; where they need none,
    the mean."""
    decoding, least = calm.phases["decoding"], sum(faults.service)
    if not least:
        return calm.decoded * decoding
    return np.where(answered - decoding >= least, decoding, 0.0)


def _delays(faults: Faults, workers: int, requests: int, attempt: int) -> jax.Array:
    """Returns seconds `[n, R]`."""
    drawn = [faults.of_request(i, workers, attempt) for i in range(requests)]
    return jnp.asarray([[fault.delay for fault in request] for request in drawn]).T
