"""The generated sections of README.md and docs, and the CSV files beside the pages."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable
from pathlib import Path

from benchmarks import tables as benchmark_tables
from rich.console import Console

from coded_jax import settings
from coded_jax.codes import CodeConfig
from coded_jax.report import run_tables
from coded_jax.report.table import to_csv
from coded_jax.runs.config import BaseConfig, EvaluationConfig
from coded_jax.runs.workdir import write_atomically
from coded_jax.serving.config import ServeConfig
from coded_jax.training.config import TrainConfig
from coded_jax.web.config import WebConfig
from tables import (
    deep,
    frontier,
    latency,
    maps,
    programs,
    runs,
    searches,
    service,
    stages,
    stored,
)
from tables.finished_runs import read_published
from tables.sections import Section

FAMILIES = (deep, frontier, latency, maps, programs, runs, searches, service, stages)

ROOT = Path(__file__).parents[2]


def quickstart_section() -> Section:
    """Returns the output of the quick start's run."""
    console = Console(file=io.StringIO(), width=80)
    results = read_published(stored.RESULTS / "quickstart")
    console.print(run_tables.tables(results), highlight=False)
    lines = [x.rstrip() for x in console.file.getvalue().splitlines()]  # type: ignore
    text = "\n".join(lines).strip("\n")
    return Section(f"```text\n{text}\n```")


def speed_section(make: Callable[[list], str]) -> Section:
    """Returns the speed beside PyTorch's, on all machines that were measured."""
    return Section(make([*stored.read("speed").values()]))


def settings_section(record: type) -> Section:
    """Returns the settings that a record declares."""
    return Section(settings.markdown(record).rstrip("\n"))


SETTINGS = {
    "settings_base": BaseConfig,
    "settings_code": CodeConfig,
    "settings_training": TrainConfig,
    "settings_evaluation": EvaluationConfig,
    "settings_serve": ServeConfig,
    "settings_web": WebConfig,
}

SECTIONS: dict[str, Callable[[], Section]] = {
    "quickstart": quickstart_section,
    "benchmark": functools.partial(speed_section, benchmark_tables.summary),
    "speed": functools.partial(speed_section, benchmark_tables.section),
    **{name: functools.partial(settings_section, x) for name, x in SETTINGS.items()},
    **{name: make for family in FAMILIES for name, make in family.SECTIONS.items()},
}


def pages(root: Path = ROOT) -> list[Path]:
    """Returns the Markdown files that have generated sections."""
    paths = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return [path for path in paths if names(path.read_text())]


def names(text: str) -> list[str]:
    """Returns the names of a page's sections, in their order."""
    return re.findall(r"^<!-- (\S+): begin -->$", text, re.M)


def renewed(
    page: Path, made: dict[str, Callable[[], Section]] = SECTIONS
) -> dict[Path, str]:
    """Returns a page with its sections made anew and the files beside it, by path.

    Args:
      page: the Markdown file.
      made: what makes each section.

    Raises:
      ValueError: a section is unknown, or its end is missing.
    """
    text, files = page.read_text(), {}
    for name in names(text):
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        if name not in made:
            raise ValueError(f"section: {name!r} in {page}, one of {[*made]} accepted")
        if end not in text:
            raise ValueError(f"section: {name!r} in {page} has no {end!r}")
        section = made[name]()
        before, _, rest = text.partition(begin)
        after = rest.partition(end)[2]
        text = f"{before}{begin}\n\n{section.text}\n\n{end}{after}"
        for file, table in section.files.items():
            files[page.parent / file] = to_csv(table)
    return {page: text, **files}


def renew(page: Path) -> None:
    """Writes a page and the files beside it anew, or nothing where one section fails.

    Raises:
      ValueError: see `renewed`.
    """
    for path, text in renewed(page).items():
        write_atomically(path, text)
