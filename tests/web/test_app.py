"""Routes of the front: their answers, and each error with its status and one line."""

import json
import re
import threading
from concurrent.futures import CancelledError, Future

import numpy as np
import prometheus_client.parser
import pytest
import swagger_ui_bundle

import coded_jax
from coded_jax import data, serving
from coded_jax.serving import Closed, NotEnoughResults, Overloaded
from coded_jax.serving.engine import WrongResults
from coded_jax.serving.service import AlreadyReloading
from coded_jax.web import openapi
from coded_jax.web.app import as_json
from tests.web.fakes import (
    IMAGE,
    PATIENCE,
    Service,
    ask,
    connect,
    listening,
    npy,
    picture,
    response,
)

TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def served(finished):
    """A front of a finished run, and its model."""
    model = coded_jax.load(finished, devices=1)
    with serving.serve(model, "local", deadline=600) as service:
        with listening(service, max_body=10_000) as url:
            yield url, model


@pytest.fixture(scope="module")
def images():
    return data.load("mnist_5k").test.images


def test_predict(served, images):
    """One image of the right size in each format that keeps its pixels."""
    url, model = served
    for body in (npy(images[:1]), npy(images[0]), picture(images[0, ..., 0])):
        status, _, answer = ask(url, "/predict", body)
        assert status == 200
        lost = sorted({0, 1, 2} - {*answer["used"][0]})
        assert answer["classes"] == model.classify(images[:1], lost=lost).tolist()
        assert answer.keys() == {*serving.Response._fields}
    status, _, summary = ask(url, "/summary")
    assert status == 200 and summary["requests"]["answered"] >= 3


GOOD = npy(IMAGE[None])
WRONG = {
    "no body": ("/predict", b"", {}, 400, "body: "),
    "junk": ("/predict", b"junk", {}, 415, "body: another format"),
    "json": ("/predict", b'{"images": []}', {}, 415, "body: another format"),
    "npz": ("/predict", b"PK\x03\x04junk", {}, 415, "body: another format"),
    "form": ("/predict", b"--x\r\n" + GOOD, {}, 415, "body: another format"),
    "gzip": (
        "/predict",
        GOOD,
        {"Content-Encoding": "gzip"},
        415,
        "Content-Encoding: 'gzip' given, none accepted",
    ),
    "dtype": ("/predict", npy(np.zeros((1, 2))), {}, 400, "images: float64 [1, 2]"),
    "no batch": ("/predict", npy(np.zeros(3, "u1")), {}, 400, "images: uint8 [3]"),
    "channels": (
        "/predict",
        npy(np.zeros((28, 28, 3), "u1")),
        {},
        400,
        "images: uint8 [1, 28, 28, 3] given",
    ),
    "no images": ("/predict", npy(np.zeros((0, 28, 28, 1), "u1")), {}, 400, "images: "),
    "objects": ("/predict", npy(np.array([{}])), {}, 400, "body: damaged"),
    "cut off": ("/predict", GOOD[:-1], {}, 400, "body: damaged"),
    "size": (
        "/predict",
        picture(np.zeros((32, 32), "u1")),
        {},
        400,
        "image: 32x32 given, 28x28 accepted",
    ),
    "colours": (
        "/predict",
        picture(np.zeros((28, 28, 3), "u1")),
        {},
        400,
        "image: RGB of 8 bits given, grey of 8 bits accepted",
    ),
    "transparency": (
        "/predict",
        picture(np.zeros((28, 28, 4), "u1")),
        {},
        400,
        "image: mode RGBA given, grey of 8 bits accepted",
    ),
    "half a png": ("/predict", picture(IMAGE[..., 0])[:60], {}, 400, "image: a damag"),
    "lies about its format": (
        "/predict",
        picture(np.zeros((8, 8), "u1")),
        {"Content-Type": "application/x-npy"},
        400,
        "image: 8x8 given",
    ),
    "too large": ("/predict", b"x" * 10_001, {}, 413, "body: more than 10000 bytes"),
    "soon": ("/predict", GOOD, {"Deadline": "soon"}, 400, "Deadline: 'soon' given"),
    "no time": ("/predict", GOOD, {"Deadline": "0"}, 400, "deadline: 0.0 given"),
    "too late": ("/predict", GOOD, {"Deadline": "-1"}, 400, "deadline: -1.0 given"),
    "no number": ("/predict", GOOD, {"Deadline": "nan"}, 400, "deadline: nan given"),
    "nowhere": ("/nothing", b"", {}, 404, "/nothing: not found"),
    "slash": ("/predict/", GOOD, {}, 404, "/predict/: not found"),
    "no reload": ("/reload", b"", {}, 404, "/reload: not found"),
    "odd path": ("/%0Aa%00", b"", {}, 404, "/%0Aa%00: not found"),
    "not asked": ("/predict", None, {}, 405, "/predict: GET given, POST accepted"),
    "told": ("/summary", b"", {}, 405, "/summary: POST given, "),
    "length": ("/predict", b"", {"Content-Length": "x"}, 400, "request: not of HTTP"),
    "negative": ("/predict", b"", {"Content-Length": "-1"}, 400, "request: not of H"),
    "long head": ("/predict", b"", {"X": "x" * 2**17}, 400, "request: not of HTTP"),
    "rebinding": ("/summary", None, {"Host": "a.test:80"}, 403, "Host: 'a.test:80'"),
    "odd host": ("/summary", None, {"Host": "[::"}, 403, "Host: '[::' given"),
    "other site": ("/predict", GOOD, {"Origin": "http://a.test"}, 403, "Origin: "),
    "no asset": ("/docs/index.html", None, {}, 404, "/docs/index.html: not found"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_a_line(served, name):
    path, body, headers, expected, line = WRONG[name]
    status, _, answer = ask(served[0], path, body, headers)
    assert (status, [*answer]) == (expected, ["error"])
    assert answer["error"].startswith(line) and len(answer["error"].splitlines()) == 1


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])
def test_other_methods(served, method):
    status, headers, answer = ask(served[0], "/predict", b"", method=method)
    assert status == 405 and headers["Allow"] == "POST"
    assert answer == {"error": f"/predict: {method} given, POST accepted"}


