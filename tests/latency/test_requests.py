"""Workloads, request by request, in numbers without rounding."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax.codes.quorum import ALL_DATA, ANY_K, decodes, one_of_each, suffices
from coded_jax.latency import simulation
from coded_jax.latency.machines import Draws, Machine
from coded_jax.latency.simulation import Workload
from coded_jax.latency.stragglers import Constant
from tests.units import cost, trip

ONE = cost(trip(0.5, 1000.0))


def sent_again(workload, own, free, after, there, seconds):
    """What is sent once more, in its order: `(sent, piece, device, begun, there)`; of
    each device the time when it is idle, of each piece its seconds when it is sent
    again, infinite by a dead device."""
    missing, copies = [*range(workload.queries)], []
    spares = [(0.0, i) for i in range(workload.queries, workload.n)]
    devices = [*spares, *((end, i) for i, end in enumerate(own) if end < math.inf)]
    places = {device: place for place, (_, device) in enumerate(devices)}
    in_turn = lambda idle: (idle[0], places[idle[1]])
    while devices:
        idle, device = devices.pop(devices.index(min(devices, key=in_turn)))
        begin = max(after, idle)
        missing = [i for i in missing if own[i] > begin]
        if missing:
            piece = missing.pop(0)
            begun = begin + there
            if device >= workload.queries:
                begun = max(begun, free[device])
            end = begun + seconds(piece, device)
            copies.append((begin, piece, device, begun, end))
            if end < math.inf:
                devices.append((end, device))
    return copies


def one_request(workload, bandwidth, message, x, d, x_again, d_again):
    """The time and the results of one request, arrival by arrival."""
    total, first, free = workload.cost.client_flops, None, [0.0] * workload.n
    hedges = workload.hedge_after or [None] * len(workload.cost.rounds)
    trips = zip(workload.cost.rounds, hedges, strict=True)
    for (work, payload, _, encode, decode), hedge in trips:
        sent = total + encode
        there, back = payload / bandwidth + 0.0625, 0.0625 + message
        later = [time - sent if sent < math.inf else 0.0 for time in free]
        sending = [there + (i + 1) * message for i in range(workload.queries)]
        waits = [max(*both) for both in zip(later, sending, strict=False)]
        own = [waits[i] + work * x[i] + d[i] + back for i in range(workload.queries)]
        ends, copies = [*own], []
        if hedge is not None:

            def again(piece, device, work=work, back=back):
                late = math.inf if d[device] == math.inf else d_again[piece]
                return work * x_again[piece] + late + back

            after = max(hedge, workload.queries * message)
            copies = sent_again(workload, own, later, after, there, again)
            for _, piece, _, _, end in copies:
                ends[piece] = min(ends[piece], end)
            ends = [end + message * sum(c[0] < end for c in copies) for end in ends]
        arrived, now = set(), math.inf
        for now in [*sorted(set(ends) - {math.inf}), math.inf]:
            arrived |= {i for i, end in enumerate(ends) if end == now < math.inf}
            if suffices(workload.quorum, workload.k, arrived):
                break
        total = sent + now
        if decodes(workload.quorum) and not (
            workload.systematic and arrived >= set(range(workload.k))
        ):
            total += decode
        for i in range(workload.queries):  # what has begun is ended, if it ever is
            if waits[i] < now and sent + own[i] < math.inf:
                free[i] = sent + own[i] - back
        for _, _, device, begun, end in copies:
            if begun < now and sent + end < math.inf:
                free[device] = sent + end - back
        data = lambda results: len(results & {*range(workload.k)})
        if first is None or data(arrived) < data(first):
            first = arrived
    return total, sum(2**i for i in first)


@pytest.mark.parametrize(
    "workload",
    [
        Workload(ALL_DATA, 5, 0, cost(trip(0.5, 64.0), client=0.25)),
        Workload(ALL_DATA, 3, 0, cost(trip(0.5), trip(0.25, 32.0, 0.125))),
        Workload(ALL_DATA, 4, 0, cost(trip(0.5), trip(2.0)), hedge_after=(0.0, 0.0)),
        Workload(ALL_DATA, 3, 0, cost(trip(0.5)), hedge_after=(1.0,), spares=2),
        Workload(ALL_DATA, 4, 0, cost(trip(0.5), trip(2.0)), hedge_after=(1.0, 4.0)),
        Workload(
            ALL_DATA,
            3,
            0,
            cost(trip(0.5), trip(0.25, 32.0), trip(0.5)),
            hedge_after=(0.0, 0.0, 1.0),
            spares=2,
        ),
        Workload(one_of_each(2, 5), 2, 3, cost(trip(1.0, 64.0))),
        Workload(one_of_each(3, 5), 3, 2, cost(trip(0.5), trip(0.25))),
        Workload(ANY_K, 3, 2, cost(trip(0.5, 64.0, 0.5, 0.25))),
        Workload(ANY_K, 2, 1, cost(trip(0.5, 0.0, 0.5, 0.25)), systematic=False),
        Workload(
            ANY_K,
            2,
            3,
            cost(trip(0.5, 8.0), trip(0.125, 16.0), trip(0.0625), trip(0.5)),
        ),
    ],
    ids=lambda w: f"{w.quorum.name}-{w.k}-{w.r}{'-hedged' * bool(w.hedge_after)}",
)
@pytest.mark.parametrize("message", [0.0, 0.03125])
def test_every_strategy_request_by_request(workload, message):
    """All numbers are sums of powers of two, so that there are ties and no rounding."""
    rng = np.random.default_rng(0)
    x, x_again = rng.integers(1, 5, (2, 5, 200)).astype(np.float32)
    d, d_again = rng.choice([0, 0, 0, 0.5, 1], (2, 5, 200)).astype(np.float32)
    d[rng.random((5, 200)) < 0.2] = np.inf
    draws = Draws(*map(jnp.asarray, (x, d, x_again, d_again)))
    machine = Machine(Constant(1.0), 1.0, bandwidth=64.0, link=0.125, message=message)
    completion = simulation.complete(workload, machine, lambda i: draws)
    one_by_one = zip(x.T, d.T, x_again.T, d_again.T, strict=True)
    expected = [one_request(workload, 64.0, message, *one) for one in one_by_one]
    np.testing.assert_array_equal(np.array(completion), np.array(expected).T)
    assert completion[0].dtype == np.float32 and completion[1].dtype == np.int32
