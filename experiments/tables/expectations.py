"""The comment in a flagfile that says what its runs have given."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from coded_jax.report.formatting import measure_text, percent
from tables import stored
from tables.stored import times_text

HEADING = "# Expect (of stored results, written by experiments/renew.py):"
BEGIN = "#   "
WIDTH = 88
FLAGS = stored.EXPERIMENTS / "flags"
TABLES = ("quickstart", "table5", "networks", "cheap", "groups", "layers", "images")


def stored_runs() -> dict[str, dict[str, Any]]:
    """Returns all results of single runs, by their names."""
    runs = {}
    for table in TABLES:
        for name, results in stored.read(table).items():
            runs[table if table == "quickstart" else name] = results
        for name, results in stored.read(f"{stored.HISTORY}/{table}").items():
            runs[f"{name} (history)"] = results
    return runs


def renewed() -> dict[Path, str]:
    """Returns the texts of all flagfiles, with what their stored runs gave."""
    runs = stored_runs()
    return {
        path: renewed_text(path.read_text(), lines(path.name, runs))
        for path in sorted(FLAGS.glob("*.flags"))
    }


def lines(flagfile: str, runs: dict[str, dict[str, Any]]) -> list[str]:
    """Returns the lines about the runs of a flagfile, such as `quickstart.flags`."""
    options = {"initial_indent": BEGIN, "subsequent_indent": f"{BEGIN}  "}
    return [
        line
        for name, results in runs.items()
        if f"/{flagfile}" in results["command"]
        for line in textwrap.wrap(
            f"{name}: {_told(results)}", WIDTH, break_on_hyphens=False, **options
        )
    ]


def renewed_text(text: str, made: list[str]) -> str:
    """Returns a flagfile with other lines below `HEADING`; as it is without that."""
    before, heading, after = text.partition(f"{HEADING}\n")
    rest = after.splitlines(keepends=True)
    while rest and rest[0].startswith(BEGIN):
        rest.pop(0)
    told = "".join(f"{line}\n" for line in made) if heading else ""
    return before + heading + told + "".join(rest)


def _told(results: dict[str, Any]) -> str:
    by_lost = [
        f"{measure_text(row, 'mean')} (worst {measure_text(row, 'worst')}) with {l} "
        "lost"
        for l, row in results["summary"].items()
        if 0 < int(l) <= results["split"]["r"]
    ]
    hardware = results.get("provenance", {}).get("hardware", {})
    cores = hardware.get("cores", results["machine"]["cores"])
    machine = f"{stored.cores_text(cores)} {hardware.get('processor', '')}".rstrip()
    seconds = stored.seconds_of(results) or 0.0
    return (
        f"base {percent(results['base']['test_accuracy'])} %, {', '.join(by_lost)}; "
        f"{times_text(results)}, {seconds:.0f} s in all on {machine}, "
        f"{stored.origin_of(results).date}"
    )
