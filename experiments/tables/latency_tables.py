"""Tables and plots of a latency study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from coded_jax.latency import simulation
from coded_jax.report import figures
from tables import sections

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


def rows(content: dict[str, Any]) -> list[list[str]]:
    """A row for each strategy; milliseconds and percent."""
    parts = content["parts"]
    found = []
    for name in ORDER:
        if f"{name}, delayed" not in parts:
            continue
        calm, delayed = parts[f"{name}, calm"], parts[f"{name}, delayed"]
        real = simulation.summary(np.asarray(delayed["seconds"]))
        model = simulation.summary(np.asarray(parts[f"{name}, simulated"]))
        plan = parts[f"{name}, plan"]
        quiet = simulation.summary(np.asarray(calm["seconds"]))
        ms = lambda told, *names: [f"{1e3 * told[each]:.1f}" for each in names]
        percent = lambda value: f"{100 * value:.2f}"
        found.append(
            [
                name,
                plan["pieces"],
                f"{plan['work']:.3f}",
                *ms(quiet, "p50"),
                *ms(real, "p50", "p99", "p99.9", "gap"),
                *ms(model, "p50", "p99.9", "gap"),
                percent(delayed["decoded"]),
                str(round(real["lost"] * len(delayed["seconds"]))),
                percent(delayed["accuracy"]),
                percent(delayed["direct"]),
            ]
        )
    return found


def gap_ratio(plain: list[float], coded: list[float]) -> tuple[float, float, float]:
    """How many times smaller the gap between p99.9 and the median is, and before and
    after it the bounds of 95 % of bootstrap samples (Efron 1979); NaN where requests
    were lost."""
    gap = lambda seconds: simulation.summary(seconds)["gap"]
    ratio = lambda a, b: (
        gap(a) / gap(b) if gap(b) > 0 and np.isfinite(gap(a)) else np.nan
    )
    both, rng = (np.asarray(plain), np.asarray(coded)), np.random.default_rng(0)
    again = [ratio(*(rng.choice(each, len(each)) for each in both)) for _ in range(500)]
    low, high = np.nanquantile(again, [0.025, 0.975])
    return float(low), float(ratio(*both)), float(high)


def targets(content: dict[str, Any]) -> list[str]:
    """What the study is for, in a line each."""
    parts = content["parts"]
    told = lambda name: simulation.summary(np.asarray(parts[name]["seconds"]))
    quiet = told("coded, calm")["p50"] / told("uncoded, calm")["p50"]
    agreement = min(
        part["agreement"] for name, part in parts.items() if name.endswith("delayed")
    )
    low, ratio, high = gap_ratio(
        *(parts[f"{name}, delayed"]["seconds"] for name in ("uncoded", "coded"))
    )
    service = content["settings"]["service"]
    machines = (
        f" on machines that take {1e3 * service:g} ms for F_Conv" if service else ""
    )
    lines = [
        f"The gap between p99.9 and the median is {ratio:.1f} times smaller with the "
        f"code than uncoded (95 % of resampled studies: {low:.1f} to {high:.1f}).",
        f"Without delays{machines}, the median with the code is {quiet:.2f} times the "
        "uncoded one.",
        f"{100 * agreement:.2f} % of all answers are those of a direct computation "
        "from the same results.",
    ]
    if not service:
        alone = 1e3 * float(np.median(parts["bare"]))
        more = 1e3 * told("coded, calm")["p50"] - alone
        lines.append(
            f"In the median, {more:.1f} ms are added to the {alone:.1f} ms of the bare "
            "computation, one program on one device."
        )
    if killed := parts.get("killed"):
        seconds = ", ".join(f"{each:.1f}" for each in killed["seconds"])
        lines.append(
            f"With {len(killed['seconds'])} workers killed at once, {killed['lost']} "
            f"of {killed['requests']} requests were lost, the slowest took "
            f"{1e3 * killed['slowest']:.0f} ms, and the workers were back after "
            f"{seconds} s."
        )
    return lines


def console_table(content: dict[str, Any]) -> Table:
    """For a terminal: a column for each strategy."""
    table = Table(box=box.SIMPLE, title="milliseconds, and %", caption_justify="left")
    for i, (name, *values) in enumerate(zip(COLUMNS, *rows(content), strict=True)):
        if i == 0:
            for title in ("", *values):
                table.add_column(title, justify="right" if title else "left")
        else:
            table.add_row(name, *values)
    table.caption = "\n".join(targets(content))
    return table


def markdown(content: dict[str, Any]) -> str:
    """For the README."""
    versions = content["versions"]
    settings = content["settings"]
    return "\n".join(
        [
            sections.table(COLUMNS, rows(content)),
            "",
            *(f"- {line}" for line in targets(content)),
            "",
            f"Measured with jax {versions['jax']}, Python {versions['python']}, device "
            f"{content['device']}, {settings['requests']} requests with delays and "
            f"{settings['calm_requests']} without for each strategy: "
            f"`{content['command']}`",
        ]
    )


def plot(path: Path, content: dict[str, Any]) -> None:
    """Shares of requests that take longer, without delays and with them; dashed, what
    the simulator says.

    Raises:
      ImportError: matplotlib is missing.
    """
    parts = content["parts"]
    figure = figures.new_figure(12, 4.5)
    left, right = figure.subplots(1, 2, sharey=True)
    for i, name in enumerate(ORDER):
        if f"{name}, delayed" not in parts:
            continue
        for axes, part, style in (
            (left, parts[f"{name}, calm"]["seconds"], "-"),
            (right, parts[f"{name}, delayed"]["seconds"], "-"),
            (right, parts[f"{name}, simulated"], "--"),
        ):
            x, share = simulation.cdf(np.asarray(part, np.float32), 400)
            label = name if style == "-" else None
            axes.step(
                1e3 * x, 1 - share, style, where="post", color=f"C{i}", label=label
            )
    left.set(title="without delays", ylabel="share of requests that take longer")
    right.set(title="with delays; dashed: simulated")
    for axes in (left, right):
        axes.set(xlabel="milliseconds", xscale="log", yscale="log")
        axes.grid(alpha=0.3)
    right.legend()
    figure.savefig(path, dpi=100)
