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

import json
from typing import Any

import numpy as np
from absl import flags
from rich.console import Console
from tables import maps as tables
from tables.stored import read_runs

from coded_jax.checks import require
from coded_jax.cli import setting_flags
from coded_jax.cli.command_line import command, origin, run
from coded_jax.cli.network_flags import cnn_from_flags
from coded_jax.latency import maps
from coded_jax.latency.machines import AXES, Conditions
from coded_jax.latency.stragglers import Trace
from coded_jax.latency.strategies import strategies
from coded_jax.report.table import to_terminal
from coded_jax.runs import workdir
from coded_jax.runs.progress import progress_bars
from coded_jax.runs.workdir import absolute
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
    "requests", maps.REQUESTS, "simulated at each point", lower_bound=1000
)
SEED = flags.DEFINE_integer("seed", 0, "fixes the draws")
KEEP = flags.DEFINE_boolean(
    "keep_measured", True, "whether points of the folder's map are used again"
)
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


def plane_from_flags() -> maps.Plane:
    """Returns the plane that the flags describe.

    Raises:
      ValueError: an axis is none, or a value is out of range.
    """
    axes: dict[str, Any] = {}
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
        axes[flag.name] = axis
        values = np.geomspace(least, most, int(points)).tolist()
        axes[f"{flag.name}_values"] = tuple(float(f"{x:.3g}") for x in values)
    names = axes["x"], axes["y"]
    require("y", axes["y"], axes["x"] != axes["y"], "another axis than x")
    conditions = setting_flags.read(Conditions, NAMES)
    is_trace = conditions["straggling"] == "trace"
    fits = TRACE.value is None or is_trace
    require("trace", TRACE.value, fits, "none without --straggling=trace")
    accepted = "an x and a y other than tail with straggling=trace"
    require("axis", "tail", not (is_trace and "tail" in names), accepted)
    trace = Trace.read(TRACE.value).values if TRACE.value else ()
    plane = maps.Plane(**axes, fixed=Conditions(**conditions, trace=trace))
    for _ in plane.points():  # raises where a value is out of range
        pass
    return plane


@command(arguments=True, resumes=True)
def main(argv: list[str]) -> None:
    console = Console(highlight=False)
    folder = absolute(OUTPUT.value, "output")
    runs = read_runs(argv[1:]) if argv[1:] else []
    asked = plane_from_flags()
    name, cnn = cnn_from_flags(runs)
    question = maps.Question(
        network=name,
        n=N.value,
        accuracy=cnn.accuracy,
        drop=cnn.drop,
        margin=MARGIN.value / 100,
        plane=asked,
        requests=REQUESTS.value,
        seed=SEED.value,
    )
    folder.mkdir(parents=True, exist_ok=True)
    path, points = folder / "map.json", len(asked.x_values) * len(asked.y_values)
    with progress_bars(console) as bars:
        bar = bars.add_task("costs", total=None, note="of all strategies")
        compared = strategies(cnn, N.value, runs)
        bars.update(bar, description="points", total=points, note="")
        advance = lambda: bars.advance(bar)
        content = maps.draw_up(question, compared, path, advance, KEEP.value)
    content |= origin()
    workdir.write_atomically(path, json.dumps(content))
    rows = to_terminal(tables.rows(content), left=2)
    console.print(tables.title(content), rows, sep="\n")
    try:
        tables.draw(folder / "map.png", content)
    except ImportError as error:
        console.print(str(error), markup=False)
    console.print(f"all of it is in {OUTPUT.value}")


if __name__ == "__main__":
    run(main)
