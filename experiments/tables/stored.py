"""Results of runs, stored or of workdirs: their content and origin, and the sections
of pages that are made of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from coded_jax.checks import require
from coded_jax.report.table import Columns, Table, to_markdown
from coded_jax.runs.reading import evaluated_part
from coded_jax.runs.workdir import FLAGS
from coded_jax.runs.workdir import RESULTS as FILE

EXPERIMENTS = Path(__file__).parents[1]
RESULTS = EXPERIMENTS / "results"
HISTORY = "history"
Content = dict[str, Any]


class Origin(NamedTuple):
    """The code that made a stored result.

    Attributes:
      version: of the package.
      commit: seven digits, with `+dirty` if the code was changed since; of an old
        result `stored by` and the commit that stored it; `unknown` outside of Git.
      date: UTC, `2026-11-30`.
    """

    version: str
    commit: str
    date: str


def read(table: str) -> dict[str, Content]:
    """Returns the contents of a table's files by their names, in order of these.

    Args:
      table: a folder, such as `frontier`, or `history/frontier` with results of former
        versions, which are never beside present ones.
    """
    paths = sorted((RESULTS / table).rglob("*.json"))
    return {path.stem: json.loads(path.read_text()) for path in paths}


def origin_of(content: Content) -> Origin:
    """Returns version, commit and date of the code that made a result."""
    if "stored" in content:
        made = content["stored"]
        return Origin(made["version"], f"stored by {made['commit']}", made["date"][:10])
    made = content["provenance"]
    commit = made["commit"] or "unknown"
    return Origin(made["version"], commit[:7] + commit[40:], made["date"][:10])


def data_of(content: Content) -> str:
    """Returns the data set's name, `folder NAME` where the images were in a folder."""
    folder = re.search(r"--data_dir[= ](\S+)", content["command"])
    name = content["dataset"]
    return f"{name} {Path(folder[1]).name}" if name == "folder" and folder else name


def seconds_of(run: Content) -> float:
    """Returns the seconds that a run took in all."""
    return run["timing"]["seconds"]["total"]


def software_text(content: Content) -> str:
    """Returns the versions that made a result."""
    return "jax {jax}, flax {flax}, Python {python}".format(**content["versions"])


def hardware_of(content: Content) -> dict[str, Any]:
    """Returns `cores`, `device`, and `processor` unless the result is an old one."""
    hardware = content.get("provenance", {}).get("hardware", {})
    device = content.get("device", "cpu")
    return {"device": device, **content.get("machine", {}), **hardware}


def cores_text(cores: int) -> str:
    """Returns `1 core`, `2 cores`."""
    return f"{cores} core{'' if cores == 1 else 's'}"


def machine_text(content: Content) -> str:
    """Returns the machine that made a result."""
    made = hardware_of(content)
    processor = made.get("processor", "processor not recorded")
    text = f"{processor}, {cores_text(made['cores'])}"
    return text if made["device"] == "cpu" else f"{text}, {made['device']}"


def times_text(content: Content) -> str:
    """Returns epochs and seconds of the phases of a run; empty for other results."""
    seconds = content.get("timing", {}).get("seconds", {})
    if "code" not in seconds:
        return ""
    config = content["config"]
    phases = [f"base {config['base_epochs']:g} epochs {seconds['base']:.0f} s"]
    if seconds["code"]:
        phases.append(f"code {config['epochs']:g} epochs {seconds['code']:.0f} s")
    if "no_parity" in seconds:
        phases.append(f"no parity {seconds['no_parity']:.0f} s")
    return ", ".join([*phases, f"evaluation {seconds['evaluation']:.0f} s"])


def origins(of: Callable[[Any], Content] = lambda content: content) -> Columns:
    """Returns columns that say where the stored result of each row's record is from."""
    texts = {
        "version": lambda content: origin_of(content).version,
        "commit": lambda content: origin_of(content).commit,
        "date": lambda content: origin_of(content).date,
        "software": software_text,
        "machine": machine_text,
        "times": times_text,
        "command": lambda content: content["command"],
    }
    return {name: lambda x, text=text: text(of(x)) for name, text in texts.items()}


