"""Figures of `results.json` and of the metrics of a run."""

import json

import pytest

from coded_jax.report import run_figures, run_tables
from coded_jax.runs import workdir


@pytest.fixture(scope="module")
def results(finished):
    return json.loads((finished / "results.json").read_text())


def test_figures_show_the_numbers_of_the_results(results, finished):
    drawn = run_figures.losses(results)
    for axes, which in zip(drawn.axes, ("mean", "worst"), strict=True):
        lines = {c.get_label(): c.lines[0].get_ydata() for c in axes.containers}
        for name, summary in {
            "learned": results["summary"],
            **results["baselines"],
        }.items():
            expected = [100 * row[which] for row in summary.values()]
            assert lines[name].tolist() == expected
    (axes,) = run_figures.accuracy(results).axes
    heights = [patch.get_height() for patch in axes.patches]
    assert heights == [100 * p["accuracy"] for p in results["patterns"]]
    (axes,) = run_figures.costs(results).axes
    ends = [text.get_text().strip() for text in axes.texts]
    for end, costs in zip(ends, results["costs"].values(), strict=True):
        total = sum(costs[part] for part in run_tables.PARTS) / costs["whole"]
        assert end == f"{total:.2f}"
    losses, _ = run_figures.training(workdir.read_metrics(finished)).axes
    assert [line.get_label() for line in losses.lines] == ["base", "code", "no_parity"]
