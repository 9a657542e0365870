"""Maps as pictures and tables; points that were measured on real workers."""

import copy

import numpy as np
import pytest
from tables import maps, stored

SIZES = {"code": "x", "k": 2, "r": 1, "pieces": "2x1"}
STRATEGIES = [
    {**SIZES, "family": "uncoded"},
    {**SIZES, "family": "hedged", "late": 0.0},
    {**SIZES, "family": "hedged", "late": 1.5},
    {**SIZES, "family": "learned code"},
]


def best(winner, lead, learned=None):
    """The best strategies of a point; a learned code takes `learned` seconds."""
    families = {"learned code": [3, learned, 0.98]} if learned else {}
    return {"winner": winner, "lead": lead, "seconds": 1.0, "families": families}


def cells_of(*bests):
    """The cells of a map at p99."""
    points = {str(i): dict.fromkeys(maps.QUANTILES, x) for i, x in enumerate(bests)}
    content = {"strategies": STRATEGIES, "points": points}
    row = maps.Row("m", content, "p99")
    return {header: text(row) for header, text in maps.MAP.items()}


def test_points_and_leads_of_a_family():
    cells = cells_of(best(0, 0.1), best(0, 0.3), best(2, 0.2), best(None, None))
    assert cells["uncoded"] == "50 % (20)" and cells["none"] == "25 %"
    assert cells["hedged"] == "25 % (20), after 1.5 usual times"
    assert cells["learned code"] == ""
    assert cells["learned over first"] == "never accurate enough"
    accurate = [best(0, 0.1, seconds) for seconds in (1.5, 2.5, 3.5)]
    cells = cells_of(*accurate, best(0, 0.1))
    assert cells["learned over first"] == "2.50 (75 %)"


@pytest.mark.parametrize("content", stored.read("map").values())
def test_the_winners_of_a_stored_map_are_the_fastest(content):
    """But for ties, in which the simpler family is first."""
    question = content["question"]
    plane, least = question["plane"], question["accuracy"] - question["margin"]
    assert len(content["points"]) == len(plane["x_values"]) * len(plane["y_values"])
    for own in (own for point in content["points"].values() for own in point.values()):
        seconds = [seconds for _, seconds, _ in own["families"].values()]
        assert (own["winner"] is None) == (not seconds)
        if seconds:
            assert min(seconds) <= own["seconds"] <= 1.0101 * min(seconds) + 1e-9
        assert all(a >= least - 1e-5 for _, _, a in own["families"].values())


@pytest.mark.parametrize(
    "measured, winner, error, agrees",
    [(1.1, "uncoded", "10.0", "yes"), (2.2, "hedged", "120.0", "**no**")],
)
def test_a_measured_point_has_a_winner_and_an_error(measured, winner, error, agrees):
    seconds = {"near: uncoded": (measured, 1.0), "near: hedged": (2.1, 2.0)}
    seconds |= {"far: hedged": (1.0, 1.0), "far: exact code": (1.05, 1.05)}
    parts = {
        name: {"measured": [ours] * 20, "simulated": [theirs] * 20}
        for name, (ours, theirs) in seconds.items()
    }
    settings = {"points": [{"name": "near"}, {"name": "far"}]}
    found = maps.outcomes({"settings": settings, "parts": parts})
    columns = maps.check_columns(found)
    cells = {x: columns[x](found[0]) for x in columns if x != "conditions"}
    assert (cells["point"], cells["quantile"]) == ("near", "p50")
    assert cells["first, measured"] == winner and cells["first, simulated"] == "uncoded"
    assert cells["simulated lead, %"] == "100"
    assert (cells["largest difference, %"], cells["agrees"]) == (error, agrees)
    assert cells["uncoded, measured ms"] == f"{1e3 * measured:.0f}"
    assert cells["hedged, simulated ms"] == "2000"
    assert cells["exact code, simulated ms"] == "-"
    right = 2 if agrees == "yes" else 0  # leads of 5 %, as of far, do not count
    assert f"simulated one in {right} of 2 cases" in maps.conclusion(found)
    assert f"in {2 + right} of 4." in maps.conclusion(found)


POINT = {
    "winner": 1,
    "seconds": 0.1,
    "runner_up": 0,
    "lead": 0.25,
    "families": {"uncoded": [1, 0.1, 0.99]},
}
NOBODY = {"winner": None, "families": {}}
CONDITIONS = {
    "bandwidth": 1e7,
    "link": 0.001,
    "message": 5e-5,
    "speed": 1e10,
    "client": 0.5,
    "straggling": "exponential",
    "tail": 0.2,
    "failure": 0.01,
    "each_round": True,
}
DRAWN = [
    {"family": "one machine", "code": "one device", "k": 1, "r": 0, "pieces": ""},
    {"family": "uncoded", "code": "uncoded", "k": 4, "r": 0, "pieces": "2x2"},
]


def content():
    point = {"p50": POINT, "p99": {**POINT, "lead": 20.0}, "p99.9": NOBODY}
    other = copy.deepcopy(point)
    other["p50"]["lead"] = 0.75
    plane = {"x": "tail", "x_values": [0.1, 1.0], "y": "client", "y_values": [0.01]}
    question = {
        "network": "small",
        "n": 6,
        "margin": 0.01,
        "plane": plane | {"fixed": CONDITIONS},
    }
    return {
        "question": question,
        "strategies": DRAWN,
        "points": {"0,0": point, "1,0": other},
    }


def test_rows_of_a_map():
    rows = [maps.Row("m", content(), x) for x in maps.QUANTILES]
    uncoded = [row.won("uncoded") for row in rows]
    assert uncoded == ["100 % (50)", "100 % (2000)", ""]
    assert [row.won("none") for row in rows] == ["", "", "100 %"]
    assert not any(row.won("hedged") for row in rows)


def test_the_picture_and_its_words(tmp_path):
    maps.draw(tmp_path / "map.png", content())
    data = (tmp_path / "map.png").read_bytes()
    assert data[25] == 3 and len(data) > 5_000  # a palette of few colours
    title = maps.title(content())
    assert title.startswith("small on 6 devices: ") and "\n10 MB/s; 1 ms" in title


def test_outcomes_by_hand():
    seconds = {
        "a": {"measured": [1.0] * 10, "simulated": [1.09] * 10},
        "b": {"measured": [1.2] * 10, "simulated": [1.0] * 10},
    }
    found = maps.outcome({}, "p50", seconds)
    assert (found.winner, found.simulated_winner) == ("a", "b")
    assert found.lead == pytest.approx(0.09) and found.error == pytest.approx(0.2)
    assert not found.agrees  # the lead is small, the difference large
    seconds["b"]["measured"] = [1.1] * 10
    assert maps.outcome({}, "p50", seconds).agrees
    # The best of a family counts, and its lead over another family.
    other = {"measured": [1.0] * 10, "simulated": [0.99] * 10}
    found = maps.outcome({}, "p50", {**seconds, "b (p99)": other})
    assert (found.winner, found.simulated_winner) == ("a", "b")
    assert found.lead == pytest.approx(1.09 / 0.99 - 1)
    # What was lost in both agrees.
    lost = {"measured": [np.inf] * 10, "simulated": [np.inf] * 10}
    assert maps.outcome({}, "p99", {**seconds, "c": lost}).error < 0.15
