"""Latencies: closed forms of their order statistics, and draws that agree with them."""

import math

import jax
import numpy as np
import pytest

from coded_jax.latency import stragglers
from coded_jax.latency.stragglers import (
    Bernoulli,
    Constant,
    LogNormal,
    Pareto,
    ShiftedExponential,
    Trace,
)
from tests.latency.order_statistics import order_statistic_mean

DRAWS = 2**15
EXAMPLES = [
    Constant(0.25),
    ShiftedExponential(0.1, 0.05),
    Pareto(0.1, 3.0),
    LogNormal(0.2, 0.5),
    Bernoulli(0.6, 0.1),
    Trace((0.1, 0.3, 0.1, 2.0, 0.4)),
]


def name_of(value):
    return type(value).__name__


@pytest.fixture(scope="module")
def ordered():
    """Of n draws, ascending: float64 `[n, DRAWS]`."""
    kept = {}

    def draw(distribution, n):
        if distribution not in kept:
            drawn = distribution.sample(jax.random.key(0), (12, DRAWS))
            kept[distribution] = np.asarray(drawn, np.float64)
        return np.sort(kept[distribution][:n], axis=0)

    return draw


@pytest.mark.parametrize("k, n", [(1, 1), (4, 6), (8, 12)])
@pytest.mark.parametrize("distribution", EXAMPLES, ids=name_of)
def test_order_statistics_of_draws(ordered, distribution, k, n):
    kth = ordered(distribution, n)[k - 1]
    error = kth.std(ddof=1) / math.sqrt(DRAWS)
    expected = order_statistic_mean(distribution, k, n)
    assert abs(kth.mean() - expected) <= 3 * error + 1e-6 * expected


@pytest.mark.parametrize(
    "distribution, above",
    [
        (Constant(0.5), lambda x: x < 0.5),
        (ShiftedExponential(0.1, 0.2), lambda x: min(1, math.exp((0.1 - x) / 0.2))),
        (Pareto(0.2, 1.5), lambda x: min(1, (0.2 / x) ** 1.5)),
        (LogNormal(0.3, 2.0), lambda x: math.erfc(math.log(x / 0.3) / 8**0.5) / 2),
        (Bernoulli(0.3, 0.5), lambda x: 0.3 * (x < 0.5)),
        (
            Trace((0.2, 0.4, 0.4, 7.0)),
            lambda x: sum(v > x for v in (0.2, 0.4, 0.4, 7)) / 4,
        ),
    ],
    ids=name_of,
)
def test_share_of_draws_above_a_value(ordered, distribution, above):
    drawn = ordered(distribution, 1)[0]
    for x in (0.15, 0.25, 0.45, 1.0, 3.0):
        share = above(x)
        error = math.sqrt(share * (1 - share) / DRAWS)
        assert abs((drawn > x).mean() - share) <= 3 * error


def test_the_longest_of_many_draws_are_told_apart():
    # With the 23 bits of a float32 uniform, some 60 of them would be the same.
    drawn = np.asarray(ShiftedExponential(0.0, 1.0).sample(jax.random.key(0), (2**20,)))
    longest = np.sort(drawn)[-1000:]
    assert len(np.unique(longest)) > 990 and drawn.min() >= 0


def test_order_statistics_by_hand():
    exponential = ShiftedExponential(1.0, 0.6)
    means = [order_statistic_mean(exponential, k, 3) for k in (1, 2, 3)]
    np.testing.assert_allclose(means, [1.2, 1.5, 2.1])
    assert order_statistic_mean(Constant(2.0), 3, 5) == 2
    sleep = Bernoulli(0.1, 5.0)
    assert order_statistic_mean(sleep, 1, 2) == pytest.approx(5 * 0.1**2)
    assert order_statistic_mean(sleep, 2, 2) == pytest.approx(5 * (1 - 0.9**2))
    # The least of n is a Pareto again, of n times the shape.
    assert order_statistic_mean(Pareto(1.0, 0.5), 6, 6) == math.inf
    least = order_statistic_mean(Pareto(0.3, 0.4), 1, 5)
    assert least == pytest.approx(0.3 * 2 / (2 - 1))


@pytest.mark.parametrize(
    "kind, parameters, name",
    [
        ("constant", ["nan"], "seconds"),
        ("shifted_exponential", ["0.1", "0"], "mean"),
        ("pareto", ["0", "1"], "scale"),
        ("pareto", ["1"], "parameters"),
        ("bernoulli", ["1.5", "1"], "probability"),
    ],
)
def test_out_of_range(kind, parameters, name):
    with pytest.raises(ValueError, match=f"^{name}: .* given, .* accepted"):
        stragglers.make_distribution(kind, parameters)


def test_a_trace_is_read(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("# seconds\n0.1\n\n  0.25 # a slow one\n1e-3\n")
    trace = Trace((0.1, 0.25, 0.001))
    assert (
        Trace.read(path) == trace == stragglers.make_distribution("trace", [str(path)])
    )
    path.write_text("# seconds\n")
    with pytest.raises(ValueError, match="one latency or more accepted"):
        Trace.read(path)
