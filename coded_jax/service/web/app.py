"""The front of a service as an ASGI application: its routes, answers and errors."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import threading
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np
import prometheus_client
import swagger_ui_bundle
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse
from starlette.responses import Response as Answer
from starlette.routing import BaseRoute, Route

from coded_jax.checks import first_line
from coded_jax.service import metrics
from coded_jax.service.engine import Closed, NotEnoughResults, WrongResults
from coded_jax.service.response import ARRAYS, Response
from coded_jax.service.service import (
    AlreadyReloading,
    NotReady,
    Overloaded,
    Service,
)
from coded_jax.service.web import images, openapi
from coded_jax.service.web.access import Guard

T = TypeVar("T")
SMALL = 2**14  # bytes of arrays
LATER = {"Retry-After": "1"}  # seconds
GRACE = 0.25  # seconds after a deadline, in which the service itself says what lacks
STATIC = resources.files("coded_jax.service.web") / "static"
SWAGGER = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
"""Files of Swagger UI that the page of the description needs."""
DOCS_ONLY_THIS_HOST = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'"
    )
}
STATUS: dict[type[Exception], int] = {
    images.UnsupportedFormat: 415,
    ValueError: 400,
    Overloaded: 503,
    NotReady: 503,
    Closed: 503,
    WrongResults: 503,
    NotEnoughResults: 504,
}
"""HTTP status of each exception that a request may fail with."""

Read = Callable[[Request], Awaitable[bytes]]
"""Reads the body of a request, or raises what is to be answered instead."""


def create_app(
    service: Service,
    *,
    max_body: int = 2**26,
    token: str | None = None,
    reload: Callable[[], None] | None = None,
    pages: Callable[[Read], list[BaseRoute]] | None = None,
) -> Starlette:
    """Returns the front of a service; `server.listen` runs it.

    Args:
      service: responds.
      max_body: bytes of a request's body, at most.
      token: that requests are to bear; None if none.
      reload: loads the model anew, for `POST /reload`, or raises what
        `Service.reload` does. None if there is no such route.
      pages: returns more routes, those of a page, from the function by which they
        read the body of a request.
    """
    front = _Front(service, max_body, reload)
    routes: list[BaseRoute] = [
        Route("/predict", front.predict, methods=["POST"]),
        Route("/summary", front.summary),
        Route("/metrics", front.metrics),
        Route("/healthz", front.healthz),
        Route("/readyz", front.readyz),
        Route("/openapi.json", front.openapi),
        Route("/docs", _docs),
        Route("/docs/{name}", _docs),
    ]
    if pages is not None:
        routes += pages(functools.partial(_body, most=max_body))
    if reload is not None:
        routes.append(Route("/reload", front.reload, methods=["POST"]))
    errors: dict[Any, Any] = {
        HTTPException: _http_error,
        ClientDisconnect: _nobody,
        500: _defect,
    }
    guard = Middleware(Guard, token=token)
    app = Starlette(routes=routes, middleware=[guard], exception_handlers=errors)
    app.router.redirect_slashes = False
    return app


class _Front:
    """The routes of a service. Those without `async` run in threads: they may wait."""

    def __init__(
        self, service: Service, max_body: int, reload: Callable[[], None] | None
    ) -> None:
        self._service, self._max_body, self._reload = service, max_body, reload
        self._registry = metrics.registry(service.summary)

    async def predict(self, request: Request) -> Answer:
        try:
            body = await _body(request, self._max_body)
            # A picture may take a while to decode; a small array takes microseconds.
            small = len(body) < SMALL and body.startswith(images.NPY)
            seconds = self._service.deadline
            if (text := request.headers.get("deadline")) is not None:
                try:
                    seconds = min(float(text), seconds)
                except ValueError:
                    problem = f"Deadline: {text!r} given, seconds accepted"
                    raise ValueError(problem) from None
            future = await _call(small, lambda: self._submit(body, seconds))
            answer = asyncio.wrap_future(future)
            response = await _unless_hung_up(request, answer, seconds)
        except tuple(STATUS) as error:
            status = next(s for kind, s in STATUS.items() if isinstance(error, kind))
            return _error(status, str(error))
        small = response.logits.nbytes < SMALL
        return await _call(small, lambda: JSONResponse(as_json(response)))

    def _submit(
        self, body: bytes, deadline: float
    ) -> concurrent.futures.Future[Response]:
        arrays = images.decode(body, *images.kind_of(self._service.model))
        self._service.require_ready()
        # A full queue is an error at once: no thread waits for it.
        return self._service.submit(arrays, deadline, block=False)

    def summary(self, request: Request) -> Answer:
        return JSONResponse(self._service.summary())

    def metrics(self, request: Request) -> Answer:
        text = prometheus_client.generate_latest(self._registry)
        return Answer(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)

    def healthz(self, request: Request) -> Answer:
        return _state(self._service.failure())

    def readyz(self, request: Request) -> Answer:
        return _state(self._service.obstacle())

    async def reload(self, request: Request) -> Answer:
        assert self._reload is not None
        try:
            await _in_daemon(self._reload)
        except AlreadyReloading as error:
            return _error(409, str(error))
        except Exception as error:  # the model of before goes on
            return _error(500, first_line(error))
        return JSONResponse({"reloaded": True})

    def openapi(self, request: Request) -> Answer:
        return JSONResponse(openapi.description(*images.kind_of(self._service.model)))


def as_json(response: Response) -> dict[str, Any]:
    """Returns a response as numbers and lists; what is not finite as None."""
    fields = response._asdict()
    for name in ARRAYS:
        values, finite = fields[name], np.isfinite(fields[name])
        if not finite.all():
            values = values.astype(object)
            values[~finite] = None
        fields[name] = values.tolist()
    return fields


async def _body(request: Request, most: int) -> bytes:
    """Returns the body of a request, of which no more is read than may be."""
    if encoding := request.headers.get("content-encoding"):
        problem = f"Content-Encoding: {encoding!r} given, none accepted"
        raise images.UnsupportedFormat(problem)
    too_large = HTTPException(
        413, f"body: more than {most} bytes given, {most} accepted"
    )
    if int(request.headers.get("content-length", 0)) > most:
        raise too_large
    chunks, size = [], 0
    async for chunk in request.stream():
        chunks.append(chunk)
        size += len(chunk)
        if size > most:
            raise too_large
    return b"".join(chunks)


async def _unless_hung_up(
    request: Request, response: asyncio.Future[Response], seconds: float
) -> Response:
    """Returns the response, or gives it up when the client does or time is up.

    Raises:
      ClientDisconnect: it has.
      NotEnoughResults: there is none in time, as in a queue that stands still.
      Closed: the service is being closed.
    """
    hung_up = asyncio.ensure_future(request.receive())  # nothing else is to come
    try:
        waiting: set[asyncio.Future] = {response, hung_up}
        await asyncio.wait(
            waiting, timeout=seconds + GRACE, return_when=asyncio.FIRST_COMPLETED
        )
        if not response.done():
            if hung_up.done():
                raise ClientDisconnect
            raise NotEnoughResults(f"no answer within {seconds:g} s")
    finally:
        hung_up.cancel()
        response.cancel()
    if response.cancelled():
        raise Closed("the service is closed")
    return response.result()


async def _call(small: bool, function: Callable[[], T]) -> T:
    """Calls a function here if it is small, or else in a thread: others are not to
    wait. To hand over to a thread takes longer than what is small."""
    return function() if small else await asyncio.to_thread(function)


def _in_daemon(function: Callable[[], None]) -> asyncio.Future[None]:
    """Calls a function that may take minutes, in a thread that nobody waits for when
    the program ends."""
    done: concurrent.futures.Future[None] = concurrent.futures.Future()
    done.set_running_or_notify_cancel()

    def call() -> None:
        try:
            done.set_result(function())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return asyncio.wrap_future(done)


def _state(problem: str | None) -> Answer:
    return JSONResponse({"status": "ok"}) if problem is None else _error(503, problem)


def _error(status: int, line: str) -> Answer:
    return JSONResponse({"error": line}, status, LATER if status == 503 else None)


def _http_error(request: Request, error: HTTPException) -> Answer:
    line, path, allowed = error.detail, quote(request.scope["path"]), error.headers
    if error.status_code == 404:
        line = f"{path}: not found"
    elif error.status_code == 405 and allowed:
        line = f"{path}: {request.method} given, {allowed['Allow']} accepted"
    return JSONResponse({"error": line}, error.status_code, allowed)


def _nobody(request: Request, error: Exception) -> Answer:
    return Answer(status_code=400)  # which is not sent: the client has hung up


def _defect(request: Request, error: Exception) -> Answer:
    return _error(500, f"{type(error).__name__}: {error}")


def _docs(request: Request) -> Answer:
    """Answers with the page of the description, or with a file of it."""
    name = request.path_params.get("name")
    if name in SWAGGER:
        return FileResponse(swagger_ui_bundle.swagger_ui_path / name)
    own = {None: "docs.html", "start.js": "docs.js"}
    if name not in own:
        raise HTTPException(404)
    return FileResponse(str(STATIC / own[name]), headers=DOCS_ONLY_THIS_HOST)
