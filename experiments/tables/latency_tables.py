"""Tables of a latency study, and the bounds of what it shows."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich import box
from rich.console import Group
from rich.table import Table

from coded_jax.latency import simulation
from coded_jax.studies.latency_parts import part_name
from tables import markdown, stored

ORDER = ("uncoded", "hedged", "hedged at once", "replication", "mds", "coded")
COLUMNS = (
    "client",
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


def clients(content: dict[str, Any]) -> list[float]:
    """Returns the seconds of each client that was tried for the whole `F_Conv`; 0 for
    one that was as fast as the machine of the study."""
    return content["settings"].get("clients", [0.0])


def client_text(client: float) -> str:
    """Returns a client's speed, for a cell."""
    return f"{1e3 * client:g} ms" if client else "this machine"


def measured(content: dict[str, Any], client: float) -> list[str]:
    """Returns the strategies that a study has, in the order of its tables."""
    parts = content["parts"]
    return [name for name in ORDER if part_name(f"{name}, delayed", client) in parts]


def rows(content: dict[str, Any]) -> list[list[str]]:
    """Returns a row for each client and strategy; milliseconds and percent.

    Args:
      content: of `latency.json`.
    """
    return [
        [client_text(client), *_row(content, name, client)]
        for client in clients(content)
        for name in measured(content, client)
    ]


def _row(content: dict[str, Any], name: str, client: float) -> list[str]:
    part = lambda kind: content["parts"][part_name(f"{name}, {kind}", client)]
    milliseconds = lambda summary, *names: [f"{1e3 * summary[x]:.1f}" for x in names]
    delayed, plan = part("delayed"), part("plan")
    calm, real = _summary(part("calm")["seconds"]), _summary(delayed["seconds"])
    simulated = _summary(part("simulated"))
    return [
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
    parts, lines = content["parts"], []
    for client in clients(content):
        lines += _of_client(content, client)
    agreement = min(
        part["agreement"]
        for part in parts.values()
        if isinstance(part, dict) and "agreement" in part
    )
    lines.append(
        f"{100 * agreement:.2f} % of all answers are those of a direct computation "
        "from the same results."
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


def _of_client(content: dict[str, Any], client: float) -> list[str]:
    """Returns the conclusions that depend on the client's speed."""
    parts, service = content["parts"], content["settings"]["service"]
    seconds = lambda name: parts[part_name(name, client)]["seconds"]
    coded, uncoded = (
        _summary(seconds(f"{name}, calm"))["p50"] for name in ("coded", "uncoded")
    )
    ratios = gap_ratio(seconds("uncoded, delayed"), seconds("coded, delayed"))
    low, ratio, high = ratios
    machines = (
        f" on machines that take {1e3 * service:g} ms for F_Conv" if service else ""
    )
    who = (
        f"With a client that takes {client_text(client)} for F_Conv"
        if client
        else "With a client as fast as this machine"
    )
    lines = [
        f"{who}, the gap between p99.9 and the median is {ratio:.1f} times smaller "
        f"with the code than uncoded (95 % of resampled studies: {low:.1f} to "
        f"{high:.1f}); without delays{machines}, the median with the code is "
        f"{coded / uncoded:.2f} times the uncoded one.",
        f"{who} and with delays, {_first(content, client)}",
    ]
    if not service and not client:
        alone = 1e3 * float(np.median(parts["bare"]))
        lines.append(
            f"In the median, {1e3 * coded - alone:.1f} ms are added to the {alone:.1f} "
            "ms of the bare computation, one program on one device."
        )
    return lines


def _first(content: dict[str, Any], client: float) -> str:
    """Returns who has the shortest quantiles, and how much longer the code takes."""
    seconds = {
        name: content["parts"][part_name(f"{name}, delayed", client)]["seconds"]
        for name in measured(content, client)
    }
    found = {name: _summary(values) for name, values in seconds.items()}
    texts = []
    for quantile in ("p50", "p99", "p99.9"):
        name = min(found, key=lambda name: found[name][quantile])
        times = found["coded"][quantile] / found[name][quantile]
        longer = f" (the code takes {times:.2f} times as long)" if times > 1 else ""
        texts.append(f"{quantile} is that of {name}{longer}")
    return f"the shortest {', the shortest '.join(texts)}."


def terminal(content: dict[str, Any]) -> Group:
    """Returns a table of each client for a terminal, with a column for each strategy,
    and the conclusions."""
    tables = [_of_terminal(content, client) for client in clients(content)]
    return Group(*tables, *conclusions(content))


def _of_terminal(content: dict[str, Any], client: float) -> Table:
    title = f"milliseconds, and %; client: {client_text(client)}"
    table = Table(box=box.SIMPLE, title=title)
    made = [_row(content, name, client) for name in measured(content, client)]
    first, *others = zip(COLUMNS[1:], *made, strict=True)
    for heading in ("", *first[1:]):
        table.add_column(heading, justify="right" if heading else "left")
    for cells in others:
        table.add_row(*cells)
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
