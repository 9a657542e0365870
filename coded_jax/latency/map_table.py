"""A map of who answers first, as rows of text."""

from __future__ import annotations

import collections
import statistics
from typing import Any

from rich.table import Table as RichTable

from coded_jax.latency.maps import QUANTILES
from coded_jax.latency.strategies import FAMILIES, late_text
from coded_jax.report.table import Table, to_terminal

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
            place = point[quantile]["winner"]
            family = "none" if place is None else strategies[place]["family"]
            won[family].append(point[quantile])
        for family in (*FAMILIES, "none"):
            if wins := won[family]:
                places = [x["winner"] for x in wins if x["winner"] is not None]
                names = collections.Counter(
                    strategy_text(strategies[i]) for i in places
                )
                most = names.most_common(1)[0][0] if names else ""
                leads = [100 * x["lead"] for x in wins if x.get("lead") is not None]
                median = f"{statistics.median(leads):.0f}" if leads else "-"
                largest = f"{max(leads):.0f}" if leads else "-"
                share = f"{100 * len(wins) / len(points):.0f} %"
                made.append([quantile, family, share, median, largest, most])
    return made


def strategy_text(strategy: dict[str, Any]) -> str:
    """Returns a strategy's code and sizes, as `mds k=4 r=2, 2x2`, and when a hedged one
    sends again."""
    if strategy["k"] + strategy["r"] == 1:
        return strategy["code"]
    code = f"{strategy['code']} k={strategy['k']} r={strategy['r']}"
    late = late_text(strategy["late"]) if "late" in strategy else ""
    return ", ".join(filter(None, [code, strategy["pieces"], late]))


def table(content: dict[str, Any]) -> RichTable:
    """Returns the rows for a terminal."""
    return to_terminal(Table(COLUMNS, rows(content)), left=2)
