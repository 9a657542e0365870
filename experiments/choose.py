r"""Chooses a code: which (k, r) is answered best within a latency target.

    python experiments/choose.py --target=0.08 --failure=0.02 \
        --compute=shifted_exponential --compute_parameters=0.05,0.02 \
        experiments/results/history/frontier/*.json

Arguments are workdirs of finished runs, or their `results.json`. All their codes, and
uncoded pieces with hedged requests, are simulated on the same devices. Prints a table,
the best first, and writes `choose.json` and `choose.png` where `--output` is given.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import jax
from absl import flags
from rich.console import Console
from tables import choice, latency_figures
from tables.finished_runs import read_runs

from coded_jax.checks import require
from coded_jax.cli.command_line import command, run
from coded_jax.latency import planner, simulation, stragglers
from coded_jax.latency.planner import Candidate, Forecast
from coded_jax.latency.simulation import Machine
from coded_jax.runs import workdir
from coded_jax.runs.places import absolute

TARGET = flags.DEFINE_float("target", None, "seconds for a request", required=True)
COMPUTE = flags.DEFINE_enum(
    "compute",
    "shifted_exponential",
    tuple(stragglers.DISTRIBUTIONS),
    "of the seconds that a device takes for the whole of F_Conv",
)
COMPUTE_PARAMETERS = flags.DEFINE_list(
    "compute_parameters", ["0.05", "0.02"], "of that distribution"
)
LATE = flags.DEFINE_enum(
    "late", None, tuple(stragglers.DISTRIBUTIONS), "delay of a device, whatever it does"
)
LATE_PARAMETERS = flags.DEFINE_list("late_parameters", [], "of that distribution")
BANDWIDTH = flags.DEFINE_float("bandwidth", math.inf, "bytes per second of a device")
FAILURE = flags.DEFINE_float("failure", 0.0, "probability that a device never answers")
CLIENT = flags.DEFINE_float(
    "client_seconds",
    None,
    "that the client would take for the whole of F_Conv, by which its encoding and "
    "decoding are timed; as the median device if not given",
)
HEDGE_AFTER = flags.DEFINE_float(
    "hedge_after", None, "seconds after which missing pieces are sent again"
)
MAX_DEVICES = flags.DEFINE_integer("max_devices", None, "that may be used")
REQUESTS = flags.DEFINE_integer("requests", planner.REQUESTS, "simulated")
SEED = flags.DEFINE_integer("seed", 0, "fixes the draws")
ROWS = flags.DEFINE_integer("rows", 20, "of the table, at most")
OUTPUT = flags.DEFINE_string("output", None, "folder of choose.json and choose.png")


def machine_from_flags() -> Machine:
    """Returns the devices that the flags describe."""
    late = LATE.value and stragglers.make_distribution(
        LATE.value, LATE_PARAMETERS.value
    )
    compute = stragglers.make_distribution(COMPUTE.value, COMPUTE_PARAMETERS.value)
    client = median_seconds(compute) if CLIENT.value is None else CLIENT.value
    return Machine(compute, client, late, BANDWIDTH.value, failure=FAILURE.value)


def median_seconds(compute: stragglers.Distribution) -> float:
    """Returns a device's median seconds for the whole `F_Conv`."""
    seconds = compute.sample(jax.random.key(SEED.value), (10_001,))
    return float(jax.numpy.median(seconds))


def write(
    candidates: Sequence[Candidate], rows: Sequence[Forecast], machine: Machine
) -> None:
    """Writes `choose.json`, and `choose.png` with the best codes."""
    folder = absolute(OUTPUT.value, "output")
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "machine": repr(machine),
        "target": TARGET.value,
        "rows": [row._asdict() for row in rows],
    }
    workdir.write_atomically(folder / "choose.json", json.dumps(content))
    best = [(row.code, row.k, row.r) for row in rows[:8]]
    workloads = {
        f"{c.code} k={c.workload.k} r={c.workload.r}": c.workload
        for c in candidates
        if (c.code, c.workload.k, c.workload.r) in best
    }
    n = max(workload.n for workload in workloads.values())
    key = jax.random.key(SEED.value)
    completed = simulation.simulate(key, n, REQUESTS.value, machine, workloads)
    seconds = {name: completion.seconds for name, completion in completed.items()}
    latency_figures.draw_codes(folder / "choose.png", seconds, TARGET.value)


@command(arguments=True, errors=(ValueError, OSError, ImportError))
def main(argv: list[str]) -> None:
    require("target", TARGET.value, TARGET.value > 0, "more than 0")
    machine = machine_from_flags()
    runs = read_runs(argv[1:])
    usual = median_seconds(machine.compute)
    candidates = choice.candidates(runs, usual, HEDGE_AFTER.value)
    rows = planner.rank(
        jax.random.key(SEED.value),
        candidates,
        machine,
        TARGET.value,
        max_devices=MAX_DEVICES.value,
        requests=REQUESTS.value,
    )
    console = Console()
    console.print(choice.table(rows[: ROWS.value]))
    best = rows[0]
    console.print(
        f"best within {1e3 * TARGET.value:g} ms: {best.code}, k={best.k} "
        f"r={best.r}, expected accuracy {100 * best.accuracy:.2f} %",
        highlight=False,
    )
    if OUTPUT.value:
        write(candidates, rows, machine)


if __name__ == "__main__":
    run(main)
