"""A service over HTTP, on the loopback interface."""

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from coded_jax.serving.engine import Closed, NotEnoughResults
from coded_jax.serving.response import Response
from coded_jax.serving.service import Overloaded, Service

LARGEST = 2**26  # bytes of one request

STATUS = {
    ValueError: 400,
    Overloaded: 503,
    Closed: 503,
    CancelledError: 503,
    NotEnoughResults: 504,
}


def listen(service: Service, port: int) -> tuple[int, Callable[[], None]]:
    """Responds to requests on `http://127.0.0.1:port`.

    `POST /predict` takes the images of `Service.submit` as the bytes of an `.npy` file,
    and optionally seconds in the header `Deadline`; it returns a `Response` as JSON.
    `GET /summary` returns `Service.summary`. Errors are `{"error": ...}`, with a status
    of 400 (a wrong request), 503 (too many requests) or 504 (too few results by the
    deadline).

    Args:
      service: responds.
      port: of the loopback interface; 0 for any that is free.

    Returns:
      The port, and a function that ends it.

    Raises:
      OSError: the port is taken.
    """
    server = _Server(service, port)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_address[1], close


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds of silence after which a client is hung up on
    server: _Server

    def do_GET(self) -> None:
        if self.path != "/summary":
            return self._send(404, {"error": f"{self.path}: not found"})
        self._send(200, self.server.service.summary())

    def do_POST(self) -> None:
        try:
            if self.path != "/predict":
                self.close_connection = True  # the body is left unread
                return self._send(404, {"error": f"{self.path}: not found"})
            images, deadline = self._images(), self._deadline()
            # A full queue is an error at once: no thread waits for it.
            future = self.server.service.submit(images, deadline, block=False)
            response = future.result()
        except tuple(STATUS) as error:
            status = next(s for e, s in STATUS.items() if isinstance(error, e))
            self._send(status, {"error": str(error) or type(error).__name__})
        except ConnectionError:
            raise
        except Exception as error:
            self.close_connection = True
            self._send(500, {"error": f"{type(error).__name__}: {error}"})
        else:
            self._send(200, as_json(response))

    def _images(self) -> np.ndarray:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LARGEST:
            self.close_connection = True  # the body is left unread
            raise ValueError(
                f"Content-Length: {length!r} given, at most {LARGEST} accepted"
            )
        body = self.rfile.read(int(length))
        try:
            return np.lib.format.read_array(io.BytesIO(body), allow_pickle=False)
        except (ValueError, EOFError, OSError, MemoryError):
            raise ValueError("body: the bytes of an .npy file accepted") from None

    def _deadline(self) -> float | None:
        text = self.headers.get("Deadline")
        try:
            return None if text is None else float(text)
        except ValueError:
            problem = f"Deadline: {text!r} given, seconds accepted"
            raise ValueError(problem) from None

    def _send(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Requests are not logged."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, service: Service, port: int) -> None:
        self.service = service
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores clients that have hung up."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def as_json(response: Response) -> dict[str, Any]:
    """Returns a response as numbers and lists."""
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in response._asdict().items()
    }
