"""Comparison of strategies: by hand, in closed form, and where nobody fits."""

import math

import jax
import numpy as np
import pytest
from tables import points

from coded_jax.codes.quorum import ALL_DATA, ANY_K, one_of_each
from coded_jax.latency import strategies
from coded_jax.latency.comparison import first, forecasts, rank, shortlist
from coded_jax.latency.machines import Machine
from coded_jax.latency.simulation import Workload
from coded_jax.latency.stragglers import Constant
from coded_jax.latency.strategies import (
    HEDGED,
    LEARNED,
    REPLICATED,
    UNCODED,
    Strategy,
)
from tests.units import cost, trip

KEY = jax.random.key(0)
ONE = cost(trip(0.5))


def strategy(code, workload, accuracy, family=LEARNED):
    return Strategy(family, code, workload, accuracy)


def exact_strategy(code, workload, accuracy, family=UNCODED):
    return strategy(code, workload, np.full(2**workload.n, accuracy), family)


def ranked(candidates, machine, target, requests):
    return rank(forecasts(KEY, candidates, machine, target=target, requests=requests))


def code(row):
    return row.strategy.code


def accuracies(n, by_lost):
    """`[2^n]`, where a pattern's accuracy depends on how many are lost."""
    lost = [n - place.bit_count() for place in range(2**n)]
    return np.array([by_lost[l] if l < len(by_lost) else np.nan for l in lost])


def test_a_plan_by_hand():
    """All devices need 1 s for everything, so that there is one latency for each."""
    rounds = lambda work: cost(trip(work, 0.0, 0.0, 9.0))
    best, worse = accuracies(6, [0.9, 0.8, 0.7]), accuracies(6, [0.8, 0.8, 0.8])
    candidates = [
        exact_strategy("late", Workload(ALL_DATA, 1, 0, cost(trip(0.75))), 0.9),
        strategy("worse", Workload(ANY_K, 4, 2, rounds(0.25)), worse),
        strategy("more work", Workload(ANY_K, 4, 2, rounds(0.375)), best),
        strategy("best", Workload(ANY_K, 4, 2, rounds(0.25)), best),
        exact_strategy("more devices", Workload(ALL_DATA, 7, 0, ONE), 0.9),
        exact_strategy(
            "the same but for rounding", Workload(ALL_DATA, 5, 0, ONE), 0.9 - 1e-5
        ),
    ]
    rows = ranked(candidates, Machine(Constant(1.0), 1.0), 0.5, 100)
    fewer, better, more_work, more_devices, worse, late = rows
    assert code(fewer) == "the same but for rounding" and fewer.strategy.n == 5
    assert (code(better), *better[3:]) == ("best", 1, 0.9)
    assert better.seconds == dict.fromkeys(better.seconds, 0.25)
    assert code(more_work) == "more work"
    assert (code(more_devices), more_devices.strategy.n) == ("more devices", 7)
    assert (code(worse), worse.accuracy) == ("worse", pytest.approx(0.8))
    assert (code(late), late.answered, late.accuracy) == ("late", 0, 0)
    assert late.seconds["p50"] == 0.75


def test_a_plan_where_devices_fail():
    """Results that arrive at all arrive at once, so that what is lost is what failed:
    the overall accuracy of `points`, with no answer from fewer than k results."""
    f, requests = 0.2, 50_000
    by_lost = [0.99, 0.9, 0.6]
    candidates = [
        strategy("coded", Workload(ANY_K, 4, 2, ONE), accuracies(6, by_lost)),
        exact_strategy("uncoded", Workload(ALL_DATA, 4, 0, ONE), 0.99),
        exact_strategy("whole", Workload(one_of_each(1, 6), 1, 5, ONE), 0.99),
    ]
    machine = Machine(Constant(1.0), 1.0, failure=f)
    rows = ranked(candidates, machine, math.inf, requests)
    by_code = {code(row): row for row in rows}
    expected = {
        "coded": points.overall_accuracy([*by_lost, 0, 0, 0], 6, f),
        "uncoded": 0.99 * (1 - f) ** 4,
        "whole": 0.99 * (1 - f**6),
    }
    for name, value in expected.items():
        # A request's accuracy is between 0 and 1, which bounds its deviation.
        error = math.sqrt(value * (1 - value) / requests)
        assert abs(by_code[name].accuracy - value) <= 3 * error
    assert by_code["uncoded"].answered == pytest.approx(
        by_code["uncoded"].accuracy / 0.99
    )
    assert [*map(code, rows)] == sorted(expected, key=lambda e: -expected[e])
    assert by_code["coded"].seconds["p99.9"] == math.inf
    assert by_code["coded"].seconds["p50"] == 0.5


CALM = Machine(Constant(1.0), 2.0)


def compared(*strategies, machine=CALM, quantile="p99", least=0.0):
    rows = forecasts(KEY, strategies, machine, requests=1000)
    return rows, first(rows, quantile, least)


def test_who_is_first_by_hand():
    pieces = Workload(ALL_DATA, 2, 0, cost(trip(0.5)))
    copies = Workload(one_of_each(2, 4), 2, 2, cost(trip(0.75)))
    rows, best = compared(
        exact_strategy("copies", copies, 0.9, REPLICATED),
        exact_strategy("pieces", pieces, 0.9),
        exact_strategy("half of them", Workload(ALL_DATA, 2, 0, cost(trip(0.6))), 0.9),
    )
    assert (best.winner.place, best.runner_up.place) == (1, 0)
    assert [row.seconds["p99"] for row in rows] == pytest.approx([0.75, 0.5, 0.6])
    assert best.lead == pytest.approx(0.5)


def test_the_client_alone_needs_its_own_time_and_never_fails():
    machine = Machine(Constant(1.0), 2.0, link=5.0, failure=0.5)
    alone = exact_strategy(
        "alone", Workload(ALL_DATA, 0, 0, cost(client=1.0)), 0.9, strategies.ONE
    )
    pieces = exact_strategy("pieces", Workload(ALL_DATA, 2, 0, ONE), 0.9)
    (row, _), best = compared(alone, pieces, machine=machine)
    assert best.winner.place == 0 and best.runner_up is None and best.lead == math.inf
    assert (row.seconds["p50"], row.answered, row.accuracy) == (2.0, 1, 0.9)


def test_hedges_are_twice_the_usual_time_of_each_round():
    machine = Machine(Constant(1.0), 1.0, bandwidth=64.0, link=0.25)
    work = Workload(ALL_DATA, 2, 0, cost(trip(0.5, 32.0), trip(0.25)))
    given = exact_strategy("hedged", work, 0.9, HEDGED)._replace(late=2.0)
    (row,) = forecasts(KEY, [given], machine, requests=10)
    assert row.strategy.workload.hedge_after == (2 * 1.25, 2 * 0.5)
    assert given.text == "hedged, k=2 r=0, after 2 usual times"


def test_the_shortlist_has_the_fastest_of_each_kind():
    of = lambda *rounds: exact_strategy(
        "", Workload(ALL_DATA, 2, 0, cost(*rounds)), 1.0
    )
    cuts = [of(trip(0.5)), of(trip(0.2), trip(0.2)), of(trip(0.9))]
    other = exact_strategy("", Workload(ALL_DATA, 3, 0, cost(trip(5.0))), 1.0)
    assert shortlist([*cuts, other], Machine(Constant(1.0), 1.0)) == [1, 3]
    linked = Machine(Constant(1.0), 1.0, link=1.0)
    assert shortlist([*cuts, other], linked) == [0, 3]
