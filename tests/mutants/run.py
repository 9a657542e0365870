"""Runs the relevant tests against every mutant of `mutants.toml`; all must fail.

python tests/mutants/run.py "order statistic"   those whose names contain a text
python tests/mutants/run.py --tree ../old       those of another checkout, by its tests
python tests/mutants/run.py --table killed.csv  writes who killed each; or a .md
"""

import argparse
import csv
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor

HERE = pathlib.Path(__file__).resolve().parent
LEFT_OUT = (".git", ".venv", ".nox", "shared", "site", "__pycache__", ".*_cache")
SECONDS = 300  # for the tests of one mutant
SURVIVED = "SURVIVED"
HEADER = ("mutant", "file", "killed by", "seconds")


def copy_tree(tree: pathlib.Path, target: pathlib.Path, kept: pathlib.Path) -> None:
    """Copies a checkout; its tests keep what they compile in one folder for all."""
    shutil.copytree(tree, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
    conftest = target / "tests" / "conftest.py"
    text = conftest.read_text()
    conftest.write_text(text.replace('str(shared / "jit")', repr(str(kept))))


def run_tests(folder: pathlib.Path, tests: list[str], seconds: float | None) -> str:
    """Returns the first test that fails, `timeout`, or `SURVIVED` if all pass."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0"]
    command += ["-p", "no:cacheprovider", *(f"tests/{name}" for name in tests)]
    # Without bytecode: a mutant may have the size and the second of what it replaces.
    own = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryFile("w+") as output:
        options = {"cwd": folder, "env": os.environ | own, "start_new_session": True}
        process = subprocess.Popen(command, stdout=output, stderr=output, **options)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return "timeout"
        output.seek(0)
        text = output.read()
    if code in (0, 4, 5):
        return SURVIVED if code == 0 else f"{SURVIVED}: no tests"
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", text, re.MULTILINE)
    return failed[1] if failed else f"exit code {code}"


def run_mutant(folder: pathlib.Path, mutant: dict) -> str:
    """Returns who kills a mutant, as `run_tests` does; puts the file right again."""
    path = folder / "coded_jax" / mutant["file"]
    text = path.read_text()
    if (count := text.count(mutant["old"])) != 1:
        return f"{SURVIVED}: {count} times there"
    path.write_text(text.replace(mutant["old"], mutant["new"]))
    try:
        return run_tests(folder, mutant["tests"], SECONDS)
    finally:
        path.write_text(text)


def in_parallel(folders: list[pathlib.Path], jobs: list[dict], work) -> list[tuple]:
    """Returns `work(folder, job)` of each job, and its seconds."""
    free = queue.SimpleQueue()
    for folder in folders:
        free.put(folder)

    def timed(job: dict) -> tuple[str, float]:
        folder, begun = free.get(), time.monotonic()
        found = work(folder, job), round(time.monotonic() - begun, 1)
        free.put(folder)
        print(job["name"], *found, sep=" | ", flush=True)
        return found

    with ThreadPoolExecutor(len(folders)) as pool:
        return list(pool.map(timed, jobs))


def write_table(path: pathlib.Path, rows: list[tuple]) -> None:
    """Writes who killed each mutant, as Markdown or as CSV by the file's name."""
    with path.open("w", newline="") as file:
        if path.suffix == ".md":
            for row in (HEADER, ("---",) * len(HEADER), *rows):
                file.write("| " + " | ".join(map(str, row)) + " |\n")
        else:
            csv.writer(file).writerows([HEADER, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of names; all if none")
    parser.add_argument("--tree", type=pathlib.Path, default=HERE.parents[1])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--table", type=pathlib.Path)
    flags = parser.parse_args()
    mutants = tomllib.loads((HERE / "mutants.toml").read_text())["mutant"]
    mutants = [m for m in mutants if any(x in m["name"] for x in flags.names or [""])]
    files = sorted({name for mutant in mutants for name in mutant["tests"]})
    with tempfile.TemporaryDirectory() as base:
        folders = [pathlib.Path(base) / f"tree{i}" for i in range(flags.workers)]
        for folder in folders:
            copy_tree(flags.tree, folder, pathlib.Path(base) / "jit")
        parts = filter(None, (files[i :: flags.workers] for i in range(flags.workers)))
        intact = [{"name": "no mutant", "tests": part} for part in parts]
        work = lambda folder, job: run_tests(folder, job["tests"], None)
        if any(x != SURVIVED for x, _ in in_parallel(folders, intact, work)):
            sys.exit("tests fail without a mutant")
        found = in_parallel(folders, mutants, run_mutant)
    rows = [(m["name"], m["file"], *x) for m, x in zip(mutants, found, strict=True)]
    if flags.table:
        write_table(flags.table, rows)
    alive = [row[0] for row in rows if row[2].startswith(SURVIVED)]
    print(f"{len(rows) - len(alive)} of {len(rows)} mutants killed", *alive, sep="\n")
    sys.exit(bool(alive or not rows))


if __name__ == "__main__":
    main()
