r"""Serves the model of a flagfile, with a worker for every piece.

    python -m coded_jax serve --flagfile=quickstart.flags

It starts a cluster on this machine, waits until all workers are up, and answers on
http://127.0.0.1:8000; where the run is not finished, it is finished first. Ctrl-C ends
it.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from typing import Any

from absl import flags
from rich.console import Console

from coded_jax import serving
from coded_jax.checks import require
from coded_jax.cli import run_flags, runtime_flags
from coded_jax.cli.command_line import command, command_text
from coded_jax.cli.experiment_flags import config_from_flags
from coded_jax.report.service_table import workers_table
from coded_jax.runs import experiment, workdir
from coded_jax.runs.config import Config
from coded_jax.runs.places import absolute
from coded_jax.serving import http, metrics
from coded_jax.training import signals

PORT = flags.DEFINE_integer("port", 8000, "of the loopback interface; 0 for a free one")
METRICS_PORT = flags.DEFINE_integer(
    "metrics_port", None, "of the loopback interface, for Prometheus"
)


def check_ports() -> None:
    """Checks that both ports are free, before minutes are spent on training."""
    for flag in (PORT, METRICS_PORT):
        if flag.value is None:
            continue
        require(flag.name, flag.value, 0 <= flag.value < 2**16, "0..65535")
        try:
            with socket.create_server(("127.0.0.1", flag.value)):
                pass
        except OSError as error:
            raise ValueError(
                f"{flag.name}: {flag.value} given, a free one accepted ({error})"
            ) from None


def finish_run() -> None:
    """Trains and evaluates what the flags describe, unless that is done already.

    Raises:
      ValueError: the folder has a finished run with other flags.
    """
    path = run_flags.WORKDIR.value
    try:
        results = workdir.read_results(absolute(path))
    except ValueError:
        prepared = run_flags.prepare_from_flags()
        experiment.run(prepared, command=command_text())
        return
    same = Config.from_json(results["config"]) == config_from_flags()
    require("workdir", path, same, "that of a run with these flags, or a new one")
    run_flags.start_jax()


def start() -> serving.Service:
    """Starts the service that the flags describe, ready to answer."""
    engine = runtime_flags.ENGINE.value
    options: dict[str, Any] = {flag.name: flag.value for flag in runtime_flags.OPTIONS}
    if "devices" in serving.ENGINES[engine].accepts:
        options["devices"] = run_flags.DEVICES.value
    return serving.serve(
        run_flags.WORKDIR.value,
        engine,
        batches=tuple(runtime_flags.BATCHES.value),
        faults=runtime_flags.faults_from_flags(),
        **options,
    )


@command(resumes=True)
def main(argv: list[str]) -> None:
    """Serves requests until Ctrl-C, and prints how the workers fared."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    check_ports()
    runtime_flags.faults_from_flags()
    finish_run()
    with contextlib.ExitStack() as closing:
        service = closing.enter_context(start())
        port, close = http.listen(service, PORT.value)
        closing.callback(close)
        if METRICS_PORT.value is not None:
            closing.callback(metrics.expose(METRICS_PORT.value, service.summary))
        path = run_flags.WORKDIR.value
        with signals.stop_requests() as stopped:
            print(f"serving {path} on http://127.0.0.1:{port}", flush=True)
            while not stopped():
                time.sleep(0.1)
        Console().print(workers_table(service.summary()))
