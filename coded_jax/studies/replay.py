"""The simulator on the delays that a study's requests have met."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from coded_jax.latency.strategies import Draws, Round, Work, complete
from coded_jax.serving.faults import Faults
from coded_jax.serving.first_k import HEDGED
from coded_jax.studies.latency_study import Measured, Strategy


def replay(
    strategy: Strategy, calm: Measured, faults: Faults, workers: int, requests: int
) -> np.ndarray:
    """What the simulator says of the requests that `measure` sends.

    Args:
      strategy: how they are answered.
      calm: the same measured without faults, whose times are those of the simulated
        computation, encoder and decoder.
      faults: whose delays the requests meet.
      workers: how many there are.
      requests: R.

    Returns:
      float32 `[R]` seconds.
    """
    pipeline = strategy.model.pipeline
    coded, rounds = strategy.kind in ("coded", "mds"), len(pipeline.codings)
    phases = calm.phases
    each = Round(
        1.0,
        encode=phases["encode"] / rounds,
        decode=phases["decoding"] / rounds if coded else 0.0,
    )
    copies = strategy.kind == "replication" or coded
    work = Work(
        strategy.kind,
        pipeline.k,
        pipeline.r if copies else 0,
        (each,) * rounds,
        np.inf if strategy.hedge_after is None else strategy.hedge_after,
        pipeline.systematic,
        own=phases["queue"] + phases["decode"],
    )
    first, again = (
        jnp.asarray(
            [
                [fault.delay for fault in faults.of_request(i + more, workers)]
                for i in range(requests)
            ]
        ).T
        for more in (0, HEDGED)
    )
    # What the workers took without delays, as it was: one request after the other.
    others = work.own + phases["encode"] + calm.decoded * phases["decoding"]
    known = np.maximum(calm.seconds[np.isfinite(calm.seconds)] - others, 0) / rounds
    compute = jnp.asarray(np.resize(known, (1, requests)), jnp.float32)
    compute = jnp.broadcast_to(compute, first.shape)
    draws = Draws(compute, first, compute, again)
    return np.asarray(complete(work, np.inf, draws)[0])
