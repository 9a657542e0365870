"""A run in plain words, before and after it."""

import dataclasses
import json

from coded_jax.report import run_overview
from coded_jax.runs.phases import BASE
from coded_jax.runs.prepare import prepare
from coded_jax.runs.workdir import METRICS, Places
from tests.runs.test_experiment import SMALL


def test_the_phases_are_those_that_the_run_logs(finished, tmp_path):
    prepared = prepare(SMALL, Places(finished, devices=1))
    planned = run_overview.phases(prepared)
    lines = map(json.loads, (finished / METRICS).read_text().splitlines())
    last = {line["phase"]: line["step"] for line in lines}
    assert planned == {**last, "evaluation": len(prepared.pipelines)}
    several = dataclasses.replace(SMALL, seeds=2)
    of_several = prepare(several, Places(tmp_path / "run", devices=1))
    assert run_overview.phases(of_several)["evaluation"] == 2 + 2 + 1
    assert [*planned][0] == BASE and [*planned][-1] == "evaluation"
    assert "it goes on" in run_overview.opening(prepared, "x")[-1]
