"""The best choice among codes: closed forms, and the script on runs made here."""

import copy
import functools
import json
import math
import re

import jax.numpy as jnp
import pytest
from rich.console import Console

from coded_jax.evaluation import predictions
from coded_jax.report import frontier, run_tables
from coded_jax.report.frontier import WHOLE, Point
from coded_jax.runs.reading import patterns_of
from tests.runs.test_experiment import ROOT
from tests.scripts import run_script


def point(code, work, accuracy, k=2, r=1):
    seeds = accuracy if isinstance(accuracy[0], list) else [accuracy]
    return Point(code, k, r, (2, 1), (), 0.0, work, 0.0, 0.0, seeds, seeds)


@pytest.mark.parametrize("f", [0.0, 0.1, 1.0])
def test_overall_accuracy_where_each_loss_costs_its_share(f):
    # The mean of l over n devices is n f.
    linear = [1 - l / 4 for l in range(5)]
    assert frontier.overall_accuracy(linear, 4, f) == pytest.approx(1 - f)


def test_nothing_arrived_is_never_correct():
    f = 0.3
    found = frontier.overall_accuracy([1.0] * 4, 3, f)
    assert found == pytest.approx(1 - f**3)


def test_what_was_not_tried_is_not_guessed():
    some = point("some", 0.5, [1.0, 1.0])
    every = point("all", 0.9, [0.5, 0.5, 0.5])
    assert frontier.overall(some, 0.3) == []
    assert frontier.beaten_by(every, [some, every], 0.3) is None
    assert frontier.beaten_by(some, [some, every], 0.3) is None


def test_the_whole_image_on_each_device():
    whole = frontier.whole_image(3, 0.9)
    assert whole.work == 1 and whole.n == 3
    (found,) = frontier.overall(whole, 0.1)
    assert found == pytest.approx(0.9 * (1 - 0.1**3))


def test_a_code_is_beaten_by_less_work_and_no_less_accuracy():
    cheap = point("cheap", 0.5, [0.99, 0.95, 0.0, 0.0])
    dear = point("dear", 0.9, [0.99, 0.94, 0.0, 0.0])
    best = point("best", 0.8, [0.99, 0.98, 0.0, 0.0])
    other = point("on more devices", 0.1, [0.99] * 5, k=3)
    all_of_them = [cheap, dear, best, other]
    assert frontier.beaten_by(dear, all_of_them, 0.1) == best
    assert frontier.beaten_by(cheap, all_of_them, 0.1) is None
    assert frontier.beaten_by(best, all_of_them, 0.1) is None
    # At f = 0 all are equal, and less work is better.
    assert frontier.beaten_by(best, all_of_them, 0.0) == cheap


def test_means_over_seeds():
    two = point("two", 0.5, [[1.0, 0.9, 0, 0], [0.9, 0.9, 0, 0]])
    mean, deviation = frontier.mean_std(frontier.overall(two, 0.0))
    assert mean == pytest.approx(0.95) and deviation == pytest.approx(math.sqrt(0.005))


def test_points_of_a_run(finished):
    results = json.loads((finished / "results.json").read_text())
    code, zero_fill, no_parity = frontier.points(results)
    assert code.code == "systematic mlp 64 / mlp" and no_parity.code == "no_parity mlp"
    assert zero_fill.encode == 0 and zero_fill.decode < 0.01
    assert zero_fill.piece == code.piece < 1
    # 64 hidden values of two pieces of 560 pixels and one parity piece of as many make
    # 0.108 M products; all of `F_Conv` has 0.24 M.
    assert 0.43 < code.encode < 0.46 and code.decode > no_parity.encode == 0
    assert zero_fill.uncoded == 0 and zero_fill.stages == ()
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
    code = frontier.points(results)[0]
    assert code.accuracy == [[0.9, 0.8], [0.7, 0.6], [0.5, 0.4]]
    assert code.worst == [[0.45, 0.4], [0.35, 0.3], [0.25, 0.2]]


def test_variants_of_a_code_are_told_apart_by_their_settings(finished):
    results = json.loads((finished / "results.json").read_text())
    other = copy.deepcopy(results)
    assert frontier.distinct([results, other]) == frontier.points(results)
    other["summary"]["1"]["mean"] = 0.25
    with pytest.raises(ValueError, match="^runs: two of .* with other results each"):
        frontier.distinct([results, other])
    other["config"] |= {"supervision": 3.0, "seeds": 7}
    found = [point.code for point in frontier.distinct([results, other])]
    name = "systematic mlp 64 / mlp supervision="
    assert found == [f"{name}0.0", f"{name}3.0", "zero_fill", "no_parity mlp"]
    # Of what is not trained there are no variants, rounding makes none.
    zero_fill = other["baselines"]["zero_fill"]["1"]
    zero_fill["mean"] += 1e-4
    assert [point.code for point in frontier.distinct([results, other])] == found
    zero_fill["mean"] += 0.1
    with pytest.raises(ValueError, match="^runs: two of .*zero_fill"):
        frontier.distinct([results, other])


