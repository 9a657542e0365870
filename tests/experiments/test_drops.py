"""The table of what codes on deep networks lose and cost."""

import json
import math

import numpy as np
import pytest
from tables import drop_figure, drop_tables, targets

from coded_jax.report import canvas
from tests.scripts import run_script

PRICE = "code's work, %"


@pytest.fixture
def results(finished):
    return json.loads((finished / "results.json").read_text())


def test_a_row_by_hand(results):
    results["base"]["test_accuracy"] = 0.9
    measured = {"mean": 0.89, "worst": 0.88, "mean_std": 0.001, "decoded": 0.885}
    results["summary"]["1"] = measured
    agreements = {0: 0.97, 1: 0.99, 2: 1.0}
    results["patterns"] = [
        {"lost": [device], "agreement": part} for device, part in agreements.items()
    ]
    results["other_stage_losses"] = {"later": {"code": results["summary"]}}
    results["baselines"] = {}
    del results["image_shape"]  # else costs are counted anew
    cost = results["costs"]["code"]
    cost |= {"whole": 200.0, "uncoded": 100.0, "encode": 3.0, "decode": 2.0}
    cost["rounds"] = [
        {
            "device_flops": 75,
            "bytes_in": 1000,
            "bytes_out": 500,
            "encode_flops": 3.0,
            "decode_flops": 2.0,
        },
    ]
    cost["memory"] = 4000.0
    results["split"]["stages"][0]["share_shape"] = [4, 2, 16]
    ((title, headings, rows),) = drop_tables.tables([results])
    assert title == "lenet5 x 1 on mnist_5k, test images, base 90.00 %, k=2, r=1"
    by_code = [dict(zip(headings, cells, strict=True)) for cells in rows]
    copies, whole, resent, row = by_code
    exact = {PRICE: "0.00", "memory, kB": "0", "1 lost": "0.00 / 0.00"}
    exact |= {"1 lost, decoded answers": "0.00", "1 lost, later": "0.00 / 0.00"}
    exact |= {"same class, %": "100.0"}
    pieces = {
        "coded": "1-4",
        "device + client": "0.38 + 0.50",  # 75 of 200, and what is not coded
        "break-even": "0.80",  # 0.5 / (1 - 0.375)
        "kB": "1.1",  # 28 * 20 pixels of a byte; 4 * 2 * 16 numbers of four come back
    }
    assert copies == exact | pieces | {
        "code": "no code: copies of each piece on 2 devices",
        "devices": "4",
        "rounds": "1",
    }
    assert resent == exact | pieces | {
        "code": "no code: what is missing is sent once more, to a spare device",
        "devices": "3",
        "rounds": "2",  # in more stages from one more to as many again
    }
    assert whole == exact | {
        "code": "no code: the whole image on each of 2 devices, hedged or at once",
        "coded": "nothing",
        "devices": "2",
        "device + client": "1.00 + 0.00",
        "break-even": "-",
        "kB": "0.8",  # 28 * 28 pixels of a byte and ten logits of four
        "rounds": "1",
    }
    assert row == {
        "code": "systematic mlp 64 / mlp",
        "coded": "1-4 (50 %)",
        "devices": "3",
        PRICE: "5.00",
        "device + client": "0.38 + 0.53",
        "break-even": "0.84",
        "kB": "1.5",
        "rounds": "1",
        "memory, kB": "4",
        "1 lost": "1.00 ± 0.10 / 2.00",
        "1 lost, decoded answers": "1.50",
        "1 lost, later": "1.00 ± 0.10 / 2.00",
        "same class, %": "98.0",  # of the two patterns with data among what is lost
    }
    cost["second_tail"] = 40.0
    ((_, headings, rows),) = drop_tables.tables([results])
    tails = dict(zip(headings, rows[-1], strict=True))["device + client"]
    assert tails == "0.38 + 0.53 (0.73 with a mask for each image)"


def test_exact_codes_of_the_same_blocks_by_hand(results):
    """LeNet-5 in halves: each convolution by itself, in a round of its own."""
    ((_, headings, rows),) = drop_tables.tables([results])
    rows = [dict(zip(headings, cells, strict=True)) for cells in rows]
    (row,) = (x for x in rows if x["coded"].startswith("every convolution of 1-4"))
    assert (
        row["code"] == "mds (counted)"
        and row["rounds"] == "2"
        and row["devices"] == "3"
    )
    products = 24**2 * 25 * 6 + 8**2 * 25 * 6 * 16  # of both convolutions
    whole = results["costs"]["code"]["whole"]
    assert row["device + client"].split(" + ")[0] == f"{products / whole:.2f}"
    # Halves of inputs with four rows more, as float32: once pixels, once pooled maps.
    sent = 4 * ((12 + 4) * 28 + (4 + 4) * 12 * 6)
    returned = 4 * (12 * 24 * 6 + 4 * 8 * 16)
    assert row["kB"] == f"{(sent + returned) / 1e3:.1f}"
    assert row["1 lost"] == "0.00 / 0.00" and row["same class, %"] == "100.0"
    # Not beside a run that has them, nor where a stage has no convolution.
    layers = json.loads(json.dumps(results))
    layers["config"] |= {"split": "convolution", "code": "mds", "baselines": []}
    layers["baselines"] = {}
    ((_, _, rows),) = drop_tables.tables([results, layers])
    assert not any("counted" in row[0] for row in rows)
    results["config"] |= {"stages": [[1, 1], [2, 2]], "baselines": []}
    assert drop_tables.same_blocks_cost(results) is None


