"""What is generated: sections of README.md and docs, the CSV files beside the pages,
and the comments of flagfiles that say what their runs have given."""

from __future__ import annotations

import io
import itertools
import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import tables as benchmark_tables
from rich.console import Console

from coded_jax import settings
from coded_jax.codes import CodeConfig
from coded_jax.report import run_tables, table
from coded_jax.report.formatting import measure_text, percent
from coded_jax.runs.config import BaseConfig, EvaluationConfig
from coded_jax.service.config import ServeConfig, WebConfig
from coded_jax.training.config import TrainConfig
from tables import deep, frontier, latency, maps, programs, searches, service, stored
from tables import runs as run_sections
from tables.stored import Content, Section

FAMILIES = (deep, frontier, latency, maps, programs, run_sections, searches, service)
SETTINGS = {
    **{"base": BaseConfig, "code": CodeConfig, "training": TrainConfig},
    **{"evaluation": EvaluationConfig, "serve": ServeConfig, "web": WebConfig},
}
"""Records of settings, by the ends of their sections' names."""
ROOT = Path(__file__).parents[2]
HEADING = "# Expect (of stored results, written by experiments/renew.py):"
BEGIN = "#   "
WIDTH = 88
FLAGS = stored.EXPERIMENTS / "flags"
FOLDERS = ("table5", "networks", "cheap", "groups", "layers", "images")
SECTION = re.compile(
    r"^<!-- (?P<name>\S+): begin -->$(.*?(?P<end><!-- (?P=name): end -->))?",
    re.MULTILINE | re.DOTALL,
)


def quickstart_section() -> Section:
    """Returns the output of the quick start's run."""
    output = io.StringIO()
    (results,) = stored.read_runs([stored.RESULTS / "quickstart"])
    Console(file=output, width=80, highlight=False).print(run_tables.tables(results))
    text = "\n".join(line.rstrip() for line in output.getvalue().splitlines())
    return Section("```text\n{}\n```".format(text.strip("\n")))


def settings_section(record: type) -> Section:
    """Returns the settings that a record declares."""
    default = lambda text: "none" if text is None else f"`{text}`" if text else "empty"
    columns: table.Columns = {
        "Setting": lambda own: f"`{own.name}`",
        "Default": lambda own: default(own.shown_default),
        "Accepted": lambda own: own.accepted_text.rstrip(",").replace("'", "`"),
        "Meaning": lambda own: own.help,
    }
    return stored.section(table.make(columns, settings.settings(record)))


speeds = lambda: [*stored.read("speed").values()]
SECTIONS: dict[str, Callable[[], Section]] = {
    "quickstart": quickstart_section,
    "benchmark": lambda: Section(benchmark_tables.summary(speeds())),
    "speed": lambda: Section(benchmark_tables.section(speeds())),
    **{
        f"settings_{name}": lambda record=record: settings_section(record)
        for name, record in SETTINGS.items()
    },
    **{name: make for family in FAMILIES for name, make in family.SECTIONS.items()},
}


def pages(root: Path = ROOT) -> list[Path]:
    """Returns the Markdown files that have generated sections."""
    paths = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return [path for path in paths if SECTION.search(path.read_text())]


def renewed(
    page: Path, made: Mapping[str, Callable[[], Section]] = SECTIONS
) -> dict[Path, str]:
    """Returns a Markdown page with its sections made anew, and the files beside it, by
    path.

    Raises:
      ValueError: a section is unknown, or its end is missing.
    """
    tables: dict[str, table.Table] = {}

    def section(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in made or not match["end"]:
            accepted = f"one of {[*made]} with its end"
            raise ValueError(f"section: {name!r} in {page}, {accepted} accepted")
        text, files = made[name]()
        tables.update(files)
        return f"<!-- {name}: begin -->\n\n{text}\n\n<!-- {name}: end -->"

    text = SECTION.sub(section, page.read_text())
    files = {page.parent / name: table.to_csv(x) for name, x in tables.items()}
    return {page: text, **files}


def flagfiles() -> dict[Path, str]:
    """Returns the texts of all flagfiles, with what their stored runs gave."""
    (quickstart,) = stored.read("quickstart").values()
    runs = {"quickstart": quickstart}
    for folder in FOLDERS:
        runs |= stored.read(folder)
        former = stored.read(f"{stored.HISTORY}/{folder}")
        runs |= {f"{name} (history)": run for name, run in former.items()}
    return {
        path: renewed_flagfile(path.read_text(), expected(path.name, runs))
        for path in sorted(FLAGS.glob("*.flags"))
    }


def renewed_flagfile(text: str, made: list[str]) -> str:
    """Returns a flagfile with other lines below `HEADING`; as it is without that."""
    if HEADING not in text:
        return text
    before, heading, after = text.partition(f"{HEADING}\n")
    kept = itertools.dropwhile(lambda x: x.startswith(BEGIN), after.splitlines(True))
    return "".join([before, heading, *(f"{line}\n" for line in made), *kept])


def expected(flagfile: str, runs: dict[str, Content]) -> list[str]:
    """Returns accuracies, times, machine and date of each run of a flagfile, such as
    `quickstart.flags`."""
    wrapper = textwrap.TextWrapper(WIDTH, BEGIN, f"{BEGIN}  ", break_on_hyphens=False)
    made = []
    for name, run in runs.items():
        if f"/{flagfile}" not in run["command"]:
            continue
        by_lost = [
            f"{measure_text(row, 'mean')} (worst {measure_text(row, 'worst')}) with "
            f"{l} lost"
            for l, row in run["summary"].items()
            if 0 < int(l) <= run["split"]["r"]
        ]
        hardware, (_, _, date) = stored.hardware_of(run), stored.origin_of(run)
        machine = f"{hardware['cores']} {hardware.get('processor', '')}".rstrip()
        made += wrapper.wrap(
            f"{name}: base {percent(run['base']['test_accuracy'])} %, "
            f"{', '.join(by_lost)}; {stored.times_text(run)}, "
            f"{run['timing']['seconds']['total']:.0f} s in all on {machine}, {date}"
        )
    return made
