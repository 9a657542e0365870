"""Rows of what checks find, by hand and of the stored results."""

import pytest
from tables import check_tables, stored

from coded_jax.byzantine.faults import FAULTS, STANDARD

CONTENTS = stored.contents("checks")


def content(found):
    """A result whose only kind of fault was found in this fraction."""
    config = {"base_width": 1, "base_model": "lenet5", "k": 4, "r": 2}
    fault = {"found": found, "worst": 0.9, "named": 0.75, "misnamed": 0.01}
    fault |= {"believed": 0.5, "left_out": None, "unnoticed": 0.002}
    config |= {"encoder": "linear", "decoder": "sharpen"}
    rates = {"0": {"mean": 0.0005, "worst": 0.001}, "1": {"mean": 0.1, "worst": 0.0011}}
    return {
        "run": {"config": config, "dataset": "mnist"},
        "faults": {"zeros": fault, "a lost value": fault},
        "right": 0.99,
        "false_alarms": rates,
    }


def test_a_row_says_whether_the_target_is_met():
    name = "mnist, lenet5, linear / sharpen"
    rows = check_tables.rows_of(content(0.99))
    assert rows[0][:4] == [name, "4, 2", "zeros", "99.00 met"]
    assert rows[0][4:] == ["90.00", "75.00", "1.00", "50.00", "-", "99.00", "0.20"]
    assert rows[1][3] == "99.00"  # no target
    assert check_tables.rows_of(content(0.9899))[0][3] == "98.99 **missed**"


def test_false_alarms_have_a_target_in_the_worst_set():
    rows = check_tables.false_alarms(content(1))
    assert [row[2:] for row in rows] == [
        ["0", "0.05", "0.10", "met"],
        ["1", "10.00", "0.11", "**missed**"],
    ]


@pytest.mark.parametrize("own", CONTENTS, ids=lambda x: x["command"].split("=")[1])
def test_stored_results_are_of_enough_images_and_of_all_kinds(own):
    assert own["check"]["images"] >= 5000 and own["images"] == 10_000
    assert [*own["faults"]] == [*FAULTS]
    assert {*STANDARD} < {*own["faults"]}
    assert own["check"]["rate"] == 1e-3
