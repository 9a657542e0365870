"""The table of the points of the map that were measured on real workers."""

import pytest
from tables import maps


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
