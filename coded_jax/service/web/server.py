"""The server of the front: uvicorn in a thread, who may ask, limits, and draining."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import re
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h11
import uvicorn
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from coded_jax.checks import first_line, require
from coded_jax.service.config import WebConfig, is_loopback

SHORTEST = 16  # characters of a token
OPEN = ("/static/", "/healthz/", "/readyz/", "/docs/")
"""Paths that need no token, and all paths below them, beside the page `/`."""
LATER = {"Retry-After": "1", "Connection": "close"}
ENDING = JSONResponse({"error": "the service is being ended"}, 503, LATER)
TOO_MANY = JSONResponse({"error": "too many connections"}, 503, LATER)
IDLE = 60  # seconds that a connection may be idle between requests
CUT = 2.0  # seconds that requests have beyond that, and connections to close
LOOK = 0.02  # seconds between looks whether requests are in flight


def read_token(path: str) -> str:
    """Returns the token in a file.

    Raises:
      ValueError: others may read the file, or there is no token in it.
      OSError: there is no such file.
    """
    mode = os.stat(path).st_mode & 0o777
    token = Path(path).read_text(errors="replace").strip()
    private = f"a file that its owner alone can read (chmod 600 {path})"
    require("token_file", f"mode {mode:o}", not mode & 0o077, private)
    fits = len(token) >= SHORTEST and re.fullmatch("[!-~]+", token) is not None
    accepted = f"{SHORTEST} or more of ASCII without spaces"
    require("token_file", f"a token of {len(token)} characters", fits, accepted)
    return token


def check_certificate(cert: str, key: str) -> None:
    """Checks that a certificate and its key can be used.

    Raises:
      ValueError: they cannot.
    """
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key, password="")  # nobody is asked for one
    except OSError as error:  # of which those of TLS are some
        raise ValueError(
            f"tls_cert: {cert!r} with the key {key!r} given, a certificate and its key "
            f"without a password accepted ({first_line(error)})"
        ) from None


def guarded(app: ASGIApp, token: str | None) -> ASGIApp:
    """Returns an app that answers 401 or 403 to those who may not ask another one.

    With a token it has to be in the header `Authorization`. Without one the app is for
    this machine alone, and what a browser may have been led to by another site is
    refused.

    Args:
      app: the other one.
      token: that requests are to bear; None if none.
    """

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        headers, refusal = Headers(scope=scope), None
        if token is None:
            refusal = _refuse_other_sites(headers)
        elif scope["path"] != "/" and not f"{scope['path']}/".startswith(OPEN):
            refusal = _refuse_others(headers, token)
        await (refusal or app)(scope, receive, send)

    return guard


def _refuse_others(headers: Headers, expected: str) -> JSONResponse | None:
    """Returns a 401 for who does not bear the token."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    same = secrets.compare_digest(token.strip().encode("latin-1"), expected.encode())
    if same and kind.lower() == "bearer":
        return None
    told = "another" if token else "none"
    problem = f"Authorization: {told} given, 'Bearer TOKEN' accepted"
    challenge = {"WWW-Authenticate": 'Bearer realm="coded_jax"'}
    return JSONResponse({"error": problem}, 401, challenge)


def _refuse_other_sites(headers: Headers) -> JSONResponse | None:
    """Returns a 403 for what a page of another site has a browser send to here."""
    host, origin = headers.get("host", "localhost"), headers.get("origin")
    try:
        if not is_loopback(urlsplit(f"//{host}").hostname or ""):
            problem = f"Host: {host!r} given, a loopback address"
        elif origin is not None and urlsplit(origin).netloc != host:
            problem = f"Origin: {origin!r} given, {host!r}"
        else:
            return None
    except ValueError:
        problem = f"Host: {host!r} and Origin: {origin!r} given, addresses"
    return JSONResponse({"error": f"{problem} accepted without a token"}, 403)


