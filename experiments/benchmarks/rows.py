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

those of memory `before_bytes`, with the data loaded, and `peak_bytes`, and those of
scaling `devices`. Rows of the same measurement differ in the framework alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

OURS, EAGER, COMPILE = FRAMEWORKS = ("coded_jax", "pytorch", "pytorch_compile")
BASE, CODE, NOTHING_LOST, ONE_LOST = JOBS = ("base", "code", "nothing lost", "one lost")
Row = dict[str, Any]


class Goals(NamedTuple):
    """What is promised of a subject, as times the speed of PyTorch eager."""

    base: float
    code: float
    inference: float


DEEP = Goals(base=1.1, code=1.1, inference=1.1)
GOALS = {
    "lenet5": Goals(base=1.0, code=1.0, inference=1.0),
    "lenet5_mlp": Goals(base=1.0, code=2.0, inference=1.3),
    "lenet5_conv": Goals(base=1.0, code=1.3, inference=1.0),
    "lenet5_cheap": Goals(base=1.0, code=1.0, inference=1.0),
    "vgg16": DEEP,
    "resnet18": DEEP,
    "mobilenet": DEEP,
}
"""By subject, and by base model."""

MEMORY = 1.0
"""Times PyTorch's peak memory over ours, of training."""


def goal(row: Row) -> float:
    """Returns the ratio to PyTorch eager that is promised of a row's measurement."""
    goals = GOALS[row["subject"]]
    if "peak_bytes" in row:
        return MEMORY
    return {BASE: goals.base, CODE: goals.code}.get(row["job"], goals.inference)


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
        for group in grouped(report.get(section, [])):
            reached = ratio(group, EAGER, field)
            if reached is not None:
                row = group[OURS]
                found.append(
                    {
                        "kind": kind,
                        **{name: row[name] for name in ("subject", "job", "batch")},
                        "target": goal(row),
                        "ratio": reached,
                        "met": reached >= goal(row),
                    }
                )
    return found
