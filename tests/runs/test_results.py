"""What `results.json` says of several seeds."""

import json
import math

import pytest

from coded_jax.evaluation.pattern_accuracy import PatternAccuracy
from coded_jax.inference.costs import Cost
from coded_jax.runs import results


def test_a_pattern_is_the_mean_over_its_seeds():
    """Catches a deviation of anything but one pattern's accuracies over the seeds."""
    none = PatternAccuracy((), 0.9, 1.0, 0.0, math.nan)
    first = [none, PatternAccuracy((0,), 0.7, 0.8, 0.25, 0.6)]
    second = [none, PatternAccuracy((0,), 0.5, 0.4, 0.75, 0.2)]
    nothing, one = results._patterns([first, second])
    assert nothing["decoded_accuracy"] is None and nothing["accuracy_std"] == 0
    assert one.pop("lost") == (0,)
    assert one == pytest.approx(
        {
            "accuracy": 0.6,
            "accuracy_std": math.sqrt(0.02),
            "agreement": 0.6,
            "feature_mse": 0.5,
            "decoded_accuracy": 0.4,
        }
    )
    assert "accuracy_std" not in results._patterns([first])[1]


def test_an_exact_code_is_counted_beside_a_code_of_pieces(finished):
    content = json.loads((finished / "results.json").read_text())
    exact = Cost.from_json(content["costs_of_exact_code"])
    own = Cost.from_json(content["costs"]["code"])
    assert len(exact.rounds) == 2 and len(own.rounds) == 1  # convolutions of LeNet-5
    assert (exact.devices, exact.whole) == (own.devices, own.whole)
    halves = [24 * 12 * 6 * 25, 8 * 4 * 16 * 6 * 25]  # of the products of each
    assert [x.device_flops for x in exact.rounds] == [2 * half for half in halves]
    weights = (25 * 6 + 6) + (25 * 6 * 16 + 16) + (256 * 120 + 120)
    assert content["base"]["numbers"] == weights + (120 * 84 + 84) + (84 * 10 + 10)
