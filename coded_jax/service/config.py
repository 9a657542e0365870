"""Settings of a service, and of its front over HTTP."""

from __future__ import annotations

import dataclasses
import ipaddress

from coded_jax.checks import is_integer, require
from coded_jax.settings import (
    FLOAT,
    INTEGER,
    INTEGERS,
    TEXT,
    Accepted,
    at_least,
    check,
    integers,
    more_than,
    one_of,
    setting,
)


@dataclasses.dataclass(frozen=True)
class ServeConfig:
    """Settings of a service; each engine accepts some of them.

    Raises:
      ValueError: a value is out of range.
    """

    batches: tuple[int, ...] = setting(
        (1, 8),
        "sizes of batches that are compiled before the first request; requests are "
        "divided and padded to them",
        Accepted(
            lambda sizes: all(is_integer(size) and size >= 1 for size in sizes),
            "integers of 1 or more as 1,2,4",
        ),
        INTEGERS,
    )
    largest: int = setting(256, "images of a request, at most", integers(1))
    max_batch: int | None = setting(
        None,
        "images of requests that wait which are computed together, at most; each "
        "request by itself by default",
        integers(1),
        INTEGER,
    )
    max_wait: float = setting(
        0.002,
        "seconds that a request waits for others, at most, with max_batch",
        at_least(0),
    )
    spares: int = setting(
        0, "workers that stand by, and take the place of one that is lost", integers(0)
    )
    check_wait: float | None = setting(
        None,
        "seconds that more results than are needed are waited for, to check them "
        "against each other; results are believed by default",
        at_least(0),
        FLOAT,
    )
    devices: int | None = setting(
        None, "devices of this host, at most; all by default", integers(1), INTEGER
    )
    address: str | None = setting(
        None,
        "host:port of a Ray cluster; one of this machine is started by default",
        form=TEXT,
    )
    reconnect_for: float = setting(
        120.0,
        "seconds for which a Ray cluster that is lost is started anew or joined again, "
        "before the service gives up",
        at_least(0),
    )
    deadline: float = setting(10.0, "seconds that a request may take", more_than(0))
    in_flight: int = setting(4, "batches computed at the same time", integers(1))
    queue: int = setting(64, "requests that may wait for that", integers(0))
    shortfall: str = setting(
        "error",
        "when too few results arrive by the deadline: an error, or a degraded response "
        "from those that did",
        one_of(("error", "degrade")),
    )
    within: float | None = setting(
        None,
        "points of accuracy below the network's, on the validation part, at which "
        "results suffice, of views; any k results do by default",
        Accepted(lambda points: points < 100, "a number below 100"),
        FLOAT,
    )
    hedge_after: float | None = setting(
        None,
        "seconds after which a missing piece is sent again, to a worker that has "
        "finished its own; never by default",
        at_least(0),
        FLOAT,
    )
    patience: float = setting(
        5.0,
        "seconds of silence after which a busy worker is started anew; more than a "
        "computation with its delay takes",
        more_than(0),
    )

    def __post_init__(self) -> None:
        check(self)
        sizes = tuple(dict.fromkeys(map(int, self.batches)))
        object.__setattr__(self, "batches", sizes)


DEFAULTS = ServeConfig()


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
