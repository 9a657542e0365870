"""The server of the front: uvicorn in a thread, limits of connections, and draining."""

from __future__ import annotations

import asyncio
import functools
import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import h11
import uvicorn
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from coded_jax.service.web.config import WebConfig

LATER = {"Retry-After": "1", "Connection": "close"}
CUT = 2.0  # seconds that a cancelled request, or a connection, has to end


def bind(host: str, port: int) -> socket.socket:
    """Returns a socket that listens; the port 0 stands for a free one.

    Raises:
      OSError: the port is taken, or this machine has no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=1024)
    # Of connections, too: or else an answer's body waits some 40 ms for its head to be
    # acknowledged. asyncio sees to that for sockets alone that it makes itself.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


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
    listener = bind(settings.host, settings.port)
    draining = _Draining(app)
    config = uvicorn.Config(
        draining,
        http=functools.partial(_Connection, settings, set()),  # pyright: ignore
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive,  # pyright: ignore
        timeout_graceful_shutdown=CUT,  # pyright: ignore
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    config.load()
    server = uvicorn.Server(config)
    started: Future[asyncio.AbstractEventLoop] = Future()

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        if settings.tls_cert is not None:  # uvicorn has no such setting
            loop.create_server = functools.partial(  # type: ignore[method-assign]
                loop.create_server, ssl_handshake_timeout=settings.read_seconds
            )
        started.set_result(loop)
        await server.serve([listener])

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    loop, port = started.result(), listener.getsockname()[1]

    def close() -> None:
        asyncio.run_coroutine_threadsafe(draining.drain(settings.drain), loop).result()
        server.should_exit = True
        thread.join()

    return port, close


class _Draining:
    """An app whose requests can be counted out: no new ones, and the last ones end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._requests: set[asyncio.Task] = set()
        self._over = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._over and scope["path"] != "/healthz":
            return await _ending(scope, receive, send)
        task = asyncio.current_task()
        assert task is not None
        self._requests.add(task)
        begun = False

        async def note_and_send(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, note_and_send)
        except asyncio.CancelledError:  # by `drain`
            if not begun:
                await _ending(scope, receive, send)
        finally:
            self._requests.discard(task)

    async def drain(self, seconds: float) -> None:
        """Refuses requests from now on, and returns when those in flight have ended;
        after some seconds they are cut off."""
        self._over = True
        if self._requests:
            await asyncio.wait({*self._requests}, timeout=seconds)
        for task in {*self._requests}:
            task.cancel()
        if self._requests:
            await asyncio.wait({*self._requests}, timeout=CUT)


_ending = JSONResponse({"error": "the service is being ended"}, 503, LATER)
_refusal = JSONResponse({"error": "too many connections"}, 503, LATER)


class _Connection(H11Protocol):
    """One connection, whose client has limited time to send and to read.

    uvicorn by itself waits for ever for the rest of a request.

    Args:
      settings: the limits.
      shaking: connections whose TLS is not agreed yet, which uvicorn does not count.
      arguments: of uvicorn.

    Raises:
      ConnectionAbortedError: there are too many of these; asyncio hangs up.
    """

    def __init__(
        self, settings: WebConfig, shaking: set[_Connection], **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        self._settings, self._shaking = settings, shaking
        if settings.tls_cert is not None:
            if len(shaking) >= settings.connections:
                raise ConnectionAbortedError
            shaking.add(self)
            self.loop.call_later(settings.read_seconds, shaking.discard, self)
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._shaking.discard(self)
        others, most = len(self.connections) - 1, self._settings.connections
        if others >= most:  # told, if its request comes soon
            front = self.app

            async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
                asked = front if scope["path"] == "/healthz" else _refusal
                await asked(scope, receive, send)

            self.app = refuse
        if others >= 2 * most:
            transport.abort()
        self._watch_reading()

    def data_received(self, data: bytes) -> None:
        if self._reading is None:
            self._watch_reading()
        super().data_received(data)
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):  # it is all here
            self._forget_reading()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # The next request may have come in part, behind the one that is answered.
        if self._reading is None and self.conn.their_state is h11.SEND_BODY:
            self._watch_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_reading()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        seconds = self._settings.read_seconds
        self._writing = self.loop.call_later(seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._writing is not None:
            self._writing.cancel()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "request: not of HTTP/1.1, or its head too long")

    def _watch_reading(self) -> None:
        seconds = self._settings.read_seconds
        self._reading = self.loop.call_later(seconds, self._too_slow)

    def _forget_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _too_slow(self) -> None:
        seconds = self._settings.read_seconds
        self._refuse(408, f"request: not complete after {seconds:g} s")

    def _refuse(self, status: int, line: str) -> None:
        """Answers in the place of the app, if nobody has, and hangs up."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps({"error": line}).encode()
            headers = [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
                ("Connection", "close"),
            ]
            response = h11.Response(status_code=status, headers=headers)
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None:  # an app that waits for the body is told
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
