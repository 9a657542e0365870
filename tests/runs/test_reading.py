"""What `results.json` says of a code."""

from coded_jax.runs.reading import patterns_of


def test_patterns_of_a_code():
    ours, theirs = [{"lost": [0]}], [{"lost": [1]}]
    results = {"config": {"code": "some"}, "patterns": ours}
    assert patterns_of(results, "some") == ours
    assert patterns_of(results, "rival") is None
    results["patterns_of_baselines"] = {"rival": theirs}
    assert patterns_of(results, "rival") == theirs
