"""Which code to choose: by hand, in closed form, and of the committed runs."""

import copy
import json
import math
import re

import jax
import numpy as np
import pytest

from coded_jax.codes.quorum import ALL_DATA, ANY_K, one_of_each
from coded_jax.latency.planner import (
    Candidate,
    candidate_of,
    exact_candidate,
    rank,
)
from coded_jax.latency.simulation import Machine
from coded_jax.latency.stragglers import Bernoulli, Constant, ShiftedExponential
from coded_jax.latency.workloads import Workload
from coded_jax.report import frontier
from coded_jax.runs.reading import patterns_of
from coded_jax.runs.run_costs import read_cost
from tests.runs.test_experiment import ROOT
from tests.units import cost, trip

KEY = jax.random.key(0)
ONE = cost(trip(0.5))
UNPLANNED = ("zero_fill", "mean_fill", "no_parity")  # they wait for nothing


def results_of(name):
    path = ROOT / "experiments/results/history/frontier" / f"lenet5_{name}.json"
    return json.loads(path.read_text())


def accuracies(n, by_lost):
    """`[2^n]`, where a pattern's accuracy depends on how many are lost."""
    lost = [n - place.bit_count() for place in range(2**n)]
    return np.array([by_lost[l] if l < len(by_lost) else np.nan for l in lost])


def test_a_code_of_a_run():
    results = results_of("cheap_k4_r2")
    candidate = candidate_of(results)
    work = candidate.workload
    assert candidate.code == "systematic linear / mlp 128" and work.systematic
    assert (work.quorum, work.k, work.r) == (ANY_K, 4, 2)
    assert work.cost == read_cost(results, "code") and work.cost.client_flops == 0
    (only,) = work.cost.rounds
    # A piece of 16x28 pixels, and a share of 1x4 positions of 16 channels.
    assert (only.bytes_in, only.bytes_out) == (4 * 16 * 28, 4 * 4 * 16)
    for pattern in results["patterns"]:
        place = sum(2**i for i in range(6) if i not in pattern["lost"])
        assert candidate.accuracy[place] == pattern["accuracy"]


def test_a_code_of_layers():
    results = results_of("layers_k4_r2")
    work = candidate_of(results).workload
    assert len(work.cost.rounds) == 2 and work.cost.client_flops > 0
    stages = results["split"]["stages"]
    for sent, stage in zip(work.cost.rounds, stages, strict=True):
        assert sent.bytes_in == 4 * math.prod(stage["piece_shape"])
        assert sent.bytes_out == 4 * math.prod(stage["share_shape"])


def test_rivals_of_a_run():
    results = results_of("rivals_k4_r1")
    candidates = {}
    for name in results["costs"]:
        if name not in UNPLANNED:
            candidates[name] = candidate_of(results, name)
    quorums = {
        name: candidate.workload.quorum.name for name, candidate in candidates.items()
    }
    coded = {"code", "mds", "addition", "berrut", "spline"}
    exact = {"uncoded": "all_data", "replication": "one_of_each"}
    assert quorums == dict.fromkeys(coded, "any_k") | exact
    regenerating = {name for name in coded if not candidates[name].workload.systematic}
    assert regenerating == {"berrut", "spline"}
    assert candidates["code"].code == "parity_model"
    # Nobody sends blank pieces: 4 devices, and an answer is that of the base model.
    uncoded = candidates["uncoded"]
    assert uncoded.workload.n == 4 and uncoded.accuracy.shape == (16,)
    assert uncoded.accuracy[15] == results["base"]["test_accuracy"]
    for name, candidate in candidates.items():
        patterns = patterns_of(results, name) or results["patterns"]
        by_lost = {tuple(p["lost"]): p["accuracy"] for p in patterns}
        if name != "uncoded":
            assert candidate.accuracy[0b10111] == by_lost[(3,)]
    assert not candidate_of(results_of("paper_k2_r1")).workload.systematic


def changed(*places_and_value):
    *places, last, value = places_and_value
    results = copy.deepcopy(results_of("rivals_k2_r1"))
    inner = results
    for place in places:
        inner = inner[place]
    inner[last] = value
    return results


