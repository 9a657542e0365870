r"""Disturbs a service in one way after the other, and tells what its clients noticed.

    python experiments/faults.py --workdir=runs/quickstart --output=runs/faults

Four clients each send the next request when their last one is answered: undisturbed,
then while workers are killed, frozen, late or wrong, or processes of the cluster are
killed or frozen. Prints a table, and writes `faults.json`.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from absl import flags
from measured import OUTPUT, WORKDIR, Report
from rich.console import Console
from tables import service as tables

from coded_jax.checks import require
from coded_jax.cli.command_line import command, integers, run
from coded_jax.latency.stragglers import Bernoulli
from coded_jax.report import table
from coded_jax.runs.load import load
from coded_jax.service import Faults, serve
from coded_jax.service.studies.clients import closed_loop, latencies, wrong_answers
from coded_jax.service.studies.fault_injection import MACHINERY, Target, disturbed

REQUESTS = flags.DEFINE_integer("requests", 8000, "of each row, at least")
CALM = flags.DEFINE_integer("calm", 2000, "requests before, undisturbed")
CLIENTS = flags.DEFINE_integer("clients", 4, "that send requests")
ROWS = flags.DEFINE_list("rows", [], "numbers of rows, from 0; all if not given")
LEAST = 3  # disturbances of a row, or its clients go on


class Row(NamedTuple):
    """A way to disturb a service.

    Attributes:
      name: for the table.
      settings: of the service.
      kind: of `fault_injection.disturb`; none if empty.
      every: seconds between them.
      faults: of pieces, drawn for each.
    """

    name: str
    settings: dict[str, Any] = {}
    kind: str = ""
    every: float = 0.0
    faults: Faults | None = None


TABLE = (
    Row("a worker killed every 5 s, two spares", {"spares": 2}, "kill worker", 5.0),
    Row("a worker killed every 10 s, one spare", {"spares": 1}, "kill worker", 10.0),
    Row("a worker killed every 10 s, no spare", {}, "kill worker", 10.0),
    Row("a worker frozen every 20 s, one spare", {"spares": 1}, "freeze worker", 20.0),
    Row("5 % of results 0.1 s late", faults=Faults((Bernoulli(0.05, 0.1),))),
    Row("1 % raise, 1 % NaN", faults=Faults(exceptions=0.01, nans=0.01)),
    *(
        Row(f"the {name} {done}", {"deadline": 60.0, "spares": 1}, f"{what} {whom}", 30)
        for whom, name in zip(
            MACHINERY, ("raylet", "raylet's agents", "head (GCS)"), strict=True
        )
        for what, done in (("kill", "killed"), ("freeze", "frozen"))
    ),
    Row("the model loaded anew every 10 s", {}, "reload", 10.0),
)


def measured(row: Row, images: Any) -> dict[str, Any]:
    """Starts a service, disturbs it, and returns what its clients noticed."""
    with serve(
        WORKDIR.value, "ray", faults=row.faults, batches=(1,), **row.settings
    ) as service:
        ask = lambda images: service.submit(images).result()
        send = lambda go_on: closed_loop(ask, images, CLIENTS.value, go_on)
        calm = send(lambda number: number < CALM.value)
        reload = lambda: service.reload(load(WORKDIR.value, 1))
        target = Target(service.summary, os.getpid(), reload)
        kinds, least = ((row.kind,), LEAST) if row.kind else ((), 0)
        with disturbed(target, kinds, row.every) as done:
            exchanges = send(lambda i: i < REQUESTS.value or len(done) < least)
        return {
            "name": row.name,
            "settings": row.settings,
            "faults": repr(row.faults),
            "calm": latencies(calm),
            "disturbed": latencies(exchanges),
            "wrong": wrong_answers(service.model, images, exchanges),
            "done": [some._asdict() for some in done],
        }


@command(resumes=True)
def main(argv: list[str]) -> None:
    console, rows = Console(highlight=False), []
    numbers = integers("rows", ROWS.value) or [*range(len(TABLE))]
    fits = all(number in range(len(TABLE)) for number in numbers)
    require("rows", ",".join(ROWS.value), fits, f"some of 0..{len(TABLE) - 1}")
    report = Report()
    for number in numbers:
        console.print(TABLE[number].name)
        rows.append(measured(TABLE[number], report.test.images))
        report.write("faults.json", clients=CLIENTS.value, rows=rows)
    console.print(table.to_terminal(table.make(tables.FAULTS, rows)))
    console.print(f"all of it is in {OUTPUT.value}")


if __name__ == "__main__":
    run(main)
