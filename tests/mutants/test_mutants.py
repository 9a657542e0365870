"""Mutants stand where they say, and are wrong in one place; `run.py` runs them."""

import ast

from tests.mutants import run


def test_each_mutant_changes_one_place_and_names_tests():
    mutants = run.read()
    assert len({mutant["name"] for mutant in mutants}) == len(mutants) >= 60
    for mutant in mutants:
        ast.parse(run.mutated(mutant))
        assert mutant["tests"], mutant["name"]
        for test in mutant["tests"]:
            assert (run.ROOT / test.partition("::")[0]).exists(), test


def test_core_packages_have_mutants():
    files = {mutant["file"].split("/")[1] for mutant in run.read()}
    core = "splitting codes inference training evaluation latency serving runs data"
    assert {*core.split(), "staging", "devices", "byzantine", "report"} <= files
