r"""Times the simulator on all strategies, and prints their quantiles.

python experiments/benchmark_simulation.py --requests=1000000
"""

from __future__ import annotations

import platform
import time

import jax
from absl import flags
from rich import box
from rich.console import Console
from rich.table import Table

from coded_jax.cli.command_line import command, run
from coded_jax.codes.quorum import ALL_DATA, ANY_K, one_of_each
from coded_jax.inference.costs import Cost, Round
from coded_jax.latency import simulation
from coded_jax.latency.simulation import Machine
from coded_jax.latency.stragglers import Bernoulli, ShiftedExponential
from coded_jax.latency.workloads import Workload

REQUESTS = flags.DEFINE_integer(
    "requests", 1_000_000, "simulated with each strategy", lower_bound=1
)
REPEATS = flags.DEFINE_integer(
    "repeats", 5, "of which the median is printed", lower_bound=1
)

MACHINE = Machine(
    ShiftedExponential(0.03, 0.01),
    0.03,
    Bernoulli(0.1, 0.1),
    1e8,
    1e-3,
    0.01,
    message=5e-5,
)


def cost(*rounds: Round, devices: int = 6) -> Cost:
    """Returns the cost of some rounds, with the whole `F_Conv` as the unit."""
    return Cost(rounds, 0.01, Round(1.0), devices)


PIECES = cost(Round(0.4, 8e3, 2e3))
WORKLOADS = {
    "uncoded": Workload(ALL_DATA, 6, 0, PIECES),
    "hedged": Workload(ALL_DATA, 6, 0, PIECES, hedge_after=0.03),
    "replication": Workload(one_of_each(2, 6), 2, 4, cost(Round(0.71, 1e4, 1e4))),
    "coded": Workload(ANY_K, 4, 2, cost(Round(0.57, 8e3, 2e3, 0.003, 0.03))),
    "mds": Workload(ANY_K, 4, 2, cost(*[Round(0.3, 5e3, 5e3, 3e-4, 3e-4)] * 2)),
}


def simulate(seed: int) -> tuple[float, dict[str, dict[str, float]]]:
    """Simulates all strategies; returns the seconds that took, and their quantiles."""
    start = time.perf_counter()
    key = jax.random.key(seed)
    completed = simulation.simulate(key, 6, REQUESTS.value, MACHINE, WORKLOADS)
    quantiles = {
        name: simulation.summary(completion.seconds)
        for name, completion in completed.items()
    }
    return time.perf_counter() - start, quantiles


@command()
def main(argv: list[str]) -> None:
    first, _ = simulate(0)
    seconds, quantiles = zip(*map(simulate, range(1, REPEATS.value + 1)), strict=True)
    table = Table(box=box.SIMPLE, title="milliseconds")
    for name in ("strategy", "p50", "p90", "p99", "p99.9"):
        table.add_column(name, justify="left" if name == "strategy" else "right")
    for name, summary in quantiles[-1].items():
        table.add_row(name, *(f"{1e3 * summary[q]:.1f}" for q in simulation.QUANTILES))
    console = Console()
    console.print(table)
    console.print(
        f"{REQUESTS.value:,} requests, 6 devices, {len(WORKLOADS)} strategies: "
        f"{sorted(seconds)[len(seconds) // 2]:.2f} s, the first time {first:.1f} s "
        f"with compilation (jax {jax.__version__}, Python {platform.python_version()}, "
        f"{jax.devices()[0].device_kind})",
        highlight=False,
    )


if __name__ == "__main__":
    run(main)
