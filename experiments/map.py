r"""Maps where coding pays: which strategy answers first, over two conditions.

    python experiments/map.py --base_model=resnet50 --given_drop=1 --n=6 \
        --x=bandwidth,1e6,1e10,9 --y=tail,0.03,3,9 --output=runs/map/resnet50
    python experiments/map.py --output=runs/map/vgg16 \
        experiments/results/cheap/*.json

Arguments are finished runs, or their `results.json`, whose network and learned codes
are compared; without them `--base_model` or `--cnn` names a network, and `--given_drop`
what a learned code loses. Prints a table, and writes `map.json` and `map.png`. Run the
same command again to go on after a stop.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

import jax
import numpy as np
from absl import flags
from rich.console import Console
from tables import maps as tables
from tables.network_flags import cnn_from_flags
from tables.stored import read_runs

from coded_jax.checks import require
from coded_jax.cli import setting_flags
from coded_jax.cli.command_line import command, origin, run
from coded_jax.latency import comparison
from coded_jax.latency.machines import AXES, Conditions
from coded_jax.latency.simulation import QUANTILES
from coded_jax.latency.stragglers import Trace
from coded_jax.latency.strategies import strategies
from coded_jax.report.table import make, to_terminal
from coded_jax.runs import workdir
from coded_jax.runs.progress import progress_bars
from coded_jax.runs.workdir import absolute
from coded_jax.service.studies.latency_study import Study
from coded_jax.settings import settings

N = flags.DEFINE_integer("n", 6, "devices", lower_bound=2, upper_bound=11)
MARGIN = flags.DEFINE_float(
    "margin",
    1.0,
    "points by which the expected accuracy may be lower",
    lower_bound=0,
    upper_bound=100,
)
REQUESTS = flags.DEFINE_integer(
    # 50 of so many are slower than p99.9.
    "requests",
    50_000,
    "simulated at each point",
    lower_bound=1000,
)
SEED = flags.DEFINE_integer("seed", 0, "fixes the draws")
OUTPUT = flags.DEFINE_string("output", None, "folder of the map", required=True)
MOST = 100  # points of an axis: each pair of points is a comparison of its own
NAMES = [x.name for x in settings(Conditions) if x.name != "trace"]
setting_flags.define(Conditions, NAMES)
TRACE = flags.DEFINE_string(
    "trace", None, "file of measured latencies, one in a line, for --straggling=trace"
)
X, Y = (
    flags.DEFINE_string(
        name,
        default,
        f"axis: one of {', '.join(AXES)}, its least and greatest value, and how many "
        "points, evenly spaced in their logarithms",
    )
    for name, default in (("x", "bandwidth,1e5,1e9,9"), ("y", "tail,0.03,3,9"))
)


def plane_from_flags() -> tuple[dict[str, Any], dict[str, Conditions]]:
    """Returns the plane that the flags describe, as `map.json` has it, and the
    conditions of its points by their places along x and y, as `3,0`.

    Raises:
      ValueError: an axis is none, or a value is out of range.
    """
    plane: dict[str, Any] = {}
    for flag in (X, Y):
        axis, *numbers = flag.value.split(",")
        try:
            least, most, points = map(float, numbers)
            fits = 0 < least < most and points in range(2, MOST + 1) and axis in AXES
        except ValueError:
            fits = False
        accepted = (
            f"an axis, two numbers above 0 and 2..{MOST} points, as tail,0.03,3,9,"
        )
        require(flag.name, flag.value, fits, accepted)
        values = np.geomspace(least, most, int(points)).tolist()
        plane |= {
            flag.name: axis,
            f"{flag.name}_values": [float(f"{x:.3g}") for x in values],
        }
    x, y = plane["x"], plane["y"]
    require("y", y, x != y, "another axis than x")
    given = setting_flags.read(Conditions, NAMES)
    is_trace = given["straggling"] == "trace"
    fits = TRACE.value is None or is_trace
    require("trace", TRACE.value, fits, "none without --straggling=trace")
    accepted = "an x and a y other than tail with straggling=trace"
    require("axis", "tail", not (is_trace and "tail" in (x, y)), accepted)
    trace = Trace.read(TRACE.value).values if TRACE.value else ()
    fixed = Conditions(**given, trace=trace)
    plane["fixed"] = dataclasses.asdict(fixed)
    return plane, {
        f"{i},{j}": dataclasses.replace(fixed, **{x: own, y: other})
        for j, other in enumerate(plane["y_values"])
        for i, own in enumerate(plane["x_values"])
    }


@command(arguments=True, resumes=True)
def main(argv: list[str]) -> None:
    console = Console(highlight=False)
    folder = absolute(OUTPUT.value, "output")
    runs = read_runs(argv[1:]) if argv[1:] else []
    plane, points = plane_from_flags()
    name, cnn = cnn_from_flags(runs)
    margin, count = MARGIN.value / 100, REQUESTS.value
    question = {
        **{"network": name, "n": N.value, "accuracy": cnn.accuracy, "drop": cnn.drop},
        **{"margin": margin, "plane": plane, "requests": count, "seed": SEED.value},
    }
    folder.mkdir(parents=True, exist_ok=True)
    with progress_bars(console) as bars:
        bar = bars.add_task("costs", total=None, note="of all strategies")
        compared = strategies(cnn, N.value, runs)
        bars.update(bar, description="points", total=len(points), note="")
        asked = {"question": question, "strategies": [x.to_json() for x in compared]}
        study = Study(folder / "points.json", asked)
        compare = functools.partial(
            comparison.compare,
            jax.random.key(SEED.value),
            compared,
            least_accuracy=cnn.accuracy - margin,
            requests=count,
        )
        for place, conditions in points.items():
            study.part(place, functools.partial(compare, conditions))
            bars.advance(bar)
    content = {**asked, "points": study.parts, **origin()}
    workdir.write_atomically(folder / "map.json", json.dumps(content))
    rows = [tables.Row(folder.name, content, x) for x in QUANTILES]
    shown = to_terminal(make(tables.MAP, rows))
    console.print(tables.title(content), shown, sep="\n")
    try:
        tables.draw(folder / "map.png", content)
    except ImportError as error:
        console.print(str(error), markup=False)
    console.print(f"all of it is in {OUTPUT.value}")


if __name__ == "__main__":
    run(main)
