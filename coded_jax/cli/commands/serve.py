r"""Serves the model of a flagfile, with a worker for every piece.

    python -m coded_jax serve --flagfile=quickstart.flags

It starts a cluster on this machine, waits until all workers are up, and answers on
http://127.0.0.1:8000, which is a page to look at, too; where the run is not finished,
it is finished first. Ctrl-C or SIGTERM ends it, when the requests in flight are
answered; SIGHUP loads the run anew.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator

from absl import flags

from coded_jax.checks import first_line, require
from coded_jax.cli import experiment_flags, runtime_flags, setting_flags
from coded_jax.cli.command_line import command, command_text
from coded_jax.cli.experiment_flags import DEVICES, WORKDIR
from coded_jax.devices import startup
from coded_jax.runs import experiment, workdir
from coded_jax.runs.config import Config
from coded_jax.runs.load import load
from coded_jax.runs.workdir import absolute
from coded_jax.service import ENGINES, Service, serve
from coded_jax.service.config import WebConfig
from coded_jax.training import signals

setting_flags.define(WebConfig)
METRICS_PORT = flags.DEFINE_integer(
    "metrics_port",
    None,
    "of the loopback interface, for Prometheus",
    lower_bound=0,
    upper_bound=65535,
)
DEMO = flags.DEFINE_bool(
    "demo", False, "give the page buttons that kill, slow and corrupt workers"
)


def _check_front(settings: WebConfig) -> str | None:
    """Checks all that the front needs, before minutes are spent on training; returns
    the token, None if none."""
    try:
        from coded_jax.service.web import app, server  # noqa: F401
    except ImportError as error:
        problem = f"serve: it needs {error.name}; pip install 'coded_jax[serve]'"
        raise ImportError(problem) from None

    ports = {"port": (settings.host, settings.port)}
    if METRICS_PORT.value is not None:
        ports["metrics_port"] = ("127.0.0.1", METRICS_PORT.value)
    for name, (host, port) in ports.items():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            socket.create_server((host, port), family=family).close()
        except OSError as error:
            accepted = f"a free one accepted ({error})"
            raise ValueError(f"{name}: {port} given, {accepted}") from None
    if settings.tls_cert is not None and settings.tls_key is not None:
        server.check_certificate(settings.tls_cert, settings.tls_key)
    return server.read_token(settings.token_file) if settings.token_file else None


def _finish_run() -> None:
    """Trains and evaluates what the flags describe, unless that is done already."""
    places = experiment_flags.places_from_flags()
    try:
        results = workdir.read_results(absolute(places.workdir))
    except ValueError:
        prepared = experiment_flags.prepare_from_flags()
        experiment.run(prepared, command=command_text())
        return
    same = Config.from_json(results["config"]) == experiment_flags.config_from_flags()
    accepted = "that of a run with these flags, or a new one"
    require("workdir", WORKDIR.value, same, accepted)
    experiment_flags.start_jax()


@contextlib.contextmanager
def _listening(
    service: Service, settings: WebConfig, token: str | None
) -> Iterator[str]:
    """Answers over HTTP meanwhile, and at the end what is in flight; `POST /reload` and
    SIGHUP load the run anew. Yields the address."""
    from coded_jax.service.web import app, server
    from coded_jax.service.web.page import Demo

    def reload() -> None:
        service.reload(load(WORKDIR.value, 1))
        startup.shorten_collections()

    def tell_of_reload() -> None:
        try:
            reload()
            print("the model was loaded anew", file=sys.stderr, flush=True)
        except Exception as error:  # the model of before goes on
            print(f"reload: {first_line(error)}", file=sys.stderr, flush=True)

    def on_hangup(number: int, frame: object) -> None:
        threading.Thread(target=tell_of_reload, daemon=True).start()

    demo = Demo(service) if DEMO.value else None
    front = app.create_app(service, settings, reload, token=token, demo=demo)
    port, close = server.listen(front, settings)
    signal.signal(signal.SIGHUP, on_hangup)
    try:
        scheme = "https" if settings.tls_cert else "http"
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        yield f"{scheme}://{host}:{port}"
    finally:
        close()


def _export(service: Service, port: int) -> None:
    """Serves Prometheus text on the loopback interface until the program ends."""
    import prometheus_client

    from coded_jax.service.web.app import Exported

    registry = prometheus_client.CollectorRegistry()
    registry.register(Exported(service.summary))
    prometheus_client.start_http_server(port, addr="127.0.0.1", registry=registry)


@command(resumes=True)
def main(argv: list[str]) -> None:
    """Serves requests until Ctrl-C, and prints how the workers fared."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    signal.signal(signal.SIGHUP, lambda *_: None)  # the run is loaded in any case
    settings = WebConfig(**setting_flags.read(WebConfig))
    token = _check_front(settings)
    faults = runtime_flags.faults_from_flags()
    options = runtime_flags.options_from_flags()
    engine = runtime_flags.ENGINE.value
    if "devices" not in ENGINES[engine].ignores:
        options["devices"] = DEVICES.value
    _finish_run()
    with serve(WORKDIR.value, engine, faults=faults, **options) as service:
        with _listening(service, settings, token) as url:
            startup.shorten_collections()
            if METRICS_PORT.value is not None:
                _export(service, METRICS_PORT.value)
            print(f"serving {WORKDIR.value} on {url}", flush=True)
            # The first stop waits for what is in flight, the second one acts at once.
            with signals.stop_requests() as stopped:
                while not stopped():
                    if (failure := service.failure()) is not None:
                        raise RuntimeError(failure)
                    time.sleep(0.1)
        summary = service.summary()
        for i, worker in enumerate(summary["workers"]):
            lost = _in_words(worker["losses"])
            print(f"worker {i}: {worker['restarts']} restarts; results lost: {lost}")
        print("requests:", _in_words(summary["requests"]))


def _in_words(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
