"""Measurements of the benchmark as tables, for a terminal and for documents."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Group

from benchmarks.machine import title
from benchmarks.rows import (
    BASE,
    CODE,
    COMPILE,
    EAGER,
    NOTHING_LOST,
    ONE_LOST,
    OURS,
    Row,
    goal,
    grouped,
    ratio,
)
from coded_jax.report.table import Columns, Table, make, to_markdown, to_terminal

MEASUREMENT: Columns = {
    name: lambda group, name=name: str(group[OURS][name])
    for name in ("subject", "job", "batch")
}
NOTHING = "-"
NONE = "Nothing is stored yet."


def milliseconds(framework: str, quartiles: bool) -> Callable[[dict[str, Row]], str]:
    """Returns the cell of a framework's time, with quartiles or without."""

    def text(group: dict[str, Row]) -> str:
        row = group.get(framework)
        if row is None:
            return NOTHING
        if row["ms"] is None:
            return "failed"
        first, third = row["quartiles_ms"]
        ends = f" ({first:.2f}, {third:.2f})" if quartiles else ""
        return f"{row['ms']:.2f}{ends}"

    return text


def times(over: str, field: str = "ms") -> Callable[[dict[str, Row]], str]:
    """Returns the cell of how many times as good as a framework we are."""

    def text(group: dict[str, Row]) -> str:
        value = ratio(group, over, field)
        return NOTHING if value is None else f"{value:.2f}"

    return text


def target(field: str = "ms") -> Callable[[dict[str, Row]], str]:
    """Returns the cell of the target over eager, and whether it is met."""

    def text(group: dict[str, Row]) -> str:
        wanted, reached = goal(group[OURS]), ratio(group, EAGER, field)
        if reached is None:
            return f"{wanted}"
        return f"{wanted} {'met' if reached >= wanted else 'missed'}"

    return text


def megabytes(framework: str) -> Callable[[dict[str, Row]], str]:
    """Returns the cell of a framework's peak memory."""

    def text(group: dict[str, Row]) -> str:
        peak = group.get(framework, {}).get("peak_bytes")
        return f"{peak / 1e6:,.0f}" if peak else NOTHING

    return text


MEMORY: Columns = {
    **MEASUREMENT,
    "coded_jax, MB": megabytes(OURS),
    "eager, MB": megabytes(EAGER),
    "eager over ours": times(EAGER, "peak_bytes"),
    "target": target("peak_bytes"),
}


def speed_table(rows: list[Row], quartiles: bool) -> Table:
    """Returns a table with a row for each job."""
    columns = {
        **MEASUREMENT,
        "coded_jax, ms": milliseconds(OURS, quartiles),
        "eager, ms": milliseconds(EAGER, quartiles),
        "compile, ms": milliseconds(COMPILE, quartiles),
        "times eager": times(EAGER),
        "times compile": times(COMPILE),
        "target": target(),
    }
    return make(columns, grouped(rows))


def tables(report: dict[str, Any]) -> Group:
    """Returns all tables for a terminal, and notes.

    Args:
      report: the content of the JSON file.
    """
    parts: list[Any] = []
    if report["times"]:
        parts.append("medians; the targets are those of times eager")
        parts.append(to_terminal(speed_table(report["times"], False), left=2))
    if report["memory"]:
        parts.append("peak memory of a process that trains, or of the accelerator")
        made = make(MEMORY, grouped(report["memory"]))
        parts.append(to_terminal(made, left=2))
    return Group(*parts, *notes(report))


def summary_table(report: dict[str, Any]) -> Table:
    """Returns the ratios to eager and, in brackets, to `torch.compile`, over all batch
    sizes, with a row for each subject."""
    groups = grouped(report["times"])

    def spread(subject: str, job: str, over: str) -> str:
        own = [
            ratio(group, over)
            for group in groups
            if (group[OURS]["subject"], group[OURS]["job"]) == (subject, job)
        ]
        texts = [f"{value:.2f}" for value in sorted(filter(None, own))]
        return " to ".join(dict.fromkeys(texts[:1] + texts[-1:]))

    def ratios(job: str) -> Callable[[str], str]:
        def text(subject: str) -> str:
            eager, compiled = (spread(subject, job, x) for x in (EAGER, COMPILE))
            return (f"{eager} ({compiled})" if compiled else eager) or NOTHING

        return text

    def met(subject: str) -> str:
        own = [row for row in report["targets"] if row["subject"] == subject]
        return f"{sum(row['met'] for row in own)} of {len(own)}"

    columns = {
        "subject": lambda subject: subject,
        "base training": ratios(BASE),
        "code training": ratios(CODE),
        "inference, nothing lost": ratios(NOTHING_LOST),
        "one lost": ratios(ONE_LOST),
        "targets met": met,
    }
    return make(columns, dict.fromkeys(row["subject"] for row in report["times"]))


def notes(report: dict[str, Any]) -> list[str]:
    """Returns failures, missed targets and disturbances, a line each."""
    failures = collections.defaultdict(list)
    for row in report["times"]:
        if "note" in row:
            failures[row["note"]].append("{subject}, {job}, {batch}".format(**row))
    lines = [f"{text} ({'; '.join(names)})" for text, names in failures.items()]
    rows = report["targets"]
    if rows:
        met = sum(row["met"] for row in rows)
        lines.append(f"{met} of {len(rows)} targets are met")
    lines += [
        "missed: {kind} of {subject}, {job}, batch {batch}: {ratio:.2f} where {target} "
        "is the target".format(**row)
        for row in rows
        if not row["met"]
    ]
    if report["busy"]:
        lines.append(f"others used up to {report['others']:.2f} cores meanwhile")
    return lines


def summary(reports: Sequence[dict[str, Any]]) -> str:
    """Returns the ratios to PyTorch on each machine, in Markdown.

    Args:
      reports: the contents of the files that `benchmark.py` has written.
    """
    parts = [
        f"{title(report['machine'])}\n\n{to_markdown(summary_table(report))}"
        for report in reports
    ]
    return "\n\n".join(parts) or NONE


def section(reports: Sequence[dict[str, Any]]) -> str:
    """Returns all that was measured on each machine, in Markdown; see `summary`."""
    parts = []
    for report in reports:
        threads, torch = report["threads"], report["pytorch"]
        sides = [f"jax {report['versions']['jax']} ({threads['coded_jax']} threads)"]
        if torch:
            sides.append(f"PyTorch {torch['version']} ({threads['pytorch']} threads)")
        parts.append(f"### {title(report['machine'])}")
        parts.append(
            f"{' and '.join(sides)}, commit {str(report['commit'])[:12]}, "
            f"{report['date'][:10]}, medians with quartiles in brackets, by "
            f"`{report['command']}`."
        )
        if report["times"]:
            parts.append(to_markdown(speed_table(report["times"], True)))
        if report["memory"]:
            parts.append("Peak memory of training:")
            parts.append(to_markdown(make(MEMORY, grouped(report["memory"]))))
        if lines := notes(report):
            parts.append("\n".join(f"- {line}" for line in lines))
    return "\n\n".join(parts) or NONE