def test_where_a_code_is_no_better_than_a_baseline():
    def outcomes(*accuracies):
        lost = [[], [0], [1], [2], [0, 1]]
        return [dict(lost=l, accuracy=a) for l, a in zip(lost, accuracies, strict=True)]

    ours, theirs = outcomes(0.9, 0.8, 0.7, 0.6, 0.1), outcomes(0.9, 0.7, 0.7, 0.9, 0.5)
    # Neither a parity piece alone nor more than r lost results count.
    (pair,), total = frontier.no_better(ours, theirs, 2, 1)
    assert [each["lost"] for each in pair] == [[1], [1]] and total == 2
    assert frontier.no_better(ours, theirs[:1], 2, 1) == ([], 0)
    results = {"config": {"code": "some"}, "patterns": ours}
    assert patterns_of(results, "some") == ours
    assert patterns_of(results, "rival") is None
    results["patterns_of_baselines"] = {"rival": theirs}
    assert patterns_of(results, "rival") == theirs


def test_blocks_in_no_stage_are_work_of_every_code(finished):
    results = json.loads((finished / "results.json").read_text())
    results["config"]["stages"] = [[1, 1], [3, 3]]
    results["split"]["stages"] = [{"blocks": [1, 1]}, {"blocks": [3, 3]}]
    for costs in results["costs"].values():
        costs |= {"whole": 100.0, "piece": 30.0, "uncoded": 40.0}
    zero_fill = frontier.points(results)[1]
    assert zero_fill.stages == ((1, 1), (3, 3)) and zero_fill.encode == 0
    assert zero_fill.work == pytest.approx(0.7 + zero_fill.decode)


def test_a_pattern_without_an_answer_has_no_error(finished, capsys):
    results = json.loads((finished / "results.json").read_text())
    results["patterns"][1]["feature_mse"] = None
    Console(width=80).print(run_tables.tables(results))
    (row,) = (s for s in capsys.readouterr().out.splitlines() if " data 0 " in s)
    assert row.split()[-1] == "-"


def test_no_class_without_finite_logits():
    logits = jnp.array([[0.0, 1.0], [jnp.nan, 1.0], [2.0, -jnp.inf]])
    assert predictions.classes_of(logits).tolist() == [1, -1, -1]


script = functools.partial(run_script, "frontier")


def test_script(finished, tmp_path):
    output = tmp_path / "out"
    tried = tmp_path / "tried.json"  # as if two losses had been tried, too
    results = json.loads((finished / "results.json").read_text())
    for found in (results["summary"], *results["baselines"].values()):
        found["2"] = found["1"]
    ours, theirs = results["patterns"], results["patterns_of_baselines"]["no_parity"]
    ours[1]["accuracy"], theirs[1]["accuracy"] = 0.5, 0.4
    ours[2]["accuracy"], theirs[2]["accuracy"] = 0.5, 0.625
    tried.write_text(json.dumps(results))
    done = script(f"--output={output}", str(tried))
    assert done.returncode == 0, done.stderr
    drop = 100 * (results["base"]["test_accuracy"] - results["summary"]["1"]["mean"])
    assert "ECE of decoded" in done.stdout and f" {drop:.2f} " in done.stdout
    assert "no_parity mlp" in done.stdout and "beaten at 0.05" in done.stdout
    points = json.loads((output / "frontier.json").read_text())["points"]
    names = {p["code"] for p in points}
    assert names == {"zero_fill", "no_parity mlp", "systematic mlp 64 / mlp", WHOLE}
    assert [p["work"] for p in points] == sorted(p["work"] for p in points)
    assert (output / "frontier.png").stat().st_size > 10_000
    line = "1 of the 2 patterns that lose a data piece, and at most 1 results, not in "
    assert f" in {line}data 1 (50.00, without 62.50)\n" in done.stdout


def test_script_of_a_run_that_tried_no_loss(finished, tmp_path):
    results = json.loads((finished / "results.json").read_text())
    for name in ("summary", "confidence"):
        results[name] = {"0": results[name]["0"]}
    results["patterns"] = results["patterns"][:1]
    results["baselines"], results["seeds"] = {}, {}
    results["costs"] = {"code": results["costs"]["code"]}
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    done = script(str(path))
    assert done.returncode == 0, done.stderr
    assert "ECE" in done.stdout and "without parity" not in done.stdout


def test_script_without_all_losses_tried_says_no_overall_accuracy(finished, tmp_path):
    done = script(str(finished), f"--output={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "frontier.png").stat().st_size > 10_000
    points = json.loads((tmp_path / "frontier.json").read_text())["points"]
    overall = {p["code"]: p["overall"]["0.05"] for p in points}
    assert overall["zero_fill"] is None and overall[WHOLE][0] > 0.5
    (row,) = (line for line in done.stdout.splitlines() if "zero_fill" in line)
    assert row.split()[-4:] == ["-", "-", "-", "-"]


@pytest.mark.parametrize(
    "field, value", [("split", "group"), ("stage_losses", "per_stage")]
)
def test_what_is_not_measured_alike_is_not_compared(finished, tmp_path, field, value):
    results = json.loads((finished / "results.json").read_text())
    results["config"][field] = value
    other = tmp_path / "other.json"
    other.write_text(json.dumps(results))
    done = script(str(finished), str(other))
    assert done.returncode == 1 and re.match("error: runs: (some|of)", done.stderr)


RUN = str(ROOT / "experiments/results/frontier/lenet5_layers_k2_r1.json")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "error: runs: none given"),
        (["nowhere"], "error: runs: 'nowhere' given"),
        ([str(ROOT / "experiments/results/speed/benchmark.json")], "error: runs: '/"),
        (["--failure=2", "nowhere"], "error: failure: 2.0 given"),
        (["--output=/proc/x", RUN], "error: output: '/proc/x' given"),
    ],
)
def test_script_refuses_in_one_line(arguments, message):
    done = script(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(message) and done.stderr.count("\n") == 1
