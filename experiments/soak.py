r"""Runs a service for a long time under all faults at once, and counts what went wrong.

    python experiments/soak.py --workdir=runs/soak --output=runs/soaked --minutes=10

It serves a finished run, which has its check (`check.py`), by `serve.py`, in a process
of its own, whose workers are late, raise, and return NaN and wrong numbers. Clients
send images over HTTP, while workers and processes of the cluster are killed and frozen
and the model is loaded anew. At last it tells how many requests were answered, late,
lost and wrong, and what the front end's process held at the start and at the end.
"""

from __future__ import annotations

import collections
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from absl import flags
from rich.console import Console
from tables import service as tables

from coded_jax import data
from coded_jax.checks import require
from coded_jax.cli.command_line import command, origin, run
from coded_jax.devices import startup
from coded_jax.runs import workdir
from coded_jax.runs.load import load
from coded_jax.runs.places import absolute
from coded_jax.service.studies.clients import Exchange, closed_loop, wrong_answers
from coded_jax.service.studies.fault_injection import MACHINERY, FaultInjector, Target
from coded_jax.service.web.client import Client

WORKDIR = flags.DEFINE_string("workdir", None, "of a finished run", required=True)
OUTPUT = flags.DEFINE_string("output", None, "folder of the report", required=True)
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "folder of prepared TFDS data; TFDS_DATA_DIR if not given"
)
MINUTES = flags.DEFINE_float("minutes", 10.0, "how long")
EVERY = flags.DEFINE_float("every", 10.0, "seconds between disturbances")
CLIENTS = flags.DEFINE_integer("clients", 4, "that send requests")
LATE = flags.DEFINE_float("late", 1.0, "seconds after which an answer is late")
DEADLINE = flags.DEFINE_float("deadline", 60.0, "seconds that a request may take")
WARM_UP = flags.DEFINE_float("warm_up", 30.0, "seconds of requests before the start")
FAULTS = flags.DEFINE_list(
    "faults",
    [
        "--spares=2",
        "--delay=bernoulli",
        "--delay_parameters=0.02,0.1",
        "--exceptions=0.005",
        "--nans=0.005",
        "--corruptions=0.005",
        "--check_wait=0.2",
    ],
    "flags of serve.py",
)
KINDS = (
    *("kill worker",) * 6,
    *("freeze worker",) * 3,
    *(f"{what} {whom}" for whom in MACHINERY for what in ("kill", "freeze")),
    "reload",
)
CHUNK = 20.0  # seconds of requests that are checked and forgotten at once
STARTUP = 600.0  # seconds in which the service has to be up
CALM = 5.0  # seconds of rest before the process is looked at
END = 60.0  # seconds in which it has to end


class Held:
    """What a process holds: memory, open files and threads."""

    def __init__(self, process: int) -> None:
        folder = Path(f"/proc/{process}")
        pages = int((folder / "statm").read_text().split()[1])
        self.memory = pages * os.sysconf("SC_PAGE_SIZE")
        self.files = len([*(folder / "fd").iterdir()])
        self.threads = len([*(folder / "task").iterdir()])


