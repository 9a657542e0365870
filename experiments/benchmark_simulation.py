r"""Times the simulator on all strategies, and prints their quantiles.

python experiments/benchmark_simulation.py --requests=1000000
"""

from __future__ import annotations

import statistics
import time

import jax
from absl import flags
from rich.console import Console

from coded_jax.cli.command_line import command, run
from coded_jax.codes.quorum import ALL_DATA, ANY_K, one_of_each
from coded_jax.inference.costs import Cost, Round
from coded_jax.latency import simulation
from coded_jax.latency.simulation import Machine
from coded_jax.latency.stragglers import Bernoulli, ShiftedExponential
from coded_jax.latency.workloads import Workload
from coded_jax.report import table

REQUESTS = flags.DEFINE_integer(
    "requests", 1_000_000, "simulated with each strategy", lower_bound=1
)
REPEATS = flags.DEFINE_integer(
    "repeats", 5, "of which the median is printed", lower_bound=1
)
MACHINE = Machine(
    ShiftedExponential(0.03, 0.01),
    client=0.03,
    delay=Bernoulli(0.1, 0.1),
    bandwidth=1e8,
    link=1e-3,
    failure=0.01,
    message=5e-5,
)


def cost(*rounds: Round) -> Cost:
    """Returns the cost of rounds on 6 devices, with the whole `F_Conv` as the unit."""
    return Cost(rounds, 0.01, Round(1.0), 6)


PIECES = cost(Round(0.4, 8e3, 2e3))
WORKLOADS = {
    "uncoded": Workload(ALL_DATA, 6, 0, PIECES),
    "hedged": Workload(ALL_DATA, 6, 0, PIECES, hedge_after=0.03),
    "replication": Workload(one_of_each(2, 6), 2, 4, cost(Round(0.71, 1e4, 1e4))),
    "coded": Workload(ANY_K, 4, 2, cost(Round(0.57, 8e3, 2e3, 0.003, 0.03))),
    "mds": Workload(ANY_K, 4, 2, cost(*[Round(0.3, 5e3, 5e3, 3e-4, 3e-4)] * 2)),
}


@command()
def main(argv: list[str]) -> None:
    seconds, quantiles = [], {}
    for seed in range(REPEATS.value + 1):
        begun = time.perf_counter()
        completed = simulation.simulate(
            jax.random.key(seed), 6, REQUESTS.value, MACHINE, WORKLOADS
        )
        quantiles = {x: simulation.summary(y.seconds) for x, y in completed.items()}
        seconds.append(time.perf_counter() - begun)
    first, *others = seconds
    columns = {"strategy": lambda x: x[0]} | {
        name: lambda x, name=name: f"{1e3 * x[1][name]:.1f}"
        for name in simulation.QUANTILES
    }
    console = Console()
    made = table.make(columns, quantiles.items())
    console.print(table.to_terminal(made, "milliseconds"))
    console.print(
        f"{REQUESTS.value:,} requests, 6 devices, {len(WORKLOADS)} strategies: "
        f"{statistics.median(others):.2f} s, the first time {first:.1f} s with "
        f"compilation (jax {jax.__version__}, {jax.devices()[0].device_kind})",
        highlight=False,
    )


if __name__ == "__main__":
    run(main)
