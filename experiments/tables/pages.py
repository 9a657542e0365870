"""The generated sections of README.md and docs, and the CSV files beside the pages."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from benchmarks import tables as benchmark_tables
from rich.console import Console

from coded_jax import settings
from coded_jax.codes import CodeConfig
from coded_jax.report import run_tables
from coded_jax.report.table import Table, to_csv
from coded_jax.runs.config import BaseConfig, EvaluationConfig
from coded_jax.service.config import ServeConfig, WebConfig
from coded_jax.training.config import TrainConfig
from tables import (
    deep,
    frontier,
    latency,
    maps,
    programs,
    runs,
    searches,
    service,
    stored,
)
from tables.finished_runs import read_published
from tables.sections import Section

FAMILIES = (deep, frontier, latency, maps, programs, runs, searches, service)
SETTINGS = {
    "settings_base": BaseConfig,
    "settings_code": CodeConfig,
    "settings_training": TrainConfig,
    "settings_evaluation": EvaluationConfig,
    "settings_serve": ServeConfig,
    "settings_web": WebConfig,
}
ROOT = Path(__file__).parents[2]
SECTION = re.compile(
    r"^<!-- (?P<name>\S+): begin -->$(.*?(?P<end><!-- (?P=name): end -->))?",
    re.MULTILINE | re.DOTALL,
)


def quickstart_section() -> Section:
    """Returns the output of the quick start's run."""
    output = io.StringIO()
    results = read_published(stored.RESULTS / "quickstart")
    Console(file=output, width=80, highlight=False).print(run_tables.tables(results))
    text = "\n".join(line.rstrip() for line in output.getvalue().splitlines())
    return Section("```text\n{}\n```".format(text.strip("\n")))


def speed_section(make: Callable[[list], str]) -> Section:
    """Returns the speed beside PyTorch's, on all machines that were measured."""
    return Section(make([*stored.read("speed").values()]))


def settings_section(record: type) -> Section:
    """Returns the settings that a record declares."""
    return Section(settings.markdown(record).rstrip("\n"))


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
    return [path for path in paths if SECTION.search(path.read_text())]


def renewed(
    page: Path, made: Mapping[str, Callable[[], Section]] = SECTIONS
) -> dict[Path, str]:
    """Returns a page with its sections made anew and the files beside it, by path.

    Args:
      page: the Markdown file.
      made: what makes each section.

    Raises:
      ValueError: a section is unknown, or its end is missing.
    """
    tables: dict[str, Table] = {}

    def section(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in made or not match["end"]:
            accepted = f"one of {[*made]} with its end"
            raise ValueError(f"section: {name!r} in {page}, {accepted} accepted")
        text, files = made[name]()
        tables.update(files)
        return f"<!-- {name}: begin -->\n\n{text}\n\n<!-- {name}: end -->"

    text = SECTION.sub(section, page.read_text())
    files = {page.parent / name: to_csv(table) for name, table in tables.items()}
    return {page: text, **files}


def orphans(made: Iterable[Path], root: Path = ROOT) -> list[Path]:
    """Returns the CSV files below docs that no section makes any more."""
    return sorted({*(root / "docs").rglob("*.csv")} - {*made})
