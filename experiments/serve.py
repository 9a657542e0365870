r"""Serves the model of a flagfile, with a worker for every piece.

    python experiments/serve.py --flagfile=experiments/flags/quickstart.flags

It starts a cluster on this machine, waits until all workers are up, and answers on
http://127.0.0.1:8000; where the run is not finished, it is finished first. Ctrl-C ends
it.
"""

from __future__ import annotations

import signal
import socket
import sys
import time

import run
from absl import app, flags, logging
from rich import box
from rich.console import Console
from rich.table import Table

from coded_jax import serving
from coded_jax.cli.command_line import parse_flags, refuse_arguments
from coded_jax.cli.experiment_flags import config_from_flags
from coded_jax.cli.runtime_flags import (
    BATCHES,
    ENGINE,
    OPTIONS,
    faults_from_flags,
)
from coded_jax.runs import workdir
from coded_jax.runs.config import Config
from coded_jax.serving import http, metrics
from coded_jax.serving.pool import LOSSES
from coded_jax.training import signals

PORT = flags.DEFINE_integer("port", 8000, "of the loopback interface; 0 for a free one")
METRICS_PORT = flags.DEFINE_integer(
    "metrics_port", None, "of the loopback interface, for Prometheus"
)


def finish_run(argv: list[str]) -> None:
    """Trains and evaluates what the flags describe, unless that has been done."""
    folder = workdir.absolute(run.WORKDIR.value)
    try:
        results = workdir.read_results(folder)
    except ValueError:
        run.main(argv)
        return
    if Config.from_json(results["config"]) != config_from_flags():
        raise ValueError(
            f"workdir: {run.WORKDIR.value!r} given, that of a run with these flags "
            "accepted, or a new one"
        )
    run.start_jax()


def check_ports() -> None:
    """Checks that ports are free, before minutes are spent."""
    for flag in (PORT, METRICS_PORT):
        if flag.value is None:
            continue
        if not 0 <= flag.value < 2**16:
            raise ValueError(f"{flag.name}: {flag.value} given, 0..65535 accepted")
        try:
            with socket.create_server(("127.0.0.1", flag.value)):
                pass
        except OSError as error:
            raise ValueError(
                f"{flag.name}: {flag.value} given, a free one accepted ({error})"
            ) from None


def start() -> serving.Service:
    """Starts a service as the flags describe it."""
    options = {flag.name: flag.value for flag in OPTIONS}
    if "devices" in serving.ENGINES[ENGINE.value].accepts:
        options["devices"] = run.DEVICES.value
    return serving.serve(
        run.WORKDIR.value,
        ENGINE.value,
        batches=tuple(BATCHES.value),
        faults=faults_from_flags(),
        **options,
    )


def main(argv: list[str]) -> None:
    refuse_arguments(argv)
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    closing = []
    try:
        check_ports()
        faults_from_flags()
        finish_run(argv)
        service = start()
        closing.append(service.close)
        port, close = http.listen(service, PORT.value)
        closing.append(close)
        if METRICS_PORT.value is not None:
            closing.append(metrics.expose(METRICS_PORT.value, service.summary))
        with signals.stop_requests() as stopped:
            print(f"serving {run.WORKDIR.value} on http://127.0.0.1:{port}", flush=True)
            while not stopped():
                time.sleep(0.1)
        Console().print(table(service.summary()))
    except KeyboardInterrupt:
        sys.exit("stopped")
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    finally:
        for close in reversed(closing):
            close()


def table(summary: dict) -> Table:
    """Returns the requests and losses of a service, for people."""
    requests, seconds = summary["requests"], summary["seconds"]
    rows = Table(box=box.SIMPLE)
    for name in ("worker", "restarts", *LOSSES):
        rows.add_column(name, justify="right")
    for i, worker in enumerate(summary["workers"]):
        losses = map(str, worker["losses"].values())
        rows.add_row(str(i), str(worker["restarts"]), *losses)
    rows.caption = ", ".join(f"{count} {end}" for end, count in requests.items())
    if requests["answered"]:
        times = ", ".join(f"{q} {1e3 * value:.1f} ms" for q, value in seconds.items())
        rows.caption += f"\n{times}, {100 * summary['decoded']:.1f} % decoded"
    return rows


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
