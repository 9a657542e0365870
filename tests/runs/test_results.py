"""What `results.json` says of several seeds."""

import math

import pytest

from coded_jax.evaluation.pattern_accuracy import PatternAccuracy
from coded_jax.runs import results


def test_a_pattern_is_the_mean_over_its_seeds():
    """Catches a deviation of anything but one pattern's accuracies over the seeds."""
    nan = math.nan
    first = [
        PatternAccuracy((), 0.9, 1.0, 0.0, nan),
        PatternAccuracy((0,), 0.7, 0.8, 0.25, 0.6),
    ]
    second = [
        PatternAccuracy((), 0.9, 1.0, 0.0, nan),
        PatternAccuracy((0,), 0.5, 0.4, 0.75, 0.2),
    ]
    nothing, one = results._patterns([first, second])
    assert nothing == {
        "lost": (),
        "accuracy": 0.9,
        "accuracy_std": 0,
        "agreement": 1.0,
        "feature_mse": 0.0,
        "decoded_accuracy": None,
    }
    assert one == {
        "lost": (0,),
        "accuracy": pytest.approx(0.6),
        "accuracy_std": pytest.approx(math.sqrt(0.02)),
        "agreement": pytest.approx(0.6),
        "feature_mse": pytest.approx(0.5),
        "decoded_accuracy": pytest.approx(0.4),
    }
    assert "accuracy_std" not in results._patterns([first])[1]
