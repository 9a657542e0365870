"""The tables of a run for a terminal."""

import io
import json

import pytest
from rich.console import Console

from coded_jax.report import run_tables
from tests.runs.test_experiment import ROOT

RESULTS = ROOT / "experiments" / "results"


@pytest.fixture
def quickstart():
    return json.loads((RESULTS / "quickstart" / "results.json").read_text())


def shown(results):
    console = Console(file=io.StringIO(), width=80)
    console.print(run_tables.tables(results))
    return console.file.getvalue().splitlines()


def cells(lines, code):
    """The cells of a code's first row in the summary."""
    row = next(line for line in lines if line.startswith(f"  {code} "))
    return row.removeprefix(f"  {code} ").split()


def test_every_code_has_its_work_beside_its_accuracy(quickstart):
    lines = shown(quickstart)
    assert cells(lines, "whole image") == ["any", "96.00", "96.00", "1.00"]
    works = run_tables.works(quickstart).values()
    names = ["learned", "zero_fill", "no_parity"]
    assert [cells(lines, name)[-1] for name in names] == [f"{x:.2f}" for x in works]
    assert cells(lines, "learned") == ["mean", "96.00", "95.60", "0.84"]
    assert all(any(line.startswith(f"{name}: ") for line in lines) for name in names)
    assert max(map(len, lines)) <= 80 and len(lines) <= 34


def test_measures_of_answers_that_are_images_are_beside_the_rivals(quickstart):
    rivals = quickstart["baselines"]
    for number, summary in enumerate([quickstart["summary"], *rivals.values()]):
        for row in summary.values():
            row |= {"mean_psnr": 20.0 + number, "worst_psnr": 10.0 + number}
    assert run_tables.measures_of(quickstart) == [
        *("mean", "worst", "mean_psnr", "worst_psnr")
    ]
    lines = shown(quickstart)
    for name, expected in (("mean PSNR, dB", 20), ("worst PSNR, dB", 10)):
        rows = [line.split()[3:] for line in lines if name in line]
        lost = len(quickstart["summary"])
        assert rows == [[f"{expected + i:.2f}"] * lost for i in range(1 + len(rivals))]
