"""Settings of the front: where it listens, to whom, and the limits of requests."""

from __future__ import annotations

import dataclasses
import ipaddress

from coded_jax.checks import require
from coded_jax.settings import (
    TEXT,
    Accepted,
    at_least,
    check,
    integers,
    more_than,
    setting,
)


def is_loopback(host: str) -> bool:
    """Returns whether a host is this machine: `localhost` or a loopback address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclasses.dataclass(frozen=True)
class WebConfig:
    """Settings of the front.

    Raises:
      ValueError: a value is out of range, or others than this machine could ask without
        TLS and a token.
    """

    host: str = setting(
        "127.0.0.1",
        "address to listen on; beyond loopback with tls_cert, tls_key and token_file",
        Accepted(
            lambda host: host == "localhost" or bool(ipaddress.ip_address(host)),
            "an IP address or localhost",
        ),
    )
    port: int = setting(8000, "port to listen on; 0 for a free one", integers(0, 65535))
    tls_cert: str | None = setting(
        None, "file of the certificate and those that it rests on, PEM", form=TEXT
    )
    tls_key: str | None = setting(None, "file of the certificate's key", form=TEXT)
    token_file: str | None = setting(
        None,
        "file of the token that requests are to bear; nobody else may read it",
        form=TEXT,
    )
    max_body: int = setting(2**26, "bytes of a request's body, at most", integers(1))
    read_seconds: float = setting(
        30.0,
        "seconds that a client may take to send a request, or stop to read an answer",
        more_than(0),
    )
    connections: int = setting(256, "connections at once; 503 beyond", integers(1))
    keep_alive: float = setting(
        60.0, "seconds that a connection may be idle between requests", more_than(0)
    )
    drain: float = setting(
        30.0,
        "seconds that requests in flight have when the service is told to end",
        at_least(0),
    )

    def __post_init__(self) -> None:
        check(self)
        both = (self.tls_cert is None) == (self.tls_key is None)
        require("tls_key", self.tls_key, both, "tls_cert and tls_key, or neither,")
        missing = [n for n in ("tls_cert", "token_file") if getattr(self, n) is None]
        accepted = f"a loopback address without {' and '.join(missing)}"
        local = is_loopback(self.host)
        require("host", self.host, local or not missing, accepted)
