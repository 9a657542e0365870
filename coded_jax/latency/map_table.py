"""A map of who answers first, as rows of text."""

from __future__ import annotations

import collections
import statistics
from typing import Any

from rich import box
from rich.table import Table

from coded_jax.latency.plane import QUANTILES
from coded_jax.latency.strategies import FAMILIES, late_text

COLUMNS = ("", "first", "points", "lead %, median", "lead %, most", "most often")


def rows(content: dict[str, Any]) -> list[list[str]]:
    """Returns a row for each quantile and family that is first somewhere.

    Args:
      content: of `maps.draw_up`.

    Returns:
      Cells as of `COLUMNS`; points and leads in %.
    """
    made, strategies = [], content["strategies"]
    points = list(content["points"].values())
    for quantile in QUANTILES:
        won = collections.defaultdict(list)
        for point in points:
            best = point[quantile]
            place = best["winner"]
            family = "none" if place is None else strategies[place]["family"]
            won[family].append(best)
        for family in (*FAMILIES, "none"):
            if family in won:
                share = 100 * len(won[family]) / len(points)
                cells = _leads(won[family], strategies)
                made.append([quantile, family, f"{share:.0f} %", *cells])
    return made


def _leads(wins: list[dict[str, Any]], strategies: list[dict[str, Any]]) -> list[str]:
    leads = [best["lead"] for best in wins if best.get("lead") is not None]
    names = collections.Counter(
        strategy_text(strategies[best["winner"]])
        for best in wins
        if best["winner"] is not None
    )
    most = names.most_common(1)[0][0] if names else ""
    if not leads:
        return ["-", "-", most]
    median = statistics.median(leads)
    return [f"{100 * median:.0f}", f"{100 * max(leads):.0f}", most]


def strategy_text(strategy: dict[str, Any]) -> str:
    """Returns a strategy's code and sizes, as `mds k=4 r=2, 2x2`, and when a hedged one
    sends again."""
    if strategy["k"] + strategy["r"] == 1:
        return strategy["code"]
    code = f"{strategy['code']} k={strategy['k']} r={strategy['r']}"
    late = late_text(strategy["late"]) if "late" in strategy else ""
    return ", ".join(filter(None, [code, strategy["pieces"], late]))


def table(content: dict[str, Any]) -> Table:
    """Returns the rows for a terminal."""
    shown = Table(box=box.SIMPLE, collapse_padding=True)
    for name in COLUMNS:
        right = name in COLUMNS[2:5]
        shown.add_column(name, justify="right" if right else "left")
    for row in rows(content):
        shown.add_row(*row)
    return shown
