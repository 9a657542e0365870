"""Requests over HTTP, and the command that serves a flagfile's model."""

import importlib.util
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from http import client

import numpy as np
import pytest

import coded_jax
from coded_jax import data, serving
from coded_jax.latency.stragglers import Constant
from coded_jax.runs import workdir
from coded_jax.serving import http
from coded_jax.serving.faults import Faults
from tests.scripts import run_script

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def images():
    return data.load("mnist_5k").test.images


@pytest.fixture(scope="module")
def listening(finished):
    model = coded_jax.load(finished, devices=1)
    with serving.serve(model, "local", deadline=600) as service:
        port, close = http.listen(service, 0)
        yield f"http://127.0.0.1:{port}", model
        close()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def ask(url, body=None, **headers):
    request = urllib.request.Request(url, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_predict(listening, images):
    url, model = listening
    status, answer = ask(f"{url}/predict", npy(images[:1]))
    assert status == 200
    lost = sorted({0, 1, 2} - {*answer["used"][0]})
    assert answer["classes"] == model.classify(images[:1], lost=lost).tolist()
    assert answer.keys() == {*serving.Response._fields}
    status, summary = ask(f"{url}/summary")
    assert status == 200 and summary["requests"]["answered"] >= 1


@pytest.mark.parametrize(
    "path, body, headers, expected",
    [
        ("/predict", b"junk", {}, (400, "body: ")),
        ("/predict", npy(np.zeros((1, 2))), {}, (400, "images: float64")),
        ("/predict", npy(np.array([{}])), {}, (400, "body: ")),  # would be unpickled
        ("/predict", npy(np.zeros(3)), {"Deadline": "soon"}, (400, "Deadline: 'soon'")),
        ("/predict", b"", {"Content-Length": "99999999999"}, (400, "Content-Length")),
        ("/predict", b"PK\x03\x04junk", {}, (400, "body: ")),
        (
            "/predict",
            npy(np.zeros((300, 28, 28, 1), np.uint8)),
            {},
            (400, "images: 300 given, at most 256"),
        ),
        ("/nothing", b"", {}, (404, "/nothing")),
        ("/nothing", None, {}, (404, "/nothing")),
    ],
)
def test_what_is_wrong_is_said(listening, path, body, headers, expected):
    status, answer = ask(listening[0] + path, body, **headers)
    assert status == expected[0] and expected[1] in answer["error"]


def test_a_connection_after_an_error(listening, images):
    """What is not read of a request is not taken for the next one."""
    host = listening[0].removeprefix("http://")
    connection = client.HTTPConnection(host, timeout=600)
    for path, status in [("/nothing", 404), ("/predict", 200), ("/predict", 200)]:
        connection.request("POST", path, npy(images[:1]))
        answer = connection.getresponse()
        assert answer.status == status
        answer.read()
    connection.close()


def test_too_late_is_504(finished, images):
    model = coded_jax.load(finished, devices=1)
    slow = Faults(delays=(Constant(600.0),))
    with serving.serve(model, "local", faults=slow, patience=600) as service:
        port, close = http.listen(service, 0)
        url = f"http://127.0.0.1:{port}/predict"
        status, answer = ask(url, npy(images[:1]), Deadline="0.2")
        assert status == 504 and "not enough" in answer["error"]
        close()


@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed"
)
@pytest.mark.long
def test_one_command_serves_a_run_on_a_cluster(finished, images):
    command = [sys.executable, "experiments/serve.py", "--port=0"]
    command += [f"--flagfile={finished / 'flags.txt'}", "--compilation_cache="]
    config = workdir.read_results(finished)["config"]
    assert config["k"] == 2
    process = subprocess.Popen(
        [*command, f"--workdir={finished}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        line = process.stdout.readline()
        started = line.startswith(f"serving {finished} on http://127.0.0.1:")
        assert started, process.communicate(timeout=600)
        url = line.rsplit(" ", 1)[1].strip()
        status, answer = ask(f"{url}/predict", npy(images[:1]))
        assert status == 200
        model = coded_jax.load(finished, devices=1)
        lost = sorted({0, 1, 2} - {*answer["used"][0]})
        assert answer["classes"] == model.classify(images[:1], lost=lost).tolist()
        process.send_signal(signal.SIGTERM)
        out, error = process.communicate(timeout=600)
        assert process.returncode == 0, error
        assert "1 answered" in out and "Traceback" not in error
    finally:
        with_all = os.getpgid(process.pid) if process.poll() is None else None
        if with_all:
            os.killpg(with_all, signal.SIGKILL)


@pytest.mark.parametrize(
    "argument, message",
    [
        ("--port=99999", "port: 99999 given"),
        ("--metrics_port=-1", "metrics_port: -1 given"),
        ("--fault_seed=-1", "seed: -1 given"),
        ("--exceptions=2", "exceptions: 2"),
    ],
)
def test_serve_says_in_one_line_what_is_wrong(argument, message):
    done = run_script("serve", "--workdir=nowhere", argument)
    assert done.returncode != 0 and message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_port_that_is_taken(listening):
    port = listening[0].rsplit(":", 1)[1]
    done = run_script("serve", "--workdir=nowhere", f"--port={port}")
    assert done.returncode != 0 and f"port: {port} given, a free one" in done.stderr


def test_serve_refuses_other_settings(finished):
    flags = f"--flagfile={finished / 'flags.txt'}", f"--workdir={finished}"
    done = run_script("serve", "--engine=local", *flags, "--epochs=7")
    assert done.returncode != 0 and "run with these flags" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
