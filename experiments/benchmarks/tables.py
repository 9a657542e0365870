"""Measurements of the benchmark as tables, for a terminal and for documents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from tables.markdown import table

from benchmarks.rows import (
    COMPILE,
    EAGER,
    FRAMEWORKS,
    OURS,
    TRAINING,
    Row,
    code,
    grouped,
)

TRAINING_COLUMNS = (
    "code",
    "batch",
    "coded_jax, images/s",
    "PyTorch eager, images/s",
    "ratio",
    "of best rounds",
    "target",
)
INFERENCE_COLUMNS = (
    "code",
    "lost",
    "batch",
    "coded_jax, ms",
    "PyTorch eager, ms",
    "ratio",
    "of best rounds",
)


def tables(report: dict[str, Any]) -> Group:
    """Returns all tables, and notes.

    Args:
      report: the content of the JSON file.
    """
    parts: list[Any] = []
    for section, (title, layout) in LAYOUTS.items():
        if report.get(section):
            parts += [title, layout(report[section])]
    return Group(*parts, *report["notes"])


def by_framework(
    names: dict[str, Callable[[Row], Any]], cell: Callable[[Row], str], unit: str
) -> Callable[[list[Row]], Table]:
    """Returns a layout with a column for each framework.

    Args:
      names: of the columns before those, and their cells, from a row.
      cell: of a framework's column, from its row.
      unit: of `cell`.
    """

    def layout(rows: list[Row]) -> Table:
        used = [
            name for name in FRAMEWORKS if any(r["framework"] == name for r in rows)
        ]
        compared = EAGER in used and "ratio_to_eager" in rows[0]
        columns = [*names, *(f"{name}\n{unit}" for name in used)]
        table = _table([*columns, "times\neager"] if compared else columns, len(names))
        for group in grouped(rows):
            first = next(iter(group.values()))
            cells = [str(name(first)) for name in names.values()]
            cells += [cell(group[name]) if name in group else "-" for name in used]
            if compared:
                cells.append(f"{group[OURS]['ratio_to_eager']:.2f}")
            table.add_row(*cells)
        return table

    return layout


def _scaling(rows: list[Row]) -> Table:
    table = _table(["code", "work", "batch", "devices", "images/s", "times\none"], 2)
    alone = {(code(r), r["work"]): r["ms"] for r in rows if r["devices"] == 1}
    for r in rows:
        speed = alone[code(r), r["work"]] / r["ms"]
        numbers = [f"{r['images_per_second']:,.0f}", f"{speed:.2f}"]
        table.add_row(code(r), r["work"], str(r["batch"]), str(r["devices"]), *numbers)
    return table


def _targets(rows: list[Row]) -> Table:
    names = ["what", "PyTorch", "median", "best", "target", ""]
    table = _table(names, 2)
    for r in rows:
        over = {EAGER: "eager", COMPILE: "compile"}[r["over"]]
        numbers = [f"{r[x]:.2f}" for x in ("ratio", "fastest_ratio", "target")]
        table.add_row(r["what"], over, *numbers, "met" if r["met"] else "missed")
    return table


def _table(columns: list[str], texts: int) -> Table:
    """Returns an empty table; all columns but the first few are numbers."""
    table = Table(box=box.SIMPLE_HEAD)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < texts else "right")
    return table


def _milliseconds(row: Row) -> str:
    return f"{row['ms']:.2f}"


def _rate(row: Row) -> str:
    compiled = f" ({row['compile_s']:.0f} s)" if row["compile_s"] else ""
    return f"{row['images_per_second']:,.0f}{compiled}"


def _limit(row: Row) -> str:
    return f"{row['giga_per_second']:.1f} ({100 * row['of_limit']:.0f} %)"


LAYOUTS: dict[str, tuple[str, Callable[[list[Row]], Table]]] = {
    "training": (
        "training of codes, images/s (in brackets: seconds of compilation)",
        by_framework({"code": code, "batch": lambda r: r["batch"]}, _rate, "images/s"),
    ),
    "inference": (
        "inference, latency",
        by_framework(
            {"code": code, "lost": lambda r: r["lost"], "batch": lambda r: r["batch"]},
            _milliseconds,
            "ms",
        ),
    ),
    "shares": (
        "parts of an inference with data piece 0 lost, batch 64",
        by_framework(
            {"code": code, "part": lambda r: r["part"]},
            lambda r: f"{r['ms']:.2f} ({100 * r['share']:.0f} %)",
            "ms",
        ),
    ),
    "scaling": (
        "scaling; simulated devices of a CPU share its cores, so that no speed-up is "
        "to be expected there",
        _scaling,
    ),
    "memory": (
        "peak memory of the process, or else of the accelerator",
        by_framework(
            {"code": code, "work": lambda r: r["work"], "batch": lambda r: r["batch"]},
            lambda r: f"{r['peak_bytes'] / 1e6:,.0f}",
            "MB",
        ),
    ),
    "operations": (
        "operations forward and backward, batch 64, in GFLOP/s or GB/s; in brackets: "
        "of the matrix product, or of adding in place",
        by_framework(
            {"code": code, "operation": lambda r: f"{r['operation']}, {r['unit']}"},
            _limit,
            "G/s",
        ),
    ),
    "targets": (
        "targets: speed over PyTorch's, by the median and by the best round; of "
        "inference the worst code",
        _targets,
    ),
}


def section(report: dict[str, Any]) -> str:
    """Returns speed beside PyTorch's, of training and of inference, in Markdown.

    Args:
      report: the content of the JSON file that `benchmark.py` writes.
    """
    training, inference = [], []
    for group in grouped(report["training"]):
        ours, eager = group[OURS], group[EAGER]
        rates = (f"{row['images_per_second']:,.0f}" for row in (ours, eager))
        target = str(TRAINING[ours["network"]])
        training.append(
            [code(ours), str(ours["batch"]), *rates, *_ratios(ours), target]
        )
    for group in grouped(report["inference"]):
        ours, eager = group[OURS], group[EAGER]
        times = (f"{row['ms']:.2f}" for row in (ours, eager))
        key = [code(ours), ours["lost"], str(ours["batch"])]
        inference.append([*key, *times, *_ratios(ours)])
    versions, machine = report["versions"], report["machine"]
    return (
        f"Training a code:\n\n{table(TRAINING_COLUMNS, training)}\n\n"
        f"Inference, with target 1:\n\n{table(INFERENCE_COLUMNS, inference)}\n\n"
        f"Measured with jax {versions['jax']} and PyTorch "
        f"{report['pytorch']['version']} on {machine['cores']} cores "
        f"({machine['processor']}), device {machine['device']}, medians, by "
        f"`{report['command']}`."
    )


def _ratios(row: Row) -> list[str]:
    return [f"**{row['ratio_to_eager']:.2f}**", f"{row['fastest_ratio']:.2f}"]
