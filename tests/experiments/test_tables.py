"""Tables of stored results: rows made by hand, and what a table refuses."""

import json

import pytest
from tables import deep, frontier, stored, targets
from tables.points import Point, points

from coded_jax.report import table
from coded_jax.report.table import Table
from tests.runs.test_experiment import ROOT
from tests.scripts import run_script

RESULTS = ROOT / "experiments/results"


@pytest.fixture
def results(finished):
    return json.loads((finished / "results.json").read_text())


def test_a_table_is_columns_of_records():
    columns = {"n": str, "n^2": lambda n: f"**{n * n}**"}
    made = table.make(columns, [1, 3])
    assert made == Table(["n", "n^2"], [["1", "**1**"], ["3", "**9**"]])
    assert table.to_markdown(made).splitlines()[-1] == "| 3 | **9** |"
    assert table.to_csv(made) == "n,n^2\n1,1\n3,9\n"


def set_cost(results, **more):
    cost = {"whole": 200.0, "uncoded": 100.0, **more}
    trip = {"device_flops": 75, "encode_flops": 3, "decode_flops": 2}
    results["costs"]["code"] |= cost | {"rounds": [trip]}
    return trip


def test_points_lost_and_work_on_deep_networks(results):
    results["base"]["test_accuracy"], results["baselines"] = 0.9, {}
    measured = {"mean": 0.89, "worst": 0.88, "mean_std": 0.001, "decoded": 0.885}
    results["summary"]["1"] = measured
    results["other_stage_losses"] = {"later": {"code": {"1": {"mean": 0.5}}}}
    results["patterns"] = [
        {"lost": [device], "agreement": part}
        for device, part in enumerate([0.97, 0.99, 1.0])
    ]
    trip = set_cost(results, memory=4000.0, second_tail=45.0)
    trip |= {"bytes_in": 1000, "bytes_out": 500}
    results["split"]["stages"][0]["share_shape"] = [4, 2, 16]
    results[deep.EXACT] = json.loads(json.dumps(results["costs"]["code"]))
    ((title, made),) = deep.tables([results])
    assert title == "lenet5 x 1 on mnist_5k, test images, base 90.00 %, k=2, r=1"
    ours = {"1 lost, mean": "1.00 ± 0.10", "1 lost, worst": "2.00"}
    ours |= {"1 lost, decoded": "1.50", "same class, %": "98.0"}
    ours |= {"1 lost, later, mean": "40.00", "code's work, %": "5.00", "kB": "1.5"}
    ours |= {"device": "0.38", "client": "0.53"}  # 75, 105 of 200
    ours |= {"client, a mask for each image": "0.75"}  # 45 of 200 more
    ours |= {"break-even": "0.84", "memory, kB": "4"}  # 0.525 / (1 - 0.375)
    copies = {"devices": "4", "1 lost, worst": "0.00", "client": "0.50"}
    copies |= {"kB": "1.1"}  # 28 * 20 pixels of a byte, 4 * 2 * 16 numbers of four
    resent = {"devices": "3", "rounds": "2", "device": "0.38"}
    whole = {"device": "1.00", "break-even": "-", "same class, %": "100.0"}
    rows = {
        cells[0]: dict(zip(made.headers, cells, strict=True)) for cells in made.rows
    }
    for code, cells in {
        "systematic mlp 64 / mlp": ours,
        deep.COPIES.format(2): copies,
        deep.RESENT: resent,
        deep.WHOLE.format(2): whole,
        "mds (counted)": {"code's work, %": "5.00"},
    }.items():
        assert rows[code] | cells == rows[code]


def test_a_smaller_image_stands_in_for_a_lost_data_piece(results):
    set_cost(results)
    small = json.loads(json.dumps(results))
    small["image_shape"], small["base"]["numbers"] = [20, 20, 1], 1000
    results["base"]["test_accuracy"], small["base"]["test_accuracy"] = 0.9, 0.87
    for work, most in ((170.0, 175), (180.0, 180)):  # a piece and the client need 175
        small["costs"]["code"]["whole"] = work
        (entry,) = (x for x in deep.entries([results, small]) if "20x20" in x.name)
        # Of three patterns two lose a data piece.
        assert entry.measured == {"1 lost, mean": "2.00", "1 lost, worst": "3.00"}
        assert entry.cost.device_flops + entry.cost.client_flops == most
        assert entry.cost.memory == 4000


