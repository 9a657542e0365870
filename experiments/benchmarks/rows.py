"""Rows of measurements, and the targets that they meet or miss.

A row is a flat dict. All have `subject`, `job`, `batch` and `framework`, one of
`coded_jax`, `pytorch` (eager) and `pytorch_compile`. Those with times have

    ms               median over the rounds of one step or inference; null where it
                     could not be measured, and then `note` says why
    quartiles_ms     the first and the third
    fastest_ms       of the fastest round: what a machine that does other things as well
                     disturbs least
    rounds, calls    how many rounds, and calls in each
    compile_s        seconds of compilation, of what no cache held; not in the times; 0
                     for PyTorch eager

those of memory `before_bytes`, with the data loaded, and `peak_bytes`. Rows of the same
measurement differ in the framework alone.
"""

from __future__ import annotations

from typing import Any

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
MEMORY = 1.0
"""Times PyTorch's peak memory over ours, of training."""


def goal(row: Row) -> float:
    """Returns the ratio to PyTorch eager that is promised of a row's measurement."""
    if "peak_bytes" in row:
        return MEMORY
    usual = 1.0 if row["subject"] in LENET5 else 1.1
    return GOALS.get((row["subject"], row["job"]), usual)


def grouped(rows: list[Row]) -> list[dict[str, Row]]:
    """Returns the rows of each measurement by their framework."""
    groups: dict[tuple, dict[str, Row]] = {}
    for row in rows:
        key = (row["subject"], row["job"], row["batch"])
        groups.setdefault(key, {})[row["framework"]] = row
    return list(groups.values())


def ratio(group: dict[str, Row], over: str, field: str = "ms") -> float | None:
    """Returns how many times as fast, or as sparing, we are; None if not measured.

    Args:
      group: of `grouped`.
      over: the other framework.
      field: what is compared.
    """
    ours, theirs = (group.get(name, {}).get(field) for name in (OURS, over))
    return theirs / ours if ours and theirs else None


def targets(report: dict[str, Any]) -> list[Row]:
    """Returns a row for each target of the project, and whether this run meets it.

    Args:
      report: with the rows of `times` and `memory`.

    Returns:
      Rows with `kind`, `speed` or `memory`, `subject`, `job`, `batch`, the `target`
      over PyTorch eager, the `ratio`, and whether it is `met`.
    """
    found = []
    for kind, section, field in (
        ("speed", "times", "ms"),
        ("memory", "memory", "peak_bytes"),
    ):
        for group in grouped(report[section]):
            if reached := ratio(group, EAGER, field):
                own, target = group[OURS], goal(group[OURS])
                row = {name: own[name] for name in ("subject", "job", "batch")}
                row |= {"target": target, "ratio": reached, "met": reached >= target}
                found.append({"kind": kind, **row})
    return found
