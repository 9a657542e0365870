r"""Chooses what to run: the strategy that is first, or best within a latency target.

    python experiments/choose.py --target=0.08 --failure=0.02 \
        --compute=shifted_exponential --compute_parameters=0.05,0.02 \
        experiments/results/frontier/*.json
    python experiments/choose.py --base_model=resnet50 --given_drop=1 --max_devices=6 \
        --compute_parameters=0.8,0.2 --bandwidth=1e8 --quantile=p99

Arguments are workdirs of finished runs, or their `results.json`, whose network and
learned codes are compared; without them `--base_model` or `--cnn` names a network. All
strategies of `experiments/map.py` are simulated on the same devices. With `--target`
the most accurate one within it comes first, late answers counted as wrong, else the
fastest that is within `--margin` of the network's accuracy. Prints a table and a line
that says what to run, and writes `choose.json` where `--output` is given.
"""

from __future__ import annotations

import json
import math

import jax
from absl import flags
from rich.console import Console
from tables.network_flags import cnn_from_flags
from tables.stored import read_runs

from coded_jax.checks import require
from coded_jax.cli import setting_flags
from coded_jax.cli.command_line import command, run
from coded_jax.latency import answers, comparison, stragglers
from coded_jax.latency.comparison import Forecast
from coded_jax.latency.machines import Conditions, Machine
from coded_jax.latency.simulation import QUANTILES
from coded_jax.latency.strategies import strategies
from coded_jax.report import table
from coded_jax.report.formatting import percent
from coded_jax.runs import workdir
from coded_jax.runs.workdir import absolute

TARGET = flags.DEFINE_float("target", None, "seconds for a request")
QUANTILE = flags.DEFINE_enum(
    "quantile", "p99", list(QUANTILES), "of the latency, by which one is first"
)
MARGIN = flags.DEFINE_float(
    "margin",
    1.0,
    "points by which the expected accuracy may be lower than the network's",
    lower_bound=0,
    upper_bound=100,
)
COMPUTE = flags.DEFINE_enum(
    "compute",
    "shifted_exponential",
    tuple(stragglers.DISTRIBUTIONS),
    "of the seconds that a device takes for the whole of F_Conv",
)
COMPUTE_PARAMETERS = flags.DEFINE_list(
    "compute_parameters", ["0.05", "0.02"], "of that distribution"
)
USUAL = ("bandwidth", "link", "message", "failure", "each_round")
setting_flags.define(Conditions, USUAL)  # as of `map.py`
CLIENT = flags.DEFINE_float(
    "client_seconds",
    None,
    "that the client would take for the whole of F_Conv, by which its encoding and "
    "decoding are timed; twice those of the median device if not given",
    lower_bound=0,
)
MAX_DEVICES = flags.DEFINE_integer(
    "max_devices", 6, "that may be used", lower_bound=2, upper_bound=11
)
REQUESTS = flags.DEFINE_integer(
    "requests", comparison.REQUESTS, "simulated", lower_bound=1
)
SEED = flags.DEFINE_integer("seed", 0, "fixes the draws")
ROWS = 20  # of the table, at most
OUTPUT = flags.DEFINE_string("output", None, "folder of choose.json")

TABLE: table.Columns = {
    "strategy": lambda row: row.strategy.text,
    "work": lambda row: f"{work_of(row):.3f}",
    **{x: lambda row, x=x: f"{1e3 * row.seconds[x]:.1f}" for x in QUANTILES},
    "in time": lambda row: percent(row.answered),
    "right": lambda row: percent(row.accuracy),
}
"""Columns of a strategy; milliseconds and percent."""


def work_of(row: Forecast) -> float:
    """Returns a device's work in all rounds, as a fraction of the whole `F_Conv`."""
    cost = row.strategy.workload.cost
    return cost.device_flops / cost.whole_flops


def machine_from_flags() -> Machine:
    """Returns the devices that the flags describe."""
    try:
        compute = stragglers.make_distribution(COMPUTE.value, COMPUTE_PARAMETERS.value)
    except ValueError as error:
        raise ValueError(f"compute_parameters, {error}") from error
    client = CLIENT.value
    if client is None:
        client = comparison.usual_seconds(Machine(compute, 0.0)) / Conditions().client
    usual = setting_flags.read(Conditions, USUAL)
    Conditions(**usual)  # refuses what is out of range
    return Machine(compute, client, **usual)


@command(arguments=True)
def main(argv: list[str]) -> None:
    target = math.inf if TARGET.value is None else TARGET.value
    require("target", target, target > 0, "more than 0")
    both = TARGET.value is not None and QUANTILE.present
    require("quantile", QUANTILE.value, not both, "none beside --target")
    machine = machine_from_flags()
    runs = read_runs(argv[1:]) if argv[1:] else []
    _, cnn = cnn_from_flags(runs)
    found = strategies(cnn, MAX_DEVICES.value, runs)
    folder = absolute(OUTPUT.value, "output") if OUTPUT.value else None
    if folder:  # before the simulation, so that it is not lost
        folder.mkdir(parents=True, exist_ok=True)
    rows = comparison.forecasts(
        jax.random.key(SEED.value),
        found,
        machine,
        places=comparison.shortlist(found, machine),
        target=target,
        requests=REQUESTS.value,
    )
    if target < math.inf:
        rows = comparison.rank(rows)
        answer = answers.most_accurate_in_words(rows, target)
    else:
        rows = sorted(rows, key=lambda row: row.seconds[QUANTILE.value])
        least = cnn.accuracy - MARGIN.value / 100
        answer = answers.first_in_words(rows, QUANTILE.value, machine, least)
    console = Console(highlight=False)
    made = table.make(TABLE, rows[:ROWS])
    console.print(table.to_terminal(made, "milliseconds, and %"))
    console.print(answer)
    if folder:
        names = ("family", "code", "pieces", "n")
        records = [
            {
                **{name: getattr(row.strategy, name) for name in names},
                **dict(zip("kr", row.strategy.sizes, strict=True)),
                "rounds": len(row.strategy.workload.cost.rounds),
                "work": work_of(row),
                **{name.replace(".", ""): row.seconds[name] for name in QUANTILES},
                "answered": row.answered,
                "accuracy": row.accuracy,
            }
            for row in rows
        ]
        content = {"machine": repr(machine), "target": TARGET.value, "answer": answer}
        text = json.dumps({**content, "rows": records})
        workdir.write_atomically(folder / "choose.json", text)


if __name__ == "__main__":
    run(main)
