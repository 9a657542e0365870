"""Settings of the front, each wrong value told in one line; files of token and TLS."""

import pytest

from coded_jax.service.config import WebConfig
from coded_jax.service.web.server import check_certificate, read_token
from tests.errors import refused

ALL = {"tls_cert": "cert.pem", "tls_key": "key.pem", "token_file": "token"}


def test_both_are_required_beyond_loopback():
    for host in ("127.0.0.1", "::1", "localhost"):
        assert WebConfig(host=host).host == host
    tls = {"tls_cert": "cert.pem", "tls_key": "key.pem"}
    for host in ("0.0.0.0", "2001:db8::1"):
        assert WebConfig(host=host, **ALL).host == host
        for options in ({}, tls, {"token_file": "token"}):
            with refused("host"):
                WebConfig(host=host, **options)


def test_wrong_settings():
    wrong = {"port": 2**16, "tls_key": "x", "read_seconds": float("inf")}
    for name, value in wrong.items():
        with refused(name):
            WebConfig(**{name: value})


@pytest.mark.parametrize(
    "mode, content", [(0o600, "short"), (0o604, "0123456789abcdef")]
)
def test_tokens(tmp_path, mode, content):
    path = tmp_path / "token"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(ValueError, match="^token_file: ") as raised:
        read_token(str(path))
    assert content not in str(raised.value)
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
