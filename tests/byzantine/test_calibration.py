"""Calibrating a check, its file, and what is refused."""

import numpy as np
import pytest
from scipy import stats

from coded_jax.byzantine.calibration import FEWEST, calibrate, order_of_threshold
from coded_jax.byzantine.check import checked_patterns, load_check
from tests.byzantine.examples import calibrated, images, model_of


@pytest.mark.parametrize("count", [5000, 10_000])
def test_the_threshold_keeps_the_rate_with_confidence(count):
    """The true rate of a threshold is beyond 0.1 % if fewer images than j exceed the
    quantile of 99.9 %, whose number is binomial."""
    order = order_of_threshold(count, 1e-3)
    assert stats.binom.cdf(order - 1, count, 1e-3) <= 0.05
    assert stats.binom.cdf(order, count, 1e-3) > 0.05
    assert order_of_threshold(5000, 1e-3) == 2


def test_the_record_says_on_what_it_was_calibrated():
    _, check = calibrated("mds")
    record = check.record
    assert record["images"] == FEWEST and record["rate"] == 1e-3
    assert record["expected_rate"] == pytest.approx(2 / 5001)


def test_fewer_images_are_refused():
    model = model_of("mds")
    few, enough = images(FEWEST - 1, 0), images(FEWEST, 0)
    with pytest.raises(
        ValueError, match="^images: 4999 given, 5000 or more validation"
    ):
        calibrate(model, few, enough)
    with pytest.raises(ValueError, match="^training: 4999 given, 5000 or more accept"):
        calibrate(model, enough, few)
    with pytest.raises(ValueError, match="^images: 5000 given, 29956 or more .*0001"):
        calibrate(model, enough, enough, rate=1e-4)


@pytest.mark.parametrize("code", ["zero_fill", "uncoded"])
def test_codes_with_nothing_to_spare_are_refused(code):
    with pytest.raises(ValueError, match="^code: 'all_data' given, one that sends par"):
        checked_patterns(model_of(code).pipeline)


def test_groups_are_refused():
    pipeline = model_of("mds").pipeline._replace(separate=True)
    with pytest.raises(ValueError, match="^model: 2 images coded together given"):
        checked_patterns(pipeline)


def test_checked_sets_leave_one_result_more_than_is_needed():
    assert checked_patterns(model_of("mds", r=1).pipeline) == [()]
    patterns = checked_patterns(model_of("mds", r=2).pipeline)
    assert patterns == [(), (0,), (1,), (2,), (3,)]
    most = checked_patterns(model_of("mds", r=4).pipeline)
    assert len(most) == 1 + 6 + 15


def test_a_check_is_kept_in_a_file_and_belongs_to_its_model(tmp_path):
    model, check = calibrated("mds")
    check.save(tmp_path)
    again = load_check(tmp_path, model)
    assert again.record == check.record
    for name, kept in again.stages[0]._asdict().items():
        np.testing.assert_array_equal(kept, getattr(check.stages[0], name), name)
    other = model._replace(frozen=model.frozen + 1)
    with pytest.raises(ValueError, match="^check: '.*' given, one of this model"):
        load_check(tmp_path, other)
    with pytest.raises(ValueError, match="^folder: .* a folder with a check.npz"):
        load_check(tmp_path / "none", model)
