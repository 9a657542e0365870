"""What a study measures, with shares of many values."""

import numpy as np
import pytest

from coded_jax.service.byzantine import calibration, study
from coded_jax.service.byzantine.calibration import FEWEST, calibrate
from coded_jax.types import Split
from tests.service.byzantine.examples import images, model_of


@pytest.mark.long
def test_all_kinds_are_measured(monkeypatch):
    """In 500 images, with fewer directions than a share has values."""
    model = model_of("addition", relu=True)
    monkeypatch.setattr(calibration, "MOST_COORDINATES", 12)
    check = calibrate(model, images(FEWEST, 1), images(FEWEST, 2))
    assert [stage.bases.shape[1:] for stage in check.stages] == [(48, 12)]
    fresh = images(500, 3)
    split = Split(fresh, np.asarray(model.classify(fresh)))
    found = study.measure_check(model, check, split)
    assert found["right"] == 1 and found["images"] == 500
    assert [*found["faults"]] == [*study.FAULTS]
    for name, own in found["faults"].items():
        assert own["worst"] <= own["found"] and own["unnoticed"] <= 1 - own["found"]
        if name in study.STANDARD and name != "zeros":
            assert own["found"] > 0.8, name
            assert own["named"] > 0.5 and own["misnamed"] < 0.1
            assert own["left_out"] > 0.9
    for own in found["false_alarms"].values():
        assert own["worst"] < 0.01


def test_the_rival_locates_what_stands_out():
    """A network that is linear keeps mixtures on the rational curve."""
    model = model_of("mds")
    fresh = images(60, 4)
    split = Split(fresh, np.asarray(model.classify(fresh)))
    found = study.measure_locator(model, split, k=2)
    assert (found["workers"], found["groups"], found["base"]) == (6, 30, 1)
    assert {*study.STANDARD} < {*found["faults"]}
    for own in found["faults"].values():
        assert 0 <= own["named"] <= 1
    assert found["faults"]["noise of 10 added"]["named"] > 0.9


def test_faults_by_hand():
    results = np.arange(24, dtype=np.float32).reshape(3, 2, 2, 2)
    rng = np.random.default_rng(0)
    other = study.of_another_image(results, rng)
    assert all((one != own).all() for one, own in zip(other, results, strict=True))
    assert {*other[:, 0, 0, 0]} <= {0, 8, 16}
    assert not study.FAULTS["zeros"](results, rng).any()
    lost = study.lost_value(results, rng)
    assert (lost != results).sum() == 3 and lost.max() == 22
    flipped = study.FAULTS["top exponent bit"](results, rng)
    changed = flipped != results
    assert changed.sum() == 3 and (flipped[changed] < 1e-36).all()
