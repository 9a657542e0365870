"""The table of the stored maps: who answers first, at how many points, by how much."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from coded_jax.latency.conditions import AXES
from coded_jax.latency.plane import QUANTILES
from coded_jax.latency.strategies import FAMILIES, HEDGED, LEARNED, late_text
from coded_jax.report import map_figure
from tables import markdown, stored

TABLE = "map"
COLUMNS = ("map", "", *FAMILIES, "none", "learned over first")


def section() -> str:
    """Returns a row for each map and quantile, and how they were made."""
    folder = stored.folder_of(TABLE)
    maps = {path.stem: content for path, content in _read(folder)}
    rows = [row for name, content in maps.items() for row in _rows(name, content)]
    commands = [f"- {name}: {about(content)}." for name, content in maps.items()]
    table = markdown.table(COLUMNS, rows)
    origin = stored.origin_text([*maps.values()]).replace("Measured", "Simulated", 1)
    shown = "\n\n".join([table, "\n".join(commands), origin])
    return stored.with_history(shown, folder, [*maps.values()])


def _read(folder: Any) -> list[tuple[Any, dict[str, Any]]]:
    paths = sorted(folder.rglob("*.json"))
    return list(zip(paths, stored.contents(TABLE), strict=True))


def _rows(name: str, content: dict[str, Any]) -> list[list[str]]:
    points = list(content["points"].values())
    strategies = content["strategies"]
    rows = []
    for quantile in QUANTILES:
        bests = [point[quantile] for point in points]
        cells = [
            won_text([b for b in bests if _family(b, strategies) == family], bests)
            for family in (*FAMILIES, None)
        ]
        hedged = FAMILIES.index(HEDGED)
        cells[hedged] += usual_delay(bests, strategies)
        shown = name if quantile == QUANTILES[0] else ""
        compared = any(s["family"] == LEARNED for s in strategies)
        learned = learned_text(bests) if compared else "none compared"
        rows.append([shown, quantile, *cells, learned])
    return rows


def _family(best: dict[str, Any], strategies: list[dict[str, Any]]) -> str | None:
    place = best["winner"]
    return None if place is None else strategies[place]["family"]


def won_text(won: Sequence[dict[str, Any]], bests: Sequence[dict[str, Any]]) -> str:
    """Returns the points of a family in % of all, and its median lead, `40 % (12)`."""
    if not won:
        return ""
    text = f"{100 * len(won) / len(bests):.0f} %"
    leads = [best["lead"] for best in won if best.get("lead") is not None]
    return f"{text} ({100 * statistics.median(leads):.0f})" if leads else text


def usual_delay(bests: Sequence[dict[str, Any]], strategies: Sequence[dict]) -> str:
    """Returns when the hedged strategies that are first send again, most often, as
    `, at once`; an empty text where there are none."""
    places = [best["winner"] for best in bests if best["winner"] is not None]
    delays = [s["late"] for s in map(strategies.__getitem__, places) if "late" in s]
    return f", {late_text(statistics.mode(delays))}" if delays else ""


def learned_text(bests: Sequence[dict[str, Any]]) -> str:
    """Returns how many times the winner's time the best learned code takes, in the
    median of the points where one is accurate enough, and how many these are."""
    ratios = [
        best["families"][LEARNED][1] / best["seconds"]
        for best in bests
        if LEARNED in best["families"]
    ]
    if not ratios:
        return "never accurate enough"
    share = 100 * len(ratios) / len(bests)
    return f"{statistics.median(ratios):.2f} ({share:.0f} %)"


def about(content: dict[str, Any]) -> str:
    """Returns network, axes and conditions of a map."""
    question = content["question"]
    plane = question["plane"]
    axes = " by ".join(
        f"{AXES[plane[axis]]} ({' to '.join(_ends(plane, axis))})"
        for axis in ("x", "y")
    )
    drop = question["drop"]
    learned = "" if drop is None else f"; {100 * drop:g} points lost a stage, given"
    return (
        f"{question['network']}, {question['n']} devices, margin "
        f"{100 * question['margin']:g}{learned}; {axes}; {map_figure.fixed_text(plane)}"
    )


def _ends(plane: dict[str, Any], axis: str) -> list[str]:
    values = plane[f"{axis}_values"]
    texts = (map_figure.tick_text(plane[axis], x) for x in (values[0], values[-1]))
    return [text.strip() for text in texts]