@pytest.mark.parametrize(
    "results, arguments, message",
    [
        (changed("costs", {}), {}, "name: 'code' given, one of [] with costs"),
        (changed("k", 0), {"name": "best"}, "name: 'best' given, one of ['code', "),
        (
            changed("k", 0),
            {"name": "zero_fill"},
            "name: 'zero_fill' given, a code with",
        ),
        (
            changed("patterns_of_baselines", {}),
            {"name": "mds"},
            "name: 'mds' given, a c",
        ),
        (
            changed("config", "split", "group"),
            {},
            "split: 'group' given, image or convolution accepted",
        ),
        (
            {
                **results_of("layers_k2_r1"),
                "config": {"split": "image", "stage_losses": "per_stage"},
            },
            {},
            "stage_losses: 'per_stage' given, held accepted",
        ),
    ],
)
def test_what_cannot_be_planned(results, arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        candidate_of(results, **arguments)


def test_a_plan_by_hand():
    """All devices need 1 s for everything, so that there is one latency for each."""
    rounds = lambda work: cost(trip(work, 0.0, 0.0, 9.0))
    best, worse = accuracies(6, [0.9, 0.8, 0.7]), accuracies(6, [0.8, 0.8, 0.8])
    candidates = [
        exact_candidate("late", Workload(ALL_DATA, 1, 0, cost(trip(0.75))), 0.9),
        Candidate("worse", Workload(ANY_K, 4, 2, rounds(0.25)), worse),
        Candidate("more work", Workload(ANY_K, 4, 2, rounds(0.375)), best),
        Candidate("best", Workload(ANY_K, 4, 2, rounds(0.25)), best),
        exact_candidate("more devices", Workload(ALL_DATA, 7, 0, ONE), 0.9),
        exact_candidate(
            "the same but for rounding", Workload(ALL_DATA, 5, 0, ONE), 0.9 - 1e-5
        ),
    ]
    rows = rank(KEY, candidates, Machine(Constant(1.0), 1.0), 0.5, requests=100)
    fewer, better, more_work, more_devices, worse, late = rows
    assert fewer.code == "the same but for rounding" and fewer.n == 5
    assert better == ("best", 4, 2, 6, 1, 0.25, 0.25, 0.25, 0.25, 1, 0.9)
    assert (more_work.code, more_work.work) == ("more work", 0.375)
    assert (more_devices.code, more_devices.n) == ("more devices", 7)
    assert (worse.code, worse.accuracy) == ("worse", pytest.approx(0.8))
    assert (late.code, late.answered, late.accuracy, late.p50) == ("late", 0, 0, 0.75)
    few = rank(
        KEY, candidates, Machine(Constant(1.0), 1.0), 0.5, max_devices=5, requests=100
    )
    assert [row.code for row in few] == [fewer.code, "late"]


def test_a_plan_where_devices_fail():
    """Results that arrive at all arrive at once, so that what is lost is what failed:
    the overall accuracy of `frontier`, with no answer from fewer than k results."""
    f, requests = 0.2, 50_000
    by_lost = [0.99, 0.9, 0.6]
    candidates = [
        Candidate("coded", Workload(ANY_K, 4, 2, ONE), accuracies(6, by_lost)),
        exact_candidate("uncoded", Workload(ALL_DATA, 4, 0, ONE), 0.99),
        exact_candidate("whole", Workload(one_of_each(1, 6), 1, 5, ONE), 0.99),
    ]
    rows = rank(
        KEY,
        candidates,
        Machine(Constant(1.0), 1.0, failure=f),
        math.inf,
        requests=requests,
    )
    by_code = {row.code: row for row in rows}
    expected = {
        "coded": frontier.overall_accuracy([*by_lost, 0, 0, 0], 6, f),
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
    assert [row.code for row in rows] == sorted(expected, key=lambda e: -expected[e])
    assert by_code["coded"].p999 == math.inf and by_code["coded"].p50 == 0.5


def test_a_target_that_changes_the_choice():
    """A code outlives a sleeping device; with time to wait for it, nothing is lost."""
    machine = Machine(ShiftedExponential(0.1, 0.01), 1.0, Bernoulli(0.1, 1.0))
    candidates = [
        Candidate("coded", Workload(ANY_K, 4, 2, ONE), accuracies(6, [0.9, 0.9, 0.9])),
        exact_candidate("uncoded", Workload(ALL_DATA, 4, 0, ONE), 0.99),
    ]
    soon, late = (rank(KEY, candidates, machine, t, requests=5000) for t in (0.5, 5))
    assert [row.code for row in soon] == ["coded", "uncoded"]
    assert [row.code for row in late] == ["uncoded", "coded"]
    assert soon[1].answered == pytest.approx(0.9**4, abs=3 * math.sqrt(0.23 / 5000))
    assert late[0].answered == 1 and late[0].p99 > 1 > late[1].p50


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"target_seconds": 0.0}, "target_seconds: 0.0 given, more than 0 accepted"),
        ({"max_devices": 5}, "max_devices: 5 given, 6 or more accepted"),
        ({"candidates": []}, "candidates: [] given, one or more accepted"),
        ({"requests": 0}, "requests: 0 given, 1 or more accepted"),
        ({}, "accuracy_of: 'NaN at ["),
    ],
)
def test_no_plan(arguments, message):
    untried = Candidate("any", Workload(ANY_K, 4, 2, ONE), accuracies(6, [0.9]))
    defaults = {"candidates": [untried], "target_seconds": 1.0, "requests": 1000}
    machine = Machine(ShiftedExponential(0.1, 0.1), 1.0)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        rank(key=KEY, machine=machine, **defaults | arguments)
