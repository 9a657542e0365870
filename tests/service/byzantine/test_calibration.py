"""Calibrating a check, its file, and what is refused."""

import numpy as np
import pytest
from scipy import stats

from coded_jax.service.byzantine.calibration import (
    FEWEST,
    calibrate,
    order_of_threshold,
)
from coded_jax.service.byzantine.detection import checked_patterns, load_check
from tests.errors import refused
from tests.service.byzantine.examples import calibrated, images, model_of


@pytest.mark.parametrize("count", [5000, 10_000])
def test_the_threshold_keeps_the_rate_with_confidence(count):
    """The true rate of a threshold is beyond 0.1 % if fewer images than j exceed the
    quantile of 99.9 %, whose number is binomial."""
    order = order_of_threshold(count, 1e-3)
    assert stats.binom.cdf(order - 1, count, 1e-3) <= 0.05
    assert stats.binom.cdf(order, count, 1e-3) > 0.05
    assert order_of_threshold(5000, 1e-3) == 2


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
    with refused("check"):
        load_check(tmp_path, other)
    with refused("folder"):
        load_check(tmp_path / "none", model)


def test_what_cannot_be_checked_is_refused():
    model, few, enough = model_of("mds"), images(FEWEST - 1, 0), images(FEWEST, 0)
    with refused("images"):
        calibrate(model, few, enough)
    with refused("code"):  # no parity
        checked_patterns(model_of("uncoded").pipeline)