def origin_text(contents: Iterable[Content]) -> str:
    """Returns versions, dates and machines of the results of a table, in one line."""
    contents = [*contents]
    all_versions, all_commits, days = zip(*map(origin_of, contents), strict=True)
    versions = ", ".join(dict.fromkeys(all_versions))
    commits = ", ".join(dict.fromkeys(all_commits))
    made = f"commit {commits}" if len(commits) < 20 else "commits in the CSV file"
    dates = " to ".join(dict.fromkeys([min(days), max(days)]))
    software = "; ".join(sorted({software_text(content) for content in contents}))
    machines = " and on ".join(sorted({machine_text(x) for x in contents}))
    return (
        f"Measured with version {versions} ({made}), {dates}, {software}, on "
        f"{machines}."
    )


ALIKE: dict[str, Callable[[Content], Any]] = {
    "base models or precisions": lambda x: (
        x["dataset"],
        *(x["config"][name] for name in ("base_model", "base_width", "precision")),
        *(x["base"][f"{part}_accuracy"] for part in ("test", "validation")),
    ),
    "pieces": lambda x: (
        f"of {'groups of images' if x['config']['split'] == 'group' else 'an image'}"
    ),
    "stage_losses": lambda x: x["config"]["stage_losses"],
}
"""Values of a run that are the same in all runs that are compared."""


def read_current(path: Path) -> Content:
    """Returns the content of a `results.json` with all that this version writes.

    Args:
      path: a finished run's workdir, or a copy of that file.

    Raises:
      ValueError: it is neither, or an older version wrote it.
    """
    try:
        results = json.loads((path / FILE if path.is_dir() else path).read_text())
    except (OSError, ValueError):
        results = {}
    given = f"runs: {str(path)!r} given"
    if "summary" not in results:
        defect = "holds no results" if path.exists() else "does not exist"
        if (path / FLAGS).exists() and not (path / FILE).exists():
            again = f"run.py --flagfile={path / FLAGS} goes on with it"
            defect = f"is not finished ({again})"
        accepted = "workdirs of finished runs or files of results.json accepted"
        raise ValueError(f"{given}, which {defect}; {accepted}")
    if "rounds" not in results.get("costs", {}).get("code", {}):
        raise ValueError(
            f"{given}, results.json of this version accepted; finished runs are "
            "evaluated again by their command"
        )
    return results


def read_runs(paths: Sequence[str | Path]) -> list[Content]:
    """Returns the content of each `results.json`, of runs that can be compared.

    Args:
      paths: workdirs of finished runs, or copies of that file.

    Raises:
      ValueError: there is none; see `read_current`; one was evaluated for a search, on
        the validation part; or two runs differ in their base model, in how they make
        pieces, or in the losses of a stage.
    """
    runs = [read_current(Path(path)) for path in paths]
    require("runs", [], bool(runs), "one or more workdirs")
    searched = [run["command"] for run in runs if evaluated_part(run) != "test"]
    accepted = "runs with --evaluated=test, none of a search,"
    require("runs", searched, not searched, accepted)
    for name, of in ALIKE.items():
        values = {str(of(results)) for results in runs}
        if len(values) > 1:
            given = ", ".join(sorted(values))
            raise ValueError(f"runs: of different {name} ({given}), one accepted")
    return runs


class Section(NamedTuple):
    """A generated part of a page.

    Attributes:
      text: Markdown.
      files: long tables by the names of their CSV files, which stand beside the page.
    """

    text: str
    files: Mapping[str, Table] = {}


class Long(NamedTuple):
    """A table that is too long for a page.

    Attributes:
      table: its rows.
      what: what a row is, such as `code`.
    """

    table: Table
    what: str


def section(
    *parts: str | Table,
    files: Mapping[str, Long] = {},
    contents: Iterable[Content] = (),
) -> Section:
    """Returns paragraphs and tables, lines that link long tables, which the site shows
    collapsed, and a line that says how stored results were measured.

    Args:
      *parts: empty ones are left out.
      files: long tables by the names of their CSV files.
      contents: stored results; none where nothing is to be said of them.
    """
    links = [
        f"All of it, a row for each {what}, {len(table.rows)} rows and "
        f"{len(table.headers)} columns: [{name}]({name})"
        for name, (table, what) in files.items()
    ]
    contents = [*contents]
    origin = origin_text(contents) if contents else ""
    texts = (to_markdown(x) if isinstance(x, Table) else x for x in parts)
    text = "\n\n".join(filter(None, [*texts, *links, origin]))
    return Section(text, {name: table for name, (table, _) in files.items()})
