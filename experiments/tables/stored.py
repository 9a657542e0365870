"""Results of runs, stored or of workdirs: their content and origin, and the sections
of pages that are made of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
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


def read(table: str) -> dict[str, Content]:
    """Returns the contents of a table's files by their names, in order of these.

    Args:
      table: a folder, such as `frontier`, or `history/frontier` with results of former
        versions, which are never beside present ones.
    """
    paths = sorted((RESULTS / table).rglob("*.json"))
    return {path.stem: json.loads(path.read_text()) for path in paths}


def origin_of(content: Content) -> tuple[str, str, str]:
    """Returns version, commit and date of the code that made a result.

    The commit has seven digits, with `+dirty` if the code was changed since; of an old
    result it is `stored by` and the commit that stored it; outside of Git `unknown`.
    """
    if made := content.get("stored"):
        commit = f"stored by {made['commit']}"
    else:
        made = content["provenance"]
        commit = made["commit"] or "unknown"
        commit = commit[:7] + commit[40:]
    return made["version"], commit, made["date"][:10]


def data_of(content: Content) -> str:
    """Returns the data set's name, `folder NAME` where the images were in a folder."""
    folder = re.search(r"--data_dir[= ](\S+)", content["command"])
    name = content["dataset"]
    return f"{name} {Path(folder[1]).name}" if name == "folder" and folder else name


def software_text(content: Content) -> str:
    """Returns the versions that made a result."""
    return "jax {jax}, flax {flax}, Python {python}".format(**content["versions"])


def hardware_of(content: Content) -> dict[str, str]:
    """Returns `cores` (`2 cores`), `device`, and `processor` unless the result is an
    old one."""
    hardware = content.get("provenance", {}).get("hardware", {})
    device = content.get("device", "cpu")
    made = {"device": device, **content.get("machine", {}), **hardware}
    return {**made, "cores": f"{made['cores']} core{'s' * (made['cores'] != 1)}"}


def machine_text(content: Content) -> str:
    """Returns the machine that made a result."""
    made = hardware_of(content)
    text = f"{made.get('processor', 'processor not recorded')}, {made['cores']}"
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
        **{
            name: lambda content, i=i: origin_of(content)[i]
            for i, name in enumerate(("version", "commit", "date"))
        },
        "software": software_text,
        "machine": machine_text,
        "times": times_text,
        "command": lambda content: content["command"],
    }
    return {name: lambda x, text=text: text(of(x)) for name, text in texts.items()}


def origin_text(contents: Collection[Content]) -> str:
    """Returns versions, dates and machines of the results of a table, in one line."""
    *made, days = map(dict.fromkeys, zip(*map(origin_of, contents), strict=True))
    versions, commits = map(", ".join, made)
    made_by = f"commit {commits}" if len(commits) < 20 else "commits in the CSV file"
    dates = " to ".join(dict.fromkeys([min(days), max(days)]))
    software = "; ".join(sorted({software_text(content) for content in contents}))
    machines = " and on ".join(sorted({machine_text(x) for x in contents}))
    return (
        f"Measured with version {versions} ({made_by}), {dates}, {software}, on "
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


def section(
    *parts: str | Table,
    files: Mapping[str, tuple[Table, str]] = {},
    contents: Collection[Content] = (),
) -> Section:
    """Returns paragraphs and tables, lines that link long tables, which the site shows
    collapsed, and a line that says how stored results were measured.

    Args:
      *parts: empty ones are left out.
      files: tables that are too long for a page and what a row is, such as `code`, by
        the names of their CSV files.
      contents: stored results; none where nothing is to be said of them.
    """
    links = [
        f"All of it, a row for each {what}, {len(table.rows)} rows and "
        f"{len(table.headers)} columns: [{name}]({name})"
        for name, (table, what) in files.items()
    ]
    origin = origin_text(contents) if contents else ""
    texts = (to_markdown(x) if isinstance(x, Table) else x for x in parts)
    text = "\n\n".join(filter(None, [*texts, *links, origin]))
    return Section(text, {name: table for name, (table, _) in files.items()})
