"""Tables of maps, and of the points that were measured on real workers."""

import pytest
from tables import maps, stored

STRATEGIES = [
    {"family": "uncoded"},
    {"family": "hedged", "late": 0.0},
    {"family": "hedged", "late": 1.5},
    {"family": "learned code"},
]


def best(winner, lead, learned=None):
    """The best strategies of a point; a learned code takes `learned` seconds."""
    families = {"learned code": [3, learned, 0.98]} if learned else {}
    return {"winner": winner, "lead": lead, "seconds": 1.0, "families": families}


def points_of(*bests):
    points = {str(i): {"p99": own} for i, own in enumerate(bests)}
    return maps.Points("m", {"strategies": STRATEGIES, "points": points}, "p99")


def test_points_and_leads_of_a_family():
    points = points_of(best(0, 0.1), best(0, 0.3), best(2, 0.2), best(None, None))
    assert maps.won_text(points, "uncoded") == "50 % (20)"
    assert maps.won_text(points, "hedged") == "25 % (20), after 1.5 usual times"
    assert maps.won_text(points, None) == "25 %"
    assert maps.won_text(points, "learned code") == ""


def test_how_much_longer_learned_codes_take():
    accurate = [best(0, 0.1, seconds) for seconds in (1.5, 2.5, 3.5)]
    assert maps.learned_text(points_of(*accurate, best(0, 0.1))) == "2.50 (75 %)"
    assert maps.learned_text(points_of(best(0, 0.1))) == "never accurate enough"


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
    [(1.1, "uncoded", "10.0 %", "yes"), (2.2, "hedged", "120.0 %", "**no**")],
)
def test_a_measured_point_has_a_winner_and_an_error(measured, winner, error, agrees):
    seconds = {"uncoded": (measured, 1.0), "hedged": (2.1, 2.0)}
    parts = {
        f"near: {name}": {"measured": [ours] * 20, "simulated": [theirs] * 20}
        for name, (ours, theirs) in seconds.items()
    }
    settings = {"points": [{"name": "far"}, {"name": "near"}]}
    found = maps.outcomes({"settings": settings, "parts": parts})
    assert [point for point, _ in found] == [("near", "p50"), ("near", "p99")]
    cells = {column.header: column.text(found[0]) for column in maps.CHECK}
    assert cells["first, measured"] == winner and cells["first, simulated"] == "uncoded"
    assert cells["simulated lead"] == "100 %"
    assert (cells["largest difference"], cells["agrees"]) == (error, agrees)
    cases = 2 if agrees == "yes" else 0
    assert f"simulated one in {cases} of 2 cases" in maps.conclusion(found)