def listen(app: ASGIApp, settings: WebConfig) -> tuple[int, Callable[[], None]]:
    """Responds to requests, in a thread of its own.

    Args:
      app: responds, see `create_app`.
      settings: where, and the limits.

    Returns:
      The port, and a function that ends it: new requests are answered 503, those in
      flight have `settings.drain` seconds, and then nothing listens any more.

    Raises:
      OSError: the port is taken, or a file of TLS cannot be read.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    address = settings.host, settings.port
    listener = socket.create_server(address, family=family, backlog=1024)
    # Of connections, too: or else an answer's body waits some 40 ms for its head to be
    # acknowledged. asyncio sees to that for sockets alone that it makes itself.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    draining = threading.Event()

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        present = _refusing(app, ENDING) if draining.is_set() else app
        try:
            await present(scope, receive, send)
        except asyncio.CancelledError:  # at the end
            with contextlib.suppress(RuntimeError):  # a part of the answer is sent
                await ENDING(scope, receive, send)

    config = uvicorn.Config(
        front,
        http=functools.partial(_Connection, settings),  # pyright: ignore
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=IDLE,
        timeout_graceful_shutdown=CUT,  # pyright: ignore
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    config.load()
    server = uvicorn.Server(config)
    serving = server.serve([listener])
    thread = threading.Thread(target=asyncio.run, args=(serving,), daemon=True)
    thread.start()

    def close() -> None:
        draining.set()
        end = time.monotonic() + settings.drain
        while server.server_state.tasks and time.monotonic() < end:  # a request each
            time.sleep(LOOK)
        server.should_exit = True  # after `CUT` it cancels requests
        thread.join()

    return listener.getsockname()[1], close


def _refusing(app: ASGIApp, refusal: ASGIApp) -> ASGIApp:
    """Returns an app that refuses all but the question whether the service lives."""

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        chosen = app if scope["path"] == "/healthz" else refusal
        await chosen(scope, receive, send)

    return front


class _Connection(H11Protocol):
    """One connection, whose client has limited time to send and to read.

    uvicorn by itself waits for ever for the rest of a request.

    Args:
      settings: the limits.
      arguments: of uvicorn.
    """

    def __init__(self, settings: WebConfig, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._settings = settings
        self._limits: dict[str, asyncio.TimerHandle] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._limit("read", self._too_slow)
        if len(self.connections) > self._settings.connections:
            self.app = _refusing(self.app, TOO_MANY)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_reading()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # The next request may have come in part, behind the one that is answered.
        self._watch_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        for what in [*self._limits]:
            self._limit(what, None)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._limit("write", self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._limit("write", None)

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "request: not of HTTP/1.1, or its head too long")

    def _watch_reading(self) -> None:
        """Limits the time for a request if some of it is here, and some is to come."""
        state, begun = self.conn.their_state, self.conn.trailing_data[0]
        waits = state is h11.SEND_BODY or (state is h11.IDLE and begun)
        self._limit("read", self._too_slow if waits else None)

    def _limit(self, what: str, call: Callable[[], None] | None) -> None:
        """Calls a function when time is up for what begins now, or has begun; None: it
        has ended."""
        if call is None:
            if what in self._limits:
                self._limits.pop(what).cancel()
        elif what not in self._limits:
            seconds = self._settings.read_seconds
            self._limits[what] = self.loop.call_later(seconds, call)

    def _too_slow(self) -> None:
        seconds = self._settings.read_seconds
        self._refuse(408, f"request: not complete after {seconds:g} s")

    def _refuse(self, status: int, line: str) -> None:
        """Answers in the place of the app, if nobody has, and hangs up."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps({"error": line}).encode()
            headers = [("Content-Length", str(len(body))), ("Connection", "close")]
            headers.append(("Content-Type", "application/json"))
            head = h11.Response(status_code=status, headers=headers)
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None:  # an app that waits for the body is told
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
