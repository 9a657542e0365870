"""Points of the map on real workers, and what is said about them."""

import pathlib

import numpy as np
import pytest

from coded_jax.latency.machines import Conditions
from coded_jax.service.studies import map_check
from coded_jax.service.studies.map_check import Point, contenders

ROOT = pathlib.Path(__file__).parents[3]
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


@pytest.mark.long
def test_contenders_take_what_the_simulator_says():
    """The best of each family on workers: each request takes no less than in the
    simulation, but for a decoder that was spared."""
    found = contenders(SMALL, 6)
    assert {"uncoded", "learned code", "exact code"} <= {*found}
    assert all(name.startswith(some.family) for name, some in found.items())
    assert len({some.text for some in found.values()}) == len(found)
    for strategy in found.values():
        seconds = map_check.measure_point(SMALL, strategy, "local", 3)
        names = ("measured", "simulated")
        measured, simulated = (np.array(seconds[name]) for name in names)
        cost = strategy.workload.cost
        machine = SMALL.conditions.machine(cost.whole_flops)
        spared = machine.client * cost.total.decode_flops / cost.whole_flops
        assert (measured >= simulated - spared - 1e-6).all(), strategy.text


def test_a_message_is_what_is_longer_than_without_messages(monkeypatch):
    def measure(point, strategy, engine, requests, ended):
        assert point.conditions.message == 0 and strategy.n == 6
        assert len(strategy.workload.cost.rounds) == 13
        simulated = [0.2, 0.3, 0.4]
        late = 13 * 7 * 5e-4  # six pieces and a last result in each round
        return {"measured": [x + late for x in simulated], "simulated": simulated}

    monkeypatch.setattr(map_check, "measure_point", measure)
    assert map_check.message_seconds("local", 3) == pytest.approx(5e-4)
