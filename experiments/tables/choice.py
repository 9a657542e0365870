"""The table of strategies that can be chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from coded_jax.latency.comparison import Forecast

QUANTILES = ("p50", "p99", "p99.9")


def table(rows: Sequence[Forecast]) -> Table:
    """Returns the strategies for a terminal; milliseconds and percent."""
    shown = Table(box=box.SIMPLE, title="milliseconds, and %", collapse_padding=True)
    shown.add_column("strategy", min_width=16)
    for name in ("k + r", "work", *QUANTILES, "in time", "right"):
        shown.add_column(name, justify="right")
    for row in rows:
        strategy, (k, r) = row.strategy, row.strategy.sizes
        parts = [strategy.code, strategy.pieces, strategy.delay]
        name = ", ".join(filter(None, parts))
        times = (f"{1e3 * row.seconds[name]:.1f}" for name in QUANTILES)
        shares = (f"{100 * share:.2f}" for share in (row.answered, row.accuracy))
        shown.add_row(name, f"{k} + {r}", f"{work_of(row):.3f}", *times, *shares)
    return shown


def work_of(row: Forecast) -> float:
    """Returns a device's work in all rounds, as a fraction of the whole `F_Conv`."""
    if row.strategy.workload is None:
        return 0.0
    cost = row.strategy.workload.cost
    return cost.device_flops / cost.whole_flops


def record(row: Forecast) -> dict[str, Any]:
    """Returns a forecast as JSON has it."""
    strategy, (k, r) = row.strategy, row.strategy.sizes
    return {
        "family": strategy.family,
        "code": strategy.code,
        "pieces": strategy.pieces,
        "k": k,
        "r": r,
        "n": strategy.n,
        "rounds": len(strategy.workload.cost.rounds) if strategy.workload else 0,
        "work": work_of(row),
        "p50": row.seconds["p50"],
        "p99": row.seconds["p99"],
        "p999": row.seconds["p99.9"],
        "answered": row.answered,
        "accuracy": row.accuracy,
    }
