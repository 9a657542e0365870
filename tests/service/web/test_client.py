"""The client: answers, retries inside one deadline, and what it raises."""

import contextlib
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from coded_jax.service import NotEnoughResults, Overloaded, Response
from coded_jax.service.web.app import as_json
from coded_jax.service.web.client import Client
from tests.errors import refused
from tests.service.web.fakes import IMAGE, PATIENCE, Service, listening, response


def test_an_answer():
    service = Service()
    with listening(service) as url, Client(f"{url}/", deadline=PATIENCE) as client:
        answer = client.predict(IMAGE)
        np.testing.assert_array_equal(service.images, IMAGE[None])
        assert vars(answer).keys() == {*Response._fields}
        np.testing.assert_array_equal(answer.logits, np.zeros((1, 10), np.float32))
        assert client.summary()["requests"]["answered"] == 0


class Handler(BaseHTTPRequestHandler):
    """Answers as a list says, each connection kept; None hangs up."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.deadlines.append(float(self.headers["Deadline"]))
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


@contextlib.contextmanager
def scripted(steps):
    """A server of a few answers: its address, and the deadlines that it is given."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as own:
        own.daemon_threads, own.steps, own.deadlines = True, [*steps], []
        threading.Thread(target=own.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{own.server_port}", own.deadlines
        own.shutdown()


BUSY = (503, {"error": "the queue was full"})


def test_it_asks_again_while_there_is_time():
    """After 503 and where the connection is lost."""
    some = response(IMAGE[None])
    some.logits[0, 0] = np.nan
    told = (*BUSY, ("Retry-After", "1"))
    with scripted([BUSY, None, told, (200, as_json(some))]) as (url, left):
        answer = Client(url, deadline=PATIENCE).predict(IMAGE)
    np.testing.assert_array_equal(answer.logits, some.logits)
    assert len(left) == 4 and PATIENCE >= left[0]
    assert (np.diff(left) < 0).all() and left[-1] > 0  # one deadline for all attempts
    assert left[2] - left[3] >= 1


def test_no_pause_goes_beyond_the_deadline():
    with scripted([(*BUSY, ("Retry-After", "3600"))]) as (url, asked):
        with pytest.raises(TimeoutError, match="within 60 s: the queue was full"):
            Client(url, deadline=60).predict(IMAGE)
    assert len(asked) == 1


@pytest.mark.parametrize(
    "error, kind, line",
    [
        (ValueError("images: none"), ValueError, "images: none"),
        (NotEnoughResults("too few"), TimeoutError, "too few"),
        (Overloaded("full"), TimeoutError, "no answer within 1 s: full"),
    ],
)
def test_errors_of_the_service(error, kind, line):
    with listening(Service(error=error)) as url:
        deadline = 1 if isinstance(error, Overloaded) else PATIENCE
        with pytest.raises(kind) as raised:
            Client(url, deadline=deadline).predict(IMAGE)
    assert str(raised.value) == line
    with pytest.raises(TimeoutError, match="not reached"):  # nobody there
        Client(url, deadline=0.1).summary()


def test_wrong_arguments():
    with refused("url"):
        Client("127.0.0.1:8000")
    with pytest.raises(ValueError, match="allow_pickle"):
        Client("http://127.0.0.1:1").predict(np.array([{}]))


def test_it_needs_no_jax():
    blocked = "import sys; sys.modules.update(dict.fromkeys(['jax', 'flax', 'absl']))"
    code = f"{blocked}; import coded_jax.service.web.client"
    subprocess.run([sys.executable, "-c", code], check=True)
