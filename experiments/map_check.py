r"""Measures points of the map on real workers, and compares them with the simulation.

    python experiments/map_check.py --points=experiments/map_points.json \
        --output=runs/map_check

At each point the best strategies of the fastest families, in the median and at p99, are
measured on processes that stand for machines: their computation, the client and the
link are slowed by the rule of the simulator; what the client needs for a message is
measured first, and simulated.
Prints a table, and writes `map_check.json`. Run the same command again to go on after a
stop.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

from absl import flags
from rich.console import Console
from tables import maps

from coded_jax.checks import require
from coded_jax.cli.command_line import command, origin, run
from coded_jax.devices import startup
from coded_jax.report import table
from coded_jax.runs.workdir import absolute
from coded_jax.service.studies import map_check
from coded_jax.service.studies.latency_study import Study

POINTS = flags.DEFINE_string("points", None, "JSON file of the points", required=True)
OUTPUT = flags.DEFINE_string("output", None, "folder of map_check.json", required=True)
REQUESTS = flags.DEFINE_integer(
    "requests", 100, "of each strategy at each point", lower_bound=20
)
FAMILIES = flags.DEFINE_integer(
    "families", 4, "of strategies that are measured, the fastest", lower_bound=2
)
ENGINE = flags.DEFINE_enum(
    "engine", "ray", ["ray", "local"], "of the workers: processes, or threads"
)


@command(resumes=True)
def main(argv: list[str]) -> None:
    console, engine, count = Console(highlight=False), ENGINE.value, REQUESTS.value
    folder = absolute(OUTPUT.value, "output")
    try:
        records = json.loads(absolute(POINTS.value, "points").read_text())
    except (OSError, ValueError) as error:
        accepted = "a JSON file accepted"
        raise ValueError(f"points: {POINTS.value} given, {accepted}") from error
    fits = isinstance(records, list) and len(records) > 0
    require("points", POINTS.value, fits, "a list of points")
    points = [map_check.point_of(record) for record in records]
    startup.keep_compilations(None)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"points": records, "requests": count}
    settings |= {"families": FAMILIES.value, "engine": engine}
    study = Study(folder / "map_check.json", settings)
    message = functools.partial(map_check.message_seconds, engine, count)
    seconds = study.measure(maps.MESSAGE, count, message, console)
    for point in points:
        conditions = dataclasses.replace(point.conditions, message=seconds)
        point = point._replace(conditions=conditions)
        for label, strategy in map_check.contenders(point, FAMILIES.value).items():

            def of_strategy(ended, point=point, strategy=strategy) -> Any:
                own = map_check.measure_point(point, strategy, engine, count, ended)
                return {"strategy": strategy.text, **own}

            study.measure(f"{point.name}: {label}", count, of_strategy, console)
    study.write(**origin())
    found = maps.outcomes(study.content)
    console.print(table.to_terminal(table.make(maps.CHECK, found)))
    console.print(maps.conclusion(found))
    console.print(f"all of it is in {OUTPUT.value}")


if __name__ == "__main__":
    run(main)
