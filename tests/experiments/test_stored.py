"""Stored results: where they are from, their rows in tables, and their targets."""

import json
import re

import pytest
from tables import pages, runs, searches, stored, targets
from tables.stored import Section

from coded_jax.inference.costs import Cost, Round
from coded_jax.report.table import Table
from coded_jax.runs.config import Config

ORIGIN = {"version": "1", "commit": 40 * "c", "date": "2026-05-06T07:08:09"}
LOST = {"1": {"mean": 0.95, "worst": 0.9, "decoded": 0.92}}


def result(**fields):
    """A tiny `results.json`: k=2, r=1, base 99 %, 4 points lost, half of the work."""
    cost = Cost((Round(2.0, 1e3, 500, 0.5, 1.0),), 0.5, Round(8.0), 3)
    return {
        "command": "python experiments/run.py --flagfile=experiments/flags/a.flags",
        "provenance": {**ORIGIN, "hardware": {"processor": "A", "cores": 2}},
        "versions": {"jax": "2", "flax": "4", "python": "3"},
        "machine": {"cores": 2},
        "config": {**Config().to_json(), "recipe": "systematic"},
        "dataset": "mnist",
        "seed": 7,
        "image_shape": [28, 28, 1],
        "split": {"k": 2, "r": 1, "grid": [2, 1], "stages": [{"blocks": [1, 2]}]},
        "base": {"test_accuracy": 0.99},
        "summary": {"0": {"mean": 0.99, "worst": 0.99}, **LOST},
        "baselines": {"no_parity": {"1": {"mean": 0.94, "worst": 0.91}}},
        "patterns": [{"lost": x, "agreement": 1 - len(x) / 10} for x in ([], [0])],
        "costs": {"code": cost.to_json()},
        "timing": {"seconds": {"base": 8, "code": 9, "evaluation": 1, "total": 90.0}},
        **fields,
    }


def rows_of(monkeypatch, content, baselines=False, table="table5"):
    """Returns the CSV rows of a table with one result."""
    monkeypatch.setattr(stored, "read", lambda name: {"x": content})
    headers, rows = runs.csv_table(runs.rows_of(runs.read(table), baselines))
    return [dict(zip(headers, row, strict=True)) for row in rows]


def test_a_row_of_table_5(monkeypatch):
    (row,) = rows_of(monkeypatch, result())
    says = {"run": "x", "code": "systematic mlp / mlp", "rounds": "1"}
    says |= {"base": "99.00", "mean": "95.00", "worst": "90.00", "drop": "4.00"}
    says |= {"no parity, mean": "94.00", "published": "90.56", "seconds": "90"}
    says |= {"target": "missed (no parity, worst)".replace("missed", "**missed**")}
    # 2 for a piece, 1.5 to encode and decode, 0.5 that is not coded, of 8.
    says |= {"work": "0.50", "of what is coded": "0.267", "client's work": "0.250"}
    says |= {"answers changed, %": "10.00", "kB in": "1.0", "commit": "ccccccc"}
    assert {header: row[header] for header in says} == says
    assert "zero-fill, mean" not in row  # nowhere measured


def test_rows_of_groups_and_of_answers_that_are_images(monkeypatch):
    config = {**Config().to_json(), "split": "group", "code": "parity_model"}
    of_uncoded = {"0": LOST["1"], "1": {"mean": 0.5, "worst": 0}}
    content = result(config=config, baselines={"uncoded": of_uncoded})
    own, uncoded = rows_of(monkeypatch, content, True, "history/groups")
    assert (own["decoded"], own["target"]) == ("92.00", "0.01 **missed**")
    assert (uncoded["decoded"], uncoded["target"]) == ("-", "-")
    assert own["measured"] == "history"
    psnr = {"mean_psnr": 23.44, "worst_psnr": 20.0}
    losses = {l: {"mean": 0.9, "worst": 0.8, **psnr} for l in "01"}
    whole, coded = rows_of(
        monkeypatch, result(positions=[28, 28], summary=losses, baselines={}), True
    )
    assert (whole["code"], whole["work"], whole["lost"]) == ("whole image", "1.00", "0")
    assert (coded["mean PSNR"], coded["data"]) == ("23.4 dB", "mnist of 28x28")


def test_rivals_that_have_runs_of_their_own():
    found = {"a_ours_b": {"baselines": {}}, "a_no_parity_b": {"summary": 1}}
    found["a_untrained_b"] = {"baselines": {"zero_fill": 2}}
    rivals = runs.with_rivals(found, "a_ours_b")["baselines"]
    assert rivals == {"no_parity": 1, "zero_fill": 2}
    assert {row.name for row in runs.headline_rows()} > runs.README


def test_a_base_model(tmp_path):
    record = {
        **{"command": "python x.py", "dataset": "cifar10", "image_shape": [32, 32, 3]},
        "network": {"model": "vgg16", "width": 0.5, "epochs": 3.0, "numbers": 5e5},
        "base": {"validation_accuracy": 0.9, "test_accuracy": 0.91996},
        "provenance": {**ORIGIN, "flags": {"base_start": "runs/kept/first"}},
        "machine": {"cores": 2},
        "timing": {"seconds": {"base": 5}},
        "versions": result()["versions"],
    }
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/base.json").write_text(json.dumps(record))
    row = searches.bases_section(tmp_path).text.splitlines()[2]
    assert row == (
        "| `experiments/bases/mine` | vgg16 x 0.5 | 32x32 | 1.0 | 3 after `first` "
        "| 90.00 | 92.00 | 92 met |"
    )


