"""The mutants fit the code: `run.py` beside this file runs them."""

import pathlib
import tomllib

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
MUTANTS = tomllib.loads((HERE / "mutants.toml").read_text())["mutant"]
CORE = set(
    "codes cpu_kernels data devices evaluation inference latency models "
    "report runs service splitting staging training".split()
)


def test_every_mutant_changes_one_place_of_a_file_and_compiles():
    for mutant in MUTANTS:
        text = (ROOT / "coded_jax" / mutant["file"]).read_text()
        assert text.count(mutant["old"]) == 1, mutant["name"]
        assert mutant["new"] != mutant["old"], mutant["name"]
        compile(text.replace(mutant["old"], mutant["new"]), mutant["file"], "exec")


def test_every_mutant_has_tests_and_a_name_of_its_own():
    for mutant in MUTANTS:
        assert mutant["tests"], mutant["name"]
        for name in mutant["tests"]:
            file, _, test = name.partition("::")
            path = ROOT / "tests" / file
            assert path.is_file(), name
            assert f"def {test.partition('[')[0]}" in path.read_text(), name
    assert len({mutant["name"] for mutant in MUTANTS}) == len(MUTANTS)


def test_every_core_package_has_a_mutant():
    assert {mutant["file"].split("/")[0] for mutant in MUTANTS} >= CORE
