r"""Disturbs a service in one way after the other, and tells what its clients noticed.

    python experiments/faults.py --workdir=runs/quickstart --output=runs/faults

Four clients each send the next request when their last one is answered: undisturbed,
then while workers are killed, frozen, late or wrong, or processes of the cluster are
killed or frozen. Prints a table, and writes `faults.json`.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import flags
from rich.console import Console
from tables import service as tables

from coded_jax import data
from coded_jax.checks import require
from coded_jax.cli.command_line import command, integers, origin, run
from coded_jax.devices import startup
from coded_jax.latency.stragglers import Bernoulli
from coded_jax.report import table
from coded_jax.runs import workdir
from coded_jax.runs.load import load
from coded_jax.runs.places import absolute
from coded_jax.service import Faults, serve
from coded_jax.service.studies.clients import closed_loop, latencies, wrong_answers
from coded_jax.service.studies.fault_injection import MACHINERY, FaultInjector, Target

WORKDIR = flags.DEFINE_string("workdir", None, "of a finished run", required=True)
OUTPUT = flags.DEFINE_string("output", None, "folder of the report", required=True)
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "folder of prepared TFDS data; TFDS_DATA_DIR if not given"
)
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
      kinds: of `fault_injection.disturb`, one of which is drawn each time.
      every: seconds between them.
      faults: of pieces, drawn for each.
    """

    name: str
    settings: dict[str, Any] = {}
    kinds: tuple[str, ...] = ()
    every: float = 0.0
    faults: Faults | None = None


TABLE = (
    Row("a worker killed every 5 s, two spares", {"spares": 2}, ("kill worker",), 5.0),
    Row("a worker killed every 10 s, one spare", {"spares": 1}, ("kill worker",), 10.0),
    Row("a worker killed every 10 s, no spare", {}, ("kill worker",), 10.0),
    Row("a worker frozen every 20 s, one spare", {"spares": 1}, ("freeze worker",), 20),
    Row("5 % of results 0.1 s late", {}, faults=Faults((Bernoulli(0.05, 0.1),))),
    Row("1 % raise, 1 % NaN", {}, faults=Faults(exceptions=0.01, nans=0.01)),
    *(
        Row(
            f"the {name} {done}",
            {"deadline": 60.0, "spares": 1},
            (f"{what} {whom}",),
            30.0,
        )
        for whom, name in zip(
            MACHINERY, ("raylet", "raylet's agents", "head (GCS)"), strict=True
        )
        for what, done in (("kill", "killed"), ("freeze", "frozen"))
    ),
    Row("the model loaded anew every 10 s", {}, ("reload",), 10.0),
)


def measured(row: Row, split: Any) -> dict[str, Any]:
    """Starts a service, disturbs it, and returns what its clients noticed."""
    with serve(
        WORKDIR.value, "ray", faults=row.faults, batches=(1,), **row.settings
    ) as service:
        ask = lambda images: service.submit(images).result()
        send = lambda go_on: closed_loop(ask, split.images, CLIENTS.value, go_on)
        calm = send(lambda number: number < CALM.value)
        reload = lambda: service.reload(load(WORKDIR.value, 1))
        target = Target(service.summary, os.getpid(), reload)
        injector = FaultInjector(target, row.kinds, row.every) if row.kinds else None
        least = LEAST if row.kinds else 0
        go_on = lambda number: (
            number < REQUESTS.value
            or (injector is not None and len(injector.done) < least)
        )
        exchanges = send(go_on)
        if injector is not None:
            injector.close()
        done = injector.done if injector is not None else []
        return {
            "name": row.name,
            "settings": row.settings,
            "faults": repr(row.faults),
            "calm": latencies(calm),
            "disturbed": latencies(exchanges),
            "wrong": wrong_answers(service.model, split.images, exchanges),
            "done": [some._asdict() for some in done],
        }


@command(resumes=True)
def main(argv: list[str]) -> None:
    console, begun = Console(), time.monotonic()
    rows = integers("rows", ROWS.value) or [*range(len(TABLE))]
    fits = all(row in range(len(TABLE)) for row in rows)
    require("rows", ",".join(ROWS.value), fits, f"some of 0..{len(TABLE) - 1}")
    folder = absolute(OUTPUT.value, "output")
    results = workdir.read_results(absolute(WORKDIR.value))
    startup.keep_compilations(None)
    folder.mkdir(parents=True, exist_ok=True)
    split = data.load(results["dataset"], DATA_DIR.value).test
    content: dict[str, Any] = {
        **origin(),
        "device": jax.devices()[0].device_kind,
        "split": results["split"],
        "clients": CLIENTS.value,
        "rows": [],
    }
    for number in rows:
        console.print(TABLE[number].name, highlight=False)
        content["rows"].append(measured(TABLE[number], split))
        content["timing"] = {"seconds": {"total": time.monotonic() - begun}}
        _write(folder / "faults.json", content)
    made = table.make(tables.FAULTS, content["rows"])
    console.print(table.to_terminal(made))
    console.print(f"all of it is in {OUTPUT.value}", highlight=False)


def _write(path: Path, content: dict[str, Any]) -> None:
    workdir.write_atomically(path, json.dumps(content, indent=1))


if __name__ == "__main__":
    run(main)
