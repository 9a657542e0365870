"""Stored results: their origin, their age, and whether the present code made them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from coded_jax.runs import sources

EXPERIMENTS = Path(__file__).parents[1]
RESULTS = EXPERIMENTS / "results"
HISTORY = "history"
BENCHMARKS = "benchmarks"
MARK = "†"
FOLDER = "folder"
Content = dict[str, Any]


class Origin(NamedTuple):
    """What made a stored result.

    Attributes:
      version: of the package.
      commit: of the code or, of an old result, of the commit that stored it.
      date: UTC, ISO 8601.
      is_code: whether `commit` is that of the code that made it.
    """

    version: str
    commit: str
    date: str
    is_code: bool


class Stored(NamedTuple):
    """One stored result.

    Attributes:
      name: its path below `experiments/results`, without the suffix.
      origin: what made it.
      changed: modules whose code has changed since; None where it does not say which
        ones made it.
      seconds: that it takes to make again; None where it does not say.
      command: that makes it.
    """

    name: str
    origin: Origin
    changed: list[str] | None
    seconds: float | None
    command: str

    @property
    def is_history(self) -> bool:
        """Returns whether documents show it as history."""
        return self.name.startswith(f"{HISTORY}/")

    @property
    def is_stale(self) -> bool:
        """Returns whether code since could alter it."""
        return self.changed is None or bool(self.changed)


def folder_of(table: str, results: Path = RESULTS) -> Path:
    """Returns the folder of a table's results: that of the present ones or, where there
    are none, that of its history; never rows of both.

    Args:
      table: the folder's name, as `frontier`.
      results: the folder of all stored results.
    """
    present = results / table
    return present if any(present.rglob("*.json")) else results / HISTORY / table


def data_of(content: Content) -> str:
    """Returns the data set's name, `folder NAME` where the images were in a folder.

    Args:
      content: of a stored result or of a base model's record.
    """
    given = re.search(r"--data_dir[= ](\S+)", content["command"])
    name = content["dataset"]
    return f"{name} {Path(given[1]).name}" if name == FOLDER and given else name


def history_of(table: str, results: Path = RESULTS) -> Path | None:
    """Returns the folder of a table's history where there are present results too."""
    history = results / HISTORY / table
    is_apart = folder_of(table, results) != history and any(history.rglob("*.json"))
    return history if is_apart else None


def is_history(folder: Path) -> bool:
    """Returns whether the results of a table's folder are history."""
    return folder.parent.name == HISTORY


def contents(table: str, results: Path = RESULTS) -> list[Content]:
    """Returns the content of each of a table's files, by their names."""
    return [
        json.loads(path.read_text())
        for path in sorted(folder_of(table, results).rglob("*.json"))
    ]


def all_stored(results: Path = RESULTS, package: Path = sources.PACKAGE):
    """Yields every stored result, by its name."""
    for path in sorted(results.rglob("*.json")):
        content = json.loads(path.read_text())
        if "command" not in content:
            continue
        name = path.relative_to(results).with_suffix("").as_posix()
        yield Stored(
            name.removesuffix("/sweep"),
            origin_of(content),
            changed_modules(content, package),
            seconds_of(content),
            content["command"],
        )


def origin_of(content: Content) -> Origin:
    """Returns what made a result.

    Args:
      content: of a `results.json`, a `sweep.json`, a latency study, a benchmark.

    Raises:
      KeyError: it says neither.
    """
    made = content.get("provenance", content)
    if commit := made.get("commit"):
        version = made.get("version", content.get("versions", {}).get("coded_jax", ""))
        return Origin(version, commit[:7] + commit[40:], made["date"], True)
    stored = content["stored"]
    return Origin(stored["version"], stored["commit"], stored["date"], False)


def changed_modules(
    content: Content, package: Path = sources.PACKAGE
) -> list[str] | None:
    """Returns the modules that made a result and are not the same now; None where it
    does not say which ones did."""
    recorded = content.get("provenance", content).get("sources")
    if recorded is None:
        return None
    scripts = {x: d for x, d in recorded.items() if x.startswith(f"{BENCHMARKS}.")}
    library = {x: d for x, d in recorded.items() if x not in scripts}
    return sources.changed(library, package) + sources.changed(
        scripts, EXPERIMENTS / BENCHMARKS
    )


def seconds_of(content: Content) -> float | None:
    """Returns the seconds that a result took; None where it does not say."""
    if "timing" in content:
        return content["timing"]["seconds"]["total"]
    if "parts" in content:  # a latency study's requests, one at a time
        served = (", delayed", ", calm")
        parts = [x for name, x in content["parts"].items() if name.endswith(served)]
        return sum(sum(part["seconds"]) for part in parts)
    return content.get("seconds")


def cores_text(cores: int) -> str:
    """Returns `1 core`, `2 cores`."""
    return f"{cores} core{'' if cores == 1 else 's'}"


def software_text(content: Content) -> str:
    """Returns the versions that made a result."""
    versions = content["versions"]
    names = [f"{x} {versions[x]}" for x in ("jax", "flax") if x in versions]
    return f"{', '.join(names)}, Python {versions['python']}"


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


def origin_text(runs: Sequence[Content]) -> str:
    """Returns version, commits, dates and machines of the results of a table."""
    origins = [origin_of(content) for content in runs]
    codes = _joined(origin.commit for origin in origins if origin.is_code)
    stored = _joined(origin.commit for origin in origins if not origin.is_code)
    commits = [f"commit {codes}"] * bool(codes) + [f"stored by {stored}"] * bool(stored)
    days = sorted({origin.date[:10] for origin in origins})
    dates = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    versions = _joined(origin.version for origin in origins)
    machines: dict[str, set[str]] = {}
    for content in runs:
        machines.setdefault(software_text(content), set()).add(machine_text(content))
    places = "; ".join(
        f"{software} on {', and on '.join(sorted(machines[software]))}"
        for software in sorted(machines)
    )
    return (
        f"Measured with version {versions} ({', '.join(commits)}), {dates}: {places}."
    )


def history_text(runs: Iterable[Content]) -> str:
    """Returns a line that says of a table that it is history."""
    origins = [origin_of(content) for content in runs]
    days = sorted({origin.date[:10] for origin in origins})
    versions = _joined(origin.version for origin in origins)
    return (
        f"> **History**, measured until {days[-1]} with version {versions}, before "
        "changes of code that could alter it: compare its rows with one another, not "
        "with those of other tables."
    )


def notes(runs: dict[str, Content]) -> list[str]:
    """Returns a line for each result that has a note, by the name of its row."""
    return [
        f"- {MARK} {name}: {content['note']}."
        for name, content in runs.items()
        if "note" in content
    ]


def mark(content: Content) -> str:
    """Returns the mark of a row that has a note."""
    return f" {MARK}" if "note" in content else ""


def with_history(section: str, folder: Path, runs: Iterable[Content]) -> str:
    """Returns a section, headed by `history_text` if its folder is one of history."""
    return f"{history_text(runs)}\n\n{section}" if is_history(folder) else section


def _joined(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))
