"""The front of a service as an ASGI application: its routes, answers and errors."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import numpy as np
import swagger_ui_bundle
from prometheus_client import CONTENT_TYPE_LATEST as TEXT
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.responses import Response as Answer
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from coded_jax.service import service as services
from coded_jax.service.config import WebConfig
from coded_jax.service.gathering import Closed, NotEnoughResults, WrongResults
from coded_jax.service.requests import ARRAYS, QUANTILES, Response
from coded_jax.service.web import images, page
from coded_jax.service.web.server import guarded

SWAGGER = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
"""Files of Swagger UI that the page `/docs` needs; this process serves them."""
SOURCES = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'"
"""Limits what a browser loads for this page to this host."""
SMALL = 2**14  # bytes of arrays
GRACE = 0.25  # seconds after a deadline, in which the service itself says what lacks

STATUS: dict[type[Exception], int] = {
    ClientDisconnect: 400,  # which is not sent: nobody is there
    services.AlreadyReloading: 409,
    services.Overloaded: 503,
    services.NotReady: 503,
    Closed: 503,
    WrongResults: 503,
    NotEnoughResults: 504,
    Exception: 500,  # a defect, which is logged, too
}
"""HTTP status of each exception that a request may fail with."""


def create_app(
    service: services.Service,
    settings: WebConfig,
    reload: Callable[[], None],
    *,
    token: str | None = None,
    demo: page.Demo | None = None,
) -> Starlette:
    """Returns the front of a service; `server.listen` runs it.

    Args:
      service: responds.
      settings: of which `max_body` is looked at.
      reload: loads the model anew, for `POST /reload`, or raises what
        `Service.reload` does.
      token: that requests are to bear; None if none.
      demo: lets workers fail, for the page; None if nobody may.
    """
    static, counts = page.FILES / "static", CollectorRegistry()
    counts.register(Exported(service.summary))
    swagger, sources = swagger_ui_bundle.swagger_ui_path, {page.POLICY: SOURCES}
    routes: list[BaseRoute] = [
        Route("/predict", predict, methods=["POST"]),
        Route("/summary", lambda _: JSONResponse(service.summary())),
        Route("/metrics", lambda _: Answer(generate_latest(counts), media_type=TEXT)),
        Route("/healthz", lambda _: _state(service.failure())),
        Route("/readyz", lambda _: _state(service.obstacle())),
        Route("/reload", reload_model, methods=["POST"]),
        page.file_route("/openapi.json", page.FILES / "openapi.json"),
        page.file_route("/docs", static / "docs.html", sources),
        *(page.file_route(f"/docs/{name}", swagger / name) for name in SWAGGER),
        Mount("/static", StaticFiles(directory=str(static))),
        *page.ROUTES,
        *(page.DEMO_ROUTES if demo else ()),
    ]
    errors: dict[Any, Any] = dict.fromkeys(STATUS, _failure)
    errors[HTTPException] = _http_error
    guard = Middleware(guarded, token=token)
    app = Starlette(routes=routes, middleware=[guard], exception_handlers=errors)
    app.router.redirect_slashes = False
    app.state.service, app.state.reload, app.state.demo = service, reload, demo
    app.state.max_body, app.state.guarded = settings.max_body, token is not None
    return app


# Routes without `async` run in threads: they may wait.


async def predict(request: Request) -> Answer:
    """Answers with the response to the images in the body."""
    service: services.Service = request.app.state.service
    body = await images.read_body(request)
    given = request.headers.get("deadline", "inf")
    with images.refusals(f"Deadline: {given!r} given, seconds accepted"):
        seconds = min(float(given), service.deadline)

    def submit() -> concurrent.futures.Future[Response]:
        with images.refusals():
            batch = images.decode(body, service.model)
            # A full queue, or no workers, is an error at once: no thread waits.
            return service.submit(batch, seconds, block=False)

    # A picture may take a while to decode, for which others are not to wait; a small
    # array takes microseconds, less than it takes to hand over to a thread.
    small = len(body) < SMALL and body.startswith(images.NPY)
    future = submit() if small else await asyncio.to_thread(submit)
    response = await _unless_hung_up(request, asyncio.wrap_future(future), seconds)
    if response.logits.nbytes < SMALL:
        return JSONResponse(as_json(response))
    return await asyncio.to_thread(lambda: JSONResponse(as_json(response)))


async def _unless_hung_up(
    request: Request, response: asyncio.Future[Response], seconds: float
) -> Response:
    """Returns the response, or gives it up when the client does or time is up."""
    hung_up = asyncio.ensure_future(request.receive())  # nothing else is to come
    waiting: set[asyncio.Future] = {response, hung_up}
    first = asyncio.FIRST_COMPLETED
    try:
        await asyncio.wait(waiting, timeout=seconds + GRACE, return_when=first)
        if response.cancelled():
            raise Closed("the service is closed")
        if response.done():
            return response.result()
        if hung_up.done():
            raise ClientDisconnect
        raise NotEnoughResults(f"no answer within {seconds:g} s")
    finally:
        hung_up.cancel()
        response.cancel()


def as_json(response: Response) -> dict[str, Any]:
    """Returns a response as numbers and lists; what is not finite as None."""
    content = response._asdict()
    for name in ARRAYS:
        values: np.ndarray = content[name]
        if not (finite := np.isfinite(values)).all():
            values = values.astype(object)
            values[~finite] = None
        content[name] = values.tolist()
    return content


def _state(problem: str | None) -> Answer:
    return JSONResponse({"status": "ok"}) if problem is None else _error(503, problem)


async def reload_model(request: Request) -> Answer:
    """Loads the model anew; where that fails, the model of before goes on."""
    done: concurrent.futures.Future[None] = concurrent.futures.Future()
    done.set_running_or_notify_cancel()  # so that a request that ends leaves it

    def run() -> None:
        try:
            done.set_result(request.app.state.reload())
        except Exception as error:
            done.set_exception(error)

    # It may take minutes: a thread that nobody waits for when the program ends.
    threading.Thread(target=run, daemon=True).start()
    await asyncio.wrap_future(done)
    return JSONResponse({"reloaded": True})


class Exported(Collector):
    """Exports the summary of a service, see `Service.summary`, to Prometheus."""

    def __init__(self, summary: Callable[[], dict[str, Any]]) -> None:
        self._summary = summary

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics of the moment."""
        return _families(self._summary())


