"""Latencies of whole requests: by hand and in closed form."""

import math

import jax
import numpy as np
import pytest

from coded_jax.codes.quorum import ALL_DATA, ANY_K, one_of_each
from coded_jax.latency import simulation
from coded_jax.latency.machines import Machine, draws
from coded_jax.latency.simulation import Workload, simulate
from coded_jax.latency.stragglers import Constant, ShiftedExponential
from tests.latency.order_statistics import order_statistic_mean
from tests.units import cost, trip

KEY = jax.random.key(0)
REQUESTS = 20_000
ONE = cost(trip(0.5, 1000.0))
SLOW = Machine(ShiftedExponential(0.1, 0.1), 1.0, 1e6, failure=0.1)


def run(works, machine=SLOW, n=6, requests=REQUESTS, key=KEY):
    return dict(
        zip(works, simulate(key, n, requests, machine, [*works.values()]), strict=True)
    )


def assert_mean(values, expected):
    """Within three standard errors, or to rounding where all are alike."""
    values = np.asarray(values, np.float64)
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert abs(values.mean() - expected) <= 3 * error + 1e-6 * abs(expected)


def assert_same(a, b):
    np.testing.assert_array_equal(a.seconds, b.seconds)
    np.testing.assert_array_equal(a.available, b.available)


def test_no_failures_may_be_an_integer_as_in_stored_points():
    machine = Machine(ShiftedExponential(0.1, 0.1), 1.0)
    of_numbers = [
        run({"one": Workload(ANY_K, 2, 1, ONE)}, machine._replace(failure=zero))
        for zero in (0, 0.0)
    ]
    assert_same(*(found["one"] for found in of_numbers))


def test_no_draw_depends_on_what_else_is_simulated():
    works = {
        "uncoded": Workload(ALL_DATA, 6, 0, ONE),
        "hedged": Workload(ALL_DATA, 6, 0, ONE, hedge_after=(0.2,)),
        "coded": Workload(ANY_K, 2, 1, ONE),
    }
    together = run(works)
    for name, work in works.items():
        assert_same(run({name: work})[name], together[name])
    for name, redrawn in run(works, key=jax.random.key(1)).items():
        assert (redrawn.seconds != together[name].seconds).any()


def test_draws_are_independent_of_one_another():
    exponential = ShiftedExponential(0.0, 1.0)
    machine = Machine(exponential, 0.0, failure=0.2)
    drawn = draws(KEY, 2, REQUESTS, machine, 1)(0)
    rows = [drawn.compute, drawn.compute_again, np.isinf(drawn.delay)]
    correlation = np.corrcoef(np.concatenate(rows)) - np.eye(6)
    assert abs(correlation).max() < 4 / math.sqrt(REQUESTS)


def test_a_constant_machine_by_hand():
    machine = Machine(Constant(2.0), 1.0, 1000.0, 0.0625)
    rounds = trip(0.5, 500.0, 0.125, 4.0), trip(0.25, 0.0, 0.125, 4.0)
    latencies = run(
        {"coded": Workload(ANY_K, 4, 2, cost(*rounds, client=1.0))}, machine
    )["coded"]
    # All results arrive at once, so that nothing is decoded.
    assert (latencies.seconds == 1 + 0.125 + (1 + 0.5) + 0.125 + 0.5 + 2 * 0.0625).all()
    assert (latencies.available == 2**6 - 1).all()


@pytest.mark.parametrize("each_round", [False, True])
def test_devices_that_are_drawn_in_each_round(each_round):
    """Nine rounds, each of which needs all four devices that fail with 1 in 100."""
    work = {"uncoded": Workload(ALL_DATA, 4, 0, cost(*[trip(0.1)] * 9))}
    machine = Machine(
        ShiftedExponential(0.0, 1.0), 1.0, failure=0.01, each_round=each_round
    )
    seconds = run(work, machine)["uncoded"].seconds
    rounds = 9 if each_round else 1
    assert_mean(np.isinf(seconds), 1 - 0.99 ** (4 * rounds))
    # The mean is the same, and the deviation smaller where draws are many.
    answered = seconds[np.isfinite(seconds)].astype(np.float64)
    largest = order_statistic_mean(ShiftedExponential(0.0, 1.0), 4, 4)
    assert_mean(answered, 0.9 * largest)
    variance = sum(1 / i**2 for i in range(1, 5))  # of the largest of 4 exponentials
    expected = 0.9 * math.sqrt(variance / rounds)
    assert answered.std() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("k, r", [(4, 2), (1, 5)])
def test_mean_of_codes(k, r):
    """The first k of n results, of two rounds, lack a data piece in all but one of the
    `C(n, k)` cases."""
    compute = ShiftedExponential(0.2, 0.1)
    rounds = trip(0.5, 3e4, 0.01, 0.05), trip(0.25, 1e4, 0.02, 0.1)
    work = Workload(ANY_K, k, r, cost(*rounds, client=0.1))
    regenerating = Workload(ANY_K, k, r, cost(*rounds), systematic=False)
    simulated = run(
        {"a": work, "b": regenerating}, Machine(compute, 1.0, bandwidth=1e6)
    )
    kth = order_statistic_mean(compute, k, k + r)
    wait = 0.03 + 0.75 * kth + 0.04
    missing = 1 - 1 / math.comb(k + r, k)
    assert_mean(simulated["a"].seconds, 0.1 + wait + 0.15 * missing)
    assert_mean(simulated["b"].seconds, wait + 0.15)


@pytest.mark.parametrize(
    "work, lost",
    [
        (Workload(ALL_DATA, 6, 0, ONE), 1 - 0.7**6),
        (Workload(ALL_DATA, 6, 0, ONE, hedge_after=(1.0,)), 0.3**6),
        (Workload(one_of_each(2, 6), 2, 4, ONE), 1 - (1 - 0.3**3) ** 2),
        (
            Workload(ANY_K, 4, 2, ONE),
            sum(math.comb(6, i) * 0.7**i * 0.3 ** (6 - i) for i in range(4)),
        ),
    ],
    ids=["uncoded", "hedged", "replication", "coded"],
)
def test_share_that_is_lost(work, lost):
    latencies = run({"any": work}, Machine(Constant(0.1), 1.0, failure=0.3))["any"]
    assert_mean(np.isinf(latencies.seconds), lost)
    if not work.hedge_after:
        for i in range(6):
            assert_mean(latencies.available >> i & 1, 0.7)


def test_summary_by_hand():
    seconds = np.random.default_rng(0).permutation(np.arange(1, 2001, dtype=np.float32))
    summary = simulation.summary(seconds)
    quantiles = {"p50": 1000, "p99": 1980, "p99.9": 1998}
    assert summary == quantiles | {"gap": 998}
    summary = simulation.summary(np.array([3, np.inf, 1, 2], np.float32))
    tail = {"p99": np.inf, "p99.9": np.inf, "gap": np.inf}
    assert summary == tail | {"p50": 2}
