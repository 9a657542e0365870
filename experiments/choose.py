r"""Chooses a code: which (k, r) is answered best within a latency target.

    python experiments/choose.py --target=0.08 --failure=0.02 \
        --compute=shifted_exponential --compute_parameters=0.05,0.02 \
        experiments/results/frontier/*.json

Arguments are workdirs of finished runs, or their `results.json`. All their codes, and
uncoded pieces with hedged requests, are simulated on the same devices. Prints a table,
the best first, and writes `choose.json` and `choose.png` where `--output` is given.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging
from rich import box
from rich.console import Console
from rich.table import Table
from tables.finished_runs import read_runs

from coded_jax.cli.command_line import parse_flags
from coded_jax.latency import planner, simulation, stragglers
from coded_jax.latency.planner import Candidate, Row
from coded_jax.runs import workdir

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


def machine_from_flags() -> simulation.Machine:
    late = LATE.value and stragglers.make(LATE.value, LATE_PARAMETERS.value)
    compute = stragglers.make(COMPUTE.value, COMPUTE_PARAMETERS.value)
    return simulation.Machine(compute, late, BANDWIDTH.value, FAILURE.value)


def candidates(runs: list[dict[str, Any]], seconds: float) -> list[Candidate]:
    """Every code of the runs that can be planned with, each once.

    Args:
      runs: the contents of their `results.json`.
      seconds: that the client would take for the whole of `F_Conv`.
    """
    found: dict[tuple, Candidate] = {}
    for results in runs:
        for name in results["costs"]:
            try:
                each = planner.candidate(results, seconds, name=name)
            except ValueError:  # without parity, or other than pieces of an image
                continue
            label = each.code
            grid = "x".join(map(str, results["split"]["grid"]))
            each = each._replace(code=f"{label}, {grid}")
            found.setdefault((each.code, each.work), each)
            if label == "uncoded":
                late = HEDGE_AFTER.value
                late = 2 * seconds * each.work.rounds[0].work if late is None else late
                hedged = dataclasses.replace(
                    each.work, strategy="hedged", hedge_after=late
                )
                accuracy = results["base"]["test_accuracy"]
                known = planner.exact(f"hedged, {grid}", hedged, accuracy)
                found.setdefault((known.code, hedged), known)
    if not found:
        raise ValueError("runs: with no code to choose given, one or more accepted")
    return list(found.values())


def table(rows: list[Row]) -> Table:
    """For a terminal; milliseconds and percent."""
    told = Table(box=box.SIMPLE, title="milliseconds, and %", collapse_padding=True)
    told.add_column("code", min_width=16)
    for name in ("k + r", "work", "p50", "p99", "p99.9", "in time", "right"):
        told.add_column(name, justify="right")
    for row in rows[: ROWS.value]:
        times = (f"{1e3 * seconds:.1f}" for seconds in (row.p50, row.p99, row.p999))
        shares = (f"{100 * share:.2f}" for share in (row.answered, row.accuracy))
        sizes = f"{row.k} + {row.r}"
        told.add_row(row.code, sizes, f"{row.work:.3f}", *times, *shares)
    return told


def plot(path: Path, chosen: list[Candidate], machine: simulation.Machine) -> None:
    """Shares of requests that take longer.

    Raises:
      ImportError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need: pip install 'coded_jax[plot]'") from error
    works = {f"{c.code} k={c.work.k} r={c.work.r}": c.work for c in chosen}
    n = max(work.n for work in works.values())
    key = jax.random.key(SEED.value)
    completed = simulation.simulate(key, n, REQUESTS.value, machine, works)
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for name, (seconds, _) in completed.items():
        x, share = simulation.cdf(seconds, 400)
        axes.step(1e3 * x, 1 - share, where="post", label=name)
    axes.axvline(1e3 * TARGET.value, color="k", lw=0.8)
    axes.set(xlabel="milliseconds", ylabel="share of requests that take longer")
    axes.set(xscale="log", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=100)


def main(argv: list[str]) -> None:
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # no notes on accelerators not found
    console = Console()
    try:
        if not TARGET.value > 0:
            raise ValueError(f"target: {TARGET.value} given, more than 0 accepted")
        machine = machine_from_flags()
        runs = read_runs(argv[1:])
        median = CLIENT.value
        if median is None:
            drawn = machine.compute.sample(jax.random.key(SEED.value), (10_001,))
            median = float(jax.numpy.median(drawn))
        known = candidates(runs, median)
        rows = planner.plan(
            jax.random.key(SEED.value),
            known,
            machine,
            TARGET.value,
            MAX_DEVICES.value,
            REQUESTS.value,
        )
        console.print(table(rows))
        best = rows[0]
        console.print(
            f"best within {1e3 * TARGET.value:g} ms: {best.code}, k={best.k} "
            f"r={best.r}, expected accuracy {100 * best.accuracy:.2f} %",
            highlight=False,
        )
        if OUTPUT.value:
            folder = workdir.absolute(OUTPUT.value, "output")
            folder.mkdir(parents=True, exist_ok=True)
            content = {
                "machine": repr(machine),
                "target": TARGET.value,
                "rows": [row._asdict() for row in rows],
            }
            workdir.write_atomically(folder / "choose.json", json.dumps(content))
            names = [(row.code, row.k, row.r) for row in rows[:8]]
            chosen = [c for c in known if (c.code, c.work.k, c.work.r) in names]
            plot(folder / "choose.png", chosen, machine)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