def test_heads(served):
    for path, status in (("/summary", 200), ("/healthz", 200), ("/predict", 405)):
        assert ask(served[0], path, method="HEAD")[::2] == (status, b"")


def test_a_body_without_a_length_is_not_read_beyond_the_limit(served):
    chunks = iter([b"\x93NUMPY" + b"x" * 4096] * 10)
    status, _, answer = ask(served[0], "/predict", chunks)
    assert status == 413 and answer["error"].startswith("body: more than 10000 bytes")


def test_a_connection_is_kept_also_after_errors(served):
    """What is not read of a request is not taken for the next one."""
    connection = connect(served[0])
    sockets = set()
    paths = [("/nothing", 404), ("/predict", 200), ("/predict", 200), ("/x", 404)]
    for path, status in [*paths, ("/predict", 200)]:
        connection.request("POST", path, GOOD)
        sockets.add(connection.sock)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
    assert len(sockets) == 1 and connection.sock is not None
    connection.close()


def failing(error):
    with listening(Service(error=error)) as url:
        return ask(url, "/predict", GOOD)


@pytest.mark.parametrize(
    "error, status, line",
    [
        (Overloaded("the queue was full"), 503, "the queue was full"),
        (Closed("the service is closed"), 503, "the service is closed"),
        (WrongResults("they contradict"), 503, "they contradict"),
        (NotEnoughResults("too few"), 504, "too few"),
        (ValueError("images: none"), 400, "images: none"),
    ],
)
def test_statuses_of_a_service_that_fails(error, status, line):
    told, headers, answer = failing(error)
    assert (told, answer) == (status, {"error": line})
    assert headers["Retry-After"] == ("1" if status == 503 else None)


