"""Routes of the front: their answers, and each error with its status and one line."""

import json
import threading
from concurrent.futures import CancelledError

import numpy as np
import prometheus_client.parser
import pytest

import coded_jax
from coded_jax import data
from coded_jax.service import NotEnoughResults, Overloaded, Response, serve
from coded_jax.service.config import WebConfig
from coded_jax.service.service import AlreadyReloading
from coded_jax.service.web.app import as_json
from tests.service.web.fakes import (
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
    with serve(model, "local", deadline=600) as service:
        with listening(service, settings=WebConfig(port=0, max_body=10_000)) as url:
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
        assert answer.keys() == {*Response._fields}
    status, _, summary = ask(url, "/summary")
    assert status == 200 and summary["requests"]["answered"] >= 3


GOOD = npy(IMAGE[None])


WRONG = [
    ("/predict", b"junk", {}, 415, "body: "),
    ("/predict", npy(np.zeros((28, 28, 3), "u1")), {}, 400, "images: "),
    ("/predict", picture(np.zeros((32, 32), "u1")), {}, 400, "image: "),
    ("/predict", b"x" * 10_001, {}, 413, "body: "),
    ("/predict", GOOD, {"Deadline": "soon"}, 400, "Deadline: "),
    ("/predict/", GOOD, {}, 404, "/predict/: "),
    ("/predict", None, {}, 405, "/predict: "),
    ("/predict", b"", {"Content-Length": "x"}, 400, "request: "),
    ("/summary", None, {"Host": "a.test:80"}, 403, "Host: "),  # DNS rebinding
    ("/predict", GOOD, {"Origin": "http://a.test"}, 403, "Origin: "),
]


def test_what_is_wrong_is_told_in_one_line(served):
    for path, body, headers, expected, name in WRONG:
        status, _, answer = ask(served[0], path, body, headers)
        assert (status, [*answer]) == (expected, ["error"]), (path, headers)
        error = answer["error"]
        assert error.startswith(name) and len(error.splitlines()) == 1
    status, headers, _ = ask(served[0], "/predict", b"", method="BREW")
    assert status == 405 and headers["Allow"] == "POST"
    assert ask(served[0], "/summary", method="HEAD")[::2] == (200, b"")


def test_a_body_without_a_length_is_not_read_beyond_the_limit(served):
    chunks = iter([b"\x93NUMPY" + b"x" * 4096] * 10)
    status, _, answer = ask(served[0], "/predict", chunks)
    assert status == 413 and answer["error"].startswith("body: more than 10000 bytes")


def test_a_connection_is_kept_also_after_errors(served):
    """What is not read of a request is not taken for the next one."""
    connection = connect(served[0])
    for path, status in [("/nothing", 404), ("/predict", 200)] * 2:
        connection.request("POST", path, GOOD)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status and connection.sock is not None
    connection.close()


@pytest.mark.parametrize(
    "error, status, line",
    [
        (Overloaded("the queue was full"), 503, "the queue was full"),
        (NotEnoughResults("too few"), 504, "too few"),
        (ValueError("of a defect"), 500, "ValueError: of a defect"),
        (KeyError("x"), 500, "KeyError: 'x'"),
    ],
)
def test_statuses_of_a_service_that_fails(error, status, line, caplog):
    service = Service(waits=True)
    with listening(service) as url:
        connection = connect(url)
        connection.request("POST", "/predict", GOOD)
        assert service.arrived.acquire(timeout=PATIENCE)
        service.futures[0].set_exception(error)
        answer = connection.getresponse()
        assert (answer.status, json.load(answer)) == (status, {"error": line})
        expected = "1" if status == 503 else None
        assert answer.headers["Retry-After"] == expected
        connection.close()
    assert bool(caplog.records) == (status == 500)  # a defect of the service


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
        assert ask(url, "/readyz")[::2] == (200, {"status": "ok"})
        service.why_not = "workers [0] are up"
        status, headers, answer = ask(url, "/readyz")
        assert (status, headers["Retry-After"]) == (503, "1")
        assert answer == {"error": "workers [0] are up"}
        assert ask(url, "/healthz")[0] == 200
        assert ask(url, "/predict", GOOD)[::2] == (503, answer)
        service.end = "the cluster is gone"
        assert ask(url, "/healthz")[::2] == (503, {"error": "the cluster is gone"})


def test_reload_once_at_a_time():
    begun, go_on = threading.Event(), threading.Event()

    def load():
        if begun.is_set():
            raise AlreadyReloading("reload: a model is being loaded already")
        begun.set()
        assert go_on.wait(PATIENCE)

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
    assert as_json(some)["logits"] == [[None, None, *[0.0] * 8]]


def test_the_description_is_openapi_and_has_every_route():
    from openapi_spec_validator import validate  # not among what smoke tests have

    with listening(Service()) as url:
        status, _, document = ask(url, "/openapi.json")
        assert status == 200
        validate(document)
        for path, methods in document["paths"].items():
            for method in methods:
                body = b"" if method == "post" else None
                answer = ask(url, path, body, method=method.upper())
                assert str(answer[0]) in methods[method]["responses"], path
    fields = document["components"]["schemas"]["Response"]["properties"]
    assert [*fields] == [*Response._fields]


def test_a_token_opens_all_but_what_balancers_and_the_page_need():
    with listening(Service(), token=TOKEN) as url:
        for path in ("/healthz", "/readyz", "/docs"):
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
        for wrong in (f"Bearer {TOKEN}x", f"Basic {TOKEN}"):
            status, _, answer = ask(url, "/predict", GOOD, {"Authorization": wrong})
            assert status == 401 and TOKEN not in answer["error"]
