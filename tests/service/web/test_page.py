"""The routes of the page, and faults at the push of a button, without a browser."""

import base64
import re

import numpy as np
import pytest

from coded_jax import data
from coded_jax.service import parts
from tests.service.web.fakes import ask, npy, page_client

TOKEN = "a token of 24 characters"


@pytest.fixture(scope="module")
def images():
    return data.load("mnist_5k").test.images


def test_the_page_is_of_this_host_alone(client):
    status, headers, content = ask(client.url, "/")
    text = content.decode()
    assert status == 200 and headers["Content-Type"].startswith("text/html")
    assert "default-src 'self';" in headers["Content-Security-Policy"]
    files = re.findall(r'(?:src|href)="(?!/docs)([^"]*)"', text)
    assert len(files) == 3 and not re.search(r"<style|<script>| style=", text)
    for file in files:
        assert file.startswith("/static/")
        hosts = {*re.findall(r"https?://[^/\"']*", client.get(file))}
        assert hosts <= {"http://www.w3.org"}  # the name of SVG


def test_pieces_are_windows_of_the_image_and_parity(client, service, images):
    told = client.post("/pieces", npy(images[:1]))["pieces"]
    assert [piece["shape"] for piece in told] == [[20, 28, 1]] * 3
    pictures = [
        np.frombuffer(base64.b64decode(piece["pixels"]), np.uint8).reshape(20, 28)
        for piece in told
    ]
    for picture, rows in zip(pictures, (slice(20), slice(8, 28)), strict=False):
        window = images[0, rows, :, 0].astype(float)
        window = (window - window.min()) / (window.max() - window.min()) * 255
        np.testing.assert_allclose(picture, window, atol=0.51)
    model = service.model
    arguments = model.pipeline._replace(mesh=None), model.frozen, model.params
    parity = np.asarray(parts.encode_images(*arguments, images[:1]).queries[2])
    low, high = told[2]["range"]
    np.testing.assert_allclose([low, high], [parity.min(), parity.max()], rtol=1e-5)
    restored = pictures[2] / 255 * (high - low) + low
    np.testing.assert_allclose(restored, parity[0, ..., 0], atol=(high - low) / 500)


def test_what_is_wrong_has_its_status(client, service):
    for path, body, expected in [
        ("/pieces", b"", 415),
        ("/demo/tickle/0", b"", 404),
        ("/demo/kill/3", b"", 404),
    ]:
        status, _, content = ask(client.url, path, body)
        assert status == expected and content["error"], path
    assert client.get("/demo") == {"workers": ["", "", ""]}
    with page_client(service) as quiet:  # without a demo nobody breaks anything
        assert not quiet.get("/model")["demo"]
        assert ask(quiet.url, "/demo/kill/0", b"")[0] == 404


def test_with_a_token_the_page_alone_is_open(service, demo):
    with page_client(service, token=TOKEN, demo=demo) as guarded:
        guarded.get("/static/page.js")
        for path in ("/model", "/samples", "/demo"):
            assert ask(guarded.url, path)[0] == 401
        for path in ("/demo/slow/0", "/pieces"):
            assert ask(guarded.url, path, b"")[0] == 401
        assert demo.states == ["", "", ""]


def test_a_killed_worker_is_lost_and_comes_back(client, service, images):
    assert client.post("/demo/kill/0") == {"workers": ["", "", ""]}
    answer = client.post("/predict", npy(images[:1]))
    assert answer["used"] == [[1, 2]] and answer["decoded"] == [[0]]
    assert [worker["up"] for worker in service.summary()["workers"]] == [0, 1, 1]
    client.post("/demo/heal/0")
    service.engine.pool.wait_until_ready()
    client.post("/demo/kill/1")  # then its result is needed again
    assert client.post("/predict", npy(images[:1]))["used"] == [[0, 2]]
