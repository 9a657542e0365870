"""The script that compares codes, on runs made here."""

import functools
import json
import re

import pytest
from tables import finished_runs

from coded_jax.report.frontier import WHOLE
from tests.runs.test_experiment import ROOT
from tests.scripts import run_script

script = functools.partial(run_script, "frontier")


def test_script(finished, tmp_path):
    output = tmp_path / "out"
    tried = tmp_path / "tried.json"  # as if two losses had been tried, too
    results = json.loads((finished / "results.json").read_text())
    for summary in (results["summary"], *results["baselines"].values()):
        summary["2"] = summary["1"]
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
    changed_file = tmp_path / "other.json"
    changed_file.write_text(json.dumps(results))
    done = script(str(finished), str(changed_file))
    assert done.returncode == 1 and re.match("error: runs: (some|of)", done.stderr)


RUN = str(ROOT / "experiments/results/frontier/lenet5_layers_k2_r1.json")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "error: runs: none given"),
        (["nowhere"], "error: runs: 'nowhere' given"),
        (
            [str(ROOT / "experiments/results/latency/one_straggler.json")],
            "error: runs: '/",
        ),
        (["--failure=2", "nowhere"], "error: failure: 2.0 given"),
        (["--output=/proc/x", RUN], "error: output: '/proc/x' given"),
    ],
)
def test_script_refuses_in_one_line(arguments, message):
    done = script(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(message) and done.stderr.count("\n") == 1


def test_exact_codes_of_convolutions_are_compared_and_groups_are_not():
    """They have one network; those that code whole images together answer others."""
    folder = ROOT / "experiments/results"
    names = ["cheap/vgg16_cheap_k2_r1.json", "layers/vgg16_layers_k2_r1.json"]
    runs = finished_runs.read_runs([str(folder / name) for name in names])
    assert [r["config"]["split"] for r in runs] == ["image", "convolution"]
    names[1] = "groups/fashion_vgg16_group.json"
    with pytest.raises(ValueError, match="^runs: some of pieces of an image and some"):
        finished_runs.read_runs([str(folder / name) for name in names])
