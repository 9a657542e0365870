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
from coded_jax.latency import simulation
from coded_jax.latency.simulation import Machine
from coded_jax.latency.stragglers import Bernoulli, ShiftedExponential
from coded_jax.latency.workloads import RoundTrip, Workload

REQUESTS = flags.DEFINE_integer(
    "requests", 1_000_000, "simulated with each strategy", lower_bound=1
)
REPEATS = flags.DEFINE_integer(
    "repeats", 5, "of which the median is printed", lower_bound=1
)

MACHINE = Machine(ShiftedExponential(0.03, 0.01), Bernoulli(0.1, 0.1), 1e8, 0.01)
WORKLOADS = {
    "uncoded": Workload(ALL_DATA, 6, 0, (RoundTrip(0.4, 1e4),)),
    "hedged": Workload(ALL_DATA, 6, 0, (RoundTrip(0.4, 1e4),), hedge_after=0.03),
    "replication": Workload(one_of_each(2, 6), 2, 4, (RoundTrip(0.71, 2e4),)),
    "coded": Workload(ANY_K, 4, 2, (RoundTrip(0.57, 1e4, 1e-4, 1e-3),)),
    "mds": Workload(ANY_K, 4, 2, (RoundTrip(0.3, 1e4, 1e-5, 1e-5),) * 2),
}
"""On 6 devices, of which one in a hundred is dead and one in ten 0.1 s late."""


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
