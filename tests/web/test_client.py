"""The client: answers, retries inside one deadline, and what it raises."""

import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from coded_jax.serving import NotEnoughResults, Overloaded, Response
from coded_jax.web import app, server
from coded_jax.web.app import as_json
from coded_jax.web.client import Client
from coded_jax.web.config import WebConfig
from tests.errors import refused
from tests.web.fakes import IMAGE, PATIENCE, Service, listening, response

TOKEN = "0123456789abcdef"


def test_an_answer():
    service = Service()
    with listening(service) as url, Client(f"{url}/", deadline=PATIENCE) as client:
        answer = client.predict(IMAGE)
        np.testing.assert_array_equal(service.images, IMAGE[None])
        assert vars(answer).keys() == {*Response._fields}
        for name, expected in response(IMAGE[None])._asdict().items():
            value = getattr(answer, name)
            if isinstance(expected, np.ndarray):
                np.testing.assert_array_equal(value, expected)
                assert value.dtype == expected.dtype
        assert client.summary()["requests"]["answered"] == 0
        assert client.ready()
        service.why_not = "no workers"
        assert not client.ready()
    assert not client.ready()  # nothing listens any more


class Handler(BaseHTTPRequestHandler):
    """Answers as a list says, each connection kept; None hangs up."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((time.monotonic(), self.headers, self.client_address))
        step = self.server.steps.pop(0)
        if step is None:
            self.close_connection = True
            return
        status, content, *headers = step
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in [("Content-Length", str(len(body))), *headers]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class scripted:
    """A server of a few answers: its address, and the requests that it has seen."""

    def __init__(self, steps):
        self._steps = steps

    def __enter__(self):
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.steps, self._server.seen = [*self._steps], []
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}", self._server.seen

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


FINE = (200, as_json(response(IMAGE[None])))
BUSY = (503, {"error": "the queue was full"})


def test_it_asks_again_while_there_is_time():
    """After 503 and where the connection is lost."""
    some = response(IMAGE[None])
    some.logits[0, 0] = np.nan
    told = (*BUSY, ("Retry-After", "1"))
    with scripted([BUSY, None, told, (200, as_json(some))]) as (url, seen):
        answer = Client(url, deadline=PATIENCE).predict(IMAGE)
    np.testing.assert_array_equal(answer.logits, some.logits)
    left = [float(headers["Deadline"]) for _, headers, _ in seen]
    assert len(left) == 4 and PATIENCE >= left[0]
    assert (np.diff(left) < 0).all() and left[-1] > 0  # one deadline for all attempts
    assert left[2] - left[3] >= 1


def test_pauses_grow(monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with scripted([BUSY] * 6) as (url, _):
        with pytest.raises(ConnectionError, match="to 6 attempts: the queue was full"):
            Client(url, deadline=PATIENCE, retries=5).predict(IMAGE)
    assert len(pauses) == 5  # none after the last attempt
    for attempt, pause in enumerate(pauses):
        assert 0.5 <= pause / (0.05 * 2**attempt) <= 1


def test_no_pause_goes_beyond_the_deadline():
    with scripted([(*BUSY, ("Retry-After", "3600"))]) as (url, seen):
        with pytest.raises(TimeoutError, match="within 60 s: the queue was full"):
            Client(url, deadline=60).predict(IMAGE)
    assert len(seen) == 1


@pytest.mark.parametrize(
    "error, kind, line",
    [
        (ValueError("images: none"), ValueError, "images: none"),
        (NotEnoughResults("too few"), TimeoutError, "too few"),
        (Overloaded("full"), ConnectionError, "no answer to 2 attempts: full"),
        (KeyError("x"), RuntimeError, "500: KeyError: 'x'"),
    ],
)
def test_errors_of_the_service(error, kind, line):
    with listening(Service(error=error)) as url:
        with pytest.raises(kind) as raised:
            Client(url, deadline=PATIENCE, retries=1).predict(IMAGE)
    assert str(raised.value) == line
    with pytest.raises(ConnectionError, match="not reached"):  # nobody there
        Client(url, retries=1, deadline=PATIENCE).summary()


def test_wrong_arguments():
    with refused("url"):
        Client("127.0.0.1:8000")
    with refused("deadline"):
        Client("http://a", deadline=0)
    with refused("retries"):
        Client("http://a", retries=-1)
    with pytest.raises(ValueError, match="allow_pickle"):
        Client("http://127.0.0.1:1").predict(np.array([{}]))


def test_tokens():
    with listening(Service(), token=TOKEN) as url:
        assert Client(url, TOKEN, deadline=PATIENCE).predict(IMAGE)
        for wrong in (None, TOKEN[::-1]):
            with pytest.raises(PermissionError, match="^Authorization: "):
                Client(url, wrong, deadline=PATIENCE).predict(IMAGE)


def test_tls(certificate):
    cert, key = certificate
    settings = WebConfig(port=0, tls_cert=cert, tls_key=key)
    port, close = server.listen(app.create_app(Service()), settings)
    url = f"https://127.0.0.1:{port}"
    assert Client(url, deadline=PATIENCE, ca_certs=cert).predict(IMAGE)
    with pytest.raises(ConnectionError, match="(?i)certificate"):  # at once
        Client(url, deadline=PATIENCE).predict(IMAGE)
    close()


def test_it_needs_no_jax():
    blocked = "import sys; sys.modules.update(dict.fromkeys(['jax', 'flax', 'absl']))"
    code = f"{blocked}; import coded_jax.web.client; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    ours = {x for x in done.stdout.split() if x.startswith("coded_jax")}
    assert ours == {"coded_jax", "coded_jax.checks", "coded_jax.web"} | {
        "coded_jax.web.client"
    }
