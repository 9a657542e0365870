"""The command that serves a run: what it refuses, and its life from start to end."""

import os
import signal
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

import coded_jax
from coded_jax import data
from coded_jax.service.web.client import Client
from tests.scripts import ROOT, run_script
from tests.service.web.fakes import PATIENCE, Service, listening

TOKEN = "0123456789abcdef"


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


def test_a_service_from_start_to_end(finished, certificate, tmp_path):
    """Over TLS with a token; SIGHUP loads the model anew, SIGTERM ends it."""
    cert, key = certificate
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    flags = [f"--tls_cert={cert}", f"--tls_key={key}", f"--token_file={token}"]
    with Serving(finished, "--engine=local", *flags) as serving:
        assert serving.url.startswith("https://127.0.0.1:")
        client = Client(serving.url, TOKEN, PATIENCE, ca_certs=cert)
        model = coded_jax.load(finished, devices=1)
        image = data.load("mnist_5k").test.images[:1]
        answer = client.predict(image)
        lost = sorted({0, 1, 2} - {*answer.used[0]})
        assert answer.classes.tolist() == model.classify(image, lost).tolist()
        with pytest.raises(PermissionError):
            Client(serving.url, deadline=PATIENCE, ca_certs=cert).summary()
        with pytest.raises(ConnectionError, match="(?i)certificate"):
            Client(serving.url, TOKEN, deadline=PATIENCE).summary()

        serving.process.send_signal(signal.SIGHUP)
        line = serving.process.stderr.readline()
        assert line == "the model was loaded anew\n"

        serving.process.send_signal(signal.SIGTERM)
        out, error = serving.process.communicate(timeout=600)
        assert serving.process.returncode == 0, error
        assert "1 answered" in out and "Traceback" not in error


def test_wrong_settings_end_in_one_line_before_anything_is_trained(tmp_path):
    workdir = tmp_path / "run"
    done = run_script("serve", f"--workdir={workdir}", "--port=0", "--host=0.0.0.0")
    assert done.returncode != 0 and not workdir.exists() and "host" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_port_that_is_taken():
    with listening(Service()) as url:
        port = urlsplit(url).port
        done = run_script("serve", "--workdir=nowhere", f"--port={port}")
    assert done.returncode != 0 and f"port: {port} given, a free one" in done.stderr
