"""Every section of the README that shows results, made from what is committed."""

from __future__ import annotations

import functools
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import benchmark_tables
from rich.console import Console

from coded_jax.report import display
from coded_jax.runs.sweep_table import SWEEP
from tables import frontier_tables, latency_tables, result_tables, sweep_tables
from tables.finished_runs import read_results

HERE = Path(__file__).parents[1]
RESULTS = HERE / "results"
ABLATION = "ablation_"
PLAN = (
    "--base_model=vgg16 --stages=1-2,3-4 --k=4 --r=2 --grid=2x2 \\\n"
    "    --image_shape=32x32x3"
)


def of_runs(section: str) -> str:
    return result_tables.markdown(section, sorted(RESULTS.glob("*.json")))


def of_frontier(folder: str) -> str:
    return frontier_tables.markdown(sorted(map(str, (RESULTS / folder).glob("*.json"))))


def of_benchmark() -> str:
    return benchmark_tables.markdown(content(RESULTS / "benchmark.json"))


def of_latency() -> str:
    return latency_tables.markdown(content(RESULTS / "latency" / "one_straggler.json"))


def of_quickstart() -> str:
    """What the quick start's run prints."""
    console = Console(file=io.StringIO(), width=80)
    console.print(display.report(read_results(RESULTS / "quickstart")), highlight=False)
    return text_block(console.file.getvalue())  # type: ignore


def of_plan() -> str:
    """A command of `plan.py`, and what it prints."""
    arguments = PLAN.replace("\\\n", "").split()
    with tempfile.TemporaryDirectory() as folder:  # of its picture
        done = subprocess.run(
            [sys.executable, HERE / "plan.py", *arguments],
            cwd=folder,
            env={**os.environ, "COLUMNS": "80"},
            check=True,
            capture_output=True,
            text=True,
        )
    command = f"```bash\npython experiments/plan.py {PLAN}\n```"
    return f"{command}\n\n{text_block(done.stdout)}"


def text_block(printed: str) -> str:
    """Without blanks at the ends of lines, nor empty lines at either end."""
    lines = [line.rstrip() for line in printed.splitlines()]
    text = "\n".join(lines).strip("\n")
    return f"```text\n{text}\n```"


def content(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


SECTIONS: dict[str, Callable[[], str]] = {
    "quickstart": of_quickstart,
    "results": functools.partial(of_runs, "results"),
    "zoo": functools.partial(of_runs, "zoo"),
    "groups": functools.partial(of_runs, "groups"),
    "frontier": functools.partial(of_frontier, "frontier"),
    "cheap": functools.partial(of_frontier, "cheap"),
    "benchmark": of_benchmark,
    "plan": of_plan,
    "latency": of_latency,
}


def section(name: str) -> str:
    """The Markdown of a section.

    Args:
      name: one of `SECTIONS`, or `ablation_` and the name of a folder in
        `experiments/results/ablations`, which has a sweep's table.

    Raises:
      ValueError: there is no such section.
    """
    if name in SECTIONS:
        return SECTIONS[name]()
    folders = [path.parent for path in RESULTS.glob(f"ablations/*/{SWEEP}")]
    ablations = {f"{ABLATION}{folder.name}": folder for folder in sorted(folders)}
    if name not in ablations:
        known = ", ".join([*SECTIONS, *ablations])
        raise ValueError(f"readme: a section {name!r} given, {known} accepted")
    return sweep_tables.markdown(sweep_tables.read(ablations[name]))
