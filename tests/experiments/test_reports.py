"""Reports of runs and sweeps, and the tables that documents show."""

import functools
import io
import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from rich.console import Console
from tables import (
    document_sections,
    finished_runs,
    markdown,
    pages,
    result_tables,
    run_report,
    stored,
    sweep_report,
)

from coded_jax.inference.costs import Cost, Round
from coded_jax.report import run_tables, sweep_tables
from coded_jax.runs import workdir
from tests.runs.test_experiment import ROOT

DOCUMENTS = document_sections.documents(ROOT)
SECTIONS = [
    pytest.param(path, name, id=f"{path.stem}-{name}")
    for path in DOCUMENTS
    for name in markdown.section_names(path.read_text())
]


@pytest.mark.parametrize("path, name", SECTIONS)
def test_documents_show_what_their_sources_say(path, name):
    text, made = path.read_text(), document_sections.section(name)
    assert markdown.replace_section(text, name, made) == text
    begin = text.index(f"<!-- {name}: begin -->")
    words = list(re.finditer(r"\w", text[begin : text.index("<!--", begin + 1)]))
    place = begin + words[len(words) // 2].start()
    wrong = f"{text[:place]}?{text[place + 1 :]}"
    assert markdown.replace_section(wrong, name, made) != wrong


def test_documents_have_every_section():
    shown = {
        name for path in DOCUMENTS for name in markdown.section_names(path.read_text())
    }
    assert {*document_sections.SECTIONS} <= shown


def test_a_changed_result_changes_the_section(tmp_path, monkeypatch):
    before = result_tables.section("table5")
    folder = tmp_path / "table5"
    shutil.copytree(stored.folder_of("table5"), folder)
    path = folder / "table5_k2_r1.json"
    results = json.loads(path.read_text())
    results["summary"]["1"]["worst"] += 0.01
    path.write_text(json.dumps(results))
    find = functools.partial(stored.folder_of, results=tmp_path)
    monkeypatch.setattr(stored, "folder_of", find)
    assert result_tables.section("table5") != before


def test_sections_are_made_anew_all_or_none(tmp_path):
    path = tmp_path / "x.md"
    markers = "<!-- {0}: begin -->\nold\n<!-- {0}: end -->\n"
    path.write_text("a\n" + markers.format("one") + "b\n" + markers.format("two"))
    assert markdown.renew(str(path), str.upper) == ["one", "two"]
    text = path.read_text()
    assert text.startswith("a\n<!-- one: begin -->\n\nONE\n\n<!-- one: end -->\nb\n")
    with pytest.raises(
        ValueError, match="^document: a section 'one' given, quickstart,"
    ):
        markdown.renew(str(path), document_sections.section)
    path.write_text(f"{text}<!-- three: begin -->\n")
    with pytest.raises(
        ValueError, match="^document: a file with <!-- three: begin -->"
    ):
        markdown.renew(str(path), str.lower)
    assert "ONE" in path.read_text()


def line(cells):
    """A row as it stands in a document."""
    return markdown.table([""] * len(cells), [cells]).splitlines()[-1]


def test_report_row():
    summary = {"1": {"mean": 0.98765, "worst": 0.9}}
    no_parity = {"1": {"mean": 1, "worst": 0}}
    results = {
        "config": {
            "encoder": "mlp",
            "encoder_width": None,
            "decoder": "conv",
            "decoder_width": 8,
            "decoder_channels": "joint",
            "recipe": "paper",
            "base_epochs": 15.0,
            "epochs": 0.5,
        },
        "dataset": "mnist",
        "split": {"k": 4, "r": 1},
        "base": {"test_accuracy": 0.99},
        "summary": summary,
        "baselines": {
            "zero_fill": summary,
            "no_parity": no_parity,
        },
        "seed": 7,
        "timing": {"seconds": {"total": 61.4}},
    }
    assert line(result_tables.table_5_row("x", results)) == (
        "| 4, 1, 1 | mlp / conv 8 joint | paper | 99.00 | **98.76** | 90.00 "
        "| 98.76 (90.00) | 100.00 (0.00) | 96.85 | **missed** (no parity, mean) | - "
        "| 15 + 0.5 | 7 | 61 s | `x` |"
    ).replace("98.76", f"{98.765:.2f}")
    results["config"]["code"] = "mds"
    assert line(result_tables.table_5_row("x", results)).startswith(
        "| 4, 1, 1 | mds | paper | 99.00 |"
    )


def test_report_of_a_chain():
    summary = {
        "0": {"mean": 0.926, "worst": 0.926},
        "1": {"mean": 0.92, "worst": 0.91},
        "2": {"mean": 0.9, "worst": 0.8},
    }
    results = {
        "config": {
            "base_model": "vgg16",
            "base_width": 0.125,
            "base_epochs": 16.0,
            "epochs": 3.0,
        },
        "dataset": "fashion_mnist",
        "split": {
            "k": 4,
            "r": 2,
            "grid": [2, 2],
            "work_fraction": 0.4321,
            "coded_fraction": 0.401,
            "stages": [{"blocks": [1, 2]}, {"blocks": [3, 3]}],
        },
        "costs": {
            "code": Cost((Round(2.0, 0, 0, 1.0, 1.5),), 0.5, Round(4.0), 6).to_json()
        },
        "base": {"test_accuracy": 0.926},
        "summary": summary,
        "baselines": {"zero_fill": summary, "no_parity": summary},
    }
    one, two = map(line, result_tables.zoo_rows("x", results))
    assert one == (
        "| vgg16 x 0.125 | 4, 2 | 1 | 92.60 | **92.00** | 91.00 | 0.60 "
        "| 0.5 **missed** | 1.25 | 92.00 (91.00) | 92.00 (91.00) "
        "| 1-2, 3 (88 % of all work) | 2x2 | 0.571 | 92.60 | - | `x` |"
    )
    assert "| 4, 2 | 2 | 92.60 | **90.00** | 80.00 | 2.60 | 1.5 **missed** |" in two
    results["split"]["coded_fraction"] = 0.8  # then twice as much is accepted
    one, two = map(line, result_tables.zoo_rows("x", results))
    assert "| 0.60 | 1 met |" in one and "| 2.60 | 3 met |" in two
    results["config"]["base_model"] = "lenet5"
    assert [row[-2] for row in result_tables.zoo_rows("x", results)] == [
        "80.91",
        "74.37",
    ]


def test_report_of_groups():
    exact = {"mean": 0.9, "worst": 0.9}
    losses = {"0": exact, "1": {"mean": 0.89, "worst": 0.88, "decoded": 0.85}}
    results = {
        "config": {
            "split": "group",
            "code": "berrut",
            "base_model": "vgg16",
            "base_width": 0.125,
        },
        "dataset": "fashion_mnist",
        "split": {"k": 8, "r": 1},
        "base": {"test_accuracy": 0.9},
        "summary": losses,
        "baselines": {"uncoded": {"0": exact, "1": {"mean": 0.7, "worst": 0.0}}},
    }
    assert [line(row) for row in result_tables.group_rows(results)] == [
        "| fashion_mnist, vgg16 x 0.125 | 8, 1 | berrut | 90.00 | 90.00 | 1 "
        "| **85.00** | - | 89.00 | 88.00 |",
        "| fashion_mnist, vgg16 x 0.125 | 8, 1 | uncoded | 90.00 | 90.00 | 1 "
        "| - | - | 70.00 | 0.00 |",
    ]
    results |= {"dataset": "mnist"}
    results["config"] |= {"code": "parity_model"}
    row = line(result_tables.group_rows(results)[0])
    assert "| **85.00** | 0.01 **missed** |" in row
    losses["1"]["decoded"] = 0.8999
    assert "| 0.01 met |" in line(result_tables.group_rows(results)[0])


def test_row_of_every_convolution():
    trip = {"device_flops": 20.0, "bytes_in": 1500.0, "bytes_out": 500.0}
    trip |= {"encode_flops": 1.0, "decode_flops": 2.0}
    cost = {"whole": 100.0, "uncoded": 5.0, "devices": 6, "whole_bytes": [1, 2]}
    lost = {"mean": 0.9, "worst": 0.89}
    results = {
        "config": {"base_model": "vgg16", "base_width": 0.125, "split": "convolution"},
        "split": {"k": 4, "r": 2},
        "base": {"test_accuracy": 0.9},
        "costs": {"code": cost | {"rounds": [trip, trip]}},
        "summary": {"0": lost, "1": lost, "2": lost},
        "baselines": {"replication": {"2": {"mean": 0.5, "worst": 0.1}}},
        "patterns": [{"agreement": 1.0}, {"agreement": 0.9998}],
    }
    assert result_tables.kind(results) == "layers"
    assert line(result_tables.layer_row("x", results)) == (
        "| vgg16 x 0.125 | 4, 2 | 2 | 0.400 | 0.020 + 0.040 + 0.050 | 3.0 + 1.0 "
        "| 90.00 | **90.00** (89.00) | 0.02 % | 50.00 (10.00) | `x` |"
    )


@pytest.mark.parametrize(
    "measure, of_whole, of_lost",
    [
        ("iou", "75.00 (75.00)", "60.00 (50.00)"),
        ("psnr", "0.8 dB (0.8)", "0.6 dB (0.5)"),
    ],
)
def test_rows_of_answers_that_are_images(monkeypatch, measure, of_whole, of_lost):
    monkeypatch.setattr(run_tables, "works", lambda _: {"learned": 0.5, "mds": 2.0})
    kept = {"mean": 0.9, "worst": 0.9}
    kept |= {f"mean_{measure}": 0.75, f"worst_{measure}": 0.75}
    lost = {"mean": 0.8, "worst": 0.7}
    lost |= {f"mean_{measure}": 0.6, f"worst_{measure}": 0.5}
    losses = {"0": kept, "1": lost, "2": lost}  # the last one is beyond the code
    results = {
        "config": {"base_model": "unet", "base_width": 1, "code": "learned"},
        "dataset": "mnist_canvas",
        "image_shape": [64, 64, 1],
        "positions": [64, 64],
        "split": {"k": 2, "r": 1},
        "base": {"test_accuracy": 0.9},
        "summary": losses,
        "baselines": {"mds": losses},
    }
    assert result_tables.kind(results) == "images"
    begin = "| mnist_canvas of 64x64, unet x 1 | 2, 1 |"
    assert [line(row) for row in result_tables.image_rows(results)] == [
        f"{begin} any | whole image | 90.00 | 90.00 | {of_whole} | 1.00 |",
        f"{begin} 1 | learned | 80.00 | 70.00 | {of_lost} | 0.50 |",
        f"{begin} 1 | mds | 80.00 | 70.00 | {of_lost} | 2.00 |",
    ]


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    """A report of the small run: its folder."""
    folder = tmp_path_factory.mktemp("reports") / "small"
    run_report.report(finished, folder, None)
    return folder


def test_report_of_a_run_has_every_figure(run):
    names = "losses accuracy training confidence costs features confusion".split()
    files = {"report.md", "report.html", *(f"{name}.png" for name in names)}
    assert {path.name for path in run.iterdir()} == files
    text, page = (run / "report.md").read_text(), (run / "report.html").read_text()
    assert re.findall(r"\]\((\w+)\.png\)", text) == names and "*Left out" not in text
    assert page.count('src="data:image/png;base64,') == len(names)
    assert not re.search(r"(src|href)=\"(?!data:)|https?:|@import|<script", page)
    assert page.count("<table>") == len(re.findall(r"^[|-]+$", text, re.M)) == 6


def test_report_of_a_run_has_its_numbers(run, finished):
    results = workdir.read_results(finished)
    text, page = (run / "report.md").read_text(), (run / "report.html").read_text()
    percent = lambda value: f"{100 * value:.2f}"
    base = percent(results["base"]["test_accuracy"])
    methods = {"learned": results["summary"], **results["baselines"]}
    for name, summary in methods.items():
        cells = [percent(row[x]) for row in summary.values() for x in ("mean", "worst")]
        assert f"| {name} | {base} | {' | '.join(cells)} |" in text
        assert "".join(f"<td>{cell}</td>\n" for cell in (name, base, *cells)) in page
    for pattern in results["patterns"]:
        both = [percent(pattern[x]) for x in ("accuracy", "agreement")]
        assert f" | {' | '.join(both)} | " in text
    assert "`small`" in text and "| seed | 3; 1 of the code |" in text
    worst = min(results["patterns"], key=lambda pattern: pattern["accuracy"])["lost"]
    assert f"## With the worst pattern: data {worst[0]} lost" in text


def test_report_of_a_copy_says_what_it_leaves_out(finished, tmp_path):
    copy = tmp_path / "copy.json"
    copy.write_text((finished / "results.json").read_text())
    run_report.report(copy, tmp_path / "out", None)
    text = (tmp_path / "out" / "report.md").read_text()
    left_out = [line for line in text.splitlines() if line.startswith("*Left out")]
    assert left_out == [
        "*Left out (pictures that the model makes): copy.json given, a workdir "
        "accepted*"
    ]
    assert "## Training" not in text and "| data 0 |" in text


def test_a_figure_that_cannot_be_had_is_a_line(tmp_path):
    def fail():
        raise ImportError("plots need: pip install")

    page = pages.Page(tmp_path / "new", "a < b")
    page.add("", "| x |\n|---|\n| 1 |")
    page.draw("x", "curves", fail)
    markdown, html = page.write()
    assert markdown.read_text() == (
        "# a < b\n\n| x |\n|---|\n| 1 |\n\n"
        "*Left out (curves): plots need: pip install*\n"
    )
    assert "<title>a &lt; b</title>" in html.read_text()
    assert "<td>1</td>" in html.read_text()
    with pytest.raises(ValueError, match="^output: '/proc/x' given"):
        pages.Page(pathlib.Path("/proc/x"), "")


VERSIONS = {"jax": "1", "flax": "2", "python": "3"}
SWEEP = {
    "command": "python experiments/sweep.py --flagfile=x.flags",
    "versions": VERSIONS,
    "machine": {"cores": 2, "device": "cpu"},
    "vary": {"epochs": ["1", "2"]},
    "variants": ["--recipe=paper --tried=2", "--recipe=systematic --tried=2"],
    "cells": ["a", "b", "c", "d"],
    "failed": {"c": "loss: not finite"},
    "seconds": 61.7,
    "provenance": {"version": "3", "commit": 40 * "a", "date": "2026-01-02T03:04:05"},
}


def rows_of(cell, accuracy, trials=2, priced=False, **flags):
    flags = {"code": "learned", "r": "1", "seed": "5", **flags}
    rows = []
    for method, minus in (("learned", 0), ("zero_fill", 0.4)):
        for trial in range(trials):
            for lost in range(3):  # one more than r was tried
                mean = accuracy - 0.1 * lost - (minus + 0.02 * trial) * (lost > 0)
                measures = {"mean": mean, "worst": mean - 0.1 * (lost > 0)}
                measures |= {"base_accuracy": 0.95, "work": 0.5, "train_seconds": 7.4}
                measures |= {"price": 0.049} if priced else {}
                key = {"cell": cell, "method": method, "trial": trial, "lost": lost}
                rows.append({**key, **measures, "error": None, **flags})
    return rows


@pytest.fixture
def sweep(tmp_path):
    folder = tmp_path / "sweep"
    folder.mkdir()
    (folder / "sweep.json").write_text(json.dumps(SWEEP))
    rows = rows_of("a", 0.9, epochs="1", recipe="paper")
    rows += rows_of("b", 0.8, trials=1, epochs="2", recipe="systematic")
    rows += [{"cell": "c", "error": "loss: not finite", "epochs": "2"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "table.jsonl").write_text(lines)
    return folder


def test_table_of_a_sweep(sweep):
    headings, rows = sweep_tables.columns(sweep_tables.read(sweep))
    assert headings == [
        "`epochs`",
        "`recipe`",
        "base",
        "0 lost",
        "1 lost, mean (worst)",
        "2 lost, mean (worst)",
        "zero_fill, most lost",
        "work",
        "seconds",
    ]
    # Of two trials, 0.80 and 0.78: a deviation of 0.02 / sqrt(2).
    assert rows[0][:5] == [
        "1",
        "paper",
        "95.00",
        "90.00",
        "79.00 ± 1.41 (69.00 ± 1.41)",
    ]
    assert rows[0][6:] == ["39.00 ± 1.41 (29.00 ± 1.41)", "0.50", "7"]
    assert rows[1][1:7] == [
        *("systematic", "95.00", "80.00", "70.00 (60.00)", "60.00 (50.00)"),
        "30.00 (20.00)",
    ]


@pytest.mark.parametrize("of_b", [True, False])
def test_a_sweep_shows_the_price_where_every_cell_has_one(sweep, of_b):
    rows = rows_of("a", 0.9, priced=True) + rows_of("b", 0.9, priced=of_b)
    text = "".join(json.dumps({**row, "epochs": "1"}) + "\n" for row in rows)
    (sweep / "table.jsonl").write_text(text)
    headings, rows = sweep_tables.columns(sweep_tables.read(sweep))
    assert ("code's work, %" in headings) == of_b
    assert rows[0][-2] == ("4.90" if of_b else "0.50")


def test_codes_of_the_cells_are_no_rivals(sweep):
    learned = [row for row in rows_of("a", 0.9) if row["method"] == "learned"]
    zeros = [
        row
        for row in rows_of("b", 0.8, code="zero_fill")
        if row["method"] == "zero_fill"
    ]
    lines = "".join(json.dumps(row) + "\n" for row in [*learned, *zeros])
    (sweep / "table.jsonl").write_text(lines)
    headings, rows = sweep_tables.columns(sweep_tables.read(sweep))
    assert not any("most lost" in heading for heading in headings)
    assert len(rows) == 2


def test_report_of_a_sweep(sweep, tmp_path):
    output = tmp_path / "out"
    shown = sweep_report.report(sweep, output)
    text, page = (
        (output / "report.md").read_text(),
        (output / "report.html").read_text(),
    )
    assert "| [b](<../sweep/cells/b>) |" in text and 'href="../sweep/cells/b"' in page
    assert "- `c` failed: loss: not finite\n- `d` has not run" in text
    assert "Seed 5, 2 trials each, in 62 s of training and evaluation: `python" in text
    assert "version 3 (commit aaaaaaa), 2026-01-02: jax 1, flax 2, Python 3 on" in text
    assert page.count('src="data:image/png;base64,') == 1
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(shown)
    assert "79.00 ± 1.41 (69.00 ± 1.41)" in console.export_text()
    (axes,) = sweep_report.figure(sweep_tables.read(sweep)).axes
    drawn = {container.get_label(): container.lines[0] for container in axes.containers}
    drawn |= {curve.get_label(): curve for curve in axes.lines}
    means, worst, base = (drawn[x].get_ydata() for x in ("mean", "worst", "base"))
    assert means == pytest.approx([79, 70]) and worst == pytest.approx([69, 60])
    assert base == pytest.approx([95, 95])


def test_a_sweep_without_a_finished_cell(sweep, tmp_path):
    failed = {"c": "loss: not finite"}
    content = {**SWEEP, "cells": ["c"], "failed": failed, "machine": {"cores": 2}}
    (sweep / "sweep.json").write_text(json.dumps(content))
    sweep_report.report(sweep, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "No cell has finished: `python" in text and "- `c` failed: loss" in text


def test_cells_of_the_same_values_have_their_names(sweep):
    content = {**SWEEP, "vary": {}, "variants": ["--flagfile=x", "--flagfile=y"]}
    (sweep / "sweep.json").write_text(json.dumps(content))
    record = sweep_tables.read(sweep)
    headings, rows = sweep_tables.columns(record)
    assert headings[:2] == ["cell", "base"] and [row[0] for row in rows] == ["a", "b"]
    assert [sweep_tables.label(cell, record) for cell in record.cells] == ["a", "b"]


def test_cells_of_many_flags_are_named_by_what_the_first_has_not(sweep):
    flags = {"tail": "frozen", "focus": "0.0", "halo": "0", "draws": "counts"}
    flags |= {"epochs": "1", "recipe": "paper", "decoder_width": "64"}
    variants = ["", "--epochs=2 --recipe=systematic --decoder_width="]
    variants += ["--tail=frozen --focus=0 --halo=0 --draws=counts"]
    content = {**SWEEP, "vary": {}, "variants": variants, "cells": ["a", "b"]}
    (sweep / "sweep.json").write_text(json.dumps({**content, "failed": {}}))
    others = {**flags, "epochs": "2", "recipe": "systematic", "decoder_width": None}
    rows = [*rows_of("a", 0.8, **flags), *rows_of("b", 0.9, **others)]
    (sweep / "table.jsonl").write_text("\n".join(map(json.dumps, rows)))
    record = sweep_tables.read(sweep)
    headings, rows = sweep_tables.columns(record)
    assert headings[:2] == ["cell", "base"]
    named = ["the first cell", "epochs=2, recipe=systematic, decoder_width="]
    assert [row[0] for row in rows] == named
    assert "The first cell has `epochs=1`, `recipe=p" in sweep_report.section(record)
    (axes,) = sweep_report.figure(record).axes
    assert [text.get_text() for text in axes.get_xticklabels()] == named


def test_an_ablation_is_shown_as_its_sweep(sweep, monkeypatch):
    monkeypatch.setattr(stored, "RESULTS", sweep.parent)
    ablations = sweep.parent / "ablations"
    ablations.mkdir()
    sweep.rename(ablations / "kernel")
    made = document_sections.section("ablation_kernel")
    assert made.startswith("| `epochs` | `recipe` | base |") and "folder" not in made
    with pytest.raises(
        ValueError, match="'ablation_x' given, .*latency, .*ablation_kern"
    ):
        document_sections.section("ablation_x")
    # Beside a new one an older one stays what it was, until it has a new one itself.
    older = sweep.parent / "history/ablations"
    shutil.copytree(ablations / "kernel", older / "width")
    shutil.copytree(ablations / "kernel", older / "kernel")
    assert document_sections.section("ablation_width").startswith("> **History**")
    assert document_sections.section("ablation_kernel") == made


def script(*arguments):
    command = [
        sys.executable,
        str(ROOT / "experiments/report.py"),
        *map(str, arguments),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def test_script_prints_the_table_of_a_sweep(sweep):
    done = script(sweep)
    assert done.returncode == 0, done.stderr
    assert "79.00" in done.stdout and "c` failed" in done.stdout
    assert (sweep / "report.html").exists() and (sweep / "cells.png").exists()


def test_a_run_that_is_not_finished_is_told_with_how_to_go_on(tmp_path):
    (tmp_path / "flags.txt").write_text("--k=2\n")
    message = f"is not finished .run.py --flagfile={tmp_path}/flags.txt goes on"
    with pytest.raises(ValueError, match=message):
        finished_runs.read_results(tmp_path)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "error: runs: none given, workdirs of runs or sweeps accepted"),
        (
            ["nowhere"],
            "error: runs: 'nowhere' given, which does not exist; workdirs of finished",
        ),
        (
            [stored.folder_of("groups") / "parm_lenet5.json"],
            "error: output: not given, a folder for the",
        ),
    ],
)
def test_script_says_in_one_line_what_is_wrong(arguments, message):
    done = script(*arguments)
    assert done.returncode == 1 and done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: markdown.renew("nowhere", str),
            "^document: 'nowhere' given, a Markdown",
        ),
        (
            lambda: markdown.renew(__file__, str),
            "^document: .* with <!-- NAME: begin -->",
        ),
        (lambda: sweep_tables.read(ROOT), "^sweep: .* given, a folder with sweep.json"),
    ],
)
def test_errors_are_one_line(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
