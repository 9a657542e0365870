"""Wrong results: found, named, and no alarm without."""

import jax.numpy as jnp
import numpy as np

from coded_jax.service.byzantine.detection import (
    UNNAMED,
    culprit_of_request,
    inspect,
    name_culprit,
)
from coded_jax.service.byzantine.study import FAULTS
from tests.service.byzantine.examples import calibrated, call, results_of


def test_a_linear_code_finds_any_changed_value_and_names_its_result():
    model, check = calibrated("mds", 2, 2)
    features, _ = results_of(model, 50)
    assert check.stages[0].exact[0].all()
    assert not call(inspect, model, check, features).suspicious.any()
    rng = np.random.default_rng(0)
    for i in range(4):  # parity results among them
        row, column, channel = (rng.integers(size) for size in features.shape[2:])
        wrong = features.at[i, :, row, column, channel].add(0.01)
        assert call(inspect, model, check, wrong).suspicious.all()
        named = call(name_culprit, model, check, wrong)
        np.testing.assert_array_equal(named, i)


def test_copies_alone_are_compared_where_a_piece_has_one():
    """With k=2 r=1 piece 1 has no second copy, which the record says."""
    _, check = calibrated("replication", 2, 1)
    assert check.stages[0].exact.tolist() == [[True, False, True]]


def test_behind_a_relu_wrong_results_stand_out():
    model, check = calibrated("addition", 2, 2, relu=True)
    features, _ = results_of(model, 2000)
    assert not check.stages[0].exact.any()
    intact = call(inspect, model, check, features)
    assert intact.suspicious.mean() <= 0.01
    for kind in ("another image's", "noise", "top exponent bit"):
        for i in (0, 3):  # of a data piece and of a parity piece
            rng = np.random.default_rng(i)
            wrong = FAULTS[kind](np.asarray(features[i]), rng)
            changed = features.at[i].set(wrong)
            assert call(inspect, model, check, changed).suspicious.mean() > 0.8
            named = call(name_culprit, model, check, changed)
            assert (named == i).mean() > 0.7, kind
            assert ((named != i) & (named >= 0)).mean() < 0.05


def test_an_implausible_value_is_named_by_itself():
    model, check = calibrated("addition", 2, 2, relu=True)
    features, _ = results_of(model, 5)
    for value in (np.nan, np.inf, -1.0, 1e30, 1e-38, 1e-42):
        wrong = features.at[2, 3, 0, 0, 0].set(value)
        found = call(inspect, model, check, wrong)
        assert found.suspicious[3] and found.implausible.sum() == 1, value
        assert call(name_culprit, model, check, wrong)[3] == 2


def test_what_did_not_arrive_has_no_effect():
    model, check = calibrated("mds")
    features, _ = results_of(model, 20)
    arrived = [True, False, True, True]
    plain = call(inspect, model, check, features, arrived)
    lost = features.at[1].set(jnp.nan)
    again = call(inspect, model, check, lost, arrived)
    np.testing.assert_array_equal(plain.ratio, again.ratio)
    assert not again.suspicious.any() and not again.implausible.any()
    wrong = lost.at[3, 0, 0, 0, 0].add(0.1)
    assert call(inspect, model, check, wrong, arrived).suspicious[0]
    # One more than is needed tells that one is wrong, and not which.
    assert call(name_culprit, model, check, wrong, arrived)[0] == UNNAMED

    # No more than is needed cannot be checked.
    wrong = features.at[0].add(1)
    found = call(inspect, model, check, wrong, [True, True, False, False])
    assert not found.suspicious.any() and not found.ratio.any()


def test_all_patterns_are_one_compilation():
    model, check = calibrated("mds")
    features, _ = results_of(model, 7)
    for function in (inspect, name_culprit):
        before = function._cache_size()
        for lost in range(4):
            call(function, model, check, features, np.arange(4) != lost)
        call(function, model, check, features)
        assert function._cache_size() == before + 1


def test_images_of_a_request_vote():
    named = np.array([2, 2, 1, -1, -1, -1], np.int32)
    assert culprit_of_request(np.ones(6, bool), named) == 2
    assert culprit_of_request(np.arange(6) >= 2, named) == 1
    assert culprit_of_request(np.arange(6) >= 3, named) == UNNAMED
