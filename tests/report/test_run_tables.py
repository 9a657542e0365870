"""The tables of a run for a terminal."""

import json

from rich.console import Console

from coded_jax.report import run_tables


def test_a_pattern_without_an_answer_has_no_error(finished, capsys):
    results = json.loads((finished / "results.json").read_text())
    results["patterns"][1]["feature_mse"] = None
    Console(width=80).print(run_tables.tables(results))
    (row,) = (s for s in capsys.readouterr().out.splitlines() if " data 0 " in s)
    assert row.split()[-1] == "-"