def test_origins():
    new, old = result(), result(machine={"cores": 1})
    del old["provenance"]
    old["stored"] = {"version": "0", "commit": "abc", "date": "2026-01-01T00:00:00"}
    assert stored.origin_text([new, old]) == (
        "Measured with version 1, 0 (commits in the CSV file), 2026-01-01 to "
        "2026-05-06, jax 2, flax 4, Python 3, on A, 2 cores and on processor not "
        "recorded, 1 core."
    )
    new["provenance"]["commit"] += "+dirty"
    assert stored.origin_of(new) == ("1", "ccccccc+dirty", "2026-05-06")
    columns = stored.origins(lambda name: {"old": old}[name])
    assert columns["commit"]("old") == "stored by abc"
    assert columns["times"]("old").endswith("code 10 epochs 9 s, evaluation 1 s")


def test_every_stored_result_says_where_it_is_from():
    paths = [*stored.RESULTS.rglob("*.json")]
    assert len(paths) > 200
    for path in paths:
        content = json.loads(path.read_text())
        if path.parent.name == "speed":  # `benchmarks.tables` says it of these
            assert content["commit"] and content["date"]
        else:
            assert all(stored.origin_of(content)), path
        command, scripts = content["command"], r"python experiments/\w+\.py [^\n]+"
        assert re.fullmatch(scripts, command) and " /" not in command, path
        assert "=/" not in command and "sources" not in content.get("provenance", {})
        assert content.get("config", {}).get("evaluated", "test") == "test", path


def test_pages_and_the_files_beside_them(tmp_path):
    (tmp_path / "README.md").write_text("# No sections\n")
    docs, page = tmp_path / "docs", tmp_path / "docs/a.md"
    docs.mkdir()
    page.write_text("before\n<!-- x: begin -->\nold\n<!-- x: end -->\nafter\n")
    made = {"x": lambda: Section(r"\1 new", {"x.csv": Table(["a"], [["**1**"]])})}
    assert pages.pages(tmp_path) == [page]
    texts = pages.renewed(page, made)
    assert texts == {
        page: "before\n<!-- x: begin -->\n\n\\1 new\n\n<!-- x: end -->\nafter\n",
        docs / "x.csv": "a\n1\n",
    }
    for name, end in (("y", "<!-- y: end -->"), ("x", "")):
        page.write_text(f"<!-- {name}: begin -->\n{end}\n")
        with pytest.raises(ValueError, match=f"section: '{name}' in .* with its end"):
            pages.renewed(page, made)


def test_verdicts():
    assert targets.verdict(0.504, 0.5) == "0.5 met"  # as the table shows it
    assert targets.verdict(0.51, 0.5) == "0.5 **missed**"
    assert targets.base("cifar10", "vgg16", 91.99) == "92 **missed**"
    assert targets.base("mnist", "vgg16", 91.99) == targets.NONE
    kept = {"1": {"mean": 0.98, "worst": 0.9}, "2": {"mean": 0.989, "worst": 0.9868}}
    code = {"recipe": "systematic", "encoder": "strided", "encoder_width": 64}
    code |= {"decoder": "mlp", "decoder_width": 1024, "base_model": "vgg16"}
    content = {"config": {**Config().to_json(), **code}, "summary": kept}
    content |= {"split": {"k": 4, "r": 2, "coded_fraction": 0.3}}
    content |= {"base": {"test_accuracy": 0.99}}
    assert targets.frontier(content, "2") == "0.1 met, 0.25 **missed**"
    assert targets.frontier(content, "1") == targets.NONE
    content["config"]["decoder_width"] = 64  # another code has no target
    assert targets.frontier(content, "2") == targets.NONE
    assert targets.drop(content, "1") == "0.5 **missed**"
    content["split"]["coded_fraction"] = 0.8  # then twice as much is accepted
    assert targets.drop(content, "1") == "1 met"
    above = result(summary={"1": {"mean": 0.96, "worst": 0.92}})
    assert targets.above_rivals(above, "1") == "met"
    above["summary"]["1"]["mean"] = 0.9
    assert targets.above_rivals(above, "1") == "**missed** (paper; no parity, mean)"


def test_flagfiles_say_what_their_stored_runs_gave():
    (line, second) = pages.expected("a.flags", {"x": result()})
    assert line.startswith("#   x: base 99.00 %, 95.00 (worst 90.00) with 1 lost; base")
    assert second.endswith("90 s in all on 2 cores A, 2026-05-06")
    text = f"# a\n{pages.HEADING}\n#   old\n--k=2\n"
    assert pages.renewed_flagfile(text, [line]) == text.replace("#   old", line)
    assert pages.renewed_flagfile("--k=2\n", [line]) == "--k=2\n"
    assert len(pages.flagfiles()) > 100