def test_a_defect_is_500(caplog):
    assert failing(KeyError("x"))[::2] == (500, {"error": "KeyError: 'x'"})
    assert "KeyError" in caplog.text  # with its traceback


@pytest.mark.parametrize(
    "end, status",
    [
        (lambda future: future.set_exception(NotEnoughResults("too few")), 504),
        (lambda future: future.set_exception(Closed("closed")), 503),
        (Future.cancel, 503),
    ],
)
def test_a_request_that_fails_later(end, status):
    service = Service(waits=True)

    def later():
        assert service.arrived.acquire(timeout=PATIENCE)
        end(service.futures[0])

    with listening(service) as url:
        thread = threading.Thread(target=later)
        thread.start()
        told, _, answer = ask(url, "/predict", GOOD)
        thread.join()
    assert told == status and answer.keys() == {"error"}


def test_a_request_that_nothing_is_heard_of_ends_at_its_deadline():
    service = Service(waits=True)
    with listening(service) as url:
        headers = {"Deadline": "0.1"}
        told, _, answer = ask(url, "/predict", GOOD, headers)
        assert (told, answer) == (504, {"error": "no answer within 0.1 s"})
        with pytest.raises(CancelledError):
            service.futures[0].result(timeout=PATIENCE)


def test_a_client_that_hangs_up_is_given_up():
    service = Service(waits=True)
    with listening(service) as url:
        connection = connect(url)
        connection.request("POST", "/predict", GOOD)
        assert service.arrived.acquire(timeout=PATIENCE)
        connection.close()
        with pytest.raises(CancelledError):
            service.futures[0].result(timeout=PATIENCE)


def test_health_and_readiness():
    service = Service()
    with listening(service) as url:
        for path in ("/healthz", "/readyz"):
            assert ask(url, path)[::2] == (200, {"status": "ok"})
        service.why_not = "workers [0] are up"
        status, headers, answer = ask(url, "/readyz")
        assert (status, headers["Retry-After"]) == (503, "1")
        assert answer == {"error": "workers [0] are up"}
        assert ask(url, "/healthz")[0] == 200
        assert ask(url, "/predict", GOOD)[::2] == (503, answer)
        service.end = "the cluster is gone"
        assert ask(url, "/healthz")[::2] == (503, {"error": "the cluster is gone"})


def test_many_wait_while_others_are_answered():
    """The event loop is not blocked by requests that take their time."""
    service = Service(waits=True)
    with listening(service) as url:
        connections = [connect(url) for _ in range(60)]
        for connection in connections:
            connection.request("POST", "/predict", GOOD)
        for _ in connections:
            assert service.arrived.acquire(timeout=PATIENCE)
        assert ask(url, "/summary")[0] == 200
        for future in service.futures:
            service.answer(future)
        assert {c.getresponse().status for c in connections} == {200}
        for connection in connections:
            connection.close()


def test_a_request_may_take_less_time_than_the_service_gives():
    service = Service()
    with listening(service) as url:
        for text, seconds in (("2.5", 2.5), ("1e9", 10.0), ("inf", 10.0)):
            assert ask(url, "/predict", GOOD, {"Deadline": text})[0] == 200
            assert service.given == seconds
        assert ask(url, "/predict", GOOD)[0] == 200
        assert service.given == 10.0


def test_reload_once_at_a_time():
    begun, go_on = threading.Event(), threading.Event()
    problems = []

    def load():
        if begun.is_set() and not go_on.is_set():
            raise AlreadyReloading("reload: a model is being loaded already")
        begun.set()
        assert go_on.wait(PATIENCE)
        if problems:
            raise ValueError(problems[0])

    with listening(Service(), reload=load) as url:
        first = connect(url)
        first.request("POST", "/reload")
        assert begun.wait(PATIENCE)
        status, _, answer = ask(url, "/reload", b"")
        assert status == 409 and answer["error"].startswith("reload: ")
        assert ask(url, "/predict", GOOD)[0] == 200  # meanwhile
        go_on.set()
        answer = first.getresponse()
        assert (answer.status, json.load(answer)) == (200, {"reloaded": True})
        first.close()
        problems.append("workdir: none\nmore of it")
        assert ask(url, "/reload", b"")[::2] == (500, {"error": "workdir: none"})
        assert ask(url, "/reload")[0] == 405