def test_the_whole_network_on_smaller_images_is_a_row_by_hand(results):
    small = json.loads(json.dumps(results))
    small["image_shape"], small["baselines"] = [20, 20, 1], {}
    results["base"]["test_accuracy"], small["base"]["test_accuracy"] = 0.9, 0.88
    for runs in ([results, small], [small, results]):
        ((title, headings, rows),) = drop_tables.tables(runs)
        assert "base 90.00 %" in title
        rows = [dict(zip(headings, cells, strict=True)) for cells in rows]
        (row,) = (x for x in rows if x["code"].startswith("no code: whole"))
        assert row["code"] == "no code: whole network on 20x20, on the spare device"
        # 16 * 16 * 25 * 6 + 4 * 4 * 25 * 6 * 16 products of 24 * 24 * ... + 8 * 8 * ...
        own = 16**2 * 6 + 4**2 * 96
        whole = 24**2 * 6 + 8**2 * 96
        cost = results["costs"]["code"]
        piece = (cost["piece"] + cost["uncoded"]) / cost["whole"]
        device, client = map(float, row["device + client"].split(" + "))
        assert device == round(max(own / whole, piece), 2) and client == 0
        assert row["devices"] == "3"
        (stage,) = results["split"]["stages"]  # pixels of a byte, a share of float32
        sent = math.prod(stage["piece_shape"]) + 4 * math.prod(stage["share_shape"])
        assert row["kB"] == f"{max(20 * 20 + 40, sent) / 1e3:.1f}"
        # Of three devices, two have data pieces; with the third nothing is lost.
        assert row["1 lost"] == "1.33 / 2.00" and row["rounds"] == "1"
        assert row["memory, kB"] == f"{4 * small_numbers() / 1e3:.0f}"


def test_every_choice_of_blocks_has_its_own_exact_rivals(results):
    other = json.loads(json.dumps(results))
    other["config"]["stages"] = [[1, 2]]
    other["split"]["stages"][0]["blocks"] = [1, 2]
    ((_, headings, rows),) = drop_tables.tables([results, other, results])
    rows = [dict(zip(headings, cells, strict=True)) for cells in rows]
    of = {(x["code"].partition(" of ")[0], x["coded"]) for x in rows}
    for blocks in ("1-4", "1-2"):
        assert ("no code: copies", blocks) in of
        assert ("mds (counted)", blocks) in {
            (code, coded.partition(" (")[0].removeprefix("every convolution of "))
            for code, coded in of
        }
    codes = [x["code"] for x in rows]
    assert codes.count("mds (counted)") == 2
    assert sum("copies" in code for code in codes) == 2
    assert sum("whole image" in code for code in codes) == 1


def test_trials_of_smaller_images_are_one_row_with_their_spread(results):
    results["base"]["test_accuracy"] = 0.9
    trials = [json.loads(json.dumps(results)) for _ in range(3)]
    for trial, accuracy in zip(trials, (0.87, 0.88, 0.89), strict=True):
        trial["image_shape"], trial["baselines"] = [20, 20, 1], {}
        trial["base"]["test_accuracy"] = accuracy
    other = json.loads(json.dumps(trials[0]))
    other["image_shape"] = [24, 24, 1]
    ((_, headings, rows),) = drop_tables.tables(
        [trials[0], results, *trials[1:], other]
    )
    rows = [dict(zip(headings, cells, strict=True)) for cells in rows]
    rows = {x["code"]: x["1 lost"] for x in rows if "whole network" in x["code"]}
    # Points of 1, 2 and 3, which are lost in two of three patterns.
    assert rows == {
        drop_tables.SMALLER.format("20x20"): "1.33 ± 0.67 / 2.00 ± 1.00",
        drop_tables.SMALLER.format("24x24"): "2.00 / 3.00",
    }


def small_numbers():
    """Counts LeNet-5's variables for images of 20x20, whose features are 2x2."""
    conv = 25 * 6 + 6 + 25 * 6 * 16 + 16
    return conv + 64 * 120 + 120 + 120 * 84 + 84 + 84 * 10 + 10


def test_a_folder_of_images_is_called_by_its_name(results):
    results["dataset"] = "folder"
    for given in ("--data_dir=../images/birds", "--data_dir ../images/birds/"):
        results["command"] = f"python experiments/run.py {given} --k=2"
        assert " on folder birds, test images" in drop_tables.title_of(results)
    results["dataset"] = "cifar10"
    assert " on cifar10, test images" in drop_tables.title_of(results)


