"""Tables of a latency study, and the bounds of what it shows."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from coded_jax.latency import simulation
from tables import markdown, stored

ORDER = ("uncoded", "hedged", "replication", "mds", "coded")
COLUMNS = (
    "strategy",
    "pieces",
    "work of a device",
    "calm p50",
    "p50",
    "p99",
    "p99.9",
    "gap",
    "simulated p50",
    "simulated p99.9",
    "simulated gap",
    "decoded",
    "lost",
    "accuracy",
    "direct",
)


def measured(content: dict[str, Any]) -> list[str]:
    """Returns the strategies that a study has, in the order of its tables."""
    return [name for name in ORDER if f"{name}, delayed" in content["parts"]]


def rows(content: dict[str, Any]) -> list[list[str]]:
    """Returns a row for each strategy; milliseconds and percent.

    Args:
      content: of `latency.json`.
    """
    parts = content["parts"]
    milliseconds = lambda summary, *names: [f"{1e3 * summary[x]:.1f}" for x in names]
    table = []
    for name in measured(content):
        delayed, plan = parts[f"{name}, delayed"], parts[f"{name}, plan"]
        calm = _summary(parts[f"{name}, calm"]["seconds"])
        real = _summary(delayed["seconds"])
        simulated = _summary(parts[f"{name}, simulated"])
        table.append(
            [
                name,
                plan["pieces"],
                f"{plan['work']:.3f}",
                *milliseconds(calm, "p50"),
                *milliseconds(real, "p50", "p99", "p99.9", "gap"),
                *milliseconds(simulated, "p50", "p99.9", "gap"),
                f"{100 * delayed['decoded']:.2f}",
                str(round(real["lost"] * len(delayed["seconds"]))),
                f"{100 * delayed['accuracy']:.2f}",
                f"{100 * delayed['direct']:.2f}",
            ]
        )
    return table


def _summary(seconds: list[float]) -> dict[str, float]:
    return simulation.summary(np.asarray(seconds))


def gap_ratio(plain: list[float], coded: list[float]) -> tuple[float, float, float]:
    """Returns how many times smaller the gap between p99.9 and the median is.

    Args:
      plain, coded: seconds of requests without and with a code.

    Returns:
      The ratio between the bounds of 95 % of bootstrap samples (Efron 1979); NaN where
      requests were lost.
    """

    def ratio(plain: np.ndarray, coded: np.ndarray) -> float:
        large, small = (simulation.summary(x)["gap"] for x in (plain, coded))
        return large / small if small > 0 and np.isfinite(large) else np.nan

    samples, rng = (np.asarray(plain), np.asarray(coded)), np.random.default_rng(0)
    resampled = [
        ratio(*(rng.choice(sample, len(sample)) for sample in samples))
        for _ in range(500)
    ]
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return float(low), float(ratio(*samples)), float(high)


def conclusions(content: dict[str, Any]) -> list[str]:
    """Returns the study's conclusions, in a line each.

    Args:
      content: of `latency.json`.
    """
    parts = content["parts"]
    seconds = lambda name: parts[name]["seconds"]
    coded, uncoded = (
        _summary(seconds(f"{name}, calm"))["p50"] for name in ("coded", "uncoded")
    )
    agreement = min(
        part["agreement"] for name, part in parts.items() if name.endswith("delayed")
    )
    low, ratio, high = gap_ratio(seconds("uncoded, delayed"), seconds("coded, delayed"))
    service = content["settings"]["service"]
    machines = (
        f" on machines that take {1e3 * service:g} ms for F_Conv" if service else ""
    )
    lines = [
        f"The gap between p99.9 and the median is {ratio:.1f} times smaller with the "
        f"code than uncoded (95 % of resampled studies: {low:.1f} to {high:.1f}).",
        f"Without delays{machines}, the median with the code is {coded / uncoded:.2f} "
        "times the uncoded one.",
        f"{100 * agreement:.2f} % of all answers are those of a direct computation "
        "from the same results.",
    ]
    if not service:
        alone = 1e3 * float(np.median(parts["bare"]))
        lines.append(
            f"In the median, {1e3 * coded - alone:.1f} ms are added to the {alone:.1f} "
            "ms of the bare computation, one program on one device."
        )
    if killed := parts.get("killed"):
        restarts = ", ".join(f"{x:.1f}" for x in killed["seconds"])
        lines.append(
            f"With {len(killed['seconds'])} workers killed at once, {killed['lost']} "
            f"of {killed['requests']} requests were lost, the slowest took "
            f"{1e3 * killed['slowest']:.0f} ms, and the workers were back after "
            f"{restarts} s."
        )
    return lines


def terminal(content: dict[str, Any]) -> Table:
    """Returns the table for a terminal, with a column for each strategy."""
    table = Table(box=box.SIMPLE, title="milliseconds, and %", caption_justify="left")
    first, *others = zip(COLUMNS, *rows(content), strict=True)
    for title in ("", *first[1:]):
        table.add_column(title, justify="right" if title else "left")
    for cells in others:
        table.add_row(*cells)
    table.caption = "\n".join(conclusions(content))
    return table


def section(table: str) -> str:
    """Returns tables and conclusions of all studies, as a section of a document.

    Args:
      table: a folder of stored studies, see `stored.folder_of`.
    """
    studies = stored.contents(table)
    text = "\n\n".join(study_text(content) for content in studies)
    return stored.with_history(text, stored.folder_of(table), studies)


def study_text(content: dict[str, Any]) -> str:
    """Returns the table and conclusions of one study, and how it was measured."""
    settings = content["settings"]
    parts = [
        markdown.table(COLUMNS, rows(content)),
        "\n".join(f"- {line}" for line in conclusions(content)),
        f"{stored.origin_text([content])} {settings['requests']} requests with delays "
        f"and {settings['calm_requests']} without for each strategy: "
        f"`{content['command']}`",
    ]
    return "\n\n".join(parts)
