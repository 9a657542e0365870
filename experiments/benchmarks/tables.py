"""Rows of measurements, the targets that they meet or miss, and tables of both.

A row is a flat dict. All have `subject`, `job`, `batch`, `framework`, one of
`coded_jax`, `pytorch` (eager) and `pytorch_compile`, and

    ms               median over the rounds of one step or inference; null where it
                     could not be measured, and then `note` says why
    quartiles_ms     the first and the third
    fastest_ms       of the fastest round: what a machine that does other things as well
                     disturbs least
    rounds, calls    how many rounds, and calls in each
    compile_s        seconds of compilation, of what no cache held; not in the times; 0
                     for PyTorch eager
    others           cores that other processes used meanwhile

Rows of the same measurement differ in the framework alone.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Sequence
from typing import Any

from rich.console import Group

from benchmarks.machine import title
from coded_jax.report.table import Columns, Table, make, to_markdown, to_terminal

OURS, EAGER, COMPILE = "coded_jax", "pytorch", "pytorch_compile"
BASE, CODE, NOTHING_LOST, ONE_LOST = "base", "code", "nothing lost", "one lost"
Row = dict[str, Any]

LENET5 = {"lenet5", "lenet5_mlp", "lenet5_conv", "lenet5_cheap"}
GOALS = {
    ("lenet5_mlp", CODE): 2.0,
    ("lenet5_mlp", NOTHING_LOST): 1.3,
    ("lenet5_mlp", ONE_LOST): 1.3,
    ("lenet5_conv", CODE): 1.3,
}
"""Times the speed of PyTorch eager that are promised, by subject and job; of others 1
with LeNet-5 and 1.1 with deep networks."""
NOTHING = "-"
NONE = "Nothing is stored yet."


def goal(row: Row) -> float:
    """Returns the ratio to PyTorch eager that is promised of a row's measurement."""
    usual = 1.0 if row["subject"] in LENET5 else 1.1
    return GOALS.get((row["subject"], row["job"]), usual)


def grouped(rows: list[Row]) -> list[dict[str, Row]]:
    """Returns the rows of each measurement by their framework."""
    groups: dict[tuple, dict[str, Row]] = {}
    for row in rows:
        key = (row["subject"], row["job"], row["batch"])
        groups.setdefault(key, {})[row["framework"]] = row
    return list(groups.values())


def ratio(group: dict[str, Row], over: str) -> float | None:
    """Returns how many times as fast as the framework `over` we are, of a group of
    `grouped`; None if not measured."""
    ours, theirs = (group.get(name, {}).get("ms") for name in (OURS, over))
    return theirs / ours if ours and theirs else None


def targets(rows: list[Row]) -> list[Row]:
    """Returns a row for each target of the project, and whether these rows meet it.

    Returns:
      Rows with `kind`, `speed`, `subject`, `job`, `batch`, the `target` over PyTorch
      eager, the `ratio`, and whether it is `met`.
    """
    found = []
    for group in grouped(rows):
        if reached := ratio(group, EAGER):
            own, target = group[OURS], goal(group[OURS])
            row = {name: own[name] for name in ("subject", "job", "batch")}
            row |= {"target": target, "ratio": reached, "met": reached >= target}
            found.append({"kind": "speed", **row})
    return found


def speed_table(rows: list[Row], quartiles: bool) -> Table:
    """Returns a table with a row for each job, perhaps with quartiles in brackets."""

    def milliseconds(group: dict[str, Row], framework: str) -> str:
        row = group.get(framework)
        if row is None:
            return NOTHING
        if row["ms"] is None:
            return "failed"
        ends = " ({:.2f}, {:.2f})".format(*row["quartiles_ms"])
        return f"{row['ms']:.2f}{ends * quartiles}"

    def times(group: dict[str, Row], over: str) -> str:
        value = ratio(group, over)
        return NOTHING if value is None else f"{value:.2f}"

    def target(group: dict[str, Row]) -> str:
        wanted, reached = goal(group[OURS]), ratio(group, EAGER)
        met = "" if reached is None else " met" if reached >= wanted else " missed"
        return f"{wanted}{met}"

    frameworks = {"coded_jax": OURS, "eager": EAGER, "compile": COMPILE}
    columns: Columns = {
        **{
            name: lambda group, name=name: str(group[OURS][name])
            for name in ("subject", "job", "batch")
        },
        **{
            f"{name}, ms": functools.partial(milliseconds, framework=x)
            for name, x in frameworks.items()
        },
        "times eager": functools.partial(times, over=EAGER),
        "times compile": functools.partial(times, over=COMPILE),
        "target": target,
    }
    return make(columns, grouped(rows))


def terminal(report: dict[str, Any]) -> Group:
    """Returns the table of a report, the content of the JSON file, and notes."""
    title = "medians; the targets are those of times eager"
    table = to_terminal(speed_table(report["times"], False), left=2)
    return Group(title, table, *notes(report))


def summary_table(report: dict[str, Any]) -> Table:
    """Returns the ratios to eager and, in brackets, to `torch.compile`, over all batch
    sizes, with a row for each subject."""
    groups = grouped(report["times"])

    def spread(subject: str, job: str, over: str) -> str:
        mine = (x for x in groups if x[OURS]["subject"] == subject)
        ratios = [ratio(group, over) for group in mine if group[OURS]["job"] == job]
        texts = [f"{value:.2f}" for value in sorted(filter(None, ratios))]
        return " to ".join(dict.fromkeys(texts[:1] + texts[-1:]))

    def ratios(subject: str, job: str) -> str:
        eager, compiled = (spread(subject, job, x) for x in (EAGER, COMPILE))
        return eager + f" ({compiled})" * bool(compiled) or NOTHING

    def met(subject: str) -> str:
        own = [row["met"] for row in report["targets"] if row["subject"] == subject]
        return f"{sum(own)} of {len(own)}"

    jobs = {"base training": BASE, "code training": CODE}
    jobs |= {"inference, nothing lost": NOTHING_LOST, "one lost": ONE_LOST}
    columns: Columns = {
        "subject": str,
        **{x: functools.partial(ratios, job=job) for x, job in jobs.items()},
        "targets met": met,
    }
    return make(columns, dict.fromkeys(row["subject"] for row in report["times"]))


def notes(report: dict[str, Any]) -> list[str]:
    """Returns failures and missed targets, a line each."""
    failures = collections.defaultdict(list)
    for row in report["times"]:
        if "note" in row:
            failures[row["note"]].append("{subject}, {job}, {batch}".format(**row))
    lines = [f"{text} ({'; '.join(names)})" for text, names in failures.items()]
    if rows := report["targets"]:
        met = sum(row["met"] for row in rows)
        lines.append(f"{met} of {len(rows)} targets are met")
    missed = (
        "missed: {kind} of {subject}, {job}, batch {batch}: {ratio:.2f} where {target} "
        "is the target"
    )
    return lines + [missed.format(**row) for row in rows if not row["met"]]


def summary(reports: Sequence[dict[str, Any]]) -> str:
    """Returns the ratios to PyTorch on each machine, of files of `benchmark.py`, in
    Markdown."""
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
        parts += [
            f"### {title(report['machine'])}",
            f"{' and '.join(sides)}, commit {str(report['commit'])[:12]}, "
            f"{report['date'][:10]}, medians with quartiles in brackets, by "
            f"`{report['command']}`.",
            to_markdown(speed_table(report["times"], True)),
            "\n".join(f"- {line}" for line in notes(report)),
        ]
    return "\n\n".join(filter(None, parts)) or NONE
