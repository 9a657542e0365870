"""Who may ask: the bearer of the token, and no page of another site; files of both."""

from __future__ import annotations

import os
import secrets
import ssl
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from coded_jax.checks import first_line, require
from coded_jax.service.web.config import is_loopback

SHORTEST = 16  # characters of a token
OPEN = ("/static/", "/healthz/", "/readyz/", "/docs/")
"""Paths that need no token, and all paths below them, beside the page `/`."""


def read_token(path: str) -> str:
    """Returns the token in a file.

    Raises:
      ValueError: others may read the file, or there is no token in it.
    """
    try:
        mode = os.stat(path).st_mode & 0o777
        with open(path, encoding="ascii") as file:
            token = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        problem = f"token_file: {path!r} given, a file of ASCII accepted ({error})"
        raise ValueError(problem) from None
    private = f"a file that its owner alone can read (chmod 600 {path})"
    require("token_file", f"mode {mode:o}", not mode & 0o077, private)
    whole = len(token) >= SHORTEST and token.isprintable() and " " not in token
    accepted = f"{SHORTEST} or more without spaces"
    require("token_file", f"a token of {len(token)} characters", whole, accepted)
    return token


def check_certificate(cert: str, key: str) -> None:
    """Checks that a certificate and its key can be used.

    Raises:
      ValueError: they cannot.
    """
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key, password="")  # nobody is asked for one
    except OSError as error:  # of which those of TLS are some
        raise ValueError(
            f"tls_cert: {cert!r} with the key {key!r} given, a certificate and its key "
            f"without a password accepted ({first_line(error)})"
        ) from None


def guarded(app: ASGIApp, token: str | None) -> ASGIApp:
    """Returns an app that answers 401 or 403 to those who may not ask another one.

    With a token it has to be in the header `Authorization`. Without one the app is for
    this machine alone, and what a browser may have been led to by another site is
    refused.

    Args:
      app: the other one.
      token: that requests are to bear; None if none.
    """

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        if token is None:
            refusal = _refuse_other_sites(headers)
        elif path == "/" or f"{path}/".startswith(OPEN):
            refusal = None
        else:
            refusal = _refuse_others(headers, token)
        await (refusal or app)(scope, receive, send)

    return guard


def _refuse_others(headers: Headers, expected: str) -> JSONResponse | None:
    """Returns a 401 for who does not bear the token."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    same = secrets.compare_digest(token.strip().encode("latin-1"), expected.encode())
    if same and kind.lower() == "bearer":
        return None
    told = "another" if token else "none"
    problem = f"Authorization: {told} given, 'Bearer TOKEN' accepted"
    challenge = {"WWW-Authenticate": 'Bearer realm="coded_jax"'}
    return JSONResponse({"error": problem}, 401, challenge)


def _refuse_other_sites(headers: Headers) -> JSONResponse | None:
    """Returns a 403 for what a page of another site has a browser send to here."""
    host, origin = headers.get("host", "localhost"), headers.get("origin")
    try:
        local = is_loopback(urlsplit(f"//{host}").hostname or "")
        same = origin is None or urlsplit(origin).netloc == host
    except ValueError:
        local = same = False
    if local and same:
        return None
    problem = f"Host: {host!r} given, a loopback address accepted without a token"
    if local:
        problem = f"Origin: {origin!r} given, {host!r} accepted without a token"
    return JSONResponse({"error": problem}, 403)
