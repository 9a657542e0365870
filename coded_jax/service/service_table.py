"""The table of a service's workers."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from coded_jax.service.pool import LOSSES


def workers_table(summary: dict[str, Any]) -> Table:
    """Returns restarts and lost results of each worker, and the requests below them.

    Args:
      summary: of `Service.summary`.
    """
    requests, seconds = summary["requests"], summary["seconds"]
    table = Table(box=box.SIMPLE)
    for name in ("worker", "restarts", *LOSSES):
        table.add_column(name, justify="right")
    for i, worker in enumerate(summary["workers"]):
        table.add_row(
            str(i), str(worker["restarts"]), *map(str, worker["losses"].values())
        )
    caption = ", ".join(f"{count} {end}" for end, count in requests.items())
    if requests["answered"]:
        times = ", ".join(f"{q} {1e3 * value:.1f} ms" for q, value in seconds.items())
        caption += f"\n{times}, {100 * summary['decoded']:.1f} % decoded"
    table.caption = caption
    return table
