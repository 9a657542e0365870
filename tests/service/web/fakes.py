"""A service without workers, and requests to its front."""

import contextlib
import io
import json
import threading
from concurrent.futures import Future
from http import client
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from coded_jax.service.config import WebConfig
from coded_jax.service.requests import Metrics, Response
from coded_jax.service.service import NotReady
from coded_jax.service.web import app, server

PATIENCE = 60  # seconds, on a machine that does much else
LIMIT = 300  # seconds in which a test that hangs fails


def response(images):
    logits = np.zeros((len(images), 10), np.float32)
    return Response(
        logits, logits[:, 0].astype(np.int32), logits, logits[:, 0], *3 * [((0,),)],
        degraded=False, seconds={"total": 0.0},
    )  # fmt: skip


class Service:
    """Answers at once, or fails with `error`, or leaves the future to `futures`."""

    def __init__(self, waits=False, error=None):
        pipeline = SimpleNamespace(image_dtype="uint8")
        self.model = SimpleNamespace(image_shape=(28, 28, 1), pipeline=pipeline)
        self.waits, self.error, self.deadline = waits, error, 10.0
        self.why_not, self.end = None, None  # of `obstacle` and `failure`
        self.futures, self.arrived = [], threading.Semaphore(0)
        self.images = None

    def submit(self, images, deadline=None, without=(), block=True):
        assert not block
        if self.why_not:
            raise NotReady(self.why_not)
        if self.error:
            raise self.error
        self.images = images
        future = Future()
        self.futures.append(future)
        if not self.waits:
            future.set_result(response(images))
        self.arrived.release()
        return future

    def answer(self, future):
        future.set_result(response(self.images))

    def summary(self):
        return {**Metrics().summary([]), "obstacle": None, "cluster_restarts": 0}

    def obstacle(self):
        return self.why_not

    def failure(self):
        return self.end


@contextlib.contextmanager
def listening(service, *, settings=None, reload=lambda: None, **options):
    """The address of a front on a free port."""
    settings = settings or WebConfig(port=0)
    front = app.create_app(service, settings, reload, **options)
    port, close = server.listen(front, settings)
    try:
        yield f"http://{settings.host}:{port}"
    finally:
        close()


def connect(url):
    return client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)


def ask(url, path, body=None, headers=None, method=None):
    """Status, headers and content of an answer, which is JSON where it says so."""
    connection = connect(url)
    try:
        method = method or ("GET" if body is None else "POST")
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        content = answer.read()
        if content and answer.headers["Content-Type"] == "application/json":
            content = json.loads(content)
        return answer.status, answer.headers, content
    finally:
        connection.close()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def picture(pixels, kind="PNG", **options):
    """Pixels as the bytes of a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


IMAGE = np.arange(28 * 28, dtype=np.uint8).reshape(28, 28, 1)


@contextlib.contextmanager
def page_client(service, demo=None, token=None):
    """A client of a front with the page."""
    with listening(service, token=token, demo=demo) as url:
        yield PageClient(url)


class PageClient:
    def __init__(self, url):
        self.url = url

    def get(self, path):
        """Returns the body of what is to be had."""
        return self.post(path, None)

    def post(self, path, body=b""):
        """Returns the body of the answer, as text where it is no JSON."""
        status, _, content = ask(self.url, path, body)
        assert status == 200, content
        return content.decode() if isinstance(content, bytes) else content
