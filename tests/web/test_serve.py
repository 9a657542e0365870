"""The command that serves a run: what it refuses, and its life from start to end."""

import os
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from urllib.parse import urlsplit

import pytest

import coded_jax
from coded_jax import data
from coded_jax.web.client import Client
from tests.scripts import ROOT, Script, run_script
from tests.serving.test_ray_workers import until
from tests.web.fakes import PATIENCE, Service, listening, npy

TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def images():
    return data.load("mnist_5k").test.images


class Serving:
    """The command as a process, which serves until it is told to end."""

    def __init__(self, finished, *flags):
        command = [sys.executable, "experiments/serve.py", "--port=0"]
        command += [f"--flagfile={finished / 'flags.txt'}", "--compilation_cache="]
        self.process = subprocess.Popen(
            [*command, f"--workdir={finished}", *flags],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self):
        line = self.process.stdout.readline()
        assert line.startswith("serving "), self.process.communicate(timeout=600)
        self.url = line.rsplit(" ", 1)[1].strip()
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


def handles(process, number):
    """Says whether a process has a handler of a signal, by Linux's /proc."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    handled = int(re.search(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)[1], 16)
    return bool(handled >> (number - 1) & 1)


def port_of(url):
    return urlsplit(url).port


def test_a_service_from_start_to_end(finished, images, certificate, tmp_path):
    """Over TLS with a token; SIGHUP while it starts changes nothing, and a request in
    flight is answered after SIGTERM."""
    cert, key = certificate
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    flags = [f"--tls_cert={cert}", f"--tls_key={key}", f"--token_file={token}"]
    slow = ["--delay=constant", "--delay_parameters=1"]
    starting = Serving(finished, "--engine=local", *flags, *slow)
    if os.path.exists("/proc/self/status"):
        until(lambda: handles(starting.process, signal.SIGHUP), PATIENCE)
        starting.process.send_signal(signal.SIGHUP)
    with starting as serving:
        assert serving.url.startswith("https://127.0.0.1:")
        client = Client(serving.url, TOKEN, PATIENCE, ca_certs=cert)
        model = coded_jax.load(finished, devices=1)
        answer = client.predict(images[:1])
        lost = sorted({0, 1, 2} - {*answer.used[0]})
        assert answer.classes.tolist() == model.classify(images[:1], lost).tolist()
        with pytest.raises(PermissionError):
            Client(serving.url, deadline=PATIENCE, ca_certs=cert).summary()

        serving.process.send_signal(signal.SIGHUP)
        line = serving.process.stderr.readline()
        assert line == "the model was loaded anew\n"

        context = ssl.create_default_context(cafile=cert)
        with context.wrap_socket(
            socket.create_connection(("127.0.0.1", port_of(serving.url))),
            server_hostname="127.0.0.1",
        ) as connection:
            body = npy(images[:1])
            head = f"Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
            head += f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(f"POST /predict HTTP/1.1\r\n{head}".encode())
            connection.settimeout(PATIENCE)
            assert connection.recv(100).startswith(b"HTTP/1.1 100 ")  # it is in flight
            serving.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)  # of no harm if it is not enough
            connection.sendall(body)
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        out, error = serving.process.communicate(timeout=600)
        assert serving.process.returncode == 0, error
        assert "2 answered" in out and "Traceback" not in error


FAILING = """
import sys
import coded_jax.cli.commands.serve as command
from coded_jax.cli.command_line import run
from coded_jax.web import page
from tests.web.fakes import Service

class Failing(Service):
    asked = 0

    def failure(self):
        self.asked += 1
        return "the cluster is gone" if self.asked > 3 else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

command.finish_run, command.start = lambda: None, Failing
page.routes = lambda *_: []  # it has no model to show
run(command.main, ["serve", "--workdir=x", "--port=0", "--drain=0.1"])
"""


def test_a_service_that_has_failed_ends_the_command(tmp_path):
    script = tmp_path / "failing.py"
    script.write_text(FAILING)
    done = Script(str(script)).wait(PATIENCE)
    assert done.returncode == 1 and done.stdout.startswith("serving x on http://127.")
    assert done.stderr == "error: the cluster is gone\n"


@pytest.mark.parametrize(
    "flag",
    [
        "--port=99999",
        "--exceptions=2",
        "--host=0.0.0.0",
        "--token_file=/nowhere",
        "--tls_key=key.pem",
        "--drain=soon",
        "--spares=-1",
        "--deadline=0",
    ],
)
def test_wrong_settings_end_in_one_line_before_anything_is_trained(tmp_path, flag):
    workdir = tmp_path / "run"
    done = run_script("serve", f"--workdir={workdir}", "--port=0", flag)
    assert done.returncode != 0 and not workdir.exists()
    assert flag[2:].split("=")[0] in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_port_that_is_taken():
    with listening(Service()) as url:
        port = port_of(url)
        done = run_script("serve", "--workdir=nowhere", f"--port={port}")
    assert done.returncode != 0 and f"port: {port} given, a free one" in done.stderr


def test_other_settings_than_those_of_the_run_are_refused(finished):
    flags = f"--flagfile={finished / 'flags.txt'}", f"--workdir={finished}"
    done = run_script("serve", "--engine=local", "--port=0", *flags, "--epochs=7")
    assert done.returncode != 0 and "run with these flags" in done.stderr
