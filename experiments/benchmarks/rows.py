"""Rows of measurements, and the targets that they meet or miss.

A row is a flat dict. All have `network`, `k`, `r`, `batch` and `framework`, one of
`coded_jax`, `pytorch` (eager) and `pytorch_compile`. Those with times have

    ms               median over the rounds of one step, call or inference
    quartiles_ms     the first and the third
    fastest_ms       of the fastest round: what a machine that does other things as well
                     disturbs least
    rounds, calls    how many rounds, and calls in each
    compile_s        seconds of compilation, not in the times; 0 for PyTorch eager
    ratio_to_eager   how many times as fast as PyTorch eager, by the medians; null
                     without PyTorch
    fastest_ratio    the same by the fastest rounds

and some have fields of their own:

    training, inference, scaling   images_per_second
    inference        lost, `nothing` or `data 0`
    shares           part, one of encode, f_conv, decode, whole; share of the whole
    scaling          devices; work, `training` or `inference`
    operations       operation; unit, `FLOP` or `byte`; giga_per_second; of_limit, the
                     share of the best matrix product or addition of either framework
    memory           work; before_bytes, with the data loaded; peak_bytes;
                     temporary_bytes, of the compiled program; no times
"""

from __future__ import annotations

from typing import Any

OURS, EAGER, COMPILE = FRAMEWORKS = ("coded_jax", "pytorch", "pytorch_compile")
TRAINING = {"mlp": 2.0, "conv": 1.5}  # promised, as times the speed of PyTorch eager
INFERENCE = 1.0
Row = dict[str, Any]


def code(row: Row) -> str:
    """Returns a code as `mlp (2,1)`."""
    return f"{row['network']} ({row['k']},{row['r']})"


def grouped(rows: list[Row]) -> list[dict[str, Row]]:
    """Returns the rows of each measurement by their framework."""
    keys = ("network", "k", "r", "batch", "lost", "part", "operation", "work")
    groups: dict[tuple, dict[str, Row]] = {}
    for row in rows:
        groups.setdefault(tuple(map(row.get, keys)), {})[row["framework"]] = row
    return list(groups.values())


def targets(report: dict[str, Any]) -> list[Row]:
    """Returns what the project promises, and whether this run keeps it.

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
