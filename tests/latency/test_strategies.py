"""Strategies of a network: their sizes, costs and accuracies; those of runs."""

import contextlib
import json

import jax
import pytest

from coded_jax.codes.quorum import ANY_K
from coded_jax.latency.cuts import cnn_of
from coded_jax.latency.strategies import (
    EXACT,
    FAMILIES,
    HEDGED,
    LEARNED,
    ONE,
    REPLICATED,
    UNCODED,
    WHOLE,
    of_run,
    strategies,
)
from coded_jax.models import make_base_model
from coded_jax.runs.reading import patterns_of, read_cost
from tests.runs.test_experiment import ROOT


def results_of(name):
    path = ROOT / "experiments/results/frontier" / f"lenet5_{name}.json"
    return json.loads(path.read_text())


def small_cnn(**fields):
    base, image = make_base_model("lenet5"), (28, 28, 1)
    key = jax.random.key(0)
    variables = jax.eval_shape(lambda key: base.init(key, image, 10), key)
    return cnn_of(base, variables, image, **fields)


@pytest.fixture(scope="module")
def on_four():
    runs = [results_of("cheap_k2_r1"), results_of("no_parity_k2_r1")]
    return strategies(small_cnn(accuracy=0.99, drop=0.02), 4, runs)


def of_family(found, family):
    return [strategy for strategy in found if strategy.family == family]


def test_every_family_is_there_on_no_more_than_n_devices(on_four):
    assert {strategy.family for strategy in on_four} == {*FAMILIES}
    assert max(strategy.n for strategy in on_four) == 4
    assert len({(s.family, s.text, s.accuracy.tobytes()) for s in on_four}) == len(
        on_four
    )


def test_sizes_of_each_family(on_four):
    sizes = lambda family: {s.sizes for s in of_family(on_four, family)}
    assert sizes(WHOLE) == {(1, 3)} and sizes(ONE) == {(1, 0)}
    assert sizes(UNCODED) == sizes(HEDGED) == {(2, 0), (3, 0), (4, 0)}
    assert sizes(REPLICATED) == {(2, 2), (3, 1)}  # of one piece alone, if not of all
    spares = {(s.sizes[0], s.workload.spares) for s in of_family(on_four, HEDGED)}
    assert spares == {(2, 2), (3, 1), (4, 0)}
    assert sizes(EXACT) == {(2, 2), (3, 1)}
    assert sizes(LEARNED) == {(2, 2), (3, 1), (2, 1)}  # the last one of a run


def test_costs_without_a_code(on_four):
    whole, (one,) = of_family(on_four, WHOLE)[0], of_family(on_four, ONE)[1:]
    (round_trip,) = one.workload.cost.rounds
    assert whole.workload.cost.rounds == (round_trip,)
    # 28x28 pixels of a byte, and ten logits in float32, since it has the head too.
    assert (round_trip.bytes_in, round_trip.bytes_out) == (784, 4 * 10)
    for strategy in on_four:
        cost = strategy.workload.cost
        if strategy.family in (UNCODED, HEDGED, REPLICATED):
            assert cost.total.encode_flops == cost.total.decode_flops == 0
            assert cost.device_flops < cost.whole_flops
    pieces = {s.pieces: s.workload.cost for s in of_family(on_four, UNCODED)}
    quarters = pieces["2x2, stages 1-4"]
    assert len(quarters.rounds) == 1 and quarters.client_flops == 0
    assert quarters.rounds[0].bytes_in == 20 * 20


def test_accuracies(on_four):
    for strategy in on_four:
        if strategy.family not in (LEARNED,):
            assert (strategy.accuracy == 0.99).all()
    given = next(s for s in of_family(on_four, LEARNED) if s.sizes == (3, 1))
    # All but the last are data pieces: with these three nothing is decoded.
    assert given.accuracy[0b0111] == given.accuracy[0b1111] == 0.99
    assert given.accuracy[0b1011] == 0.97
    run = next(s for s in of_family(on_four, LEARNED) if s.sizes == (2, 1))
    assert run.code == "systematic linear / mlp 128"


def test_a_code_of_a_run():
    results = results_of("cheap_k4_r2")
    strategy = of_run(results)
    work = strategy.workload
    assert strategy.code == "systematic linear / mlp 128" and work.systematic
    assert (work.quorum, work.k, work.r) == (ANY_K, 4, 2)
    assert work.cost == read_cost(results, "code") and work.cost.client_flops == 0
    (only,) = work.cost.rounds
    # A piece of 16x28 pixels, and a share of 1x4 positions of 16 channels.
    assert (only.bytes_in, only.bytes_out) == (4 * 16 * 28, 4 * 4 * 16)
    for pattern in results["patterns"]:
        place = sum(2**i for i in range(6) if i not in pattern["lost"])
        assert strategy.accuracy[place] == pattern["accuracy"]


def test_rivals_of_a_run_that_estimate():
    """Those that lose accuracy; no copies, no code of layers, and nothing unsent."""
    results = results_of("rivals_k4_r1")
    found = {}
    for name in results["costs"]:
        with contextlib.suppress(ValueError):
            found[name] = of_run(results, name)
    assert {*found} == {"code", "mds", "addition", "berrut", "spline"}
    regenerating = {name for name in found if not found[name].workload.systematic}
    assert regenerating == {"berrut", "spline"}
    assert found["code"].code == "parity_model"
    for name, strategy in found.items():
        assert strategy.workload.quorum.name == "any_k"
        patterns = patterns_of(results, name) or results["patterns"]
        by_lost = {tuple(p["lost"]): p["accuracy"] for p in patterns}
        assert strategy.accuracy[0b10111] == by_lost[(3,)]
    assert not of_run(results_of("paper_k2_r1")).workload.systematic


@pytest.mark.parametrize(
    "field, value, asked, name",
    [
        ("costs", {}, "code", "name"),  # a version without costs
        ("k", 0, "best", "name"),
        ("config", {"split": "group"}, "code", "name"),
        ("config", {}, "replication", "name"),  # which decodes nothing
    ],
)
def test_what_cannot_be_compared(field, value, asked, name):
    results = results_of("rivals_k2_r1")
    changed = results[field] | value if field == "config" else value
    with pytest.raises(ValueError, match=f"^{name}: .* given, "):
        of_run({**results, field: changed}, asked)
