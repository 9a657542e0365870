"""The sections of documents that show results, made from committed files."""

from __future__ import annotations

import functools
import io
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
from coded_jax.report import run_tables, sweep_tables
from coded_jax.runs.config import BaseConfig, EvaluationConfig
from coded_jax.runs.sweep_table import SWEEP
from coded_jax.serving.config import ServeConfig
from coded_jax.training.config import TrainConfig
from coded_jax.web.config import WebConfig
from tables import (
    base_tables,
    check_tables,
    drop_tables,
    fault_tables,
    frontier_tables,
    headline,
    latency_tables,
    load_tables,
    map_check_tables,
    map_tables,
    markdown,
    modules,
    program_tables,
    result_tables,
    search_tables,
    soak_tables,
    stage_tables,
    stored,
    sweep_report,
)
from tables.finished_runs import read_published

ABLATION = "ablation_"
PLAN = (
    "--base_model=vgg16 --stages=1-2,3-4 --k=4 --r=2 --grid=2x2 \\\n"
    "    --image_shape=32x32x3 --recipe=systematic --parity_pieces=smaller \\\n"
    "    --encoder=linear --decoder=sharpen"
)
PLAN_MODEL = "--model=keras:MobileNetV2 --image_shape=224x224x3 --k=4 --r=2"


def benchmark_section(make: Callable[[list[dict[str, Any]]], str]) -> str:
    """Returns speed beside PyTorch's, of all machines that were measured."""
    return make(stored.contents("speed"))


def quickstart_section() -> str:
    """Returns the output of the quick start's run."""
    console = Console(file=io.StringIO(), width=80)
    console.print(
        run_tables.tables(read_published(stored.RESULTS / "quickstart")),
        highlight=False,
    )
    return text_block(console.file.getvalue())  # type: ignore


def plan_section(flags: str) -> str:
    """Returns a command of `plan.py` and its output, but for its seconds."""
    arguments = flags.replace("\\\n", "").split()
    with tempfile.TemporaryDirectory() as folder:  # of its picture
        done = subprocess.run(
            [sys.executable, stored.EXPERIMENTS / "plan.py", *arguments],
            cwd=folder,
            env={**os.environ, "COLUMNS": "80"},
            check=True,
            capture_output=True,
            text=True,
        )
    command = f"```bash\npython experiments/plan.py {flags}\n```"
    lines = [x for x in done.stdout.splitlines() if not x.startswith("planned in")]
    return f"{command}\n\n{text_block(chr(10).join(lines))}"


def study_section(name: str) -> str:
    """Returns the table of a sweep in `experiments/results/studies`."""
    return sweep_report.section(sweep_tables.read(stored.RESULTS / "studies" / name))


def text_block(printed: str) -> str:
    """Returns a fenced block, without blanks at the ends of lines or of the text."""
    lines = [line.rstrip() for line in printed.splitlines()]
    text = "\n".join(lines).strip("\n")
    return f"```text\n{text}\n```"


def settings_section(record: type) -> str:
    """Returns the settings that a record declares."""
    return settings.markdown(record).rstrip("\n")


SECTIONS: dict[str, Callable[[], str]] = {
    "quickstart": quickstart_section,
    "headline": headline.section,
    "results": functools.partial(result_tables.section, "table5"),
    "zoo": functools.partial(result_tables.section, "networks"),
    "zoo_history": functools.partial(result_tables.history, "networks"),
    "groups": functools.partial(result_tables.section, "groups"),
    "layers": functools.partial(result_tables.section, "layers"),
    "images": functools.partial(result_tables.section, "images"),
    "frontier": functools.partial(frontier_tables.section, "frontier"),
    "frontier_history": functools.partial(frontier_tables.history, "frontier"),
    "bases": base_tables.section,
    "deep": functools.partial(drop_tables.section, "deep"),
    "searches": search_tables.section,
    "searches_default": functools.partial(
        search_tables.section_of, search_tables.DEFAULT
    ),
    "searches_deep": functools.partial(search_tables.section_of, search_tables.DEEP),
    "searches_images": functools.partial(
        search_tables.section_of, search_tables.IMAGES
    ),
    "study_parm": functools.partial(study_section, "parm"),
    "cheap": functools.partial(frontier_tables.section, "cheap"),
    "benchmark": functools.partial(benchmark_section, benchmark_tables.summary),
    "speed": functools.partial(benchmark_section, benchmark_tables.section),
    "plan": functools.partial(plan_section, PLAN),
    "plan_model": functools.partial(plan_section, PLAN_MODEL),
    "stages": stage_tables.section,
    "checks": check_tables.section,
    "locator": check_tables.locator_section,
    "latency": functools.partial(latency_tables.section, "latency"),
    "map": map_tables.section,
    "map_check": functools.partial(map_check_tables.section, "map_check"),
    "accelerators_summary": program_tables.summary,
    "accelerators_meshes": program_tables.meshes_section,
    "accelerators_first_k": program_tables.first_k_section,
    "accelerators_mended": program_tables.mended_section,
    "accelerators": program_tables.section,
    "modules": modules.package_section,
    "scripts": modules.scripts_section,
    "settings_base": functools.partial(settings_section, BaseConfig),
    "settings_code": functools.partial(settings_section, CodeConfig),
    "settings_training": functools.partial(settings_section, TrainConfig),
    "settings_evaluation": functools.partial(settings_section, EvaluationConfig),
    "settings_serve": functools.partial(settings_section, ServeConfig),
    "load": load_tables.section,
    "faults": fault_tables.section,
    "soak": soak_tables.section,
    "settings_web": functools.partial(settings_section, WebConfig),
}


def documents(root: Path) -> list[Path]:
    """Returns the Markdown files that have generated sections.

    Args:
      root: of the repository.
    """
    pages = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return [page for page in pages if markdown.section_names(page.read_text())]


def section(name: str) -> str:
    """Returns the Markdown of a section.

    Args:
      name: one of `SECTIONS`, or `ablation_` and the name of a folder in
        `experiments/results/ablations`, or its history, which has a sweep's table.

    Raises:
      ValueError: there is no such section.
    """
    if name in SECTIONS:
        return SECTIONS[name]()
    paths = sorted(stored.RESULTS.glob(f"**/ablations/*/{SWEEP}"))
    ablations = {f"{ABLATION}{path.parent.name}" for path in paths}
    if name not in ablations:
        names = ", ".join([*SECTIONS, *sorted(ablations)])
        raise ValueError(f"document: a section {name!r} given, {names} accepted")
    folder = stored.folder_of(
        f"ablations/{name.removeprefix(ABLATION)}", stored.RESULTS
    )
    sweep = sweep_tables.read(folder)
    text = sweep_report.section(sweep)
    return stored.with_history(text, folder.parent, [sweep.content])
