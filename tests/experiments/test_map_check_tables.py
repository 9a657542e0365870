"""Rows of the points of the map that were measured on real workers."""

import json
import pathlib

import pytest
from tables import map_check_tables, stored

ROOT = pathlib.Path(__file__).parents[2]
POINTS = json.loads((ROOT / "experiments/map_points.json").read_text())


def content(**measured):
    """Returns two strategies at one point, of which the simulated times are 1 and 2."""
    simulated = {"uncoded": 1.0, "hedged": 2.0}
    parts = {
        f"near: {family}": {"measured": [seconds] * 20, "simulated": [1.0] * 20}
        for family, seconds in measured.items()
    }
    for family, seconds in simulated.items():
        parts[f"near: {family}"]["simulated"] = [seconds] * 20
    return {"settings": {"points": [{"name": "far"}, {"name": "near"}]}, "parts": parts}


def test_a_row_says_who_was_first_and_whether_it_agrees():
    agreed = map_check_tables.rows(content(uncoded=1.1, hedged=2.1))
    assert [row[:2] for row in agreed] == [["near", "p50"], ["near", "p99"]]
    cells = ["uncoded 1100 / 1000, hedged 2100 / 2000", "uncoded", "uncoded", "100 %"]
    assert agreed[0][2:] == [*cells, "10.0 %", "yes"]
    wrong = map_check_tables.rows(content(uncoded=2.2, hedged=2.1))
    assert wrong[0][3:] == ["hedged", "uncoded", "100 %", "120.0 %", "**no**"]


def test_the_conclusion_counts_cases():
    text = map_check_tables.conclusion(content(uncoded=1.2, hedged=2.1))
    assert "simulated one in 2 of 2 cases" in text and "in 0 of 2." in text


def test_what_a_point_is():
    text = map_check_tables.about(POINTS[5])
    assert text.startswith("- slow client: vgg16 x 0.125, 28x28, 6 devices; 130 kB/s; ")
    assert "client 0.2 times as fast" in text and "for a whole request" in text
    assert "; 0.4 points lost a stage, given; " in map_check_tables.about(POINTS[8])


@pytest.mark.parametrize("check", stored.contents("map_check"), ids=["stored"])
def test_the_stored_check_has_all_points_that_were_chosen(check):
    assert check["settings"]["points"] == POINTS
    found = map_check_tables.outcomes(check)
    assert {point for point, _ in found} == {point["name"] for point in POINTS}
    assert all(len(one.measured) >= 2 for one in found.values())
