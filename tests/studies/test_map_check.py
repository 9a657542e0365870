"""Points of the map on real workers, and what is said about them."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest

from coded_jax.latency.comparison import forecasts
from coded_jax.latency.conditions import Conditions
from coded_jax.latency.strategies import HEDGED, cnn_of, strategies
from coded_jax.models import make_base_model
from coded_jax.studies import map_check
from coded_jax.studies.map_check import Point, Workers, agreement, contenders

ROOT = pathlib.Path(__file__).parents[2]
RUNS = str(ROOT / "experiments/results/frontier/lenet5_cheap_k2_r1.json")
SMALL = Point(
    "small",
    "lenet5",
    1.0,
    (28, 28, 1),
    3,
    0.01,
    Conditions(bandwidth=1e6, speed=1e7, client=1.0, failure=0.0),
    (RUNS,),
)


def test_contenders_take_what_the_simulator_says():
    """The best of each family on workers: each request takes no less than in the
    simulation, but for a decoder that was spared."""
    found = contenders(SMALL, 6)
    assert {"uncoded", "learned code", "exact code"} <= {*found}
    assert all(name.startswith(some.family) for name, some in found.items())
    assert len({some.text for some in found.values()}) == len(found)
    with Workers("local") as workers:
        for strategy in found.values():
            seconds = map_check.measure(SMALL, strategy, workers, 3)
            names = ("measured", "simulated")
            measured, simulated = (np.array(seconds[name]) for name in names)
            cost = strategy.workload.cost
            machine = SMALL.conditions.machine(cost.whole_flops)
            spared = machine.client * cost.decode_flops / cost.whole_flops
            assert (measured >= simulated - spared - 1e-6).all(), strategy.text


@pytest.mark.long
def test_hedged_pieces_have_spare_workers():
    point = SMALL._replace(n=5)
    base = make_base_model("lenet5")
    key = jax.random.key(0)
    variables = jax.eval_shape(lambda key: base.init(key, (28, 28, 1), 10), key)
    found = strategies(cnn_of(base, variables, (28, 28, 1)), 5)
    hedged = next(s for s in found if s.family == HEDGED and s.sizes[0] == 2)
    conditions = dataclasses.replace(SMALL.conditions, straggling="pareto", tail=1.0)
    with Workers("local") as workers:
        pool, _ = workers.of(point, hedged)
        assert len(pool) == hedged.workload.n == 5
        row = forecasts(
            jax.random.key(0), [hedged], conditions.machine(4e5), requests=2000
        )[0]
        seconds = map_check.measure(
            point._replace(conditions=conditions), row.strategy, workers, 3
        )
    assert np.isfinite(seconds["measured"]).all()


def test_agreement_by_hand():
    seconds = {
        "a": {"measured": [1.0] * 10, "simulated": [1.09] * 10},
        "b": {"measured": [1.2] * 10, "simulated": [1.0] * 10},
    }
    found = agreement(seconds, "p50")
    assert (found.winner, found.simulated_winner) == ("a", "b")
    assert found.lead == pytest.approx(0.09) and found.error == pytest.approx(0.2)
    assert not found.agrees  # the lead is small, the difference large
    seconds["b"]["measured"] = [1.1] * 10
    assert agreement(seconds, "p50").agrees
    seconds["a"]["simulated"] = [1.12] * 10
    assert not agreement(seconds, "p50").agrees
    # The best of a family counts, and its lead over another family.
    other = {"measured": [1.0] * 10, "simulated": [0.99] * 10}
    found = agreement({**seconds, "b (p99)": other}, "p50")
    assert (found.winner, found.simulated_winner) == ("a", "b")
    assert found.lead == pytest.approx(1.12 / 0.99 - 1)
    # What was lost in both agrees, what was lost in one does not.
    lost = {"measured": [np.inf] * 10, "simulated": [np.inf] * 10}
    assert agreement({**seconds, "c": lost}, "p99").error < 0.15
    late = {"measured": [np.inf] * 10, "simulated": [9.0] * 10}
    assert agreement({**seconds, "c": late}, "p99").error == np.inf


def test_points_of_the_file():
    records = json.loads((ROOT / "experiments/map_points.json").read_text())
    points = [map_check.point_of(record) for record in records]
    assert len({point.name for point in points}) == len(points) >= 8
    assert all(ROOT.glob(pattern) for point in points for pattern in point.runs)


@pytest.mark.long
def test_a_message_is_what_is_longer_than_without_messages(monkeypatch):
    def measure(point, strategy, workers, requests, advance):
        assert point.conditions.message == 0 and strategy.n == 6
        assert len(strategy.workload.cost.rounds) == 13
        simulated = [0.2, 0.3, 0.4]
        late = 13 * 7 * 5e-4  # six pieces and a last result in each round
        return {
            "measured": [x + late for x in simulated],
            "simulated": simulated,
        }

    monkeypatch.setattr(map_check, "measure", measure)
    assert map_check.message_seconds(None, 3) == pytest.approx(5e-4)
