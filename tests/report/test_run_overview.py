"""A run in plain words, before and after it."""

import dataclasses
import json

import pytest

from coded_jax.report import run_overview
from coded_jax.runs import run_training
from coded_jax.runs.config import Config
from coded_jax.runs.places import Places
from coded_jax.runs.prepare import prepare
from coded_jax.runs.workdir import METRICS
from tests.runs.test_experiment import ROOT, SMALL

RESULTS = ROOT / "experiments" / "results"
DEAR = RESULTS / "table5" / "table5_k2_r1_systematic.json"
QUICKSTART = RESULTS / "quickstart" / "results.json"


@pytest.mark.parametrize(
    "settings, words",
    [
        (
            {"k": 4, "r": 2, "grid": (2, 2)},
            "split into 4 pieces, 2 parity pieces are made, 6 devices compute",
        ),
        ({"split": "group"}, "2 images are coded together, 1 parity image is made, 3"),
        ({"code": "replication"}, "one copy of each piece is enough"),
    ],
)
def test_the_opening_says_what_is_computed(tmp_path, settings, words):
    config = Config(dataset="mnist_5k", recipe="systematic", **settings)
    prepared = prepare(config, Places(tmp_path / "run", devices=1))
    data, code, folder = run_overview.opening(prepared, "runs/x")
    assert data.startswith("mnist_5k: 3,500 images to train on, 500 to choose the ")
    assert words in code and "(here 1 CPU in their place)" in code
    assert folder.startswith("folder runs/x; a new run: Ctrl-C stops it")


def test_the_phases_are_those_that_the_run_logs(finished, tmp_path):
    prepared = prepare(SMALL, Places(finished, devices=1))
    planned = run_overview.phases(prepared)
    lines = map(json.loads, (finished / METRICS).read_text().splitlines())
    last = {line["phase"]: line["step"] for line in lines}
    assert {name: phase.steps for name, phase in planned.items()} == {
        **last,
        "evaluation": len(prepared.pipelines),
    }
    several = dataclasses.replace(SMALL, seeds=2)
    of_several = prepare(several, Places(tmp_path / "run", devices=1))
    assert run_overview.phases(of_several)["evaluation"].steps == 2 + 2 + 1
    assert [*planned][0] == run_training.BASE and [*planned][-1] == "evaluation"
    assert "it goes on" in run_overview.opening(prepared, "x")[-1]


def test_a_dear_code_is_followed_by_a_cheaper_one(monkeypatch, tmp_path):
    results = json.loads(DEAR.read_text())
    results["command"] = "python -m coded_jax run --workdir=runs/a --seed=3"
    monkeypatch.chdir(tmp_path)
    answers, cheaper = run_overview.closing(results, "runs/a")
    assert "coded_jax.load('runs/a').classify(images, lost=[1])" in answers
    assert cheaper == (
        "a code that costs less: python -m coded_jax run --seed=3 "
        "--encoder=linear --decoder_width=32 --workdir=runs/a_cheap"
    )
    monkeypatch.chdir(ROOT)
    report, *_ = run_overview.closing(results, "runs/a")
    assert report.endswith(": python experiments/report.py runs/a")
    report, _, cheaper = run_overview.closing(results, "a b")
    assert report.endswith(" 'a b'") and cheaper.endswith(" --workdir='a b_cheap'")
    results["costs"]["code"] |= {"encode": 0, "decode": 0}
    assert len(run_overview.closing(results, "runs/a")) == 2