def test_metrics_are_those_of_prometheus():
    with listening(Service()) as url:
        status, headers, text = ask(url, "/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain")
    families = prometheus_client.parser.text_string_to_metric_families(text.decode())
    ends = next(f for f in families if f.name == "coded_jax_requests").samples
    assert {s.labels["end"] for s in ends} >= {"answered", "overload"}


def test_what_is_not_finite_is_null():
    some = response(IMAGE[None])
    some.logits[0, :2] = np.nan, np.inf
    logits = as_json(some)["logits"]
    assert logits == [[None, None, *[0.0] * 8]]
    assert json.dumps(as_json(some), allow_nan=False)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_description_is_openapi_and_has_every_route(dtype):
    from openapi_spec_validator import validate  # not among what smoke tests have

    with listening(Service(dtype=dtype), reload=lambda: None) as url:
        status, _, document = ask(url, "/openapi.json")
        assert status == 200
        validate(document)
        for path, methods in document["paths"].items():
            for method in methods:
                body = b"" if method == "post" else None
                answer = ask(url, path, body, method=method.upper())
                assert str(answer[0]) in methods[method]["responses"], path
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert ("image/png" in content) == (dtype == "uint8")
    fields = document["components"]["schemas"]["Response"]["properties"]
    assert [*fields] == [*serving.Response._fields] and {} not in fields.values()


def test_the_page_needs_no_other_host():
    with listening(Service()) as url:
        status, headers, page = ask(url, "/docs")
        assert (
            status == 200 and "default-src 'self'" in headers["Content-Security-Policy"]
        )
        links = re.findall(r'(?:src|href)="([^"]*)"', page.decode())
        assert {link.rpartition("/")[2] for link in links} == {
            "start.js",
            *openapi.ASSETS,
        }
        for link in links:
            status, _, content = ask(url, f"/{link}")
            assert status == 200 and len(content) > 100
            if link.endswith((".css", "start.js")):
                assert not re.search(
                    rb"(?:url\(|@import|fetch\()\W*(?:https?:)?//", content
                )
    assert "validatorUrl: null" in openapi.START and "//" not in re.sub(
        r"// .*", "", openapi.START
    )
    assert (swagger_ui_bundle.swagger_ui_path / "swagger-ui.css").is_file()


def test_a_token_opens_all_but_what_balancers_and_the_page_need():
    with listening(Service(), token=TOKEN, reload=lambda: None) as url:
        for path in ("/healthz", "/readyz", "/docs", "/docs/start.js"):
            assert ask(url, path)[0] == 200
        for path in ("/summary", "/metrics", "/openapi.json", "/nothing", "/docsy"):
            status, headers, answer = ask(url, path)
            assert status == 401 and headers["WWW-Authenticate"].startswith("Bearer")
            assert answer["error"].startswith("Authorization: none given")
            bearing = {"Authorization": f"Bearer {TOKEN}", "Host": "any.test"}
            assert ask(url, path, headers=bearing)[0] in (200, 404)
        for path in ("/predict", "/reload"):
            assert ask(url, path, GOOD)[0] == 401
            bearing = {"Authorization": f"bearer  {TOKEN}"}
            assert ask(url, path, GOOD, bearing)[0] == 200
        for wrong in (
            f"Bearer {TOKEN}x",
            f"Basic {TOKEN}",
            TOKEN,
            "Bearer",
            "Bearer \xe4",
            "\xff x",
        ):
            status, _, answer = ask(url, "/predict", GOOD, {"Authorization": wrong})
            assert status == 401 and TOKEN not in answer["error"]
