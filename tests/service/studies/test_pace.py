"""Machines of given speeds: what workers are told is what the simulator draws."""

import jax
import numpy as np
import pytest

from coded_jax.codes.quorum import ANY_K
from coded_jax.latency.machines import Machine, draws
from coded_jax.latency.simulation import Workload, simulate
from coded_jax.latency.stragglers import ShiftedExponential
from coded_jax.service.pool import Call
from coded_jax.service.studies.pace import Pace
from tests.units import cost, trip

KEY, REQUESTS = jax.random.key(5), 200
MACHINE = Machine(ShiftedExponential(0.1, 0.2), 0.0, 1e4, 0.02, failure=0.1)


def seconds_of(fault):
    return np.inf if fault.kind else fault.there + fault.least + fault.back


@pytest.mark.parametrize("k, r", [(2, 1), (3, 2), (4, 0)])
def test_a_request_on_workers_takes_what_it_takes_in_the_simulation(k, r):
    record, n = cost(trip(0.5, 1000.0)), k + r
    pace = Pace(MACHINE, record, KEY, n, REQUESTS)
    (simulated,) = simulate(KEY, n, REQUESTS, MACHINE, [Workload(ANY_K, k, r, record)])
    by_hand = [
        sorted(
            seconds_of(pace.of_call(Call(None, None, i), worker, n))
            for worker in range(n)
        )[k - 1]
        for i in range(REQUESTS)
    ]
    np.testing.assert_allclose(simulated.seconds, by_hand, rtol=1e-5)
    assert 0 < np.isinf(by_hand).sum() < REQUESTS


def test_pieces_sent_again_take_their_time_in_every_round():
    """Devices are drawn for each round, and a dead one computes no copy either."""
    machine = MACHINE._replace(each_round=True)
    pace = Pace(machine, cost(trip(0.5), trip(0.25)), KEY, 3, REQUESTS)
    draws_of = draws(jax.random.fold_in(KEY, 0), 3, REQUESTS, machine, 2)
    piece = type("Piece", (), {"index": 1})
    for i in range(REQUESTS):
        for stage, work in enumerate((0.5, 0.25)):
            drawn, call = draws_of(stage), Call(piece, None, i, stage, attempt=1)
            fault = pace.of_call(call, 2, 3)
            if np.isinf(drawn.delay[2, i]):
                assert fault.kind == "raise"
                continue
            least = work * drawn.compute_again[1, i]
            np.testing.assert_allclose(fault.least, least, rtol=1e-6)
            assert fault.least > 0
