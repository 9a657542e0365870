"""Measurements that a run keeps are read as they were, or not at all."""

import math

import jax
import pytest

from coded_jax.evaluation.pattern_accuracy import PatternAccuracy
from coded_jax.runs import measurements, provenance
from coded_jax.runs.measurements import Measured

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
    assert measurements.read(file, "abc") is None
    measurements.write(file, "abc", MEASURED)
    read = measurements.read(file, "abc")
    assert str(read) == str(MEASURED)  # NaN is not equal to itself
    assert measurements.read(file, "abd") is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"digest": "abc"}', "\x00"]
)
def test_a_damaged_file_is_measured_again(tmp_path, text):
    file = tmp_path / "code_held.json"
    file.write_text(text)
    assert measurements.read(file, "abc") is None


def test_another_precision_or_version_is_another_circumstance(monkeypatch):
    monkeypatch.setattr(provenance, "code_version", lambda: "0.1 abc")
    before = measurements.circumstances()
    assert measurements.circumstances() == before
    with jax.default_matmul_precision("bfloat16"):
        assert measurements.circumstances() != before
    monkeypatch.setattr(provenance, "code_version", lambda: "0.2 abc")
    assert measurements.circumstances() not in (before, None)
    monkeypatch.setattr(provenance, "code_version", lambda: None)  # uncommitted changes
    assert measurements.circumstances() is None


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "measured").touch()  # a file in its place
    with pytest.raises(OSError, match=r"^workdir: cannot write .*code_held\.json \(Fi"):
        measurements.write(tmp_path / "measured" / "code_held.json", "abc", MEASURED)
