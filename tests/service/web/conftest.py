"""What tests of the front share."""

import shutil
import subprocess

import pytest

import coded_jax
from coded_jax.service import serve
from coded_jax.service.web.page import Demo
from tests.service.web.fakes import LIMIT, page_client


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """Files of a certificate for 127.0.0.1 that signs itself, and of its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl, which makes certificates")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]
    command += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    command += ["-keyout", key, "-out", cert]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


@pytest.fixture(scope="module")
def service(finished):
    model = coded_jax.load(finished, devices=1)
    with serve(model, "local", deadline=LIMIT, patience=LIMIT) as started:
        yield started


@pytest.fixture(scope="module")
def demo(service):
    return Demo(service, restart=LIMIT)


@pytest.fixture(scope="module")
def client(service, demo):
    with page_client(service, demo=demo) as asking:
        yield asking
