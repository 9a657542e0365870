"""Numbers, erasure patterns and blocks as text."""

import pytest

from coded_jax.report import formatting


def test_numbers():
    assert formatting.percent(0.98764) == "98.76"
    assert formatting.with_deviation(95.1, 0.0) == "95.10"
    assert formatting.with_deviation(95.1, 0.25, digits=1) == "95.1 ± 0.2"
    summary = {"mean": 0.5, "mean_std": 0.01, "worst": 0.25}
    assert formatting.measure_text(summary, "mean") == "50.00 ± 1.00"
    assert formatting.measure_text(summary, "worst") == "25.00"


@pytest.mark.parametrize(
    "lost, text", [([], "none"), ([1], "data 1"), ([0, 3], "data 0, parity 1")]
)
def test_patterns_name_their_pieces(lost, text):
    assert formatting.pattern_text(lost, k=2) == text
