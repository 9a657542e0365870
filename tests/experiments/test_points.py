"""Codes compared by their accuracy and work, in closed form."""

import copy
import json

import pytest
from tables import points
from tables.points import Point

from tests.units import cost, trip


def point(code, work, accuracy, k=2, r=1):
    seeds = accuracy if isinstance(accuracy[0], list) else [accuracy]
    return Point(code, k, r, (2, 1), (), cost(trip(work)), seeds, seeds)


@pytest.mark.parametrize("f", [0.0, 0.1, 1.0])
def test_overall_accuracy_where_each_loss_costs_its_share(f):
    # The mean of l over n devices is n f.
    linear = [1 - l / 4 for l in range(5)]
    assert points.overall_accuracy(linear, 4, f) == pytest.approx(1 - f)


def test_each_round_loses_results_of_its_own():
    """An exact code of two rounds answers where neither has lost more than r."""
    f, survives = 0.1, 0.9**3 + 3 * 0.1 * 0.9**2
    accuracy = points.overall_accuracy([0.9, 0.9, 0.0, 0.0], 3, f, rounds=2)
    assert accuracy == pytest.approx(0.9 * survives**2)
    one = points.overall_accuracy([0.9, 0.8, 0.7], 3, f)
    many = points.overall_accuracy([0.9, 0.8, 0.7], 3, f, rounds=1000)
    assert many < 0.71 * survives < one


def test_a_code_is_beaten_by_less_work_and_no_less_accuracy():
    cheap = point("cheap", 0.5, [0.99, 0.95, 0.0, 0.0])
    dear = point("dear", 0.9, [0.99, 0.94, 0.0, 0.0])
    best = point("best", 0.8, [0.99, 0.98, 0.0, 0.0])
    wider = point("on more devices", 0.1, [0.99] * 5, k=3)
    all_of_them = [cheap, dear, best, wider]
    assert points.beaten_by(dear, all_of_them, 0.1) == best
    assert points.beaten_by(cheap, all_of_them, 0.1) is None
    assert points.beaten_by(best, all_of_them, 0.1) is None
    # At f = 0 all are equal, and less work is better.
    assert points.beaten_by(best, all_of_them, 0.0) == cheap


def test_points_of_a_run(finished):
    results = json.loads((finished / "results.json").read_text())
    code, zero_fill, no_parity = points.points(results)
    assert code.code == "systematic mlp 64 / mlp" and no_parity.code == "no_parity mlp"
    assert zero_fill.cost.parts["encode"] == 0 and zero_fill.cost.parts["decode"] == 0
    assert zero_fill.cost.parts["piece"] == code.cost.parts["piece"] < 1
    # 64 hidden values of two pieces of 560 pixels and one parity piece of as many make
    # 0.108 M products; all of `F_Conv` has 0.24 M.
    assert 0.43 < code.cost.parts["encode"] < 0.46
    assert code.cost.parts["decode"] > no_parity.cost.parts["encode"] == 0
    assert zero_fill.cost.parts["uncoded"] == 0 and zero_fill.stages == ()
    assert code.accuracy == [
        [results["summary"][l]["mean"] for l in ("0", "1")],
    ]


def test_points_of_several_seeds(finished):
    """Catches rows of numbers of lost results in the place of seeds."""
    results = json.loads((finished / "results.json").read_text())
    rows = lambda *means: {
        str(l): {"mean": mean, "worst": mean / 2} for l, mean in enumerate(means)
    }
    results["seeds"] = {"code": [rows(0.9, 0.8), rows(0.7, 0.6), rows(0.5, 0.4)]}
    code = points.points(results)[0]
    assert code.accuracy == [[0.9, 0.8], [0.7, 0.6], [0.5, 0.4]]
    assert code.worst == [[0.45, 0.4], [0.35, 0.3], [0.25, 0.2]]


def test_a_code_has_the_same_results_in_all_runs(finished):
    results = json.loads((finished / "results.json").read_text())
    other = copy.deepcopy(results)
    # Of what is not trained rounding makes a difference.
    other["baselines"]["zero_fill"]["1"]["mean"] += 1e-4
    assert points.distinct([results, other]) == points.points(results)
    other["summary"]["1"]["mean"] += 1e-4
    with pytest.raises(ValueError, match="^runs: two of .* with other results each"):
        points.distinct([results, other])
    other = copy.deepcopy(results)
    other["baselines"]["zero_fill"]["1"]["mean"] += 0.1
    with pytest.raises(ValueError, match="^runs: two of .*zero_fill"):
        points.distinct([results, other])


def test_where_a_code_is_no_better_than_a_baseline():
    def outcomes(*accuracies):
        lost = [[], [0], [1], [2], [0, 1]]
        return [dict(lost=l, accuracy=a) for l, a in zip(lost, accuracies, strict=True)]

    ours, theirs = outcomes(0.9, 0.8, 0.7, 0.6, 0.1), outcomes(0.9, 0.7, 0.7, 0.9, 0.5)
    # Neither a parity piece alone nor more than r lost results count.
    (pair,), total = points.no_better(ours, theirs, 2, 1)
    assert [outcome["lost"] for outcome in pair] == [[1], [1]] and total == 2
    assert points.no_better(ours, theirs[:1], 2, 1) == ([], 0)


def test_blocks_in_no_stage_are_work_of_every_code(finished):
    results = json.loads((finished / "results.json").read_text())
    results["config"] |= {"stages": [[1, 1], [3, 3]], "base_model": "own"}
    results["split"]["stages"] = [{"blocks": [1, 1]}, {"blocks": [3, 3]}]
    for costs in results["costs"].values():
        costs |= {"whole": 100.0, "uncoded": 40.0}
        costs["rounds"] = [{"device_flops": 10.0}, {"device_flops": 20.0}]
    zero_fill = points.points(results)[1]
    assert zero_fill.stages == ((1, 1), (3, 3)) and zero_fill.rounds == 2
    assert zero_fill.work == pytest.approx(0.7)
