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
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags
from measured import WORKDIR, Report
from rich.console import Console
from tables import service as tables

from coded_jax.cli.command_line import command, run
from coded_jax.runs.load import load
from coded_jax.service.studies.clients import closed_loop, wrong_answers
from coded_jax.service.studies.fault_injection import MACHINERY, Target, disturbed
from coded_jax.service.web.client import Client

MINUTES = flags.DEFINE_float("minutes", 10.0, "how long", lower_bound=0.01)
EVERY = flags.DEFINE_float("every", 10.0, "seconds between disturbances")
CLIENTS = flags.DEFINE_integer("clients", 4, "that send requests")
LATE = flags.DEFINE_float("late", 1.0, "seconds after which an answer is late")
DEADLINE = flags.DEFINE_float("deadline", 60.0, "seconds that a request may take")
WARM_UP = flags.DEFINE_float("warm_up", 30.0, "seconds of requests before the start")
FAULTS = flags.DEFINE_list(
    "faults",
    [
        *("--spares=2", "--delay=bernoulli", "--delay_parameters=0.02,0.1"),
        *("--exceptions=0.005", "--nans=0.005", "--corruptions=0.005"),
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


def held(process: int) -> dict[str, int]:
    """Returns the memory, open files and threads that a process holds."""
    folder = Path(f"/proc/{process}")
    pages = int((folder / "statm").read_text().split()[1])
    return {
        "memory": pages * os.sysconf("SC_PAGE_SIZE"),
        "files": len([*(folder / "fd").iterdir()]),
        "threads": len([*(folder / "task").iterdir()]),
    }


def started(log: Path) -> tuple[subprocess.Popen, str]:
    """Starts `serve.py`, and returns its process and address when it is up.

    Raises:
      RuntimeError: it has ended, or is not up in time.
    """
    script = str(Path(__file__).with_name("serve.py"))
    own = [f"--flagfile={WORKDIR.value}/flags.txt", "--port=0"]
    own += [f"--deadline={DEADLINE.value}", *FAULTS.value]
    with open(log, "w") as file:
        process = subprocess.Popen(
            [sys.executable, script, *own], stdout=file, stderr=subprocess.STDOUT
        )
    end = time.monotonic() + STARTUP
    while time.monotonic() < end and process.poll() is None:
        if match := re.search(r"^serving .* on (http://\S+)$", log.read_text(), re.M):
            return process, match[1]
        time.sleep(0.1)
    process.kill()
    raise RuntimeError(f"the service has not started, see {log}")


def soak(url: str, process: int, images: Any) -> dict[str, Any]:
    """Sends requests and disturbs the service, and returns what happened."""
    model = load(WORKDIR.value, 1)
    with Client(url, deadline=DEADLINE.value + 5) as client:

        def send(seconds: float) -> dict[str, Any]:
            counts, errors = collections.Counter(), collections.Counter()
            slowest, end = 0.0, time.monotonic() + seconds
            while (now := time.monotonic()) < end:
                until = min(now + CHUNK, end)
                go_on = lambda number, until=until: time.monotonic() < until
                some = closed_loop(client.predict, images, CLIENTS.value, go_on)
                answered = [x for x in some if x.response is not None]
                checked = [x for x in answered if x.response.checked]
                unchecked = [x for x in answered if not x.response.checked]
                wrong = wrong_answers(model, images, checked)
                counts.update(
                    answered=len(answered),
                    checked=len(checked),
                    late=sum(x.seconds > LATE.value for x in answered),
                    lost=len(some) - len(answered),
                    wrong=wrong + wrong_answers(model, images, unchecked),
                    wrong_checked=wrong,
                )
                errors.update(x.error[:200] for x in some if x.error)
                slowest = max([slowest, *(x.seconds for x in some if not x.error)])
            return {
                "requests": dict(counts),
                "slowest": slowest,
                "errors": dict(errors.most_common(5)),
            }

        send(WARM_UP.value)
        time.sleep(CALM)
        start = held(process)
        target = Target(client.summary, process, lambda: client.reload(END * 5))
        with disturbed(target, KINDS, EVERY.value) as done:
            sent = send(60 * MINUTES.value)
        while not all(worker["up"] for worker in client.summary()["workers"]):
            time.sleep(0.1)
        time.sleep(CALM)
        return {
            **sent,
            "start": start,
            "end": held(process),
            "done": [some._asdict() for some in done],
            "summary": client.summary(),
        }


@command()
def main(argv: list[str]) -> None:
    report = Report()
    server, url = started(report.folder / "serve.log")
    try:
        found = soak(url, server.pid, report.test.images)
        server.send_signal(signal.SIGTERM)
        found["exit"] = server.wait(END)
    finally:
        server.kill()
    given = {"minutes": MINUTES.value, "faults": FAULTS.value, "late": LATE.value}
    content = report.write("soak.json", **given, **found)
    errors = [f"{count} x {error}" for error, count in content["errors"].items()]
    Console(highlight=False).print(*tables.soak_lines(content), *errors, sep="\n")


if __name__ == "__main__":
    run(main)
