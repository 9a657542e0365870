"""Conditions as machines, stages of networks, and the points of a map."""

import jax
import pytest

from coded_jax.latency import comparison
from coded_jax.latency.cuts import CNN, OVERHEADS, partitions
from coded_jax.latency.machines import Conditions
from coded_jax.latency.simulation import QUANTILES
from coded_jax.latency.stragglers import Constant, Pareto, ShiftedExponential
from coded_jax.models import make_base_model
from coded_jax.splitting.plan import make_plan
from coded_jax.types import chain
from tests.latency.test_strategies import small_cnn, strategies

KEY = jax.random.key(0)


def test_a_machine_of_conditions():
    given = Conditions(1e6, 0.25, speed=100.0, client=0.5, tail=0.5, failure=0.125)
    machine = given.machine(200.0)
    assert machine.compute == ShiftedExponential(2.0, 1.0) and machine.client == 4.0
    assert (machine.bandwidth, machine.link, machine.failure) == (1e6, 0.25, 0.125)
    assert machine.each_round
    assert Conditions(speed=1.0, tail=0.0).machine(3.0).compute == Constant(3.0)
    heavy = Conditions(speed=1.0, straggling="pareto", tail=0.5)
    assert heavy.machine(3.0).compute == Pareto(3.0, 2.0)
    traced = Conditions(speed=1.0, straggling="trace", trace=(1.0, 2.0, 6.0))
    assert traced.machine(4.0).compute.values == (2.0, 4.0, 12.0)


def test_stages_can_be_split_and_compute_no_more_twice_than_they_may():
    base, image = make_base_model("vgg16", 1 / 16), (32, 32, 3)
    variables = jax.eval_shape(lambda key: base.init(key, image, 10), KEY)
    cnn = CNN(base, variables, image)
    shapes, x = [], jax.ShapeDtypeStruct((1, *image), "float32")
    for block in base.blocks:
        shapes.append(x.shape[1:])
        x = jax.eval_shape(block, variables, x)
    cuts = partitions(cnn, (2, 1))
    assert len(cuts) > 2 and len(set(cuts)) == len(cuts)
    assert {cut[:1] for cut in cuts} <= {*cuts}  # the first stage alone, too
    for cut in cuts:
        assert all(a[1] < b[0] for a, b in zip(cut, cut[1:], strict=False))
        for first, last in cut:
            f_conv = chain(base.blocks[first - 1 : last])
            plan = make_plan(f_conv, variables, shapes[first - 1], (2, 1))
            assert 2 * plan.work_fraction - 1 <= max(OVERHEADS)


@pytest.fixture(scope="module")
def on_three():
    return strategies(small_cnn(accuracy=0.99), 3)


def test_a_point_is_what_the_comparison_says(on_three):
    conditions = Conditions(speed=1e7, client=0.1, failure=0.0)
    flops = on_three[1].workload.cost.whole_flops
    point = comparison.compare(
        KEY, on_three, conditions, least_accuracy=0.98, requests=2000
    )
    rows = comparison.forecasts(KEY, on_three, conditions.machine(flops), requests=2000)
    for quantile in QUANTILES:
        best = comparison.first(rows, quantile, 0.98)
        assert point[quantile]["winner"] == best.winner.place
        seconds = best.winner.seconds[quantile]
        assert point[quantile]["seconds"] == pytest.approx(seconds, rel=1e-3)
        for place, seconds, accuracy in point[quantile]["families"].values():
            assert accuracy == pytest.approx(0.99)
            assert seconds == pytest.approx(rows[place].seconds[quantile], rel=1e-3)


@pytest.mark.parametrize(
    "make, name",
    [
        (lambda: Conditions(bandwidth=0.0), "bandwidth"),
        (lambda: Conditions(straggling="no"), "straggling"),
        (lambda: Conditions(trace=(0.0, 0.0, 1.0)), "trace"),  # its median is 0
        (lambda: Conditions(straggling="trace"), "trace"),
    ],
)
def test_out_of_range(make, name):
    with pytest.raises(ValueError, match=f"^{name}: .* given, ") as error:
        make()
    assert "\n" not in str(error.value)
