"""Answers: what to run on some devices, why, and what comes next, in a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from coded_jax.latency import comparison
from coded_jax.latency.comparison import TIE, Forecast
from coded_jax.latency.machines import Machine
from coded_jax.latency.strategies import CODED, FAMILIES

REASONS = {
    "devices": "of the devices' computation",
    "link": "of the link",
    "client": "of the client's work",
    "waiting": "of waiting for slow devices",
}


def first_in_words(
    rows: Sequence[Forecast], quantile: str, machine: Machine, least_accuracy: float
) -> str:
    """Returns a sentence with the first strategy, its reason, and the runner-up.

    Args:
      rows: of `comparison.forecasts`.
      quantile: whose seconds count.
      machine: the devices.
      least_accuracy: in [0, 1], that was asked for.
    """
    best = comparison.first(rows, quantile, least_accuracy)
    if best is None:
        most = max(rows, key=lambda row: row.accuracy)
        return (
            f"run nothing of these: none has an expected accuracy of "
            f"{100 * least_accuracy:.2f} % or more with {quantile} below infinity; the "
            f"most accurate one, {most.strategy.text}, has {100 * most.accuracy:.2f} % "
            f"({quantile}: {_ms(most.seconds[quantile])})"
        )
    winner, second, lead = best
    clauses = [
        f"run {_name_of(winner)}: {quantile} {_ms(winner.seconds[quantile])}, "
        f"expected accuracy {100 * winner.accuracy:.2f} %"
    ]
    if second:
        other = f"the runner-up, {second.strategy.text}"
        seconds = _ms(second.seconds[quantile])
        if lead > TIE:
            saved = _saving(winner, second, quantile, machine)
            longer = f"{seconds}, {100 * lead:.0f} % longer"
            clauses.append(f"it saves {saved} against {other} ({longer})")
        else:
            ranks = [FAMILIES.index(x.strategy.family) for x in (winner, second)]
            simpler = ", and simpler" if ranks[0] < ranks[1] else ""
            tie = f"{100 * TIE:.0f} %"
            clauses.append(
                f"it is as fast within {tie} as {other} ({seconds}){simpler}"
            )
    return "; ".join([*clauses, _codes_in_words(rows, winner, quantile)])


def most_accurate_in_words(rows: Sequence[Forecast], target: float) -> str:
    """Returns a sentence with the most accurate strategy within a target, and the
    runner-up.

    Args:
      rows: of `comparison.rank`, the best first.
      target: in seconds.
    """
    winner, *others = rows
    rivals = [row for row in others if row.strategy.family != winner.strategy.family]
    in_time = lambda row: (
        f"{100 * row.accuracy:.2f} %, with {100 * row.answered:.2f} % answered"
    )
    clauses = [
        f"run {_name_of(winner)}: within {_ms(target)} its expected accuracy is "
        f"{in_time(winner)}",
        *(f"runner-up: {row.strategy.text} ({in_time(row)})" for row in rivals[:1]),
    ]
    return "; ".join([*clauses, _codes_in_words(rows, winner, "p99")])


def _codes_in_words(rows: Sequence[Forecast], winner: Forecast, quantile: str) -> str:
    """Returns a clause on whether a code is worth it."""
    if winner.strategy.family in CODED:
        return "a code is worth it"
    coded = [row for row in rows if row.strategy.family in CODED]
    if not coded:
        return "no code was compared"
    best = min(coded, key=lambda row: (row.seconds[quantile], -row.accuracy))
    return (
        f"no code is worth it: the fastest of them, {best.strategy.text}, has "
        f"{quantile} {_ms(best.seconds[quantile])} at {100 * best.accuracy:.2f} %"
    )


def _name_of(row: Forecast) -> str:
    """Returns a strategy's name with the devices that it needs, and a code's kind."""
    strategy = row.strategy
    if strategy.n < 2:
        return strategy.text
    kind = f" ({strategy.family})" if strategy.family in CODED else ""
    return f"{strategy.text}{kind}, on {strategy.n} devices"


def _saving(winner: Forecast, other: Forecast, quantile: str, machine: Machine) -> str:
    """Returns the greatest of the savings of one strategy against another one."""
    usual = comparison.usual_seconds(machine)

    def parts(row: Forecast) -> dict[str, float]:
        """Returns the seconds of a request at that quantile, by what takes them."""
        workload = row.strategy.workload
        rounds = comparison.round_seconds(workload, machine, usual)
        names = ("devices", "link", "client")
        seconds = {name: sum(own[name] for own in rounds) for name in names}
        share = workload.cost.client_total / workload.cost.whole_flops
        seconds["client"] += machine.client * share
        return seconds | {"waiting": row.seconds[quantile] - sum(seconds.values())}

    ours, theirs = parts(winner), parts(other)
    savings = {part: theirs[part] - ours[part] for part in REASONS}
    part = max(savings, key=savings.__getitem__)
    if not 0 < savings[part] < math.inf:
        return "nothing that counts"
    return f"{_ms(savings[part])} {REASONS[part]}"


def _ms(seconds: float) -> str:
    """Returns seconds as milliseconds, or that there is no such time."""
    return f"{1e3 * seconds:.3g} ms" if seconds < math.inf else "never"
