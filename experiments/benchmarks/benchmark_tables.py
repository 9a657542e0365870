"""What `benchmark.py` has measured, as tables for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table

OURS, EAGER, COMPILE = FRAMEWORKS = ("coded_jax", "pytorch", "pytorch_compile")
TRAINING = {"mlp": 2.0, "conv": 1.5}  # promised, as times the speed of PyTorch eager
INFERENCE = 1.0
Row = dict[str, Any]


def code(row: Row) -> str:
    """A code as `mlp (2,1)`."""
    return f"{row['network']} ({row['k']},{row['r']})"


def grouped(rows: list[Row]) -> list[dict[str, Row]]:
    """Rows that differ in what was measured only in the framework, by its name."""
    keys = ("network", "k", "r", "batch", "lost", "part", "operation", "work")
    groups: dict[tuple, dict[str, Row]] = {}
    for row in rows:
        groups.setdefault(tuple(map(row.get, keys)), {})[row["framework"]] = row
    return list(groups.values())


def targets(report: dict[str, Any]) -> list[Row]:
    """What the project promises, and whether this run has kept it.

    Args:
      report: with the rows of the sections that were run.

    Returns:
      Rows with `what`, `over` (which framework), `ratio` of the medians,
      `fastest_ratio` of the fastest rounds, `target` and `met`, by the medians. Of
      inference, the code and number of lost results with the worst ratio.
    """
    worst: dict[tuple[str, str, float], tuple[float, float]] = {}
    for section in ("training", "inference"):
        for group in grouped(report.get(section, [])):
            ours = group[OURS]
            others = [EAGER] if section == "training" else [EAGER, COMPILE]
            what = f"{section}, {code(ours)}, batch {ours['batch']}"
            goal = TRAINING[ours["network"]]
            if section == "inference":
                what = f"inference, {ours['network']}, batch {ours['batch']}"
                goal = INFERENCE
            for name in others:
                if name in group:
                    key = (what, name, goal)
                    pair = [group[name][x] / ours[x] for x in ("ms", "fastest_ms")]
                    worst[key] = min(worst.get(key, tuple(pair)), tuple(pair))
    names = ("what", "over", "target", "ratio", "fastest_ratio")
    rows = [dict(zip(names, (*k, *v), strict=True)) for k, v in worst.items()]
    return [{**row, "met": row["ratio"] >= row["target"]} for row in rows]


def tables(report: dict[str, Any]) -> Group:
    """All tables, and notes.

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
    """A layout with a column for each framework.

    Args:
      names: of the columns before those, and what stands there.
      cell: what stands in a framework's column.
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
    """An empty table; all columns but the first few are numbers."""
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


def markdown(report: dict[str, Any]) -> str:
    """Markdown: speed beside PyTorch's, of training and of inference.

    Args:
      report: the content of the JSON file that `benchmark.py` writes.
    """
    training = [
        "| code | batch | coded_jax, images/s | PyTorch eager, images/s | ratio "
        "| of best rounds | target |",
        "|---|---|---|---|---|---|---|",
    ]
    for group in grouped(report["training"]):
        ours, eager = group[OURS], group[EAGER]
        training.append(
            f"| {code(ours)} | {ours['batch']} "
            f"| {ours['images_per_second']:,.0f} | {eager['images_per_second']:,.0f} "
            f"| **{ours['ratio_to_eager']:.2f}** | {ours['fastest_ratio']:.2f} "
            f"| {TRAINING[ours['network']]} |"
        )
    inference = [
        "| code | lost | batch | coded_jax, ms | PyTorch eager, ms | ratio "
        "| of best rounds |",
        "|---|---|---|---|---|---|---|",
    ]
    for group in grouped(report["inference"]):
        ours, eager = group[OURS], group[EAGER]
        inference.append(
            f"| {code(ours)} | {ours['lost']} | {ours['batch']} "
            f"| {ours['ms']:.2f} | {eager['ms']:.2f} "
            f"| **{ours['ratio_to_eager']:.2f}** | {ours['fastest_ratio']:.2f} |"
        )
    versions, machine = report["versions"], report["machine"]
    setting = (
        f"Training a code:\n\n{{}}\n\nInference, with target 1:\n\n{{}}\n\n"
        f"Measured with jax {versions['jax']} and PyTorch "
        f"{report['pytorch']['version']} on {machine['cores']} cores "
        f"({machine['processor']}), device {machine['device']}, medians, by "
        f"`{report['command']}`."
    )
    return setting.format("\n".join(training), "\n".join(inference))
