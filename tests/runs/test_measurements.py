"""Measurements that a run keeps are read as they were, or not at all."""

import math

import jax
import pytest

from coded_jax.evaluation.pattern_accuracy import PatternAccuracy
from coded_jax.runs import evaluate, provenance
from coded_jax.runs.evaluate import Measured

MEASURED = Measured(
    patterns=[
        PatternAccuracy((), 0.1 + 0.2, 1.0, 0.0, math.nan),
        PatternAccuracy((0, 2), 1 / 3, 0.5, 1e-7, 0.25),
    ],
    confidence={"0": {"temperature": 1.1, "ece_decoded": None, "curve": {}}},
    seconds=1.5,
)


def test_what_is_kept_is_read_as_it_was(tmp_path):
    file = tmp_path / "measured" / "code_held.json"
    assert evaluate.read_measured(file, "abc") is None
    evaluate.write_measured(file, "abc", MEASURED)
    read = evaluate.read_measured(file, "abc")
    assert str(read) == str(MEASURED)  # NaN is not equal to itself
    assert evaluate.read_measured(file, "abd") is None
    for damaged in ("", "{", "[]", "{}", '{"digest": "abc"}', "\x00"):
        file.write_text(damaged)
        assert evaluate.read_measured(file, "abc") is None
    file.unlink()
    file.parent.rmdir()
    file.parent.touch()  # a file in place of the folder
    with pytest.raises(OSError, match=r"File exists: .*measured"):
        evaluate.write_measured(file, "abc", MEASURED)


def test_another_precision_or_version_is_another_circumstance(monkeypatch):
    monkeypatch.setattr(provenance, "code_version", lambda: "0.1 abc")
    before = evaluate.describe_circumstances()
    assert evaluate.describe_circumstances() == before
    with jax.default_matmul_precision("bfloat16"):
        assert evaluate.describe_circumstances() != before
    monkeypatch.setattr(provenance, "code_version", lambda: "0.2 abc")
    assert evaluate.describe_circumstances() not in (before, None)
    monkeypatch.setattr(provenance, "code_version", lambda: None)  # uncommitted changes
    assert evaluate.describe_circumstances() is None