def _families(summary: dict[str, Any]) -> Iterator[Metric]:
    """Yields a summary as Prometheus metrics."""
    count, gauge = CounterMetricFamily, GaugeMetricFamily
    single = lambda name: [(summary[name],)]
    workers = [*enumerate(summary["workers"])]
    of_workers = lambda name: [(i, worker[name]) for i, worker in workers]
    quantile = QUANTILES.get
    quantiles = [(quantile(name), x) for name, x in summary["seconds"].items()]
    losses = [(i, *lost) for i, worker in workers for lost in worker["losses"].items()]
    anew = "clusters that were started anew or joined again"
    decoded = "responses that a decoder had part in"
    agree = "responses whose results agree with each other"
    requests, ready = summary["requests"].items(), [(summary["obstacle"] is None,)]
    for kind, name, text, labels, samples in (
        (count, "requests", "requests by their end", ["end"], requests),
        (gauge, "latency_seconds", "of the last requests", ["quantile"], quantiles),
        (gauge, "decoded_share", decoded, [], single("decoded")),
        (gauge, "checked_share", agree, [], single("checked")),
        (count, "batches", "batches computed", [], single("batches")),
        (count, "images", "images computed", [], single("images")),
        (gauge, "ready", "whether requests can be answered", [], ready),
        (count, "cluster_restarts", anew, [], single("cluster_restarts")),
        (count, "losses", "results lost", ["worker", "why"], losses),
        (count, "restarts", "of workers", ["worker"], of_workers("restarts")),
        (gauge, "worker_up", "whether it can compute", ["worker"], of_workers("up")),
    ):
        family = kind(f"coded_jax_{name}", text, labels=labels)
        for *values, number in samples:
            number = float("nan") if number is None else number
            family.add_metric([str(value) for value in values], number)
        yield family


def _error(status: int, line: str) -> Answer:
    later = {"Retry-After": "1"} if status == 503 else None  # seconds
    return JSONResponse({"error": line}, status, later)


async def _failure(request: Request, error: Exception) -> Answer:
    status = next(s for kind, s in STATUS.items() if isinstance(error, kind))
    defect = f"{type(error).__name__}: {error}"
    return _error(status, defect if status == 500 else str(error))


async def _http_error(request: Request, error: HTTPException) -> Answer:
    line, path, headers = error.detail, quote(request.scope["path"]), error.headers
    if error.status_code == 404:
        line = f"{path}: not found"
    elif error.status_code == 405 and headers:
        line = f"{path}: {request.method} given, {headers['Allow']} accepted"
    return JSONResponse({"error": line}, error.status_code, headers)