def started(log: Path) -> tuple[subprocess.Popen, str]:
    """Starts `serve.py`, and returns its process and address when it is up.

    Raises:
      RuntimeError: it has ended, or is not up in time.
    """
    script = str(Path(__file__).with_name("serve.py"))
    flagfile = f"--flagfile={WORKDIR.value}/flags.txt"
    own = ["--port=0", f"--deadline={DEADLINE.value}"]
    with open(log, "w") as file:
        process = subprocess.Popen(
            [sys.executable, script, flagfile, *own, *FAULTS.value],
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    end = time.monotonic() + STARTUP
    while time.monotonic() < end and process.poll() is None:
        if match := re.search(r"^serving .* on (http://\S+)$", log.read_text(), re.M):
            return process, match[1]
        time.sleep(0.1)
    process.kill()
    raise RuntimeError(f"the service has not started, see {log}")


class Counts:
    """Counts of requests by their end, and the slowest answer."""

    def __init__(self) -> None:
        ends = ("answered", "checked", "late", "lost", "wrong", "wrong_checked")
        self.of = collections.Counter(dict.fromkeys(ends, 0))
        self.slowest, self.errors = 0.0, collections.Counter()

    def add(
        self, exchanges: list[Exchange], wrong: Callable[[list[Exchange]], int]
    ) -> None:
        """Counts requests, and the wrong ones among their answers."""
        answered = [e for e in exchanges if e.response is not None]
        checked = [e for e in answered if e.response.checked]
        unchecked = [e for e in answered if not e.response.checked]
        self.of["answered"] += len(answered)
        self.of["checked"] += len(checked)
        self.of["wrong_checked"] += (found := wrong(checked))
        self.of["wrong"] += found + wrong(unchecked)
        self.of["late"] += sum(e.seconds > LATE.value for e in answered)
        self.of["lost"] += len(exchanges) - len(answered)
        self.slowest = max([self.slowest, *(e.seconds for e in answered)])
        self.errors.update(e.error[:200] for e in exchanges if e.error)


def soak(url: str, process: int, split: Any) -> dict[str, Any]:
    """Sends requests and disturbs the service, and returns what happened."""
    model = load(WORKDIR.value, 1)
    counts = Counts()
    wrong = lambda exchanges: wrong_answers(model, split.images, exchanges)
    with Client(url, deadline=DEADLINE.value + 5) as client:

        def send(seconds: float) -> None:
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                until = time.monotonic() + min(left, CHUNK)
                go_on = lambda number, until=until: time.monotonic() < until
                exchanges = closed_loop(
                    client.predict, split.images, CLIENTS.value, go_on
                )
                counts.add(exchanges, wrong)

        send(WARM_UP.value)
        time.sleep(CALM)
        start, counts = Held(process), Counts()
        target = Target(client.summary, process, lambda: client.reload(END * 5))
        injector = FaultInjector(target, KINDS, EVERY.value)
        send(60 * MINUTES.value)
        injector.close()
        while not all(worker["up"] for worker in client.summary()["workers"]):
            time.sleep(0.1)
        time.sleep(CALM)
        end = Held(process)
        summary = client.summary()
    return {
        "requests": dict(counts.of),
        "slowest": counts.slowest,
        "errors": dict(counts.errors.most_common(5)),
        "start": vars(start),
        "end": vars(end),
        "done": [some._asdict() for some in injector.done],
        "summary": summary,
    }


@command()
def main(argv: list[str]) -> None:
    console, begun = Console(), time.monotonic()
    require("minutes", MINUTES.value, MINUTES.value > 0, "more than 0")
    folder = absolute(OUTPUT.value, "output")
    results = workdir.read_results(absolute(WORKDIR.value))
    folder.mkdir(parents=True, exist_ok=True)
    startup.keep_compilations(None)
    split = data.load(results["dataset"], DATA_DIR.value).test
    server, url = started(folder / "serve.log")
    try:
        found = soak(url, server.pid, split)
        server.send_signal(signal.SIGTERM)
        found["exit"] = server.wait(END)
    finally:
        server.kill()
    content = {
        **origin(),
        "device": jax.devices()[0].device_kind,
        "split": results["split"],
        "minutes": MINUTES.value,
        "faults": FAULTS.value,
        "late": LATE.value,
        **found,
        "timing": {"seconds": {"total": time.monotonic() - begun}},
    }
    text = json.dumps(content, indent=1)
    workdir.write_atomically(folder / "soak.json", text)
    errors = [f"{count} x {error}" for error, count in content["errors"].items()]
    console.print(*tables.soak_lines(content), *errors, sep="\n", highlight=False)


if __name__ == "__main__":
    run(main)
