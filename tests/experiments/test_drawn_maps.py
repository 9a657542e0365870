"""Maps as pictures and as rows."""

import copy

from tables import drawn_maps

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
STRATEGIES = [
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
        "strategies": STRATEGIES,
        "points": {"0,0": point, "1,0": other},
    }


def test_rows_of_a_map():
    assert drawn_maps.rows(content()).rows == [
        ["p50", "uncoded", "100 %", "50", "75", "uncoded k=4 r=0, 2x2"],
        ["p99", "uncoded", "100 %", "2000", "2000", "uncoded k=4 r=0, 2x2"],
        ["p99.9", "none", "100 %", "-", "-", ""],
    ]


def test_the_picture_and_its_words(tmp_path):
    drawn_maps.draw(tmp_path / "map.png", content())
    data = (tmp_path / "map.png").read_bytes()
    assert data[25] == 3 and len(data) > 5_000  # a palette of few colours
    title = drawn_maps.title(content())
    assert title.startswith("small on 6 devices: ") and "\n10 MB/s; 1 ms" in title
