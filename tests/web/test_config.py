"""Settings of the front, each wrong value told in one line; files of token and TLS."""

import importlib.util
import os
import subprocess
import sys

import pytest

from coded_jax.web.access import check_certificate, read_token
from coded_jax.web.config import PACKAGES, WebConfig, is_loopback, require_packages

ALL = {"tls_cert": "cert.pem", "tls_key": "key.pem", "token_file": "token"}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_nothing(host):
    assert WebConfig(host=host).host == host
    assert WebConfig(host=host, **ALL).tls_cert == "cert.pem"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "2001:db8::1"])
def test_beyond_loopback_both_are_required(host):
    assert not is_loopback(host)
    assert WebConfig(host=host, **ALL).host == host
    tls = {"tls_cert": "cert.pem", "tls_key": "key.pem"}
    for options, missing in (
        ({}, "tls_cert and token_file"),
        (tls, "token_file"),
        ({"token_file": "token"}, "tls_cert"),
    ):
        line = f"^host: '{host}' given, a loopback address without {missing} accepted$"
        with pytest.raises(ValueError, match=line):
            WebConfig(host=host, **options)


@pytest.mark.parametrize(
    "options, line",
    [
        ({"host": "example.org"}, "host: 'example.org' given, an IP address or localh"),
        ({"host": ""}, "host: '' given"),
        ({"port": -1}, "port: -1 given, 0..65535 accepted"),
        ({"port": 2**16}, "port: 65536 given"),
        ({"port": 1.5}, "port: 1.5 given"),
        ({"tls_cert": "x"}, "tls_key: None given, tls_cert and tls_key, or neither, a"),
        ({"tls_key": "x"}, "tls_key: 'x' given"),
        ({"max_body": 0}, "max_body: 0 given, 1 or more accepted"),
        ({"read_seconds": 0}, "read_seconds: 0 given, more than 0 accepted"),
        ({"read_seconds": float("inf")}, "read_seconds: inf given"),
        ({"connections": 0}, "connections: 0 given"),
        ({"keep_alive": -1}, "keep_alive: -1 given"),
        ({"drain": -1}, "drain: -1 given, 0 or more accepted"),
        ({"drain": "soon"}, "drain: 'soon' given"),
    ],
)
def test_wrong_settings(options, line):
    with pytest.raises(ValueError) as raised:
        WebConfig(**options)
    assert str(raised.value).startswith(line)


@pytest.mark.parametrize(
    "mode, content, line",
    [
        (0o600, "short", "token_file: 'a token of 5 characters' given, 16 or more"),
        (0o600, "", "token_file: 'a token of 0 characters' given"),
        (0o600, "two words of a token", "token_file: 'a token of 20 characters' given"),
        (0o600, "töken" * 5, "token_file: "),
        (
            0o640,
            "0123456789abcdef",
            "token_file: 'mode 640' given, a file that its own",
        ),
        (0o604, "0123456789abcdef", "token_file: 'mode 604' given"),
        (None, "", "token_file: "),
    ],
)
def test_tokens_that_are_refused(tmp_path, mode, content, line):
    path = tmp_path / "token"
    if mode is not None:
        path.write_text(content)
        path.chmod(mode)
    with pytest.raises(ValueError) as raised:
        read_token(str(path))
    told = str(raised.value)
    assert told.startswith(line) and len(told.splitlines()) == 1
    assert not content or content not in told


def test_a_token(tmp_path):
    path = tmp_path / "token"
    path.write_text("0123456789abcdef\n")
    path.chmod(0o600)
    assert read_token(str(path)) == "0123456789abcdef"


def test_certificates_that_are_refused(tmp_path, certificate):
    cert, key = certificate
    check_certificate(cert, key)
    other = tmp_path / "other.pem"
    other.write_text("no certificate")
    for pair in ((str(other), key), (cert, str(other)), ("/nowhere", key)):
        with pytest.raises(ValueError, match=r"^tls_cert: .* accepted \(.*\)$"):
            check_certificate(*pair)


def test_packages_that_are_missing(monkeypatch):
    require_packages()
    here = importlib.util.find_spec
    gone = lambda name: None if name in ("PIL", "uvicorn") else here(name)
    monkeypatch.setattr(importlib.util, "find_spec", gone)
    line = r"^serve: it needs uvicorn, pillow; pip install 'coded_jax\[serve\]'$"
    with pytest.raises(ImportError, match=line):
        require_packages()


def test_the_command_has_its_help_without_them():
    """It names the extra when it is run; nothing of the front is imported before."""
    blocked = "; ".join(f"sys.modules[{name!r}] = None" for name in PACKAGES)
    code = f"import sys; {blocked}; import coded_jax.cli.commands.serve"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
