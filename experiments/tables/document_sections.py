"""The sections of documents that show results, made from committed files."""

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

from benchmarks import tables as benchmark_tables
from rich.console import Console

from coded_jax import settings
from coded_jax.codes import CodeConfig
from coded_jax.report import run_tables
from coded_jax.runs.config import BaseConfig, EvaluationConfig
from coded_jax.runs.sweep_table import SWEEP
from coded_jax.training.config import TrainConfig
from tables import (
    frontier_tables,
    latency_tables,
    modules,
    result_tables,
    sweep_tables,
)
from tables.finished_runs import read_results

EXPERIMENTS = Path(__file__).parents[1]
RESULTS = EXPERIMENTS / "results"
ABLATION = "ablation_"
PLAN = (
    "--base_model=vgg16 --stages=1-2,3-4 --k=4 --r=2 --grid=2x2 \\\n"
    "    --image_shape=32x32x3"
)


def runs_section(kind: str) -> str:
    """Returns the runs of one kind; see `result_tables.section`."""
    return result_tables.section(kind, sorted(RESULTS.glob("*.json")))


def frontier_section(folder: str) -> str:
    """Returns the codes of the runs in a folder of results."""
    return frontier_tables.section(sorted(map(str, (RESULTS / folder).glob("*.json"))))


def benchmark_section(make: Callable[[list[dict[str, Any]]], str]) -> str:
    """Returns speed beside PyTorch's, of all machines that were measured."""
    return make(list(map(content, sorted((RESULTS / "speed").glob("*.json")))))


def latency_section() -> str:
    """Returns the study with one straggler."""
    return latency_tables.section(content(RESULTS / "latency" / "one_straggler.json"))


def quickstart_section() -> str:
    """Returns the output of the quick start's run."""
    console = Console(file=io.StringIO(), width=80)
    console.print(
        run_tables.tables(read_results(RESULTS / "quickstart")), highlight=False
    )
    return text_block(console.file.getvalue())  # type: ignore


def plan_section() -> str:
    """Returns a command of `plan.py` and its output."""
    arguments = PLAN.replace("\\\n", "").split()
    with tempfile.TemporaryDirectory() as folder:  # of its picture
        done = subprocess.run(
            [sys.executable, EXPERIMENTS / "plan.py", *arguments],
            cwd=folder,
            env={**os.environ, "COLUMNS": "80"},
            check=True,
            capture_output=True,
            text=True,
        )
    command = f"```bash\npython experiments/plan.py {PLAN}\n```"
    return f"{command}\n\n{text_block(done.stdout)}"


def text_block(printed: str) -> str:
    """Returns a fenced block, without blanks at the ends of lines or of the text."""
    lines = [line.rstrip() for line in printed.splitlines()]
    text = "\n".join(lines).strip("\n")
    return f"```text\n{text}\n```"


def content(path: Path) -> dict[str, Any]:
    """Returns the content of a JSON file."""
    return json.loads(path.read_text())


def settings_section(record: type) -> str:
    """Returns the settings that a record declares."""
    return settings.markdown(record).rstrip("\n")


SECTIONS: dict[str, Callable[[], str]] = {
    "quickstart": quickstart_section,
    "results": functools.partial(runs_section, "results"),
    "zoo": functools.partial(runs_section, "zoo"),
    "groups": functools.partial(runs_section, "groups"),
    "frontier": functools.partial(frontier_section, "frontier"),
    "cheap": functools.partial(frontier_section, "cheap"),
    "benchmark": functools.partial(benchmark_section, benchmark_tables.summary),
    "speed": functools.partial(benchmark_section, benchmark_tables.section),
    "plan": plan_section,
    "latency": latency_section,
    "modules": modules.package_section,
    "scripts": modules.scripts_section,
    "settings_base": functools.partial(settings_section, BaseConfig),
    "settings_code": functools.partial(settings_section, CodeConfig),
    "settings_training": functools.partial(settings_section, TrainConfig),
    "settings_evaluation": functools.partial(settings_section, EvaluationConfig),
}


def section(name: str) -> str:
    """Returns the Markdown of a section.

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
        names = ", ".join([*SECTIONS, *ablations])
        raise ValueError(f"readme: a section {name!r} given, {names} accepted")
    return sweep_tables.section(sweep_tables.read(ablations[name]))
