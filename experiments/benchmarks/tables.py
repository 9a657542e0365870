"""Measurements of the benchmark as tables, for a terminal and for documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table as RichTable

from benchmarks.machine import title
from benchmarks.rows import (
    BASE,
    CODE,
    COMPILE,
    EAGER,
    FRAMEWORKS,
    NOTHING_LOST,
    ONE_LOST,
    OURS,
    Row,
    goal,
    grouped,
    ratio,
)
from coded_jax.report.table import Table, to_markdown

Cells = list[list[str]]

SPEED_COLUMNS = (
    "subject",
    "job",
    "batch",
    "coded_jax, ms",
    "eager, ms",
    "compile, ms",
    "times eager",
    "times compile",
    "target",
)
MEMORY_COLUMNS = (
    *("subject", "job", "batch", "coded_jax, MB", "eager, MB"),
    *("eager over ours", "target"),
)
SUMMARY_COLUMNS = (
    *("subject", "base training", "code training"),
    *("inference, nothing lost", "one lost", "targets met"),
)
NOTHING = "-"
NONE = "Nothing is stored yet."


def tables(report: dict[str, Any]) -> Group:
    """Returns all tables for a terminal, and notes.

    Args:
      report: the content of the JSON file.
    """
    parts: list[Any] = []
    if report["times"]:
        parts += ["medians; the targets are those of times eager"]
        parts += [_rich(SPEED_COLUMNS, speed_cells(report["times"], quartiles=False))]
    if report["memory"]:
        parts += ["peak memory of a process that trains, or of the accelerator"]
        parts += [_rich(MEMORY_COLUMNS, memory_cells(report["memory"]))]
    return Group(*parts, *notes(report))


def speed_cells(rows: list[Row], quartiles: bool = True) -> Cells:
    """Returns the cells of a table with a line for each job."""
    lines = []
    for group in grouped(rows):
        ours = group[OURS]
        milliseconds = [
            _milliseconds(group.get(name), quartiles) for name in FRAMEWORKS
        ]
        ratios = [_ratio(ratio(group, name)) for name in (EAGER, COMPILE)]
        names = [ours["subject"], ours["job"], str(ours["batch"])]
        wanted = _target(ratio(group, EAGER), goal(ours))
        lines.append([*names, *milliseconds, *ratios, wanted])
    return lines


def memory_cells(rows: list[Row]) -> Cells:
    """Returns the cells of a table of the memory of training."""
    lines = []
    for group in grouped(rows):
        ours = group[OURS]
        peaks = [group.get(name, {}).get("peak_bytes") for name in (OURS, EAGER)]
        sizes = [f"{peak / 1e6:,.0f}" if peak else NOTHING for peak in peaks]
        names = [ours["subject"], ours["job"], str(ours["batch"])]
        reached = ratio(group, EAGER, "peak_bytes")
        lines.append([*names, *sizes, _ratio(reached), _target(reached, goal(ours))])
    return lines


def summary_cells(report: dict[str, Any]) -> Cells:
    """Returns the cells of a table with the ratios to eager and, in brackets, to
    `torch.compile`, over all batch sizes."""
    lines = []
    for subject in dict.fromkeys(row["subject"] for row in report["times"]):
        ranges = []
        for job in (BASE, CODE, NOTHING_LOST, ONE_LOST):
            eager, compiled = (
                _range(ratios_of(report, subject, job, rival))
                for rival in (EAGER, COMPILE)
            )
            ranges.append(eager if compiled == NOTHING else f"{eager} ({compiled})")
        own = [row for row in report["targets"] if row["subject"] == subject]
        met = f"{sum(row['met'] for row in own)} of {len(own)}"
        lines.append([subject, *ranges, met])
    return lines


def ratios_of(
    report: dict[str, Any], subject: str, job: str, rival: str
) -> list[float]:
    """Returns the ratios to one of PyTorch's ways, one of each batch size."""
    mine = lambda group: (group[OURS]["subject"], group[OURS]["job"]) == (subject, job)
    groups = filter(mine, grouped(report["times"]))
    return [x for x in (ratio(g, rival) for g in groups) if x is not None]


