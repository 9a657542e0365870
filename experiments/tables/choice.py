"""The codes of finished runs that can be chosen, and their table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from coded_jax.codes.quorum import ALL_DATA
from coded_jax.latency import planner
from coded_jax.latency.planner import Candidate, Forecast
from coded_jax.report.formatting import size_text


def candidates(
    runs: Sequence[dict[str, Any]], seconds: float, hedge_after: float | None
) -> list[Candidate]:
    """Returns every code of the runs that can be planned with, each once.

    Uncoded pieces are there with hedged requests, too.

    Args:
      runs: the contents of their `results.json`.
      seconds: that a device takes for the whole of `F_Conv`, as a rule.
      hedge_after: seconds after which missing pieces are sent again; twice the time of
        a piece if None.

    Raises:
      ValueError: there is none.
    """
    distinct: dict[tuple, Candidate] = {}

    def add(candidate: Candidate) -> None:
        distinct.setdefault((candidate.code, candidate.workload), candidate)

    for results in runs:
        grid = size_text(results["split"]["grid"])
        for name in results["costs"]:
            try:
                code = planner.candidate_of(results, name)
            except ValueError:  # without parity, or other than pieces of an image
                continue
            add(code._replace(code=f"{code.code}, {grid}"))
            if code.workload.quorum == ALL_DATA:
                cost = code.workload.cost
                late = 2 * seconds * cost.rounds[0].device_flops / cost.whole_flops
                hedged = dataclasses.replace(
                    code.workload,
                    hedge_after=late if hedge_after is None else hedge_after,
                )
                accuracy = results["base"]["test_accuracy"]
                add(planner.exact_candidate(f"hedged, {grid}", hedged, accuracy))
    if not distinct:
        raise ValueError("runs: with no code to choose given, one or more accepted")
    return list(distinct.values())


def table(rows: Sequence[Forecast]) -> Table:
    """Returns the codes for a terminal; milliseconds and percent."""
    shown = Table(box=box.SIMPLE, title="milliseconds, and %", collapse_padding=True)
    shown.add_column("code", min_width=16)
    for name in ("k + r", "work", "p50", "p99", "p99.9", "in time", "right"):
        shown.add_column(name, justify="right")
    for row in rows:
        times = (f"{1e3 * seconds:.1f}" for seconds in (row.p50, row.p99, row.p999))
        shares = (f"{100 * share:.2f}" for share in (row.answered, row.accuracy))
        sizes = f"{row.k} + {row.r}"
        shown.add_row(row.code, sizes, f"{row.work:.3f}", *times, *shares)
    return shown
