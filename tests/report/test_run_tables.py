"""The tables of a run for a terminal."""

import copy
import io
import json

import pytest
from rich.console import Console

from coded_jax.report import frontier, run_tables
from tests.runs.test_experiment import ROOT

RESULTS = ROOT / "experiments" / "results"


@pytest.fixture
def quickstart():
    return json.loads((RESULTS / "quickstart" / "results.json").read_text())


@pytest.fixture
def dear():
    name = "table5_k2_r1_systematic.json"
    return json.loads((RESULTS / "table5" / name).read_text())


def shown(results):
    console = Console(file=io.StringIO(), width=80)
    console.print(run_tables.tables(results))
    return console.file.getvalue().splitlines()


def cells(lines, code):
    """The cells of a code's first row in the summary."""
    row = next(line for line in lines if line.startswith(f"  {code} "))
    return row.removeprefix(f"  {code} ").split()


def test_a_pattern_without_an_answer_has_no_error(quickstart):
    quickstart["patterns"][1]["feature_mse"] = None
    (row,) = (line for line in shown(quickstart) if " data 0 " in line)
    assert row.split()[-1] == "-"


def test_every_code_has_its_work_beside_its_accuracy(quickstart):
    lines = shown(quickstart)
    assert cells(lines, "whole image") == ["any", "96.00", "96.00", "1.00"]
    works = [point.work for point in frontier.points(quickstart)]
    names = ["learned", "zero_fill", "no_parity"]
    assert [cells(lines, name)[-1] for name in names] == [f"{x:.2f}" for x in works]
    assert cells(lines, "learned") == ["mean", "96.00", "95.60", "0.84"]
    assert all(any(line.startswith(f"{name}: ") for line in lines) for name in names)
    assert max(map(len, lines)) <= 80 and len(lines) <= 34


def test_a_second_head_is_told(quickstart):
    told = "a second head, trained for each code, answers where a data piece is lost"
    assert quickstart["config"]["tail"] == "tuned" and told in shown(quickstart)
    quickstart["config"]["tail"] = "frozen"
    assert told not in shown(quickstart)


def test_a_dear_code_is_told_from_one_that_costs_less(dear):
    assert run_tables.verdict(dear) == [
        "learned takes its busiest device 9.16 times the work of the whole image, 7.66 "
        "of it to encode: here, compute the whole image on each device instead."
    ]
    cheap = copy.deepcopy(dear)
    cheap["costs"]["code"] |= {"encode": 0, "decode": 0}
    assert run_tables.verdict(cheap) == [
        "learned takes its busiest device 0.56 of the work of the whole image, and the "
        "worst loss of one result 0.40 points of accuracy."
    ]
    del cheap["summary"]["1"]
    assert run_tables.verdict(cheap)[0].endswith("0.56 of the work of the whole image.")


@pytest.mark.parametrize(
    "field, value, column, text, meaning",
    [
        ("mean_iou", 0.512, "mean IoU", "51.20", "intersection over union"),
        ("psnr", 23.46, "PSNR", "23.5 dB", "peak signal-to-noise ratio"),
    ],
)
def test_answers_that_are_images_have_a_column(
    quickstart, field, value, column, text, meaning
):
    assert not any(column in line for line in shown(quickstart))
    for pattern in quickstart["patterns"]:
        pattern[field] = value
    quickstart["values"] = field == "psnr"
    lines = shown(quickstart)
    assert any(meaning in line for line in lines)
    measure = "R^2" if field == "psnr" else "accuracy"
    assert f"test {measure} in %, by how many results are lost" in lines
    (heading,) = [line for line in lines if column in line and "lost" in line]
    assert heading.index(column) < heading.index("agreement")
    assert sum(text in line for line in lines) == len(quickstart["patterns"])


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


def test_the_whole_image_has_no_answer_when_all_is_lost(quickstart):
    quickstart["summary"]["3"] = quickstart["summary"]["1"]
    assert cells(shown(quickstart), "whole image") == [
        "any",
        *2 * ["96.00"],
        "-",
        "1.00",
    ]


@pytest.mark.parametrize(
    "name", ["history/networks/fashion_resnet18_all_k4_r2", "quickstart/results"]
)
def test_results_of_versions_without_costs_are_shown(name):
    results = json.loads((RESULTS / f"{name}.json").read_text())
    results.pop("costs", None)
    lines = shown(results)
    assert not any("work:" in line or "whole image" in line for line in lines)
    assert cells(lines, "learned")[0] == "mean"
