"""Rows of the table of maps."""

import pytest
from tables import map_tables, stored

MAPS = stored.contents("map")


def best(family, lead, learned=None):
    families = {"uncoded": [0, 1.0, 0.99]}
    if learned:
        families["learned code"] = [1, learned, 0.98]
    return {"winner": family, "lead": lead, "seconds": 1.0, "families": families}


def test_points_and_leads_of_a_family():
    bests = [best(0, 0.1), best(0, 0.3), best(0, None), best(1, 0.2)]
    assert map_tables.won_text(bests[:3], bests) == "75 % (20)"
    assert map_tables.won_text(bests[2:3], bests) == "25 %"
    assert map_tables.won_text([], bests) == ""


def test_when_hedged_pieces_are_sent_again():
    strategies = [{}, {"late": 0.0}, {"late": 1.5}]
    bests = [best(1, 0.1), best(2, 0.1), best(2, 0.1), best(0, 0.1), best(None, None)]
    assert map_tables.usual_delay(bests, strategies) == ", after 1.5 usual times"
    assert map_tables.usual_delay(bests[:1], strategies) == ", at once"
    assert map_tables.usual_delay(bests[3:], strategies) == ""


def test_how_much_longer_learned_codes_take():
    bests = [best(0, 0.1, 1.5), best(0, 0.1, 2.5), best(0, 0.1), best(0, 0.1, 3.5)]
    assert map_tables.learned_text(bests) == "2.50 (75 %)"
    assert map_tables.learned_text(bests[2:3]) == "never accurate enough"


@pytest.mark.parametrize("content", MAPS, ids=lambda c: c["question"]["network"])
def test_a_stored_map_is_whole_and_its_winners_are_the_fastest(content):
    """But for ties, in which the simpler family is first."""
    plane = content["question"]["plane"]
    size = len(plane["x_values"]) * len(plane["y_values"])
    assert len(content["points"]) == size and "provenance" in content
    for point in content["points"].values():
        for one in point.values():
            if one["winner"] is None:
                assert not one["families"]
                continue
            least = min(seconds for _, seconds, _ in one["families"].values())
            assert least <= one["seconds"] <= 1.0101 * least + 1e-9
            margin = content["question"]["accuracy"] - content["question"]["margin"]
            assert all(a >= margin - 1e-5 for _, _, a in one["families"].values())
