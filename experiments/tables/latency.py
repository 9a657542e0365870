"""The table of a latency study, and its conclusions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from coded_jax.latency import simulation
from coded_jax.report import table
from coded_jax.report.formatting import percent
from tables import stored
from tables.stored import Content, Section

ORDER = ("uncoded", "hedged", "hedged at once", "replication", "mds", "coded")


def part_name(name: str, client: float) -> str:
    """Returns the name of a part with a client of that speed; as it was before clients
    were slowed, for one that is not."""
    return f"{name}, client {1e3 * client:g} ms" if client else name


class Requests(NamedTuple):
    """The requests of a strategy in a study, of the content of `latency.json`, with a
    client that takes so many seconds for the whole `F_Conv`; 0 for this machine."""

    content: Content
    client: float
    name: str

    def part(self, kind: str) -> Any:
        """Returns a part of the study: `calm`, `delayed`, `simulated` or `plan`."""
        return self.content["parts"][part_name(f"{self.name}, {kind}", self.client)]

    def summary(self, kind: str) -> dict[str, float]:
        """Returns statistics of the requests of a part, see `simulation.summary`."""
        part = self.part(kind)
        seconds = part if kind == "simulated" else part["seconds"]
        return simulation.summary(np.asarray(seconds))


def client_text(client: float) -> str:
    """Returns a client's speed, for a cell."""
    return f"{1e3 * client:g} ms" if client else "this machine"


def requests_of(content: Content, client: float) -> list[Requests]:
    """Returns the strategies that a study has, in the order of its tables."""
    parts = content["parts"]
    names = [x for x in ORDER if part_name(f"{x}, delayed", client) in parts]
    return [Requests(content, client, name) for name in names]


def quantile(kind: str, name: str) -> Callable[[Requests], str]:
    """Returns the column of a quantile of a part, in milliseconds."""
    return lambda requests: f"{1e3 * requests.summary(kind)[name]:.1f}"


COLUMNS: table.Columns = {
    "strategy": lambda x: x.name,
    "pieces": lambda x: x.part("plan")["pieces"],
    "work of a device": lambda x: f"{x.part('plan')['work']:.3f}",
    "calm p50": quantile("calm", "p50"),
    **{x: quantile("delayed", x) for x in ("p50", "p99", "p99.9", "gap")},
    **{f"simulated {x}": quantile("simulated", x) for x in ("p50", "p99.9", "gap")},
    "decoded": lambda x: percent(x.part("delayed")["decoded"]),
    "lost": lambda x: str(sum(map(math.isinf, x.part("delayed")["seconds"]))),
    "accuracy": lambda x: percent(x.part("delayed")["accuracy"]),
    "direct": lambda x: percent(x.part("delayed")["direct"]),
}
"""Milliseconds and percent."""


def gap_ratio(plain: list[float], coded: list[float]) -> tuple[float, float, float]:
    """Returns the ratio of the gaps between p99.9 and the median, of seconds of
    requests without and with a code, between the bounds of 95 % of bootstrap samples
    (Efron 1979); NaN where requests were lost."""

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


def conclusions(content: Content) -> list[str]:
    """Returns the conclusions of a study, of `latency.json`, in a line each."""
    parts, clients = content["parts"], content["settings"]["clients"]
    agreement = min(part["agreement"] for part in parts.values() if "agreement" in part)
    lines = [
        *(line for client in clients for line in of_client(content, client)),
        f"{percent(agreement)} % of all answers are those of a direct computation "
        "from the same results.",
    ]
    if killed := parts.get("killed"):
        restarts = ", ".join(f"{x:.1f}" for x in killed["seconds"])
        lines.append(
            f"With {len(killed['seconds'])} workers killed at once, {killed['lost']} "
            f"of {killed['requests']} requests were lost, the slowest took "
            f"{1e3 * killed['slowest']:.0f} ms, and the workers were back after "
            f"{restarts} s."
        )
    return lines


def of_client(content: Content, client: float) -> list[str]:
    """Returns the conclusions that depend on the client's speed."""
    service = content["settings"]["service"]
    coded, uncoded = (Requests(content, client, name) for name in ("coded", "uncoded"))
    calm, plain = (x.summary("calm")["p50"] for x in (coded, uncoded))
    delayed = [x.part("delayed")["seconds"] for x in (uncoded, coded)]
    low, ratio, high = gap_ratio(*delayed)
    machines = f" on machines that take {1e3 * service:g} ms for F_Conv" * bool(service)
    slowed = f"that takes {client_text(client)} for F_Conv"
    who = f"With a client {slowed if client else 'as fast as this machine'}"
    found = {x.name: x.summary("delayed") for x in requests_of(content, client)}
    shortest = []
    for name in ("p50", "p99", "p99.9"):
        winner = min(found, key=lambda strategy: found[strategy][name])
        times = found["coded"][name] / found[winner][name]
        longer = f" (the code takes {times:.2f} times as long)" if times > 1 else ""
        shortest.append(f"the shortest {name} is that of {winner}{longer}")
    return [
        f"{who}, the gap between p99.9 and the median is {ratio:.1f} times smaller "
        f"with the code than uncoded (95 % of resampled studies: {low:.1f} to "
        f"{high:.1f}); without delays{machines}, the median with the code is "
        f"{calm / plain:.2f} times the uncoded one.",
        f"{who} and with delays, {', '.join(shortest)}.",
    ]


def section() -> Section:
    """Returns the table and the conclusions of the stored study."""
    (content,) = stored.read("latency").values()
    settings = content["settings"]
    rows = [x for client in settings["clients"] for x in requests_of(content, client)]
    columns = {"client": lambda x: client_text(x.client), **COLUMNS}
    return stored.section(
        table.make(columns, rows),
        "\n".join(f"- {line}" for line in conclusions(content)),
        f"{settings['requests']} requests with delays and {settings['calm_requests']} "
        f"without for each strategy: `{content['command']}`",
        contents=[content],
    )


SECTIONS = {"latency": section}
