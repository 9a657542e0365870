"""The comment in a flagfile that says what its runs have given."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coded_jax.report.formatting import measure_text, percent
from coded_jax.runs.workdir import write_atomically
from tables import result_tables, stored
from tables.finished_runs import read_published

HEADING = "# Expect (of stored results, written by experiments/renew.py):"
BEGIN = "#   "
WIDTH = 88
FLAGS = stored.EXPERIMENTS / "flags"
TABLES = ("quickstart", "table5", "networks", "cheap", "groups", "layers", "images")


def stored_runs() -> dict[str, dict[str, Any]]:
    """Returns all results of single runs, by their names."""
    runs = {}
    for table in TABLES:
        folders = filter(None, (stored.folder_of(table), stored.history_of(table)))
        for path in (x for folder in folders for x in sorted(folder.glob("*.json"))):
            name = table if table == "quickstart" else path.stem
            name += " (history)" * stored.is_history(path.parent)
            runs[name] = read_published(path)
    return runs


def lines(flagfile: str, runs: Mapping[str, dict[str, Any]]) -> list[str]:
    """Returns the lines about the runs of a flagfile.

    Args:
      flagfile: its name, as `quickstart.flags`.
      runs: the contents of `results.json`, by name.
    """
    made = {n: r for n, r in runs.items() if f"/{flagfile}" in r["command"]}
    return [
        line
        for name, results in made.items()
        for line in textwrap.wrap(
            f"{name}: {_accuracies(results)}; {_seconds(results)}",
            WIDTH,
            initial_indent=BEGIN,
            subsequent_indent=f"{BEGIN}  ",
            break_on_hyphens=False,
        )
    ]


def renew(path: Path, runs: Mapping[str, dict[str, Any]]) -> bool:
    """Rewrites the comment of a flagfile, if it has one.

    Returns:
      Whether it has one.
    """
    text = path.read_text()
    renewed = renewed_text(text, lines(path.name, runs))
    if renewed != text:
        write_atomically(path, renewed)
    return HEADING in text


def renewed_text(text: str, made: list[str]) -> str:
    """Returns a flagfile with other lines below `HEADING`; as it is without that."""
    before, heading, after = text.partition(f"{HEADING}\n")
    if not heading:
        return text
    rest = after.splitlines(keepends=True)
    while rest and rest[0].startswith(BEGIN):
        rest.pop(0)
    return before + heading + "".join(f"{line}\n" for line in made) + "".join(rest)


def _accuracies(results: dict[str, Any]) -> str:
    most = results["split"]["r"]
    by_lost = [
        f"{measure_text(row, 'mean')} (worst {measure_text(row, 'worst')}) with {l} "
        "lost"
        for l, row in results["summary"].items()
        if 0 < int(l) <= most
    ]
    return f"base {percent(results['base']['test_accuracy'])} %, {', '.join(by_lost)}"


def _seconds(results: dict[str, Any]) -> str:
    hardware = results.get("provenance", {}).get("hardware", {})
    cores = hardware.get("cores", results["machine"]["cores"])
    processor = hardware.get("processor", "")
    seconds = stored.seconds_of(results) or 0.0
    times = result_tables.times(results)
    machine = f"{stored.cores_text(cores)} {processor}".rstrip()
    date = stored.origin_of(results).date[:10]
    return f"{times}, {seconds:.0f} s in all on {machine}, {date}"
