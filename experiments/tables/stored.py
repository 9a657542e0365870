"""Stored results: what they hold, and where they are from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from coded_jax.report.table import Column, Columns

EXPERIMENTS = Path(__file__).parents[1]
RESULTS = EXPERIMENTS / "results"
HISTORY = "history"
MARK = "†"
FOLDER = "folder"
Content = dict[str, Any]


class Origin(NamedTuple):
    """What made a stored result.

    Attributes:
      version: of the package.
      commit: seven digits, with `+dirty` if the code was changed since; of an old
        result `stored by` and the commit that stored it.
      date: UTC, `2026-11-30`.
    """

    version: str
    commit: str
    date: str


def read(table: str, results: Path = RESULTS) -> dict[str, Content]:
    """Returns the contents of a table's files by their names, in order of these.

    Args:
      table: a folder, such as `frontier`, or `history/frontier` with results of former
        versions, which are never beside present ones.
      results: the folder of all stored results.
    """
    paths = sorted((results / table).rglob("*.json"))
    return {path.stem: json.loads(path.read_text()) for path in paths}


def origin_of(content: Content) -> Origin:
    """Returns version, commit and date of the code that made a result.

    Args:
      content: of a `results.json`, a `sweep.json`, a latency study, a benchmark.

    Raises:
      KeyError: it does not say.
    """
    made = content.get("provenance", content)
    if commit := made.get("commit"):
        version = made.get("version", content.get("versions", {}).get("coded_jax", ""))
        return Origin(version, commit[:7] + commit[40:], made["date"][:10])
    by = content["stored"]
    return Origin(by["version"], f"stored by {by['commit']}", by["date"][:10])


def data_of(content: Content) -> str:
    """Returns the data set's name, `folder NAME` where the images were in a folder.

    Args:
      content: of a stored result or of a base model's record.
    """
    given = re.search(r"--data_dir[= ](\S+)", content["command"])
    name = content["dataset"]
    return f"{name} {Path(given[1]).name}" if name == FOLDER and given else name


def seconds_of(content: Content) -> float | None:
    """Returns the seconds that a result took; None where it does not say."""
    if "timing" in content:
        return content["timing"]["seconds"]["total"]
    return content.get("seconds")


def software_text(content: Content) -> str:
    """Returns the versions that made a result."""
    versions = content["versions"]
    names = [f"{x} {versions[x]}" for x in ("jax", "flax") if x in versions]
    return f"{', '.join(names)}, Python {versions['python']}"


def cores_text(cores: int) -> str:
    """Returns `1 core`, `2 cores`."""
    return f"{cores} core{'' if cores == 1 else 's'}"


def machine_text(content: Content) -> str:
    """Returns the machine that made a result."""
    machine = content.get("machine", {})
    hardware = content.get("provenance", {}).get("hardware", {})
    cores = hardware.get("cores", machine.get("cores"))
    processor = hardware.get("processor", "processor not recorded")
    device = machine.get("device", content.get("device", "cpu"))
    return (
        f"{processor}{f', {cores_text(cores)}' if cores else ''}"
        f"{'' if device == 'cpu' else f', {device}'}"
    )


def times_text(content: Content) -> str:
    """Returns epochs and seconds of the phases of a run; empty for other results."""
    config, seconds = content.get("config", {}), content.get("timing", {})
    seconds = seconds.get("seconds", {})
    if "base_epochs" not in config or "base" not in seconds:
        return ""
    phases = [f"base {config['base_epochs']:g} epochs {seconds['base']:.0f} s"]
    if seconds["code"]:
        phases.append(f"code {config['epochs']:g} epochs {seconds['code']:.0f} s")
    if "no_parity" in seconds:
        phases.append(f"no parity {seconds['no_parity']:.0f} s")
    return ", ".join([*phases, f"evaluation {seconds['evaluation']:.0f} s"])


ORIGIN = (
    Column("version", lambda content: origin_of(content).version),
    Column("commit", lambda content: origin_of(content).commit),
    Column("date", lambda content: origin_of(content).date),
    Column("software", software_text),
    Column("machine", machine_text),
    Column("times", times_text),
    Column("command", lambda content: content["command"]),
)
"""Columns of a CSV file that say of each row where it is from."""


def origins(of: Callable[[Any], Content] = lambda content: content) -> Columns:
    """Returns columns that say of each row where it is from.

    Args:
      of: the stored result of a row's record.
    """
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
    origins = [origin_of(content) for content in contents]
    days = sorted({origin.date for origin in origins})
    dates = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    versions = _joined(origin.version for origin in origins)
    commits = _joined(origin.commit for origin in origins)
    made = f"commit {commits}" if len(commits) < 20 else "commits in the CSV file"
    machines = " and on ".join(sorted({machine_text(x) for x in contents}))
    software = "; ".join(sorted({software_text(content) for content in contents}))
    return (
        f"Measured with version {versions} ({made}), {dates}, {software}, on "
        f"{machines}."
    )


def mark(content: Content) -> str:
    """Returns the mark of a row that has a note."""
    return f" {MARK}" if "note" in content else ""


def notes(contents: dict[str, Content]) -> list[str]:
    """Returns a line for each result that has a note, by the name of its row."""
    return [
        f"- {MARK} {name}: {content['note']}."
        for name, content in contents.items()
        if "note" in content
    ]


def _joined(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))
