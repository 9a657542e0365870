"""The order of the packages: imports go downwards only, and in no circle."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def test_imports_keep_the_contracts_of_the_project():
    """Those of import-linter in `pyproject.toml`, behind TYPE_CHECKING too."""
    command = "import importlinter.cli, sys; sys.exit(importlinter.cli.lint_imports())"
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_tests_mirror_the_packages():
    """A folder of tests for every package, and none of another name."""
    packages = {path.parent.name for path in (ROOT / "coded_jax").glob("*/__init__.py")}
    others = {"docs", "experiments", "mutants", "structure"}
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/__init__.py")}
    assert folders - others <= packages
    assert packages - folders <= {"cli"}