def test_a_code_beside_the_same_without_parity(results):
    for summary in (results["summary"], *results["baselines"].values()):
        summary["2"] = summary["1"]
    ours, theirs = results["patterns"], results["patterns_of_baselines"]["no_parity"]
    ours[1]["accuracy"], theirs[1]["accuracy"] = 0.5, 0.4
    ours[2]["accuracy"], theirs[2]["accuracy"] = 0.5, 0.625
    results["base"]["test_accuracy"] = 0.9
    results["summary"]["1"] |= {"mean": 0.89, "mean_std": 0.001, "worst": 0.90001}
    curve = {"coverage": [0.8, 1.0], "risk": [0.0, 0.02]}
    measures = {"ece": 0.0123, "ece_std": 0.00001, "ece_decoded": None, "curve": curve}
    results["confidence"]["1"] |= measures
    losses = frontier.learned(points(results))
    _, cells = table.make(frontier.CONFIDENCE, losses).rows
    row = dict(zip(frontier.CONFIDENCE, cells, strict=True))
    assert row["drop from the base, mean"] == "1.00 ± 0.10"
    assert row["worst pattern"] == "0.00" and row["ECE"] == "1.23"
    assert row["ECE of decoded answers"] == "-"
    assert row["error at coverage 0.9"] == "1.00"
    better = row["patterns better than without parity"]
    assert better == "1 of 2, not in data 1 (50.00, without 62.50)"


def test_a_row_of_the_frontier(results):
    """Two seeds of sums of three devices, a code that loses nothing with as much work,
    and one that is made for two losses on more devices."""
    cost = points(results)[0].cost
    seeds = ([[0.9, 0.7, 0.2], [0.9, 0.8, 0.2]], [[0.9, 0.5, 0.1], [0.9, 0.6, 0.1]])
    sums = Point("mds", 2, 1, (1, 2), ((1, 2), (3, 4)), cost, *seeds)
    exact = sums._replace(worst=[[0.9] * 3], accuracy=[[0.9] * 3], stages=())
    wide = exact._replace(k=4, r=2, code="replication")
    codes = [sums, exact, wide]
    assert [*map(frontier.short_name, codes)] == [
        *("sums of pieces", "exact code of every convolution", "copies of pieces")
    ]
    assert [frontier.most_lost(code, codes) for code in codes] == [1, 1, 2]
    made = table.make(frontier.columns(codes, [0.0, 0.5]), codes)
    row, second, third = (dict(zip(made.headers, x, strict=True)) for x in made.rows)
    assert row["pieces"] == "1x2 of blocks 1-2, 3-4" and row["k, r"] == "2, 1"
    assert row["1 lost, mean"] == "75.00 ± 7.07"
    assert row["2 lost, worst"] == "10.00"
    # (0.9 + 3 * 0.7 + 3 * 0.2) / 8, and 0.8 in place of 0.7; none without a result.
    assert row["A(0.5)"] == "46.875 ± 2.652"
    assert row["beaten at 0.5 by"] == "mds (2, 1)" and second["beaten at 0.5 by"] == ""
    assert third["A(0.5)"] == third["beaten at 0.5 by"] == "-"


@pytest.mark.long
def test_scripts_print_tables_and_draw(finished, tmp_path):
    for script, options in {
        "frontier": [f"--output={tmp_path}"],
        "drops": [],
    }.items():
        done = run_script(script, finished, *options)
        assert done.returncode == 0, done.stderr
        assert "no_parity" in done.stdout
    for name in ("frontier.json", "frontier.png"):
        assert (tmp_path / name).stat().st_size > 1000


@pytest.mark.parametrize(
    "script, arguments, name",
    [
        ("frontier", [], "runs"),
        ("frontier", ["nowhere"], "runs"),
        ("frontier", ["--failure=2", "nowhere"], "failure"),
        ("drops", [], "runs"),
    ],
)
def test_scripts_refuse_in_one_line(script, arguments, name):
    done = run_script(script, *arguments)
    assert done.returncode == 1 and done.stderr.startswith(f"error: {name}: ")
    assert done.stderr.count("\n") == 1


def test_runs_that_are_not_measured_alike_are_not_compared():
    names = ["cheap/vgg16_cheap_k2_r1.json", "layers/vgg16_layers_k2_r1.json"]
    assert len(stored.read_runs([str(RESULTS / name) for name in names])) == 2
    names[1] = "groups/fashion_vgg16_group.json"
    with pytest.raises(
        ValueError, match="^runs: of different pieces .of an image, of groups"
    ):
        stored.read_runs([str(RESULTS / name) for name in names])


def test_targets_of_deep_networks_hold_for_cheap_codes(results):
    assert targets.deep(results, "1") == ""
    results["dataset"], results["base"]["test_accuracy"] = "cifar10", 0.9
    results["summary"]["1"] = {"mean": 0.8961, "worst": 0.88}
    trip = set_cost(results)
    assert targets.deep(results, "1") == "0.5 met / 0.8 **missed**"
    trip["decode_flops"] = 2.1  # more than a twentieth of 100
    assert targets.deep(results, "1") == ""
    results["config"]["base_model"] = "mobilenet"
    assert targets.deep(results, "1") == "0.8 met / 1.2 **missed**"