def notes(report: dict[str, Any]) -> list[str]:
    """Returns failures, missed targets and disturbances, a line each."""
    lines = []
    failures: dict[str, list[str]] = {}
    for row in report["times"]:
        if "note" in row:
            name = f"{row['subject']}, {row['job']}, {row['batch']}"
            failures.setdefault(row["note"], []).append(name)
    lines += [f"{text} ({'; '.join(names)})" for text, names in failures.items()]
    rows = report["targets"]
    missed = [row for row in rows if not row["met"]]
    if rows:
        lines.append(f"{len(rows) - len(missed)} of {len(rows)} targets are met")
    for row in missed:
        what = f"{row['subject']}, {row['job']}, batch {row['batch']}"
        figures = f"{row['ratio']:.2f} where {row['target']} is the target"
        lines.append(f"missed: {row['kind']} of {what}: {figures}")
    if report["busy"]:
        lines.append(f"others used up to {report['others']:.2f} cores meanwhile")
    return lines


def summary(reports: Sequence[dict[str, Any]]) -> str:
    """Returns the ratios to PyTorch on each machine, in Markdown.

    Args:
      reports: the contents of the files that `benchmark.py` has written.
    """
    parts = []
    for report in reports:
        made = to_markdown(Table(SUMMARY_COLUMNS, summary_cells(report)))
        parts.append(f"{title(report['machine'])}\n\n{made}")
    return "\n\n".join(parts) or NONE


def section(reports: Sequence[dict[str, Any]]) -> str:
    """Returns all that was measured on each machine, in Markdown; see `summary`."""
    parts = []
    for report in reports:
        parts += [f"### {title(report['machine'])}", _origin(report)]
        if report["times"]:
            parts.append(
                to_markdown(Table(SPEED_COLUMNS, speed_cells(report["times"])))
            )
        if report["memory"]:
            parts.append("Peak memory of training:")
            parts.append(
                to_markdown(Table(MEMORY_COLUMNS, memory_cells(report["memory"])))
            )
        if lines := notes(report):
            parts.append("\n".join(f"- {line}" for line in lines))
    return "\n\n".join(parts) or NONE


def _origin(report: dict[str, Any]) -> str:
    threads, torch = report["threads"], report["pytorch"]
    sides = [f"jax {report['versions']['jax']} ({threads['coded_jax']} threads)"]
    if torch:
        sides.append(f"PyTorch {torch['version']} ({threads['pytorch']} threads)")
    return (
        f"{' and '.join(sides)}, commit {str(report['commit'])[:12]}, "
        f"{report['date'][:10]}, medians with quartiles in brackets, by "
        f"`{report['command']}`."
    )


def _rich(columns: Sequence[str], cells: Cells) -> RichTable:
    """Returns a table for a terminal; all columns but the first two are numbers."""
    rich = RichTable(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for i, column in enumerate(columns):
        side = "left" if i < 2 else "right"
        rich.add_column(column.replace(" ", "\n"), justify=side, no_wrap=True)
    for line in cells:
        rich.add_row(*line)
    return rich


def _milliseconds(row: Row | None, quartiles: bool) -> str:
    if row is None:
        return NOTHING
    if row["ms"] is None:
        return "failed"
    first, third = row["quartiles_ms"]
    return f"{row['ms']:.2f}" + (f" ({first:.2f}, {third:.2f})" if quartiles else "")


def _ratio(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def _range(values: list[float]) -> str:
    if not values:
        return NOTHING
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def _target(value: float | None, wanted: float) -> str:
    if value is None:
        return f"{wanted}"
    return f"{wanted} {'met' if value >= wanted else 'missed'}"
