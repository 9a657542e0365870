r"""Runs the tests against wrong versions of core lines, which they must notice.

    python tests/mutants/run.py                       # all of mutants.toml
    python tests/mutants/run.py --only="a halo"       # those whose names have this
    python tests/mutants/run.py --tests=../other      # by the tests of another tree

Each mutant replaces one text of one file in a copy of the tree; then its tests run
until the first failure. It ends with 1 where a mutant survives, or where the tests
fail without one. A test that does not end counts as a failure.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("coded_jax", "experiments", "pyproject.toml")
LIMIT = 400  # seconds of the tests of one mutant
SURVIVED = "SURVIVED"


def read() -> list[dict]:
    """Returns the mutants, each with `name`, `file`, `old`, `new` and `tests`."""
    path = Path(__file__).with_name("mutants.toml")
    return tomllib.loads(path.read_text())["mutant"]


def mutated(mutant: dict, root: Path = ROOT) -> str:
    """Returns the mutant's file with `new` in the place of `old`.

    Raises:
      ValueError: `old` does not stand there once.
    """
    text = (root / mutant["file"]).read_text()
    if (count := text.count(mutant["old"])) != 1:
        raise ValueError(f"old: {mutant['old']!r} stands {count} times, once accepted")
    return text.replace(mutant["old"], mutant["new"])


def first_failure(tree: Path, tests: list[str]) -> str:
    """Returns the first test that fails in a tree; an empty text if none does."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "--tb=no"]
    command += ["-p", "no:cacheprovider", f"--basetemp={tree / 'temporary'}", *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": ""}
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired:
        return "a test that does not end"
    if done.returncode == 0:
        return ""
    failures = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.M)
    return failures[0] if failures else done.stdout[-300:] + done.stderr[-300:]


def make_tree(folder: Path, tests: Path) -> Path:
    """Copies all that tests need into a folder: the package, scripts and the tests."""
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    shutil.copytree(tests / "tests", folder / "tests")
    for name in ("README.md", "docs", "colab"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="part of the names")
    parser.add_argument("--tests", type=Path, default=ROOT, help="tree of the tests")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at once")
    options = parser.parse_args()
    mutants = [x for x in read() if options.only in x["name"]]
    with tempfile.TemporaryDirectory() as folder:
        trees = [Path(folder) / str(i) for i in range(options.jobs)]
        for tree in trees:
            tree.mkdir()
            make_tree(tree, options.tests.resolve())
        free = [*trees]

        def run(mutant: dict) -> str:
            tree, begun = free.pop(), time.monotonic()
            file = tree / mutant["file"]
            right = file.read_text()
            file.write_text(mutated(mutant))
            killer = first_failure(tree, mutant["tests"]) or SURVIVED
            file.write_text(right)
            free.append(tree)
            seconds = time.monotonic() - begun
            row = (mutant["name"], f"`{mutant['file']}`", killer, f"{seconds:.0f}")
            print(f"| {' | '.join(row)} |", flush=True)
            return killer

        files = sorted({test for mutant in mutants for test in mutant["tests"]})
        if failure := first_failure(trees[0], files):
            sys.exit(f"without any mutant: {failure}")
        print("| mutant | file | first test to fail | seconds |\n|---|---|---|---|")
        with ThreadPoolExecutor(options.jobs) as pool:
            survivors = [*pool.map(run, mutants)].count(SURVIVED)
    print(f"\n{len(mutants) - survivors} of {len(mutants)} mutants are noticed")
    sys.exit(survivors > 0)


if __name__ == "__main__":
    main()