def test_the_pictures_have_every_code_and_what_is_exact(results, tmp_path, monkeypatch):
    drawn = {}
    keep = lambda figure, path, **_: drawn.update({path.name: figure})
    monkeypatch.setattr(canvas, "save", keep)
    small = json.loads(json.dumps(results))
    small["image_shape"], small["baselines"] = [20, 20, 1], {}
    results["base"]["test_accuracy"], small["base"]["test_accuracy"] = 0.9, 0.88
    drop_figure.draw(tmp_path, [results, small])
    assert [*drawn] == ["drops.png", "drops_price.png"]
    cost = results["costs"]["code"]
    convolutions = drop_tables.same_blocks_cost(results)
    sums = (sum(convolutions.parts.values()), 100 * convolutions.price)
    piece = (cost["piece"] + cost["uncoded"]) / cost["whole"]
    exact = {drop_figure.WHOLE: (1, 0), drop_figure.COPIES: (piece, 0)}
    exact |= {drop_figure.EXACT: sums}
    rivals = [drop_tables.label(results["config"], x) for x in results["baselines"]]
    codes = ["systematic mlp / mlp", *rivals]
    for number, figure in enumerate(drawn.values()):
        (axes,), (legend,) = figure.axes, figure.legends
        names = [text.get_text() for text in legend.get_texts()]
        assert sorted(names) == sorted([*exact, "the whole network on 20x20", *codes])
        marks = [bar.lines[0].get_xydata()[0].tolist() for bar in axes.containers]
        places = dict(zip(names, marks, strict=True))
        for name, costs in exact.items():
            assert places[name] == [pytest.approx(costs[number]), 0]
        lost = places["the whole network on 20x20"][1]
        assert lost == pytest.approx(4 / 3)  # two of three patterns lose 2


def test_the_pictures_show_a_narrower_code_hollow(results, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(canvas, "save", lambda figure, *_, **__: drawn.append(figure))
    results["baselines"] = {}
    narrow = json.loads(json.dumps(results))
    narrow["config"]["encoder_width"] = 8
    drop_figure.draw(tmp_path, [narrow, results])
    *_, first, second = drawn[0].axes[0].containers
    colours = [bar.lines[0].get_markerfacecolor() for bar in (first, second)]
    assert colours[0] == "white" and colours[1] != "white"
    # Of one kind, and three exact ones.
    assert len(drawn[0].legends[0].get_texts()) == 4
    # A line joins both, one that codes other blocks is by itself.
    joined = [
        line.get_xydata()
        for line in drawn[0].axes[0].lines
        if len(line.get_xydata()) > 1
    ]
    marks = [bar.lines[0].get_xydata()[0] for bar in (first, second)]
    np.testing.assert_allclose(joined, [sorted(map(tuple, marks))])
    narrow["split"]["stages"][0]["blocks"] = [1, 2]
    drop_figure.draw(tmp_path, [narrow, results])
    assert all(len(line.get_xydata()) == 1 for line in drawn[2].axes[0].lines)


def test_targets_are_those_of_deep_networks(results):
    assert targets.deep(results, "1") == ""
    results["dataset"] = "cifar10"
    results["base"]["test_accuracy"] = 0.9
    results["summary"]["1"] = {"mean": 0.8961, "worst": 0.88}
    cost = results["costs"]["code"]
    del results["image_shape"]  # else costs are counted anew
    cost |= {"whole": 200.0, "uncoded": 100.0}
    cost["rounds"] = [{"device_flops": 75, "encode_flops": 3, "decode_flops": 2}]
    assert targets.deep(results, "1") == " (0.5 met / 0.8 **missed**)"
    cost["rounds"][0]["decode_flops"] = 2.1  # more than a twentieth of 100
    assert targets.deep(results, "1") == ""
    cost |= {"uncoded": 100.1, "rounds": [{"device_flops": 75}]}  # less than half coded
    assert targets.deep(results, "1") == ""
    results["config"]["base_model"] = "mobilenet"
    assert targets.deep(results, "1") == " (0.8 met / 1.2 **missed**)"
    assert targets.deep(results, "2") == ""
    results["dataset"] = "fashion_mnist"
    results["split"]["coded_fraction"] = 0.3
    assert targets.deep(results, "1") == " (0.5 met)"
    results["split"]["coded_fraction"] = 0.8
    assert targets.deep(results, "1") == " (1 met)"
    assert targets.deep(results, "3") == ""


def test_names_tell_recipes_apart(results):
    config = results["config"]
    assert drop_tables.label(config, "zero_fill") == "zero_fill"
    config |= {"tail": "tuned", "parity_moves": True, "returned": "outputs"}
    expected = "systematic mlp 64 / mlp, outputs, tuned tail, parity moves"
    assert drop_tables.label(config, "code") == expected


def test_the_script(finished, tmp_path):
    done = run_script("drops", finished, f"--output={tmp_path / 'drops'}")
    assert done.returncode == 0, done.stderr
    assert "lenet5 x 1 on mnist_5k" in done.stdout and "no_parity" in done.stdout
    for name in ("drops.png", "drops_price.png"):
        assert (tmp_path / "drops" / name).stat().st_size > 5000
    done = run_script("drops")
    assert done.returncode == 1 and done.stderr.startswith("error: runs: [] given")
