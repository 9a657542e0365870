"""The routes of the page, and faults at the push of a button, without a browser."""

import base64
import re

import numpy as np
import pytest

from coded_jax import data
from coded_jax.serving import parts
from tests.web.fakes import PageClient, ask, npy

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


def test_the_model_is_described(client, service):
    told = client.get("/model")
    results = service.model.results
    assert (told["k"], told["r"], told["n"], told["stages"]) == (2, 1, 3, 1)
    assert told["image_shape"] == [28, 28, 1] and told["image_dtype"] == "uint8"
    assert [piece["rows"] for piece in told["pieces"]] == [
        [0, 19, 28],
        [8, 27, 28],
        None,
    ]
    assert told["accuracy"] == {
        "base": results["base"]["test_accuracy"],
        "lost": [results["summary"][count]["mean"] for count in "01"],
    }


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
        ("/pieces", npy(np.zeros((2, 28, 28, 1), np.uint8)), 400),
        ("/pieces", b"", 400),
        ("/demo/tickle/0", b"", 404),
        ("/demo/kill/3", b"", 404),
    ]:
        status, _, content = ask(client.url, path, body)
        assert status == expected and content["error"], path
    assert client.get("/demo") == {"workers": ["", "", ""]}
    with PageClient(service) as quiet:  # without a demo nobody breaks anything
        assert not quiet.get("/model")["demo"]
        assert ask(quiet.url, "/demo/kill/0", b"")[0] == 404


def test_samples_are_test_images_of_each_class(client, images):
    told = client.get("/samples")["samples"]
    assert [sample["label"] for sample in told] == [*range(10)]
    labels = data.load("mnist_5k").test.labels
    first = images[np.flatnonzero(labels == 7)[0]]
    assert base64.b64decode(told[7]["pixels"]) == first.tobytes()


def test_with_a_token_the_page_alone_is_open(service, demo):
    with PageClient(service, token=TOKEN, demo=demo) as guarded:
        guarded.get("/static/page.js")
        for path in ("/model", "/samples", "/demo"):
            assert ask(guarded.url, path)[0] == 401
        for path in ("/demo/slow/0", "/pieces"):
            assert ask(guarded.url, path, b"")[0] == 401
        assert demo.states == ["", "", ""]


def predict(client, image):
    return client.post("/predict", npy(image[None]))


def test_a_killed_worker_is_lost_and_comes_back(client, service, images):
    assert client.post("/demo/kill/0") == {"workers": ["", "", ""]}
    answer = predict(client, images[0])
    assert answer["used"] == [[1, 2]] and answer["decoded"] == [[0]]
    assert [worker["up"] for worker in service.summary()["workers"]] == [0, 1, 1]
    client.post("/demo/heal/0")
    service.engine.pool.wait_until_ready()
    client.post("/demo/kill/1")  # then its result is needed again
    assert predict(client, images[0])["used"] == [[0, 2]]
    client.post("/demo/heal/1")
    service.engine.pool.wait_until_ready()
